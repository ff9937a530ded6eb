package bundle_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
)

// store stores files as one content.
func store(t *testing.T, to zarpa.Blobs, files map[string]string) zarpa.Content {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, fsys); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := bundle.TarFiles(t.Context(), &packed, dir); err != nil {
		t.Fatal(err)
	}
	return must[zarpa.Content](t)(bundle.WriteContent(t.Context(), to, &packed, bundle.Limits{}))
}

func TestCodeAndEnvironmentTravelWithTheModels(t *testing.T) {
	t.Parallel()
	from, to := blobs(t), blobs(t)
	b := zarpa.Bundle{
		Engine: "python",
		Models: []zarpa.BundleModel{{Name: "iris", Version: 3, Format: zarpa.FormatSklearn, Content: store(t, from, map[string]string{"model.pkl": "pickle"})}},
		Code:   &zarpa.BundleCode{Content: store(t, from, map[string]string{"score.py": "def init(): …", "lib/a.py": "x = 1"}), Entry: "score.py"},
		Environment: &zarpa.BundleEnvironment{
			ID: "0123456789abcdef", Python: "3.11.2", Lock: []string{"numpy==2.0.0"},
			Content: store(t, from, map[string]string{"requirements.txt": "numpy\n"}),
		},
	}
	digest := must[string](t)(bundle.Build(t.Context(), from, b))
	var packed bytes.Buffer
	if err := bundle.WriteBundleTar(t.Context(), from, digest, &packed); err != nil {
		t.Fatal(err)
	}
	if arrived := must[string](t)(bundle.ReadBundleTar(t.Context(), to, &packed, bundle.Limits{})); arrived != digest {
		t.Fatalf("arrived as %s, sent as %s", arrived, digest)
	}
	dir := must[string](t)(bundle.Unpack(t.Context(), to, digest, t.TempDir()))
	for name, want := range map[string]string{
		"models/iris/3/model.pkl": "pickle", "code/score.py": "def init(): …", "code/lib/a.py": "x = 1", "environment/requirements.txt": "numpy\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))); err != nil || string(got) != want {
			t.Errorf("%s: %q (%v), want %q", name, got, err, want)
		}
	}
	if verified := must[string](t)(bundle.Verify(t.Context(), dir)); verified != digest {
		t.Errorf("verified as %s", verified)
	}
	if read := must[zarpa.Bundle](t)(bundle.Read(dir)); read.Environment.Lock[0] != "numpy==2.0.0" || read.Code.Entry != "score.py" {
		t.Errorf("read %+v", read)
	}
}

func TestABundleOfCodeNeedsItsEntry(t *testing.T) {
	t.Parallel()
	to := blobs(t)
	code := store(t, to, map[string]string{"score.py": ""})
	_, err := bundle.Build(t.Context(), to, zarpa.Bundle{Engine: "python", Code: &zarpa.BundleCode{Content: code, Entry: "main.py"}})
	expect(t, err, zarpa.Invalid, `"main.py"`, "entry")
	if _, err := bundle.Build(t.Context(), to, zarpa.Bundle{Engine: "python", Code: &zarpa.BundleCode{Content: code, Entry: "score.py"}}); err != nil {
		t.Fatal(err)
	}
}
