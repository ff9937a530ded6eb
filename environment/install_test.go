package environment_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/environment"
)

// withUv are settings that use uv; the test is skipped where there is none.
func withUv(t testing.TB) environment.Options {
	t.Helper()
	uv, err := exec.LookPath("uv")
	if err != nil {
		t.Skip("no uv in PATH: pip install uv to run this test")
	}
	o := settings(t)
	o.Uv = uv
	return o
}

// tools runs a test with pip and with uv.
func tools(t *testing.T, test func(t *testing.T, o environment.Options)) {
	t.Run("pip", func(t *testing.T) { t.Parallel(); test(t, settings(t)) })
	t.Run("uv", func(t *testing.T) { t.Parallel(); test(t, withUv(t)) })
}

// quickest are settings that use uv where there is one: that both tools do the same is proven by
// TestPipAndUvGiveTheSameLock.
func quickest(t *testing.T) environment.Options {
	t.Helper()
	o := settings(t)
	if uv, err := exec.LookPath("uv"); err == nil {
		o.Uv = uv
	}
	return o
}

func mustEnsure(t *testing.T, c *environment.Cache, req environment.Request) zarpa.Environment {
	t.Helper()
	e, err := c.Ensure(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestPipAndUvGiveTheSameLock(t *testing.T) {
	t.Parallel()
	byUv, byPip := open(t, withUv(t)), open(t, settings(t))
	req := environment.Request{Files: plain(t, "alpha\n")}
	uv, pip := mustEnsure(t, byUv, req), mustEnsure(t, byPip, req)
	if uv.Tool != "uv" || pip.Tool != "pip" {
		t.Errorf("tools %q and %q", uv.Tool, pip.Tool)
	}
	if uv.ID != pip.ID || uv.Python != pip.Python || !slices.Equal(uv.Packages, pip.Packages) {
		t.Errorf("uv:  %s %s %q\npip: %s %s %q", uv.ID, uv.Python, uv.Packages, pip.ID, pip.Python, pip.Packages)
	}
	// and it is what the tools themselves say is installed
	python, err := byPip.Python(pip.ID)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), withUv(t).Uv, "pip", "list", "--format=freeze", "--no-config", "--python", python).Output()
	if err != nil {
		t.Fatal(err)
	}
	told := strings.Fields(strings.ToLower(string(out)))
	slices.Sort(told)
	if told = without(told, "pip"); !slices.Equal(told, pip.Packages) {
		t.Errorf("uv pip list says %q, the lock %q", told, pip.Packages)
	}
	out, err = exec.CommandContext(t.Context(), settings(t).Python, "-m", "pip", "--python", python, "list", "--format=freeze").Output()
	if err != nil {
		t.Skipf("this Python's pip has no --python: %v", err)
	}
	told = strings.Fields(strings.ToLower(string(out)))
	slices.Sort(told)
	if told = without(told, "pip"); !slices.Equal(told, pip.Packages) {
		t.Errorf("pip list says %q, the lock %q", told, pip.Packages)
	}
}

