package modelfile

import (
	"encoding/json"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/zarpa-dev/zarpa"
)

// maxMLmodel bounds the files of an MLflow folder that are read, in bytes.
const maxMLmodel = 1 << 20

// mlmodel is what is read of the file MLmodel.
type mlmodel struct {
	Flavors map[string]yaml.Node `yaml:"flavors"`
	Version string               `yaml:"mlflow_version"`
	// Signature is nil where the model was saved without one.
	Signature *struct {
		Inputs  string `yaml:"inputs"`
		Outputs string `yaml:"outputs"`
	} `yaml:"signature"`
}

// mlspec is a column or a tensor of a signature.
type mlspec struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Required *bool  `json:"required"`
	Tensor   *struct {
		Type  string  `json:"dtype"`
		Shape []int64 `json:"shape"`
	} `json:"tensor-spec"`
}

// inspectMLflow reads a folder with MLmodel.
func inspectMLflow(fsys fs.FS, file string) (Info, error) {
	text, err := readSmall(fsys, file)
	if err != nil {
		return Info{}, err
	}
	var m mlmodel
	if err := yaml.Unmarshal(text, &m); err != nil {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "not the YAML that MLflow writes").WithHint("save the model again").Because(err)
	}
	node, ok := m.Flavors["python_function"]
	if !ok {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "flavors: no python_function among %s", some(flavors(m))).
			WithHint("save the model by a flavour that has it, such as mlflow.sklearn, or register the model file in the folder")
	}
	var pyfunc struct {
		Loader string `yaml:"loader_module"`
		Python string `yaml:"python_version"`
	}
	if err := node.Decode(&pyfunc); err != nil {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "flavors.python_function: not what MLflow writes").Because(err)
	}
	if pyfunc.Loader == "" {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "flavors.python_function.loader_module: missing").WithHint("save the model again")
	}
	info := Info{
		Format: zarpa.FormatMLflow, Framework: "mlflow", FrameworkVersion: m.Version, Python: pyfunc.Python,
		Requirements: folderRequirements(fsys, path.Dir(file)),
	}
	if m.Signature != nil {
		info.Signature, err = mlSignature(m.Signature.Inputs, m.Signature.Outputs)
	}
	return info, err
}

func flavors(m mlmodel) []string {
	names := make([]string, 0, len(m.Flavors))
	for n := range m.Flavors {
		names = append(names, n)
	}
	return names
}

// readSmall is a small file's content.
func readSmall(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "cannot be opened").Because(err)
	}
	defer f.Close() //nolint:errcheck // was only read
	text, err := io.ReadAll(io.LimitReader(f, maxMLmodel+1))
	switch {
	case err != nil:
		return nil, zarpa.Errorf(zarpa.Invalid, "cannot be read").Because(err)
	case len(text) > maxMLmodel:
		return nil, zarpa.Errorf(zarpa.Invalid, "longer than %d bytes", maxMLmodel).WithHint("save the model without an example in it")
	}
	return text, nil
}

// folderRequirements is the folder's own requirements.txt, or the pip part of its conda.yaml; "" for
// neither.
func folderRequirements(fsys fs.FS, dir string) string {
	if text, err := readSmall(fsys, path.Join(dir, "requirements.txt")); err == nil {
		return string(text)
	}
	text, err := readSmall(fsys, path.Join(dir, "conda.yaml"))
	if err != nil {
		return ""
	}
	var conda struct {
		Dependencies []yaml.Node `yaml:"dependencies"`
	}
	if yaml.Unmarshal(text, &conda) != nil {
		return ""
	}
	for _, d := range conda.Dependencies {
		var pip struct {
			Pip []string `yaml:"pip"`
		}
		if d.Kind == yaml.MappingNode && d.Decode(&pip) == nil && len(pip.Pip) > 0 {
			return strings.Join(pip.Pip, "\n") + "\n"
		}
	}
	return ""
}

