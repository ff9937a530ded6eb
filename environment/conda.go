package environment

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/zarpa-dev/zarpa"
)

// maxCondaPackages bounds the entries of a conda file.
const maxCondaPackages = 10_000

// condaRequirements is the file that the pip part of a conda file becomes.
const condaRequirements = "requirements.conda.txt"

// condaName is a package in a conda file: a channel, the name, and what is asked of its version.
var condaName = regexp.MustCompile(`^(?:[A-Za-z0-9_./:-]+::)?([A-Za-z0-9_][A-Za-z0-9_.-]*)\s*(?:\[[^\]]*\])?\s*(.*)$`)

// readConda reads a conda file. Where it asks conda for nothing but python and pip, its pip part is
// installed without conda.
func readConda(files fs.FS, name string) (description, error) {
	text, err := readLimited(files, name)
	if err != nil {
		return description{}, err
	}
	var file struct {
		Dependencies []yaml.Node `yaml:"dependencies"`
	}
	if err := yaml.Unmarshal(decodeText(text), &file); err != nil {
		return description{}, zarpa.Errorf(zarpa.Invalid, "%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: ")).
			WithHint("write it as conda env export does: a list named dependencies, with a list named pip in it")
	}
	if len(file.Dependencies) > maxCondaPackages {
		return description{}, zarpa.Errorf(zarpa.TooLarge, "%s: more than %d dependencies", name, maxCondaPackages)
	}
	var d description
	var pip []yaml.Node
	for _, node := range file.Dependencies {
		switch node.Kind {
		case yaml.ScalarNode:
			if err := d.condaPackage(name, node); err != nil {
				return description{}, err
			}
		case yaml.MappingNode:
			var part struct {
				Pip []yaml.Node `yaml:"pip"`
			}
			if err := node.Decode(&part); err != nil || len(node.Content) != 2 || node.Content[0].Value != "pip" {
				return description{}, zarpa.Errorf(zarpa.Invalid, "%s line %d: only a list named pip may stand among the dependencies", name, node.Line)
			}
			pip = append(pip, part.Pip...)
		default:
			return description{}, zarpa.Errorf(zarpa.Invalid, "%s line %d: not a package", name, node.Line).WithHint("write NAME=VERSION")
		}
	}
	return d, d.pipPart(files, name, pip)
}

// condaPackage takes a package that stands among the dependencies.
func (d *description) condaPackage(file string, node yaml.Node) error {
	m := condaName.FindStringSubmatch(strings.TrimSpace(node.Value))
	if m == nil {
		return zarpa.Errorf(zarpa.Invalid, "%s line %d: %.80q is not a package", file, node.Line, node.Value).WithHint("write NAME=VERSION")
	}
	switch strings.ToLower(m[1]) {
	case "python":
		c, ok := parseCondaVersion(m[2])
		if !ok {
			return zarpa.Errorf(zarpa.Invalid, "%s line %d: %.80q: its version is not understood", file, node.Line, node.Value).WithHint("write python=3.11")
		}
		d.python = c
	case "pip": // it installs, and is not installed
	default:
		d.conda = append(d.conda, node.Value)
	}
	return nil
}

// pipPart makes a requirements file of the list named pip, and checks it as any other. Its lines are
// those of the list, so an error is put to the line of the conda file.
func (d *description) pipPart(files fs.FS, name string, pip []yaml.Node) error {
	if len(pip) == 0 {
		return nil
	}
	r := requirementsReader{files: files, got: requirements{texts: map[string][]byte{}}}
	var text strings.Builder
	for _, node := range pip {
		if node.Kind != yaml.ScalarNode || strings.ContainsAny(node.Value, "\n\r\x00") {
			return zarpa.Errorf(zarpa.Invalid, "%s line %d: not a requirement", name, node.Line).WithHint("write NAME==VERSION, one on each line")
		}
		for line := range logicalLines(node.Value) {
			if err := r.line(requirement{file: name, line: node.Line, text: line.text}); err != nil {
				return err
			}
			fmt.Fprintln(&text, line.text)
		}
	}
	d.packages, d.main = r.got, condaRequirements
	d.packages.texts[condaRequirements] = []byte(text.String())
	return nil
}

func (c *Cache) condaProgram() string {
	return c.program(c.opts.Conda, "micromamba", "mamba", "conda")
}

// checkConda wants a conda for what only conda installs, and a spec that does not contradict the file,
// whose Python conda installs.
func (c *Cache) checkConda(p plan, asked constraint) error {
	if p.spec.SystemPackages {
		return zarpa.Errorf(zarpa.Invalid, "environment.system_packages: %s is built by conda, which brings a Python of its own", p.source).
			WithHint("leave system_packages out")
	}
	if asked.text != "" && !c.agree(asked, p.description.python) {
		return zarpa.Errorf(zarpa.Invalid, "environment.python: %s, but %s asks for python%s", asked.text, p.source, p.description.python.text).
			WithHint("leave one of them out, or make them equal")
	}
	if c.condaProgram() != "" {
		return nil
	}
	names := p.conda
	if len(names) > 10 {
		names = append(slices.Clone(names[:10]), "…")
	}
	return zarpa.Errorf(zarpa.Unavailable, "%s: %s: only conda installs what stands outside its pip part, and there is no micromamba, mamba or conda on this machine",
		p.source, strings.Join(names, ", ")).
		WithHint("move them below pip:, as NAME==VERSION, if PyPI has them; or install micromamba")
}

// agree tells whether a conda file asks for the very Python of the spec: conda reads the file alone.
func (c *Cache) agree(asked, file constraint) bool {
	v, _, ok := parseVersion(asked.text)
	if !ok || len(file.alternatives) == 0 {
		return false
	}
	other := version{v[0], v[1] + 1, 0}
	return file.allows(v) && !file.allows(other)
}

// condaTool installs with conda, or one of the programs that know its commands.
func condaTool(path string) tool {
	name := strings.TrimSuffix(filepath.Base(path), ".exe")
	return tool{name, func(b *builder) []step {
		args := []string{"env", "create", "--file", b.source, "--prefix", b.cache.prefix(b.id)}
		if name == "micromamba" {
			args = []string{"create", "--yes", "--file", b.source, "--prefix", b.cache.prefix(b.id)}
		}
		s := step{phase: phaseInstall, program: path, args: args}
		if len(b.wheels) > 0 { // for the pip that conda runs
			links := strings.TrimSpace(b.cache.variable("PIP_FIND_LINKS") + " " + filepath.Join(b.files, wheelsFolder))
			s.env = append(s.env, "PIP_FIND_LINKS="+links)
		}
		return []step{s}
	}}
}
