package environment

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func TestCredentialsAreBlackedOut(t *testing.T) {
	t.Parallel()
	r := newRedactor([]string{
		"PIP_INDEX_URL=https://me:p%40ss-word@index.example.org/simple", "UV_INDEX=https://tok-en-1@other.example.org",
		"MY_TOKEN=abcdef123", "SHORT_TOKEN=abc", "HOME=/home/me",
	})
	r = r.withSettings(pipSettings{"extra-index-url": "https://x.example.org\nhttps://u:file-pass@y.example.org"})
	for in, want := range map[string]string{
		"Looking in indexes: https://me:p%40ss-word@index.example.org/simple": "Looking in indexes: https://***@index.example.org/simple",
		"decoded p@ss-word, encoded p%40ss-word":                              "decoded ***, encoded ***",
		"at http://unknown:pa:ss@word@host/x and git+https://t@h/p@v1":        "at http://***@host/x and git+https://***@h/p@v1",
		"tok-en-1 abcdef123 abc file-pass":                                    "*** *** abc ***",
		"nothing@all https://host/a@b":                                        "nothing@all https://host/a@b",
	} {
		if got := r.clean(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestPipSettingsAreThoseOfTheUser(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	conf := filepath.Join(home, ".config", "pip", "pip.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "# mine\n[global]\nindex-url = https://a\nextra-index-url =\n    https://b\n    https://c\n[install]\nno_index: yes\n[freeze]\ntimeout = 1\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Cache{opts: Options{Env: []string{"HOME=" + home, "PIP_INDEX_URL=https://d", "PIP_TARGET=/x"}}}
	s := c.pipSettings()
	if s["index-url"] != "https://d" || s["extra-index-url"] != "https://b\nhttps://c" || !s.on("no-index") || s["timeout"] != "" || s["target"] != "" {
		t.Errorf("settings %q", s)
	}
	b := builder{cache: c, files: "/files", plan: plan{description: description{wheels: map[string]bool{"x": true}}}}
	env := b.uvEnvironment(s)
	for _, want := range []string{"UV_INDEX_URL=https://d", "UV_EXTRA_INDEX_URL=https://b https://c", "UV_FIND_LINKS=/files/wheels"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is not in %q", want, env)
		}
	}
	if got := b.uvOptions(s); !slices.Equal(got, []string{"--no-index"}) {
		t.Errorf("options %q", got)
	}
	c.opts.Env = append(c.opts.Env, "PIP_CONFIG_FILE="+os.DevNull)
	if s := c.pipSettings(); s["extra-index-url"] != "" {
		t.Errorf("read in spite of %s: %q", os.DevNull, s)
	}
}

func TestTheToolIsThatWhichCanDoIt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what           string
		python         interpreter
		uv, virtualenv string
		want           string // the tool and the first step's words
	}{
		{"uv", interpreter{Venv: true, Ensurepip: true, Pip: "24.0"}, "/bin/uv", "", "uv: /bin/uv venv"},
		{"a new pip", interpreter{Venv: true, Ensurepip: true, Pip: "22.3.1"}, "", "", "pip: /py -I -m venv --without-pip"},
		{"an old pip", interpreter{Venv: true, Ensurepip: true, Pip: "20.0"}, "", "", "pip: /py -I -m venv /"},
		{"no ensurepip, a new pip", interpreter{Venv: true, Pip: "23.0"}, "", "", "pip: /py -I -m venv --without-pip"},
		{"no ensurepip, virtualenv", interpreter{Venv: true, Virtualenv: true}, "", "", "virtualenv: /py -m virtualenv --python /py"},
		{"virtualenv as a program", interpreter{Venv: true}, "", "/bin/virtualenv", "virtualenv: /bin/virtualenv --python /py"},
	} {
		tc.python.Path = "/py"
		chosen, ok := choosePython(tc.python, tc.uv, tc.virtualenv)
		if !ok {
			t.Errorf("%s: none", tc.what)
			continue
		}
		tc.python.Setuptools = "/setuptools.whl"
		b := &builder{cache: &Cache{opts: Options{Dir: "/dir"}}, plan: plan{id: "0123456789abcdef", python: tc.python}}
		bare := chosen.steps(b)
		if len(bare) != 1 || tc.uv == "" && !slices.Contains(bare[0].args, withoutPip) {
			t.Errorf("%s: a bare environment takes %+v", tc.what, bare)
		}
		b.packages.list = []requirement{{name: "alpha"}}
		first := chosen.steps(b)[0]
		if got := chosen.name + ": " + first.program + " " + strings.Join(first.args, " "); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.what, got, tc.want)
		}
	}
	if _, ok := choosePython(interpreter{Venv: true}, "", ""); ok {
		t.Error("a tool for a Python without any")
	}
	c := &Cache{opts: Options{Uv: None}}
	b := &builder{cache: c, plan: plan{python: interpreter{Path: "/usr/bin/python3.11", Version: "3.11.2", version: version{3, 11, 2}}}}
	_, err := b.chooseTool()
	if e := zarpa.AsError(err); e == nil || e.Code != zarpa.Unavailable || !strings.Contains(e.Hint, "apt-get install python3.11-venv") {
		t.Errorf("error %v", err)
	}
}

