package environment

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/zarpa-dev/zarpa"
)

// pyprojectRequirements is the file that the dependencies of a project become.
const pyprojectRequirements = "requirements.pyproject.txt"

// readPyproject reads what a project depends on, without its extras. The project itself is not
// installed: its sources are no part of an environment.
func readPyproject(files fs.FS, name string) (description, error) {
	text, err := readLimited(files, name)
	if err != nil {
		return description{}, err
	}
	var file struct {
		Project *struct {
			RequiresPython string   `toml:"requires-python"`
			Dependencies   []string `toml:"dependencies"`
			Dynamic        []string `toml:"dynamic"`
		} `toml:"project"`
	}
	if _, err := toml.Decode(string(decodeText(text)), &file); err != nil {
		if parse, ok := errors.AsType[toml.ParseError](err); ok {
			return description{}, zarpa.Errorf(zarpa.Invalid, "%s line %d: %s", name, parse.Position.Line, parse.Message)
		}
		return description{}, zarpa.Errorf(zarpa.Invalid, "%s: %s", name, strings.TrimPrefix(err.Error(), "toml: "))
	}
	switch {
	case file.Project == nil:
		return description{}, zarpa.Errorf(zarpa.Invalid, "%s: it has no [project], whose dependencies would be installed", name).
			WithHint("add requirements.txt; Poetry writes one with: poetry export")
	case slices.Contains(file.Project.Dynamic, "dependencies"):
		return description{}, zarpa.Errorf(zarpa.Invalid, "%s: project.dependencies are dynamic: only building the project tells them", name).
			WithHint("add requirements.txt")
	}
	var d description
	var ok bool
	if d.python, ok = parseSpecifiers(file.Project.RequiresPython); !ok {
		return description{}, zarpa.Errorf(zarpa.Invalid, "%s: project.requires-python: %.80q is not understood", name, file.Project.RequiresPython).
			WithHint("write it as >=3.9")
	}
	if len(file.Project.Dependencies) == 0 {
		return d, nil
	}
	return d, d.dependencies(files, name, file.Project.Dependencies)
}

// dependencies makes a requirements file of a project's list. Options cannot stand in it.
func (d *description) dependencies(files fs.FS, name string, list []string) error {
	r := requirementsReader{files: files, got: requirements{texts: map[string][]byte{}}}
	lines := 0
	var text strings.Builder
	for i, one := range list {
		one = strings.TrimSpace(one)
		req := requirement{file: name + " project.dependencies", line: i + 1, text: one}
		if one == "" || strings.HasPrefix(one, "-") || strings.ContainsAny(one, "\n\r\x00\\") || strings.HasPrefix(one, "#") {
			return zarpa.Errorf(zarpa.Invalid, "%s: project.dependencies: %.80q is not a requirement", name, one)
		}
		if lines++; lines > maxLines {
			return zarpa.Errorf(zarpa.TooLarge, "%s: more than %d dependencies", name, maxLines)
		}
		if err := r.line(req); err != nil {
			return err
		}
		fmt.Fprintln(&text, one)
	}
	d.packages, d.main = r.got, pyprojectRequirements
	d.packages.texts[pyprojectRequirements] = []byte(text.String())
	return nil
}