func TestFailuresSayTheirCause(t *testing.T) {
	t.Parallel()
	// pip is slow, and what it says of the other cases is in TestCausesAreFoundInWhatToolsSay
	withPip := []string{"a version that is not there", "a build that fails"}
	broken := func(backend string) string { return sourcePackage(t, "broken", backend) }
	cases := []struct {
		name    string
		content func(t *testing.T) fstest.MapFS
		code    zarpa.Code
		want    string // a pattern of the message
		hint    string
	}{
		{
			"a version that is not there",
			func(t *testing.T) fstest.MapFS { return plain(t, "\nbeta\nalpha==9.9\n") },
			zarpa.Invalid, `requirements.txt line 3: "alpha==9.9": wheels/ has no fitting one`, "pip download",
		},
		{
			"a package that is not there",
			func(t *testing.T) fstest.MapFS { return plain(t, "beta\ngammma\n") },
			zarpa.Invalid, `requirements.txt line 2: "gammma": there is no such package`, "spelling",
		},
		{
			"what another package needs is not there",
			func(t *testing.T) fstest.MapFS {
				return files("requirements.txt", "alpha\n", wheelFile("alpha", "1.0"), string(wheel(t, "alpha", "1.0", "delta>=2")))
			},
			zarpa.Invalid, `"delta.*", which another package needs: wheels/ has no fitting one`, "pip download",
		},
		{
			"versions that do not fit together",
			func(t *testing.T) fstest.MapFS { return plain(t, "beta<=2.1\nalpha\nbeta!=2.1\nbeta>1\n") },
			zarpa.Invalid, `(no versions fit together|wheels/ has no fitting one)`, "",
		},
		{
			"a wrong hash",
			func(t *testing.T) fstest.MapFS {
				return plain(t, "beta==2.1 --hash=sha256:"+strings.Repeat("0", 64)+"\n")
			},
			zarpa.Invalid, `whose hash is written`, "hashes",
		},
		{
			"no compiler",
			func(*testing.T) fstest.MapFS {
				return files("requirements.txt", "broken\n", "wheels/broken-1.0.tar.gz",
					broken("    import subprocess\n    subprocess.run(['no-such-folder/x86_64-linux-gnu-gcc', '-c', 'x.c'])\n"))
			},
			zarpa.Unavailable, `to be compiled, and this machine has no compiler`, "build-essential",
		},
		{
			"a build that fails",
			func(*testing.T) fstest.MapFS {
				return files("requirements.txt", "broken\n", "wheels/broken-1.0.tar.gz", broken("    raise ValueError('it is broken')\n"))
			},
			zarpa.Invalid, `"broken" has no wheel .*from its sources failed$`, "wheel",
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tools(t, func(t *testing.T, o environment.Options) {
				if o.Uv == environment.None && !slices.Contains(withPip, tc.name) {
					return
				}
				e := ensureFails(t, o, tc.content(t))
				if e.Code != tc.code || !regexp.MustCompile(tc.want).MatchString(e.Message) || !strings.Contains(e.Hint, tc.hint) {
					t.Errorf("%v: %v", e.Code, e)
				}
			})
		})
	}
}

// ensureFails returns why an environment cannot be installed, after a look at what is left of it.
func ensureFails(t *testing.T, o environment.Options, content fstest.MapFS) *zarpa.Error {
	t.Helper()
	c := open(t, o)
	got, err := c.Ensure(t.Context(), environment.Request{Files: content}, nil)
	e := zarpa.AsError(err)
	if e == nil {
		t.Fatalf("it was installed: %+v", got)
	}
	if got.Phase != zarpa.EnvironmentFailed || strings.Contains(e.Message, "\n") || !strings.HasSuffix(e.Hint, "zarpa environment log "+got.ID) {
		t.Errorf("%+v, %v", got, err)
	}
	if e.Err == nil || !strings.Contains(e.Err.Error(), "the log ends with:\n") {
		t.Errorf("its cause is %v", e.Err)
	}
	if _, err := c.Python(got.ID); !errors.Is(err, &zarpa.Error{Code: zarpa.Unavailable}) {
		t.Errorf("its interpreter: %v", err)
	}
	return e
}

func TestRequirementsWithHashesAreInstalled(t *testing.T) {
	t.Parallel()
	content := plain(t, "")
	content["requirements.txt"] = &fstest.MapFile{Data: fmt.Appendf(nil, "--require-hashes\nalpha==1.0 \\\n    --hash=sha256:%s\nbeta==2.1 --hash=sha256:%s\n",
		sha(content[wheelFile("alpha", "1.0")].Data), sha(content[wheelFile("beta", "2.1")].Data))}
	e := mustEnsure(t, open(t, quickest(t)), environment.Request{Files: content})
	if got := without(e.Packages, "setuptools"); len(got) != 2 {
		t.Errorf("packages %q", got)
	}
}

func TestOtherFilesDescribeAnEnvironment(t *testing.T) {
	t.Parallel()
	wheels := plain(t, "")
	with := func(pairs ...string) fstest.MapFS {
		m := files(pairs...)
		for _, w := range []string{wheelFile("alpha", "1.0"), wheelFile("beta", "2.1")} {
			m[w] = wheels[w]
		}
		return m
	}
	for source, content := range map[string]fstest.MapFS{
		"conda.yml":        with("conda.yml", "name: x\nchannels: [conda-forge]\ndependencies:\n- python>=3.8\n- pip<99\n- pip:\n  - -r more.txt\n  - 'beta; python_version > \"3\"'\n", "more.txt", "alpha # x\n", "requirements.txt", "unknown"),
		"pyproject.toml":   with("pyproject.toml", "[project]\nname = 'x'\nrequires-python = '>=3.8,<4'\ndependencies = ['alpha ~= 1.0', 'beta; sys_platform != \"none\"']\n"),
		"requirements.txt": with("requirements.txt", "\xff\xfe"+utf16("-r more/one.txt\r\n"), "more/one.txt", "-c ../bounds.txt\nalpha", "bounds.txt", "beta<3\n", "pyproject.toml", "[tool.x]"),
	} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			e := mustEnsure(t, open(t, quickest(t)), environment.Request{Files: content})
			if got := without(e.Packages, "setuptools"); e.Source != source || !slices.Equal(got, []string{"alpha==1.0", "beta==2.1"}) {
				t.Errorf("%q: packages %q", e.Source, got)
			}
		})
	}
}

