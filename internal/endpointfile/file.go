// Package endpointfile reads the YAML files that describe endpoints. Unknown fields are errors
// that name the nearest valid one; several documents in one file are several endpoints.
package endpointfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

const (
	// MaxSize is the largest file, in bytes.
	MaxSize = 1 << 20
	// maxDocuments bounds the endpoints of one file.
	maxDocuments = 1000
	// maxDepth bounds nesting; an endpoint needs four levels.
	maxDepth = 32
)

// File is one document: an endpoint, with the fields of its spec.
type File struct {
	Name string `json:"name"`
	zarpa.EndpointSpec
	// Deployments stand in the place of the spec's.
	Deployments []FileDeployment `json:"deployments"`
}

// FileDeployment is a deployment whose model is registered (model) or lies beside the file
// (file), and is registered under the endpoint's name when it is applied. Further models may be
// paths, too, which are registered under names of their own. Code is a folder beside the file, or
// the digest of what is stored.
type FileDeployment struct {
	zarpa.DeploymentSpec
	File string `json:"file,omitempty"`
	// Environment stands in the place of the spec's: its files lie beside the file.
	Environment *FileEnvironment `json:"environment,omitempty"`
}

// FileEnvironment is an environment whose files are named by their paths.
type FileEnvironment struct {
	zarpa.EnvironmentSpec
	Requirements string `json:"requirements,omitempty"`
	Conda        string `json:"conda,omitempty"`
	PyProject    string `json:"pyproject,omitempty"`
	Wheels       string `json:"wheels,omitempty"`
}

// Read reads all documents of a file. Errors are invalid and name the document and the field.
func Read(text []byte) ([]File, error) {
	if len(text) > MaxSize {
		return nil, zarpa.Errorf(zarpa.TooLarge, "the file has %d bytes, %d are allowed", len(text), MaxSize)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var files []File
	for i := 1; ; i++ {
		var node yaml.Node
		err := dec.Decode(&node)
		switch {
		case errors.Is(err, io.EOF) && len(files) == 0:
			return nil, zarpa.Errorf(zarpa.Invalid, "the file is empty").WithHint("it needs at least name and deployments")
		case errors.Is(err, io.EOF):
			return files, nil
		case err != nil:
			return nil, zarpa.Errorf(zarpa.Invalid, "not YAML: %w", err)
		case i > maxDocuments:
			return nil, zarpa.Errorf(zarpa.TooLarge, "more than %d documents in one file", maxDocuments)
		}
		f, err := readOne(&node)
		if err != nil {
			return nil, at(i, err)
		}
		files = append(files, f)
	}
}

// at names the document in an error when there is more than the first.
func at(document int, err error) error {
	if document == 1 {
		return err
	}
	e := *zarpa.AsError(err)
	e.Message = fmt.Sprintf("document %d: %s", document, e.Message)
	return &e
}

func readOne(node *yaml.Node) (File, error) {
	var f File
	v, err := plain(node, 0)
	if err != nil {
		return f, err
	}
	if _, ok := v.(map[string]any); !ok {
		return f, zarpa.Errorf(zarpa.Invalid, "line %d: not a mapping of fields", node.Line).WithHint("it needs at least name and deployments")
	}
	text, err := json.Marshal(v)
	if err != nil {
		return f, zarpa.Errorf(zarpa.Invalid, "line %d: %w", node.Line, err).WithHint("numbers must be finite")
	}
	if err := httpx.UnmarshalStrict(text, &f); err != nil {
		return f, err
	}
	if err := zarpa.ValidateName("endpoint", f.Name); err != nil {
		return f, err
	}
	return f, f.check()
}

// plain turns a node into JSON's values. Scalars that the fields read from text (sizes,
// durations, names that look like numbers) stay text where they are quoted.
func plain(node *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, zarpa.Errorf(zarpa.Invalid, "line %d: nested deeper than %d levels", node.Line, maxDepth)
	}
	switch node.Kind {
	case yaml.DocumentNode:
		if len(node.Content) == 1 {
			return plain(node.Content[0], depth+1)
		}
		return nil, zarpa.Errorf(zarpa.Invalid, "line %d: an empty document", node.Line)
	case yaml.AliasNode:
		return nil, zarpa.Errorf(zarpa.Invalid, "line %d: anchors and aliases are not supported", node.Line).WithHint("write the value out")
	case yaml.MappingNode:
		return mapping(node, depth)
	case yaml.SequenceNode:
		list := make([]any, 0, len(node.Content))
		for _, n := range node.Content {
			v, err := plain(n, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	var v any
	if err := node.Decode(&v); err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "line %d: %w", node.Line, err)
	}
	return v, nil
}

func mapping(node *yaml.Node, depth int) (any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return nil, zarpa.Errorf(zarpa.Invalid, "line %d: a field's name must be text", key.Line)
		}
		if _, twice := m[key.Value]; twice {
			return nil, zarpa.Errorf(zarpa.Invalid, "line %d: %q stands there twice", key.Line, key.Value)
		}
		v, err := plain(value, depth+1)
		if err != nil {
			return nil, err
		}
		switch {
		case value.Kind == yaml.SequenceNode && textList(key.Value):
			v = texts(v, value.Content)
		case value.Kind == yaml.ScalarNode && value.Tag != "!!null" && textField(key.Value):
			v = value.Value
		}
		m[key.Value] = v
	}
	return m, nil
}

