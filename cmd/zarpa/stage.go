package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/environment"
)

// pythonFlags are the flags of deploy for scoring scripts and Python environments.
type pythonFlags struct {
	code, entry         string
	requirements, conda string
	pyproject, wheels   string
	python              string
	systemPackages      bool
	workers             int
	preload             string
	workerMaxRequests   int
	workerMaxMemory     string
}

func (f *pythonFlags) add(fl *pflag.FlagSet) {
	f.addFiles(fl)
	fl.IntVar(&f.workers, "workers", 0, "Python processes of one replica; 0 is one per processor")
	fl.StringVar(&f.preload, "preload", string(zarpa.PreloadAuto), "fork workers after init(): auto, always or never")
	fl.IntVar(&f.workerMaxRequests, "worker-max-requests", 0, "requests after which a worker is replaced; 0 is never")
	fl.StringVar(&f.workerMaxMemory, "worker-max-memory", "", "resident memory at which a worker is replaced, such as 2Gi; never by default")
}

// addFiles adds the flags that say what the code and the environment are.
func (f *pythonFlags) addFiles(fl *pflag.FlagSet) {
	fl.StringVar(&f.code, "code", "", "folder of the scoring code; its script answers /score")
	fl.StringVar(&f.entry, "entry", zarpa.DefaultEntry, "the scoring script's path in --code")
	fl.StringVar(&f.requirements, "requirements", "", "requirements.txt of the Python environment")
	fl.StringVar(&f.conda, "conda", "", "conda.yml of the Python environment")
	fl.StringVar(&f.pyproject, "pyproject", "", "pyproject.toml of the Python environment")
	fl.StringVar(&f.wheels, "wheels", "", "folder of packages that are installed without being fetched")
	fl.StringVar(&f.python, "python", "", "version of the interpreter, such as 3.11; what the files ask for by default")
	fl.BoolVar(&f.systemPackages, "system-packages", false, "let the environment see the packages of the machine's interpreter")
}

// environment reports whether the flags describe an environment.
func (f pythonFlags) environment(given func(string) bool) bool {
	return slices.ContainsFunc([]string{"requirements", "conda", "pyproject", "wheels", "python", "system-packages"}, given)
}

// merge changes what the given flags name; code and environment were uploaded as these digests.
func (f pythonFlags) merge(d *zarpa.DeploymentSpec, given func(string) bool, sent sentCode) error {
	set := map[string]func() error{
		"code":                func() error { d.Code = sent.code; return nil },
		"entry":               func() error { d.Entry = f.entry; return nil },
		"workers":             func() error { d.Workers = f.workers; return nil },
		"preload":             func() error { d.Preload = zarpa.Preload(f.preload); return nil },
		"worker-max-requests": func() error { d.WorkerMaxRequests = f.workerMaxRequests; return nil },
		"worker-max-memory":   func() error { return flagText("worker-max-memory", f.workerMaxMemory, &d.WorkerMaxMemory) },
	}
	for name, fn := range set {
		if !given(name) {
			continue
		}
		if err := fn(); err != nil {
			return err
		}
	}
	if given("code") && f.code == "" {
		d.Code, d.Entry = "", ""
	}
	if !f.environment(given) {
		return nil
	}
	env := zarpa.EnvironmentSpec{}
	if d.Environment != nil {
		env = *d.Environment
	}
	if sent.files {
		env.Content = sent.environment
	}
	if given("python") {
		env.Python = f.python
	}
	if given("system-packages") {
		env.SystemPackages = f.systemPackages
	}
	d.Environment = &env
	return nil
}

// sentCode is what was uploaded for a deployment.
type sentCode struct {
	code, environment string // digests
	files             bool   // the environment's files were named
}