func TestNoFileIsABareEnvironment(t *testing.T) {
	t.Parallel()
	tools(t, func(t *testing.T, o environment.Options) {
		c := open(t, o)
		own := mustEnsure(t, c, environment.Request{})
		system := mustEnsure(t, c, environment.Request{Spec: zarpa.EnvironmentSpec{SystemPackages: true}})
		if own.ID == system.ID || len(own.Packages) > 0 || own.Source != "" {
			t.Errorf("%+v\n%+v", own, system)
		}
		const seen = "import sys; print(any(p.startswith((sys.base_prefix, '/usr/lib/python3')) and p.endswith('-packages') for p in sys.path))"
		if got := run(t, c, own.ID, seen) + run(t, c, system.ID, seen); got != "FalseTrue" {
			t.Errorf("the machine's packages are seen: %s", got)
		}
	})
}

// TestCondaIsCalledForItsPackages runs a stand-in for micromamba, a script that makes a virtual
// environment: it proves what it is called with and what becomes of it, not that micromamba can do it.
func TestCondaIsCalledForItsPackages(t *testing.T) {
	t.Parallel()
	o := settings(t)
	content := files("environment.yml", "dependencies:\n- python=3.11\n- conda-forge::numpy=1.26\n- libgfoo\n- pip:\n  - alpha==1.0\n")
	_, err := open(t, o).Ensure(t.Context(), environment.Request{Files: content}, nil)
	if e := zarpa.AsError(err); e == nil || e.Code != zarpa.Unavailable || !strings.Contains(e.Message, "conda-forge::numpy=1.26, libgfoo") || !strings.Contains(e.Hint, "below pip:") {
		t.Errorf("without conda: %v", err)
	}
	o.Conda = filepath.Join(t.TempDir(), "micromamba")
	script := `#!/bin/sh
echo "called: $*"
grep -q python "$4" || exit 0
"` + o.Python + `" -m venv --without-pip "$6"
mkdir "$6/conda-meta"
echo '{"name": "libgfoo", "version": "7.1"}' > "$6/conda-meta/libgfoo-7.1-0.json"
`
	if err := os.WriteFile(o.Conda, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := open(t, o)
	var called string
	none := files("environment.yml", "dependencies:\n- numpy\n")
	e, err := c.Ensure(t.Context(), environment.Request{Files: none}, nil)
	if err == nil || !strings.Contains(err.Error(), "installs no Python") || e.Phase != zarpa.EnvironmentFailed {
		t.Errorf("without a Python: %+v, %v", e, err)
	}
	e, err = c.Ensure(t.Context(), environment.Request{Files: content}, func(l string) {
		if rest, ok := strings.CutPrefix(l, "called: "); ok {
			called = rest
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if e.Tool != "micromamba" || !slices.Equal(e.Packages, []string{"libgfoo==7.1"}) || e.Python == "" {
		t.Errorf("%+v", e)
	}
	if !strings.HasPrefix(called, "create --yes --file environment.yml --prefix "+o.Dir) {
		t.Errorf("called with %q", called)
	}
	_, err = c.Resolve(t.Context(), environment.Request{Files: content, Spec: zarpa.EnvironmentSpec{Python: "3.12"}})
	if e := zarpa.AsError(err); e == nil || e.Code != zarpa.Invalid || !strings.Contains(e.Message, "environment.python: 3.12, but environment.yml asks for python=3.11") {
		t.Errorf("another Python: %v", err)
	}
}

func TestAFailureIsRememberedForAWhile(t *testing.T) {
	t.Parallel()
	o := settings(t)
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	o.RetryAfter = time.Minute
	o.Uv = filepath.Join(t.TempDir(), "uv") // a stand-in that fails at once
	if err := os.WriteFile(o.Uv, []byte("#!/bin/sh\necho gammma is broken\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := open(t, o)
	req := environment.Request{Files: files("requirements.txt", "gammma\n")}
	built := func(req environment.Request) bool {
		lines := 0
		_, err := c.Ensure(t.Context(), req, func(string) { lines++ })
		if err == nil || !strings.Contains(err.Error(), "gammma") {
			t.Fatalf("error %v", err)
		}
		return lines > 0
	}
	if !built(req) {
		t.Error("not built at first")
	}
	now = now.Add(59 * time.Second)
	if built(req) {
		t.Error("built again within the time")
	}
	if _, err := c.Ensure(t.Context(), req, nil); zarpa.AsError(err).RetryAfter != time.Second {
		t.Errorf("to be tried again after %v", zarpa.AsError(err).RetryAfter)
	}
	retry := req
	retry.Retry = true
	if !built(retry) {
		t.Error("not built when asked")
	}
	now = now.Add(61 * time.Second)
	if !built(req) {
		t.Error("not built after the time")
	}
}

func TestSweepKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	o := settings(t)
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	c := open(t, o)
	old := mustEnsure(t, c, environment.Request{})
	kept := mustEnsure(t, c, environment.Request{Files: files("requirements.txt", "")})
	again := environment.Request{Files: files("requirements.txt", "# used again\n")}
	used := mustEnsure(t, c, again)
	now = now.Add(time.Hour)
	if e := mustEnsure(t, c, again); !e.Used.Equal(now) || !e.Created.Equal(now.Add(-time.Hour)) {
		t.Errorf("used at %v", e.Used)
	}
	removed, err := c.Sweep(t.Context(), map[string]bool{kept.ID: true}, now)
	if err != nil || !slices.Equal(removed, []string{old.ID}) {
		t.Errorf("removed %q, %v; want %s", removed, err, old.ID)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("left %+v, %v", list, err)
	}
	if !slices.ContainsFunc(list, func(e zarpa.Environment) bool { return e.ID == used.ID }) {
		t.Errorf("left %+v", list)
	}
}

func TestTheNewestIsListedFirst(t *testing.T) {
	t.Parallel()
	o := settings(t)
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	var removed bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&removed, nil))
	c := open(t, o)
	var want []string
	for i := range 4 { // their identities are in this order by chance only
		e := mustEnsure(t, c, environment.Request{Files: files("requirements.txt", fmt.Sprintf("# %d\n", i))})
		want = slices.Insert(want, 0, e.ID)
		now = now.Add(time.Minute)
	}
	list, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	const removal = "environment removed"
	if strings.Contains(removed.String(), removal) {
		t.Errorf("nothing was there, yet the log says\n%s", removed.String())
	}
	if err := c.Remove(t.Context(), want[0]); err != nil || strings.Count(removed.String(), removal) != 1 {
		t.Errorf("%v, the log says\n%s", err, removed.String())
	}
}

func TestIdentityIsThatOfTheContent(t *testing.T) {
	t.Parallel()
	c := open(t, settings(t))
	resolve := func(content fstest.MapFS) string {
		t.Helper()
		id, err := c.Resolve(t.Context(), environment.Request{Files: content})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := resolve(plain(t, "alpha\n"))
	if again := resolve(plain(t, "alpha\n")); again != first {
		t.Errorf("the same content is %s and %s", first, again)
	}
	changed := plain(t, "alpha\n")
	changed[wheelFile("beta", "2.1")] = &fstest.MapFile{Data: wheel(t, "beta", "2.1", "alpha")}
	for what, content := range map[string]fstest.MapFS{"requirements": plain(t, "alpha \n"), "wheel": changed} {
		if resolve(content) == first {
			t.Errorf("another %s, the same identity", what)
		}
	}
}

func TestAPythonThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	c := open(t, settings(t))
	for python, want := range map[string]string{
		"3.99": `environment.python: no Python 3.99 on this machine; there is .*3\.\d+\.\d+ \(/`,
		"3.7":  `environment.python: Python 3.7 is older than 3.8`,
		"3":    `environment.python: "3" is not a version`,
	} {
		_, err := c.Resolve(t.Context(), environment.Request{Spec: zarpa.EnvironmentSpec{Python: python}})
		if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%s: %v", python, err)
		}
	}
	_, err := c.Resolve(t.Context(), environment.Request{Files: files("pyproject.toml", "[project]\nrequires-python = '>=3.99'\n")})
	if err == nil || !strings.Contains(err.Error(), `no Python ">=3.99", as pyproject.toml asks on this machine`) {
		t.Errorf("pyproject: %v", err)
	}
}
