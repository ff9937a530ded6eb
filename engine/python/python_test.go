package python_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/python"
)

// interpreter is python3, or a skip that says so.
func interpreter(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("ZARPA_PYTHON"); path != "" {
		return path
	}
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 in the search path, and no ZARPA_PYTHON")
	}
	return path
}

func newEngine(t testing.TB, o python.Options) *python.Engine {
	t.Helper()
	o.Python = interpreter(t)
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if o.Env == nil {
		o.Env = []string{"PATH=" + os.Getenv("PATH")}
	}
	e, err := python.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// code is a folder with a score.py.
func code(t testing.TB, script string) python.Script {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "score.py"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	return python.Script{Code: dir, Entry: "score.py"}
}

func open(t testing.TB, o python.Options, script string) scorer {
	t.Helper()
	s, err := newEngine(t, o).Script(context.Background(), code(t, script))
	if err != nil {
		t.Fatalf("%v: %v", err, zarpa.AsError(err).Err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(scorer)
}

type scorer interface {
	zarpa.Session
	zarpa.Scorer
	python.Mortal
}

// call sends one request, and waits a minute at most.
func call(ctx context.Context, s zarpa.Scorer, body string) (*httptest.ResponseRecorder, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/score", nil)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Request-Id", "request of "+body)
	w := httptest.NewRecorder()
	return w, s.Score(w, r, []byte(body))
}

// answers sends a request that must be answered so.
func answers(t testing.TB, s zarpa.Scorer, body, want string) {
	t.Helper()
	w, err := call(t.Context(), s, body)
	if err != nil {
		t.Errorf("%s: %v: %v", body, err, zarpa.AsError(err).Err)
		return
	}
	if got := w.Body.String(); w.Code != http.StatusOK || got != want {
		t.Errorf("%s: %d %s, want %s", body, w.Code, got, want)
	}
}

const plain = `
import json
def init():
    global factor
    factor = 2
def run(raw):
    return json.loads(raw) * factor
`

func TestAScriptAnswers(t *testing.T) {
	t.Parallel()
	for _, preload := range []zarpa.Preload{zarpa.PreloadAuto, zarpa.PreloadAlways, zarpa.PreloadNever} {
		s := open(t, python.Options{Workers: 2, Preload: preload}, plain)
		answers(t, s, "21", "42")
		answers(t, s, `"ab"`, `"abab"`)
		w, err := call(t.Context(), s, "x")
		if err != nil || w.Code != 500 || w.Header().Get("x-ms-run-function-failed") != "True" || !strings.Contains(w.Body.String(), "scoring script") {
			t.Errorf("%v: %d %v %s", err, w.Code, w.Header(), w.Body)
		}
		large := `"` + strings.Repeat("x", 3<<20) + `"`
		answers(t, s, large, `"`+strings.Repeat("x", 6<<20)+`"`)
	}
}

func TestTheConverterSaysWhatItLacks(t *testing.T) {
	t.Parallel()
	_, err := newEngine(t, python.Options{}).Convert(t.Context(), python.Conversion{
		Dir: t.TempDir(), File: "model.pkl", Format: zarpa.FormatSklearn, Out: filepath.Join(t.TempDir(), "model.onnx"), Samples: 1,
	})
	if err == nil || !strings.HasPrefix(err.Error(), "convert: ") {
		t.Errorf("%v: %v", err, zarpa.AsError(err).Err)
	}
}
