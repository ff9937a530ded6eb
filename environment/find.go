package environment

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const (
	// probeTimeout bounds the look at one interpreter: on a cold disk a start takes seconds.
	probeTimeout = 30 * time.Second
	// probeFresh is how long the answer of an interpreter is believed.
	probeFresh = time.Minute
	// maxInterpreters bounds how many are looked at.
	maxInterpreters = 100
)

//go:embed probe.py
var probeProgram string

// interpreter is what a Python says of itself.
type interpreter struct {
	// Path is the interpreter itself, not a link of a virtual environment.
	Path string `json:"path"`
	// Virtual says that the one that was asked is such a link: what follows is about that one.
	Virtual        bool   `json:"virtual"`
	Version        string `json:"version"`
	Implementation string `json:"implementation"`
	// Platform and ABI decide which binary packages fit.
	Platform string `json:"platform"`
	ABI      string `json:"abi"`
	Libc     string `json:"libc"`
	Prefix   string `json:"prefix"`
	// Venv, Ensurepip and Virtualenv are modules that it has, Pip the version of that one.
	Venv       bool   `json:"venv"`
	Ensurepip  bool   `json:"ensurepip"`
	Virtualenv bool   `json:"virtualenv"`
	Pip        string `json:"pip"`
	// Setuptools is the wheel that it has for new environments; empty since 3.12.
	Setuptools string `json:"setuptools"`

	version version
}

// probe is what came of looking at a path.
type probe struct {
	at    time.Time
	found interpreter
	ok    bool
}

// look asks the interpreter at path what it is. What does not answer is none.
func (c *Cache) look(ctx context.Context, path string) (interpreter, bool) {
	c.found.mu.Lock()
	known, there := c.found.byPath[path]
	c.found.mu.Unlock()
	now := c.opts.Now()
	if there && now.Sub(known.at) < probeFresh && !now.Before(known.at) {
		return known.found, known.ok
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var out bytes.Buffer
	cmd := c.command(ctx, path, "-I", "-c", probeProgram)
	cmd.Stdout = &out
	err := cmd.Run()
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return interpreter{}, false // the caller left: nothing is known
	}
	p := probe{at: now}
	if err == nil && json.Unmarshal(out.Bytes(), &p.found) == nil {
		p.found.version, _, p.ok = parseVersion(p.found.Version)
		p.ok = p.ok && p.found.Path != ""
	}
	if p.ok && p.found.Virtual && p.found.Path != path {
		return c.look(ctx, p.found.Path) // has other modules
	}
	p.ok = p.ok && !p.found.Virtual
	c.found.mu.Lock()
	defer c.found.mu.Unlock()
	c.found.byPath[path] = p
	return p.found, p.ok
}

// want is what is asked of the interpreter.
type want struct {
	spec, file constraint
	source     string // the file that asks
}

func (w want) allows(v version) bool {
	return v.compare(oldest) >= 0 && w.spec.allows(v) && w.file.allows(v)
}

// findPython finds the first interpreter of the machine that meets what is asked.
func (c *Cache) findPython(ctx context.Context, w want) (interpreter, error) {
	var there []interpreter
	for _, path := range c.candidates(w) {
		i, ok := c.look(ctx, path)
		if err := ctx.Err(); err != nil {
			return interpreter{}, fmt.Errorf("look for a Python: %w", err)
		}
		if !ok {
			continue
		}
		if w.allows(i.version) {
			return i, nil
		}
		if !slices.ContainsFunc(there, func(t interpreter) bool { return t.Path == i.Path }) {
			there = append(there, i)
		}
	}
	return interpreter{}, w.unmet(there)
}

// unmet says that no interpreter fits, and which there are.
func (w want) unmet(there []interpreter) error {
	asked := "Python " + oldest.minor() + " or later"
	field := "environment"
	switch {
	case w.spec.text != "" && w.file.text != "":
		asked, field = fmt.Sprintf("Python %s that is also %q, as %s asks", w.spec.text, w.file.text, w.source), "environment.python"
	case w.spec.text != "":
		asked, field = "Python "+w.spec.text, "environment.python"
	case w.file.text != "":
		asked, field = fmt.Sprintf("Python %q, as %s asks", w.file.text, w.source), "environment"
	}
	if !w.possible() && w.spec.text != "" && w.file.text != "" {
		return zarpa.Errorf(zarpa.Invalid, "%s: %s is asked for, and %s asks for %q: no Python is both", field, w.spec.text, w.source, w.file.text).
			WithHint("leave one of them out, or make them agree")
	}
	if !w.possible() {
		return zarpa.Errorf(zarpa.Invalid, "%s: %s is older than %s, which scoring needs", field, asked, oldest.minor()).
			WithHint("ask for Python %s or later, with packages that exist for it", oldest.minor())
	}
	if len(there) == 0 {
		return zarpa.Errorf(zarpa.Unavailable, "%s: no Python on this machine, %s is needed", field, asked).WithHint("install it; see docs/environments.md")
	}
	slices.SortFunc(there, func(a, b interpreter) int {
		return cmp.Or(b.version.compare(a.version), strings.Compare(a.Path, b.Path))
	})
	var names []string
	for _, i := range there {
		names = append(names, i.Version+" ("+i.Path+")")
	}
	return zarpa.Errorf(zarpa.Unavailable, "%s: no %s on this machine; there is %s", field, asked, strings.Join(names, ", ")).
		WithHint("install it, for example with pyenv or uv python install, or ask for one of these")
}