// TestCausesAreFoundInWhatToolsSay has the lines that matter of what pip 23 and uv 0.13 say.
func TestCausesAreFoundInWhatToolsSay(t *testing.T) {
	t.Parallel()
	d := description{packages: requirements{list: []requirement{
		{file: "requirements.txt", line: 3, text: "alpha==9.9", name: "alpha"},
		{file: "requirements.txt", line: 4, text: "beta", name: "beta"},
	}}}
	for _, tc := range []struct {
		output string
		code   zarpa.Code
		what   string
		hint   string
	}{
		{"ERROR: Could not find a version that satisfies the requirement alpha==9.9 (from versions: 1.0, 1.1)\nERROR: No matching distribution found for alpha==9.9", zarpa.Invalid, `requirements.txt line 3: "alpha==9.9": no such version`, "there is 1.0, 1.1"},
		{"ERROR: Ignored the following versions that require a different python version: 9.9 Requires-Python >=3.99\nERROR: Could not find a version that satisfies the requirement alpha==9.9 (from versions: 1.0)", zarpa.Invalid, `line 3`, "another Python"},
		{"ERROR: Could not find a version that satisfies the requirement delta>=2 (from alpha) (from versions: none)", zarpa.Invalid, `"delta>=2 (from alpha)", which another package needs: there is no such package`, "spelling"},
		{"  cause: Because there is no version of alpha==9.9 and you require alpha==9.9, we can conclude", zarpa.Invalid, "line 3", "log"},
		{"  cause: Because only alpha==1.0 is available and you require alpha==9.9, we can conclude", zarpa.Invalid, "line 3", "log"},
		{"  cause: Because beta was not found in the package registry and you require beta", zarpa.Invalid, `line 4: "beta": there is no such package`, "spelling"},
		{"ERROR: Cannot install alpha and beta==1 because these package versions have conflicting dependencies.", zarpa.Invalid, "no versions fit together: alpha and beta==1", "loosen"},
		{"WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by 'NewConnectionError('<...>: Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')'\nERROR: No matching distribution found for beta", zarpa.Unavailable, "index cannot be reached", "wheels/"},
		{"error: Failed to fetch: `https://index.example/simple/beta/`\n  Caused by: dns error: failed to lookup address", zarpa.Unavailable, "index cannot be reached", "proxy"},
		{"ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", zarpa.Unavailable, "no space left", "prune"},
		{"Could not fetch URL https://i/simple/beta/: 401 Client Error: Unauthorized for url: https://i/simple/beta/ - skipping\nERROR: No matching distribution found for beta", zarpa.Unavailable, "refused the credentials", ".netrc"},
		{"error: command 'gcc' failed: No such file or directory", zarpa.Unavailable, "no compiler", "build-essential"},
		{"error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory", zarpa.Unavailable, "no compiler", "build-essential"},
		{"../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc'], ['clang']]", zarpa.Unavailable, "no compiler", ""},
		{"error: can't find Rust compiler", zarpa.Unavailable, "no compiler", ""},
		{"src/x.c:1:10: fatal error: Python.h: No such file or directory", zarpa.Unavailable, "headers of this Python", "python3-dev"},
		{"Collecting beta\n  error: subprocess-exited-with-error\n  Getting requirements to build wheel did not run successfully.", zarpa.Invalid, `line 4: "beta" has no wheel`, "another Python"},
		{"  ERROR: Failed building wheel for beta", zarpa.Invalid, `line 4: "beta" has no wheel`, "another Python"},
		{"ERROR: Hashes are required in --require-hashes mode, but they are missing from some requirements", zarpa.Invalid, "some requirements have a hash", "pip-compile"},
		{"ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", zarpa.Invalid, "whose hash is written", "hashes"},
		{"certificate verify failed: CERTIFICATE_VERIFY_FAILED", zarpa.Unavailable, "does not trust", "global.cert"},
		{"one\nSegmentation fault", zarpa.Invalid, "it failed: Segmentation fault", ""},
		{"one\n$ /bin/uv venv", zarpa.Invalid, "it failed", ""},
	} {
		got := diagnose(strings.Split(tc.output, "\n"), d)
		if got.code != tc.code || !strings.Contains(got.what, tc.what) || !strings.Contains(got.hint, tc.hint) {
			t.Errorf("%s\n%+v", tc.output, got)
		}
	}
}