// send uploads the code and the environment's files that the flags name.
func (c *cli) send(ctx context.Context, api *client.Client, f pythonFlags) (sent sentCode, err error) {
	put := func(ctx context.Context, path string) (zarpa.Content, error) { return c.upload(ctx, api, path) }
	if f.code != "" {
		if sent.code, err = sendCode(ctx, put, f.code); err != nil {
			return sent, err
		}
	}
	files := environmentFiles{mainRequirements: f.requirements, "conda.yml": f.conda, "pyproject.toml": f.pyproject, "wheels": f.wheels}
	sent.files = files.any()
	sent.environment, err = sendEnvironment(ctx, put, files)
	return sent, err
}

// putter stores a file or folder as a content: on a server, or here.
type putter func(ctx context.Context, path string) (zarpa.Content, error)

// sendCode uploads a folder of code, without what tools leave in it, or a script alone.
func sendCode(ctx context.Context, put putter, dir string) (string, error) {
	stage, err := os.MkdirTemp("", "zarpa-code-")
	if err != nil {
		return "", zarpa.Errorf(zarpa.Unavailable, "--code: %w", err)
	}
	defer os.RemoveAll(stage) //nolint:errcheck // only this user's disk has a copy left
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", zarpa.Errorf(zarpa.NotFound, "--code %s: there is no such folder", dir).Because(err)
	case !info.IsDir():
		return "", zarpa.Errorf(zarpa.Invalid, "--code %s: is not a folder", dir).WithHint("name the folder, and the script in it with --entry %s", filepath.Base(dir))
	}
	if err := copyCode(dir, stage); err != nil {
		return "", zarpa.Errorf(zarpa.Invalid, "--code %s: %w", dir, err)
	}
	if entries, err := os.ReadDir(stage); err == nil && len(entries) == 0 {
		return "", zarpa.Errorf(zarpa.Invalid, "--code %s: holds no file", dir).WithHint("name the folder of the scoring script")
	}
	content, err := put(ctx, stage)
	return content.Digest, err
}

// ignored are names that tools leave in a folder of code: they are no part of it.
func ignored(name string) bool {
	switch name {
	case "__pycache__", ".git", ".hg", ".svn", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".vscode", ".idea", ".DS_Store", "node_modules":
		return true
	}
	return strings.HasSuffix(name, ".pyc") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp")
}

// copyCode copies a folder of code, without what is ignored and without virtual environments.
func copyCode(from, to string) error {
	return filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if rel != "." && ignored(e.Name()) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.IsDir() {
			if _, err := os.Stat(filepath.Join(p, "pyvenv.cfg")); err == nil && rel != "." {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o777)
		}
		return copyFile(p, filepath.Join(to, rel))
	})
}

// copyFile copies what a path leads to, with its permissions.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return zarpa.Errorf(zarpa.Invalid, "%s: is not a regular file", from).WithHint("remove it, or copy what it stands for")
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// environmentFiles are the files of an environment, by the names they have in its content; an empty
// path is none.
type environmentFiles map[string]string

func (f environmentFiles) any() bool {
	for _, path := range f {
		if path != "" {
			return true
		}
	}
	return false
}

// check refuses two descriptions of one environment.
func (f environmentFiles) check() error {
	var given []string
	for _, name := range []string{"requirements.txt", "conda.yml", "pyproject.toml"} {
		if f[name] != "" {
			given = append(given, f[name])
		}
	}
	if len(given) > 1 {
		return zarpa.Errorf(zarpa.Invalid, "environment: %s are all given", strings.Join(given, " and ")).
			WithHint("give one of requirements, conda and pyproject; a conda.yml may hold requirements below pip:")
	}
	return nil
}

