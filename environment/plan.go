package environment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// wheelsFolder holds packages that are not fetched.
const wheelsFolder = "wheels"

// sources are the files that may describe an environment, the first one there counts: one for conda
// says the most, and a pyproject.toml may be there for other tools.
var sources = []struct {
	name string
	read func(files fs.FS, name string) (description, error)
}{
	{"conda.yml", readConda},
	{"conda.yaml", readConda},
	{"environment.yml", readConda},
	{"environment.yaml", readConda},
	{"requirements.txt", readRequirementsFile},
	{"pyproject.toml", readPyproject},
}

// description is what the files of a request say.
type description struct {
	// source is the file that was read; empty without files.
	source string
	// python is what it asks of the interpreter.
	python constraint
	// packages are what is installed, and main the requirements file that says so; empty for nothing.
	packages requirements
	main     string
	// conda are packages that only conda can install, as they were written.
	conda []string
	// wheels are the packages with a file in wheels/, normalised.
	wheels map[string]bool
}

// nothing tells whether there is nothing to install.
func (d description) nothing() bool {
	return !slices.ContainsFunc(d.packages.list, func(r requirement) bool { return !r.constraint })
}

// offline tells whether nothing is asked of an index: every requirement has a file in wheels/, and
// the requirements name no index.
func (d description) offline() bool {
	if len(d.wheels) == 0 || d.packages.index {
		return false
	}
	return !slices.ContainsFunc(d.packages.list, func(r requirement) bool {
		return !r.constraint && (!d.wheels[r.name] || strings.Contains(r.text, "://"))
	})
}

func readRequirementsFile(files fs.FS, name string) (description, error) {
	r, err := readRequirements(files, name)
	return description{packages: r, main: name}, err
}

// describe reads the description. Nil files are one that asks for nothing.
func describe(files fs.FS) (description, error) {
	if files == nil {
		return description{}, nil
	}
	for _, s := range sources {
		if _, err := fs.Stat(files, s.name); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return description{}, diskError("read "+s.name, err)
		}
		d, err := s.read(files, s.name)
		if err != nil {
			return description{}, err
		}
		d.source = s.name
		d.wheels, err = listWheels(files)
		return d, err
	}
	return description{}, zarpa.Errorf(zarpa.Invalid, "environment: its files have none that says what to install").
		WithHint("add a requirements.txt, pyproject.toml or conda.yml")
}

func listWheels(files fs.FS) (map[string]bool, error) {
	entries, err := fs.ReadDir(files, wheelsFolder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diskError("list "+wheelsFolder, err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		if name := wheelName(e.Name()); name != "" && !e.IsDir() {
			names[name] = true
		}
	}
	return names, nil
}

// plan is a request with all decided that its identity depends on.
type plan struct {
	id     string
	spec   zarpa.EnvironmentSpec
	files  fs.FS
	python interpreter // zero where conda installs one
	description
}

// plan reads the description and finds the interpreter.
func (c *Cache) plan(ctx context.Context, req Request) (plan, error) {
	if err := ctx.Err(); err != nil {
		return plan{}, fmt.Errorf("resolve an environment: %w", err)
	}
	if req.Spec.Content != "" && req.Files == nil {
		return plan{}, zarpa.Errorf(zarpa.Invalid, "environment.content: %.80q without its files", req.Spec.Content)
	}
	asked, ok := exactly(req.Spec.Python)
	if !ok {
		return plan{}, zarpa.Errorf(zarpa.Invalid, "environment.python: %.40q is not a version", req.Spec.Python).WithHint("write 3.11 or 3.11.2")
	}
	d, err := describe(req.Files)
	if err != nil {
		return plan{}, err
	}
	content, err := contentDigest(ctx, req)
	if err != nil {
		return plan{}, err
	}
	p := plan{spec: req.Spec, files: req.Files, description: d}
	if len(d.conda) > 0 {
		if err := c.checkConda(p, asked); err != nil {
			return plan{}, err
		}
	} else if p.python, err = c.findPython(ctx, want{spec: asked, file: d.python, source: d.source}); err != nil {
		return plan{}, err
	}
	p.id = p.identity(content)
	return p, nil
}

// identity is a digest over all that decides what is built. The tool that installs is not in it: pip
// and uv install the same.
func (p plan) identity(content string) string {
	fields := struct {
		Format                             int
		Content                            string
		Version, Implementation, ABI, Libc string
		Platform, System                   string
		Conda                              bool
		CondaPython                        string
	}{
		1, content,
		p.python.Version, p.python.Implementation, p.python.ABI, p.python.Libc,
		p.python.Platform, "",
		len(p.conda) > 0, "",
	}
	if p.spec.SystemPackages {
		fields.System = p.python.Prefix // whose packages are seen
	}
	if fields.Conda {
		fields.CondaPython, fields.Platform = p.spec.Python, runtime.GOOS+"/"+runtime.GOARCH
	}
	b, _ := json.Marshal(fields) // plain values only: cannot fail
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:idLength]
}

// contentDigest is the digest of the files, by the rule of [zarpa.Content]. The spec's is believed:
// wheels may be large.
func contentDigest(ctx context.Context, req Request) (string, error) {
	if req.Spec.Content != "" || req.Files == nil {
		return req.Spec.Content, nil
	}
	sum := sha256.New()
	err := eachFile(ctx, req.Files, func(name string, f io.Reader) error {
		one := sha256.New()
		size, err := io.Copy(one, f)
		fmt.Fprintf(sum, "%x %d %s\n", one.Sum(nil), size, name)
		return err
	})
	if err != nil {
		return "", diskError("read the environment's files", err)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// eachFile calls do for every file, in the order of paths.
func eachFile(ctx context.Context, files fs.FS, do func(name string, f io.Reader) error) error {
	var names []string
	err := fs.WalkDir(files, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return nil
		case zarpa.ValidatePath(name) != nil:
			return zarpa.ValidatePath(name)
		}
		info, err := fs.Stat(files, name) // through links, as the file is read
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return zarpa.Errorf(zarpa.Invalid, "%s: not a plain file", name).WithHint("take it out of the environment's folder")
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(names) // by whole paths: a-b stands before a/b
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := files.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(do(name, f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