func TestPipIsAskedAgainForNamesOnly(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		"alpha":                               "alpha",
		"Al.pha[x]>=1,<2 (from beta)":         "al-pha>=1,<2",
		`alpha==1; python_version > "3"`:      "alpha==1",
		"alpha@ https://example.org/a.tar.gz": "",
		"git+https://example.org/a.git":       "",
		"./alpha":                             "",
		"alpha-1.0.tar.gz":                    "alpha-1-0-tar-gz", // no file has this name
		"--index-url=https://example.org":     "",
	} {
		if got := notFound([]string{"Collecting alpha", "ERROR: No matching distribution found for " + said}); got != want {
			t.Errorf("%q: asks for %q, want %q", said, got, want)
		}
	}
}

func TestLongLogsAreBounded(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	heard := 0
	l := buildLog{file: f, left: 1000, progress: func(string) { heard++ }}
	for range 3 * maxKept {
		if _, err := l.Write([]byte("half a li")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Write([]byte("ne\r\nanother\n\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Write([]byte(strings.Repeat("x", 3*maxLine+1))); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 1100 || !strings.HasPrefix(string(text), "half a line\nanother\nhalf a line\n") || !strings.HasSuffix(string(text), "was not kept\n") {
		t.Errorf("the log is %q", text)
	}
	if heard != 6*maxKept+4 || len(l.kept) > maxKept || len(tail(l.kept)) > tailBytes {
		t.Errorf("heard %d lines, kept %d", heard, len(l.kept))
	}
}

func TestWhatDoesNotAnswerIsNoInterpreter(t *testing.T) {
	t.Parallel()
	python := filepath.Join(t.TempDir(), "python3")
	if err := os.WriteFile(python, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &Cache{opts: Options{}.withDefaults(), found: probes{byPath: map[string]probe{}}}
	if _, ok := c.look(t.Context(), python); ok {
		t.Error("an interpreter that does not answer is one")
	}
	if p, there := c.found.byPath[python]; !there || p.ok {
		t.Errorf("remembered %+v, %v", p, there)
	}
}