// mlTypes are the element types by MLflow's names of columns and NumPy's names of tensors. Dates, nested
// values and what else has no tensor travel as texts, JSON where they are nested.
var mlTypes = map[string]zarpa.ElementType{
	"boolean": zarpa.Bool, "integer": zarpa.Int32, "long": zarpa.Int64, "float": zarpa.Float32, "double": zarpa.Float64,
	"bool": zarpa.Bool, "uint8": zarpa.Uint8, "uint16": zarpa.Uint16, "uint32": zarpa.Uint32, "uint64": zarpa.Uint64,
	"int8": zarpa.Int8, "int16": zarpa.Int16, "int32": zarpa.Int32, "int64": zarpa.Int64,
	"float16": zarpa.Float16, "float32": zarpa.Float32, "float64": zarpa.Float64,
}

// mlSignature reads a signature, whose two halves are JSON texts.
func mlSignature(inputs, outputs string) (zarpa.Signature, error) {
	var sig zarpa.Signature
	for _, half := range []struct {
		name, text, alone string
		values            *[]zarpa.ValueInfo
	}{{"inputs", inputs, "input", &sig.Inputs}, {"outputs", outputs, "predictions", &sig.Outputs}} {
		if half.text == "" || half.text == "null" {
			continue
		}
		var specs []mlspec
		if err := json.Unmarshal([]byte(half.text), &specs); err != nil {
			return zarpa.Signature{}, zarpa.Errorf(zarpa.Invalid, "signature.%s: not what MLflow writes", half.name).WithHint("save the model again").Because(err)
		}
		if len(specs) > maxValues {
			return zarpa.Signature{}, zarpa.Errorf(zarpa.Invalid, "signature.%s: more than %d", half.name, maxValues)
		}
		var err error
		if *half.values, err = mlValues(specs, half.alone); err != nil {
			return zarpa.Signature{}, err
		}
	}
	if len(sig.Inputs) == 0 || len(sig.Outputs) == 0 {
		return zarpa.Signature{}, nil // half a signature: only running tells
	}
	return sig, nil
}

// mlValues makes values of a signature's half: each column or tensor by its name. Nameless ones are one value.
func mlValues(specs []mlspec, alone string) ([]zarpa.ValueInfo, error) {
	if !slices.ContainsFunc(specs, func(s mlspec) bool { return s.Name != "" }) && len(specs) > 1 {
		same := !slices.ContainsFunc(specs, func(s mlspec) bool { return s.Type != specs[0].Type || s.Tensor != nil })
		if !same {
			return nil, nil // a table without names whose columns differ
		}
		return []zarpa.ValueInfo{{Name: alone, Type: mlType(specs[0].Type), Shape: []zarpa.Dim{{Size: -1}, {Size: int64(len(specs))}}}}, nil
	}
	values := make([]zarpa.ValueInfo, 0, len(specs))
	seen := map[string]bool{}
	for _, s := range specs {
		v := zarpa.ValueInfo{Name: s.Name, Type: mlType(s.Type), Shape: []zarpa.Dim{{Size: -1}}, Optional: s.Required != nil && !*s.Required}
		if v.Name == "" {
			v.Name = alone
		}
		if s.Tensor != nil {
			if len(s.Tensor.Shape) > maxRank {
				return nil, zarpa.Errorf(zarpa.Invalid, "signature: a shape of more than %d dimensions", maxRank)
			}
			v.Type, v.Shape = mlType(s.Tensor.Type), []zarpa.Dim{}
			for _, n := range s.Tensor.Shape {
				v.Shape = append(v.Shape, zarpa.Dim{Size: max(n, -1)})
			}
		}
		if len(v.Name) > maxName || seen[v.Name] {
			return nil, zarpa.Errorf(zarpa.Invalid, "signature: column %.60q is there twice, or its name is longer than %d bytes", v.Name, maxName)
		}
		seen[v.Name] = true
		values = append(values, v)
	}
	return values, nil
}

func mlType(name string) zarpa.ElementType {
	if t, ok := mlTypes[name]; ok {
		return t
	}
	return zarpa.String
}
