package environment

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

// tool is a way to make an environment.
type tool struct {
	name  string
	steps func(b *builder) []step
}

// pipElsewhere is the first pip that installs into an environment without one (--python).
var pipElsewhere = version{22, 3, 0}

// chooseTool decides what makes the environment: conda where conda's packages are asked for, else uv
// where there is one, else pip, in the way that the interpreter has all parts for.
func (b *builder) chooseTool() (tool, error) {
	c := b.cache
	if len(b.conda) > 0 {
		return condaTool(c.condaProgram()), nil
	}
	uv := c.program(c.opts.Uv, "uv")
	if t, ok := choosePython(b.python, uv, c.program("", "virtualenv")); ok {
		return t, nil
	}
	return tool{}, zarpa.Errorf(zarpa.Unavailable, "environment: Python %s (%s) has no pip, ensurepip or virtualenv to make an environment with",
		b.python.Version, b.python.Path).
		WithHint("install uv, or what the system calls python%s-venv (apt-get install python%s-venv)", b.python.version.minor(), b.python.version.minor())
}

// choosePython is the decision of chooseTool among the tools for an interpreter of this machine; uv
// and virtualenv are paths of programs, or empty.
func choosePython(i interpreter, uv, virtualenv string) (tool, bool) {
	pip, _, _ := parseVersion(i.Pip)
	switch {
	case uv != "":
		return uvTool(uv), true
	case i.Venv && pip.compare(pipElsewhere) >= 0:
		// fastest, and leaves no pip in the environment
		return tool{"pip", func(b *builder) []step {
			return b.pipSteps(b.venv(withoutPip), b.python.Path, "-m", "pip", "--python", b.python3())
		}}, true
	case i.Venv && i.Ensurepip:
		return tool{"pip", func(b *builder) []step { return b.pipSteps(b.venv(), b.python3(), "-m", "pip") }}, true
	case i.Virtualenv:
		return tool{"virtualenv", func(b *builder) []step {
			return b.pipSteps(b.virtualenv(b.python.Path, "-m", "virtualenv"), b.python3(), "-m", "pip")
		}}, true
	case virtualenv != "":
		return tool{"virtualenv", func(b *builder) []step { return b.pipSteps(b.virtualenv(virtualenv), b.python3(), "-m", "pip") }}, true
	}
	return tool{}, false
}

const (
	phaseCreate  = "create the environment"
	phaseInstall = "install the packages"
	withoutPip   = "--without-pip" // an option of venv and virtualenv
)

func (b *builder) python3() string { return b.cache.python(b.id) }

func (b *builder) venv(options ...string) step {
	args := append([]string{"-I", "-m", "venv"}, options...)
	if b.spec.SystemPackages {
		args = append(args, "--system-site-packages")
	}
	return b.creation(b.python.Path, args)
}

func (b *builder) virtualenv(command ...string) step {
	args := append(command[1:], "--python", b.python.Path, "--no-download")
	if b.spec.SystemPackages {
		args = append(args, "--system-site-packages")
	}
	return b.creation(command[0], args)
}

// creation ends a command of venv or virtualenv. Where nothing is installed, nothing is needed that
// installs: they leave out setuptools together with pip.
func (b *builder) creation(program string, args []string) step {
	if b.nothing() && !slices.Contains(args, withoutPip) {
		args = append(args, withoutPip)
	}
	return step{phase: phaseCreate, program: program, args: append(args, b.cache.prefix(b.id))}
}

// pipSteps creates the environment and installs into it by a command that is pip. Before Python 3.12
// every environment had setuptools, and old packages count on it: it is taken from the interpreter's
// own wheel.
func (b *builder) pipSteps(create step, pip ...string) []step {
	install := func(options ...string) step {
		args := append(append([]string{}, pip[1:]...), "install", "--no-input", "--disable-pip-version-check", "--no-warn-script-location")
		return step{phase: phaseInstall, program: pip[0], args: append(args, options...)}
	}
	b.pip = pip
	steps := []step{create}
	if b.nothing() {
		return steps
	}
	if b.python.Setuptools != "" && slices.Contains(create.args, withoutPip) {
		steps = append(steps, install("--quiet", "--no-compile", "--no-index", "--no-deps", b.python.Setuptools))
	}
	return append(steps, install(append(b.wheelOptions(), "--requirement", b.main)...))
}

// wheelOptions says where packages are looked for beside or in place of the user's index.
func (b *builder) wheelOptions() []string {
	if len(b.wheels) == 0 {
		return nil
	}
	options := []string{"--find-links", filepath.Join(b.files, wheelsFolder)}
	if b.offline() {
		options = append(options, "--no-index")
	}
	return options
}

//go:embed packages.py
var packagesProgram string

// lockPackages asks the environment itself what is installed in it, the same way whatever tool
// installed it: its Python's version, and name==version of each package, in order. pip is left out: it
// may be there or not by the way the environment was made.
func (b *builder) lockPackages(ctx context.Context) (python string, packages []string, err error) {
	if _, err := os.Stat(b.python3()); err != nil && len(b.conda) > 0 {
		return "", nil, zarpa.Errorf(zarpa.Invalid, "%s: it installs no Python", b.source).WithHint("add python=3.11 to its dependencies")
	}
	out, err := os.CreateTemp(b.temp, "packages-*")
	if err != nil {
		return "", nil, err
	}
	defer out.Close() //nolint:errcheck // read by its name
	s := step{program: b.python3(), args: []string{"-I", "-c", packagesProgram, out.Name(), b.cache.prefix(b.id)}, quiet: true}
	if err := b.run(ctx, s); err != nil {
		return "", nil, err
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return "", nil, err
	}
	var told struct {
		Python   string      `json:"python"`
		Packages [][2]string `json:"packages"`
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return "", nil, fmt.Errorf("read the list of packages: %w", err)
	}
	for _, p := range told.Packages {
		if name := normalName(p[0]); name != "pip" {
			packages = append(packages, name+"=="+p[1])
		}
	}
	return told.Python, sorted(packages), nil
}
