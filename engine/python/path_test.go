package python_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/python"
)

func TestRelativePathsAreThoseOfTheCaller(t *testing.T) { // not parallel: it changes the working directory
	t.Chdir(t.TempDir())
	if err := os.MkdirAll(filepath.Join("code", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	script := "import os\ndef init(): pass\ndef run(raw): return os.listdir(os.environ['AZUREML_MODEL_DIR'])\n"
	if err := os.WriteFile(filepath.Join("code", "score.py"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join("models", "part"), 0o700); err != nil {
		t.Fatal(err)
	}
	found := interpreter(t)
	name := filepath.Base(found) // some installations look at it
	if err := os.Symlink(found, name); err != nil {
		t.Fatal(err)
	}
	e, err := python.New(python.Options{Python: "./" + name, Dir: "work", Workers: 1, Env: []string{"PATH=" + os.Getenv("PATH")}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Script(context.Background(), python.Script{Code: "code", Entry: "score.py", Models: "models"})
	if err != nil {
		t.Fatalf("%v: %v", err, zarpa.AsError(err).Err)
	}
	answers(t, s.(zarpa.Scorer), "{}", `["part"]`)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
