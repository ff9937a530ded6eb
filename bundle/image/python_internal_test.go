package image

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// venv is a virtual environment of this machine's Python with one package in it, and its site-packages.
func venv(t *testing.T) (home, site string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("there is no python3 of Linux")
	}
	home = t.TempDir()
	at := filepath.Join(home, "venv")
	if out, err := exec.CommandContext(t.Context(), python, "-m", "venv", "--without-pip", at).CombinedOutput(); err != nil {
		t.Skipf("python3 makes no virtual environment: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(at, "lib", "python3.*", "site-packages"))
	if err != nil || len(found) != 1 {
		t.Fatalf("site-packages: %v, %v", found, err)
	}
	for name, text := range map[string]string{
		"own/__init__.py": "a = 1\n", "own/__pycache__/__init__.pyc": "MAGC\x00\x00\x00\x00TIMESIZEbytecode", "pip/__init__.py": "",
		"setuptools/__pycache__/a.pyc": "MAGC",
	} {
		to := filepath.Join(found[0], name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return home, found[0]
}

func newTestAssembly(t *testing.T) *assembly {
	t.Helper()
	s, err := newSystem("", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return &assembly{
		system: s, links: s.links(), arch: runtime.GOARCH, have: map[string]string{}, env: map[string]string{},
		b: zarpa.Bundle{Environment: &zarpa.BundleEnvironment{ID: "0123456789abcdef", Python: "3.11.2"}},
	}
}

// held are entries by their paths; none is there twice.
func held(t *testing.T, entries []entry) map[string]entry {
	t.Helper()
	all, err := ordered(entries)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]entry{}
	for _, e := range all {
		out[e.name] = e
	}
	return out
}

func text(t *testing.T, e entry) string {
	t.Helper()
	if e.open == nil {
		return ""
	}
	r, err := e.open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLayersHoldThisMachinesPython(t *testing.T) {
	t.Parallel()
	home, site := venv(t)
	at, err := venvFolder(home)
	if err != nil {
		t.Fatal(err)
	}
	p, err := askPython(t.Context(), filepath.Join(at, "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	a := newTestAssembly(t)
	r, err := a.interpreterRecipe(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	entries, list, err := r.make(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	below := held(t, entries)
	if len(list) == 0 {
		t.Error("the interpreter needs no library")
	}
	for name := range below {
		if strings.Contains(name, "/idlelib/") || strings.Contains(name, "/ensurepip/") {
			t.Fatalf("%s is of no use", name)
		}
	}
	if _, there := below[throughLinks(filepath.Join(p.Stdlib, "os.py"), a.links)]; !there {
		t.Error("os.py is missing")
	}
	for _, l := range list {
		a.have[l.Path] = l.Path
	}
	entries, more, err := a.packages(t.Context(), at, p)
	if err != nil {
		t.Fatal(err)
	}
	if len(more) > 0 {
		t.Errorf("libraries twice: %v", more)
	}
	own := held(t, entries)
	inside := environmentFolder + "/" + strings.TrimPrefix(site, at+"/")
	if got := text(t, own[inside+"/own/__init__.py"]); got != "a = 1\n" {
		t.Errorf("the package is %q", got)
	}
	if got := text(t, own[inside+"/own/__pycache__/__init__.pyc"]); got != "MAGC\x01"+strings.Repeat("\x00", 11)+"bytecode" {
		t.Errorf("bytecode %q would be compiled again at each start", got)
	}
	for _, name := range []string{"/pip", "/setuptools/__pycache__"} {
		if _, there := own[inside+name]; there {
			t.Errorf("%s is there", name)
		}
	}
	if _, there := below[throughLinks(own[environmentFolder+"/bin/python"].link, a.links)]; !there {
		t.Errorf("the interpreter %q is missing", own[environmentFolder+"/bin/python"].link)
	}
	if cfg := text(t, own[environmentFolder+"/pyvenv.cfg"]); !strings.Contains(cfg, "home = "+p.BasePrefix+"/bin\n") {
		t.Errorf("pyvenv.cfg: %q", cfg)
	}
}

func TestInterpreterKeyIsOfItsFiles(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(program, []byte("one"), 0o700); err != nil {
		t.Fatal(err)
	}
	a, p := newTestAssembly(t), interpreter{Version: "3.11.2", Executable: program}
	key := func(e ...entry) string {
		k, err := a.interpreterKey(p, e)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	one := key(entry{name: "a", size: 1})
	if one != key(entry{name: "a", size: 1}) || one == key(entry{name: "a", size: 2}) || one == key(entry{name: "b", size: 1}) {
		t.Error("the key is not of the files' names and sizes")
	}
	if err := os.WriteFile(program, []byte("two"), 0o700); err != nil {
		t.Fatal(err)
	}
	if one == key(entry{name: "a", size: 1}) {
		t.Error("another program has the same key")
	}
}

func TestEnvironmentsThatCannotBePackaged(t *testing.T) {
	t.Parallel()
	a := newTestAssembly(t)
	if err := a.environmentLayers(t.Context()); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("none is named: %v", err)
	}
	a.o.Environment = t.TempDir()
	if err := a.environmentLayers(t.Context()); zarpa.AsError(err).Code != zarpa.NotFound {
		t.Errorf("an empty folder: %v", err)
	}
	a.o.Sysroot = "/other"
	if err := a.environmentLayers(t.Context()); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("another platform: %v", err)
	}
}