// textField knows the fields that are text and whose values are kept as they are written, also
// when they look like numbers: memory: 1048576.
func textField(field string) bool {
	switch field {
	case "memory", "max_body", "name", "model", "request_timeout", "queue_wait", "start_timeout", "drain_timeout",
		"max_batch_delay", "model_control", "status_codes", "default", "deployment", "sticky", "time",
		"slow_start", "max_surge", "max_unavailable", "restarted", "hostname",
		"window", "idle", "hold", "cron", "time_zone", "preset",
		"code", "entry", "preload", "worker_max_memory", "python", "content", "requirements", "conda", "pyproject", "wheels":
		return true
	}
	return false
}

// textList knows the fields that are lists of such text.
func textList(field string) bool {
	return field == "models" || field == "cors_origins" || field == "secrets"
}

// texts is a list with its scalars as they are written.
func texts(list any, nodes []*yaml.Node) any {
	values, ok := list.([]any)
	if !ok {
		return list
	}
	for i, n := range nodes {
		if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			values[i] = n.Value
		}
	}
	return values
}

// check wants one of model and file in every deployment, or code.
func (f File) check() error {
	if f.Deployments == nil {
		return zarpa.Errorf(zarpa.Invalid, "deployments: missing").WithHint("an endpoint without any is written deployments: []")
	}
	for i, d := range f.Deployments {
		switch {
		case d.Model == "" && d.File == "" && d.Code == "":
			return zarpa.Errorf(zarpa.Invalid, "deployments[%d]: neither model nor file", i).WithHint("write model: NAME:VERSION, file: ./model.onnx, or code: ./folder")
		case d.Model != "" && d.File != "":
			return zarpa.Errorf(zarpa.Invalid, "deployments[%d]: both model and file", i).WithHint("write only one of them")
		}
	}
	return nil
}

// Spec is the endpoint's spec; deployments with a file still lack their model, and those with paths
// the digests of what these hold.
func (f File) Spec() zarpa.EndpointSpec {
	spec := f.EndpointSpec
	spec.Deployments = []zarpa.DeploymentSpec{}
	for _, d := range f.Deployments {
		if d.Environment != nil {
			d.DeploymentSpec.Environment = &d.Environment.EnvironmentSpec
		}
		spec.Deployments = append(spec.Deployments, d.DeploymentSpec)
	}
	return spec
}