// sendEnvironment uploads the files of an environment; no digest when there are none.
func sendEnvironment(ctx context.Context, put putter, files environmentFiles) (string, error) {
	if !files.any() {
		return "", nil
	}
	if err := files.check(); err != nil {
		return "", err
	}
	stage, err := os.MkdirTemp("", "zarpa-environment-")
	if err != nil {
		return "", zarpa.Errorf(zarpa.Unavailable, "environment: %w", err)
	}
	defer os.RemoveAll(stage) //nolint:errcheck // only this user's disk has a copy left
	for name, file := range files {
		flag := "--" + strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, ".txt"), ".yml"), ".toml")
		switch {
		case file == "":
			continue
		case name == "wheels":
			err = copyWheels(file, filepath.Join(stage, name))
		case name == mainRequirements:
			err = copyRequirements(file, stage)
		default:
			err = copyFile(file, filepath.Join(stage, name))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return "", zarpa.Errorf(zarpa.NotFound, "%s %s: there is no such file", flag, file).Because(err)
		}
		if err != nil {
			return "", zarpa.Errorf(zarpa.Invalid, "%s %s: %w", flag, file, err)
		}
	}
	content, err := put(ctx, stage)
	return content.Digest, err
}

// copyWheels copies the packages of a folder.
func copyWheels(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	found := false
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".whl") || strings.HasSuffix(e.Name(), ".tar.gz") || strings.HasSuffix(e.Name(), ".zip") {
			found = true
			if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	}
	if !found {
		return zarpa.Errorf(zarpa.Invalid, "holds no package").WithHint("fill it with: pip download -d %s -r requirements.txt", from)
	}
	return nil
}

// maxIncluded bounds the files that a requirements file names, one from another.
const maxIncluded = 50

// mainRequirements is the name under which an environment looks for its requirements.
const mainRequirements = "requirements.txt"

// copyRequirements copies a requirements file with the files that its lines -r and -c name below its
// folder, each under its own name, by which errors tell it. One that is not called requirements.txt is
// named by a file that is; where it names such a file itself, all of them lie in a folder of their own.
func copyRequirements(file, stage string) error {
	name := filepath.Base(file)
	texts, err := readRequirements(filepath.Dir(file), name)
	if err != nil {
		return err
	}
	if name != mainRequirements {
		if strings.HasPrefix(name, "-") || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("\"'#$\\", r) }) {
			return zarpa.Errorf(zarpa.Invalid, "a line of requirements cannot name a file that is called %q", name).
				WithHint("rename it to requirements.txt")
		}
		into, inside := name, stage
		if _, taken := texts[mainRequirements]; taken {
			into, inside = "requirements/"+name, filepath.Join(stage, "requirements")
		}
		if err := writeNew(filepath.Join(stage, mainRequirements), []byte("-r "+into+"\n")); err != nil {
			return err
		}
		stage = inside
	}
	for rel, text := range texts {
		if err := writeNew(filepath.Join(stage, filepath.FromSlash(rel)), text); err != nil {
			return err
		}
	}
	return nil
}

// writeNew writes a file that must not be there, into a folder that may be missing.
func writeNew(to string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return errors.Join(err, out.Close())
}

// readRequirements reads a requirements file of a folder and those that it names, by their
// slash-separated paths in the folder.
func readRequirements(dir, name string) (map[string][]byte, error) {
	texts, unread := map[string][]byte{}, []string{name}
	for len(unread) > 0 {
		rel := unread[0]
		unread = unread[1:]
		if _, seen := texts[rel]; seen {
			continue
		}
		if len(texts) == maxIncluded {
			return nil, zarpa.Errorf(zarpa.TooLarge, "names more than %d other files", maxIncluded-1)
		}
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(rel)))
		if errors.Is(err, fs.ErrNotExist) && rel != name {
			return nil, zarpa.Errorf(zarpa.NotFound, "names %q, which is not there", rel).WithHint("names count from the folder of the file that holds them")
		}
		if err != nil {
			return nil, err
		}
		texts[rel] = text
		for _, other := range environment.Included(text) {
			inside := path.Join(path.Dir(rel), other)
			if path.IsAbs(other) || strings.Contains(other, "://") || zarpa.ValidatePath(inside) != nil {
				return nil, zarpa.Errorf(zarpa.Invalid, "names %q, which is outside its folder", other).WithHint("put both files into one folder")
			}
			unread = append(unread, inside)
		}
	}
	return texts, nil
}