// possible tells whether any Python that scoring runs on could meet what is asked.
func (w want) possible() bool {
	for minor := oldest[1]; minor < 100; minor++ {
		for patch := range 50 {
			if w.spec.allows(version{3, minor, patch}) && w.file.allows(version{3, minor, patch}) {
				return true
			}
		}
	}
	return w.spec.allows(version{4, 0, 0}) && w.file.allows(version{4, 0, 0})
}

// candidates are the paths where an interpreter may be, the preferred first: the option; in Path the
// one with the wanted version in its name, python3, python and those of any version; the folders
// where systems, pyenv and uv keep theirs.
func (c *Cache) candidates(w want) []string {
	var paths []string
	add := func(found ...string) {
		for _, p := range found {
			info, err := os.Stat(p)
			if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || slices.Contains(paths, p) {
				continue
			}
			if len(paths) < maxInterpreters {
				paths = append(paths, p)
			}
		}
	}
	folders := slices.Concat(c.opts.Path, []string{"/usr/local/bin", "/opt/homebrew/bin", "/usr/bin"})
	everywhere := func(name string) {
		for _, f := range folders {
			add(filepath.Join(f, name))
		}
	}
	if strings.ContainsRune(c.opts.Python, filepath.Separator) {
		add(c.opts.Python)
	} else if c.opts.Python != "" {
		everywhere(c.opts.Python)
	}
	if v, parts, ok := parseVersion(w.spec.text); ok && parts >= 2 {
		everywhere("python" + v.minor())
	}
	for _, name := range []string{"python3", "python"} {
		for _, f := range c.opts.Path {
			add(filepath.Join(f, name))
		}
	}
	for _, f := range folders {
		add(newestFirst(filepath.Join(f, "python3.*"))...)
		add(filepath.Join(f, "python3"))
	}
	for _, f := range c.managed() {
		add(newestFirst(filepath.Join(f, "*", "bin", "python3.*"))...)
	}
	return paths
}

// managed are the folders where pyenv and uv keep interpreters.
func (c *Cache) managed() []string {
	home := c.variable("HOME")
	in := func(variable string, below ...string) string {
		if v := c.variable(variable); v != "" {
			return filepath.Join(append([]string{v}, below...)...)
		}
		return ""
	}
	pyenv := cmp.Or(in("PYENV_ROOT", "versions"), filepath.Join(home, ".pyenv", "versions"))
	uv := cmp.Or(in("UV_PYTHON_INSTALL_DIR"), in("XDG_DATA_HOME", "uv", "python"), filepath.Join(home, ".local", "share", "uv", "python"))
	return []string{pyenv, uv}
}

// newestFirst finds the interpreters with a version in their names, pythonX.Y, by a pattern.
func newestFirst(pattern string) []string {
	type named struct {
		path    string
		version version
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil // a bracket in a folder's name
	}
	var found []named
	for _, p := range paths {
		number := strings.TrimPrefix(filepath.Base(p), "python")
		if v, parts, ok := parseVersion(number); ok && parts == 2 && number == v.minor() { // not python3.11-config
			found = append(found, named{p, v})
		}
	}
	slices.SortStableFunc(found, func(a, b named) int { return b.version.compare(a.version) })
	sorted := make([]string, len(found))
	for i, f := range found {
		sorted[i] = f.path
	}
	return sorted
}

// program finds a tool in Path; an option that names one is that, [None] is none.
func (c *Cache) program(option string, names ...string) string {
	switch {
	case option == None:
		return ""
	case option != "":
		return option
	}
	for _, name := range names {
		for _, f := range c.opts.Path {
			path := filepath.Join(f, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path
			}
		}
	}
	return ""
}

// variable is a variable of the build's environment; the last one of a name counts.
func (c *Cache) variable(name string) string {
	value := ""
	for _, e := range c.opts.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// command prepares a program of a build: in a process group of its own, which ends with ctx.
func (c *Cache) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = c.environ()
	ownGroup(cmd)
	return cmd
}
