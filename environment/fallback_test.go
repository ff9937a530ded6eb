package environment

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// TestEveryWayToMakeAnEnvironmentWorks hides from the decision what the machine's interpreter has, so
// that the other ways are taken.
func TestEveryWayToMakeAnEnvironmentWorks(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 in PATH: install Python 3.8 or later to run these tests")
	}
	for _, tc := range []struct {
		tool string
		hide func(i *interpreter) bool // false where the interpreter lacks what is to be left
	}{
		{"pip", func(i *interpreter) bool { i.Pip = ""; return i.Venv && i.Ensurepip }},
		{"virtualenv", func(i *interpreter) bool {
			i.Pip, i.Venv, i.Ensurepip = "", false, false
			_, err := exec.LookPath("virtualenv")
			return i.Virtualenv || err == nil
		}},
	} {
		t.Run(tc.tool, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			c, err := Open(t.Context(), Options{
				Dir: filepath.Join(t.TempDir(), "environments"), Python: python, Uv: None, Now: func() time.Time { return now },
				Path: filepath.SplitList(os.Getenv("PATH")), Env: []string{"HOME=" + t.TempDir(), "PIP_CONFIG_FILE=/dev/null", "PIP_NO_INDEX=1"},
			})
			if err != nil {
				t.Fatal(err)
			}
			i, ok := c.look(t.Context(), python)
			if !ok || i.version.compare(oldest) < 0 {
				t.Skipf("%s is no Python of 3.8 or later", python)
			}
			if !tc.hide(&i) {
				t.Skipf("%s has no %s", i.Path, tc.tool)
			}
			c.found.byPath[python] = probe{at: now, found: i, ok: true}
			// something to install, else nothing that installs is put there; pip itself needs no index
			e, err := c.Ensure(t.Context(), Request{Files: content("requirements.txt", "pip\n")}, nil)
			if err != nil || e.Phase != zarpa.EnvironmentReady || e.Tool != tc.tool || e.Python != i.Version {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}

func TestAVirtualEnvironmentsInterpreterLeadsToItsOwn(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 in PATH: install Python 3.8 or later to run these tests")
	}
	c := &Cache{opts: Options{Path: filepath.SplitList(os.Getenv("PATH"))}.withDefaults(), found: probes{byPath: map[string]probe{}}}
	base, ok := c.look(t.Context(), python)
	if !ok || !base.Venv {
		t.Skipf("%s has no venv", python)
	}
	dir := filepath.Join(t.TempDir(), "venv")
	if out, err := exec.CommandContext(t.Context(), base.Path, "-m", "venv", "--without-pip", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, ok := c.look(t.Context(), filepath.Join(dir, "bin", "python")); !ok || got != base {
		t.Errorf("%+v, %v, want %+v", got, ok, base)
	}
}
