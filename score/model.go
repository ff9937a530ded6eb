package score

import (
	"encoding/json"

	"github.com/zarpa-dev/zarpa"
)

// model is the session with all that is known before a request comes.
type model struct {
	session  zarpa.Session
	sig      zarpa.Signature
	version  string
	inputs   map[string]int
	outputs  map[string]int
	metadata []byte // from "versions" on: the name before it is the one that was asked for
	swagger  map[string][]byte
}

func (s *Server) describe(session zarpa.Session) *model {
	m := &model{session: session, sig: session.Signature(), version: s.opts.ModelVersion, inputs: map[string]int{}, outputs: map[string]int{}}
	for i, v := range m.sig.Inputs {
		m.inputs[v.Name] = i
	}
	for i, v := range m.sig.Outputs {
		m.outputs[v.Name] = i
	}
	versions := []string{}
	if s.opts.ModelVersion != "" {
		versions = append(versions, s.opts.ModelVersion)
	}
	m.metadata, _ = json.Marshal(struct { // plain values only: cannot fail
		Versions []string   `json:"versions"`
		Platform string     `json:"platform"`
		Inputs   []metadata `json:"inputs"`
		Outputs  []metadata `json:"outputs"`
	}{versions, s.opts.Platform, describeAll(m.sig.Inputs), describeAll(m.sig.Outputs)})
	m.swagger = openapi(s.opts, m.sig)
	return m
}

// metadata is one input or output as the protocol describes it.
type metadata struct {
	Name     string            `json:"name"`
	Datatype zarpa.ElementType `json:"datatype"`
	Shape    []int64           `json:"shape"`
}

func describeAll(values []zarpa.ValueInfo) []metadata {
	out := make([]metadata, len(values))
	for i, v := range values {
		out[i] = metadata{v.Name, v.Type, v.Sizes()}
		if v.Type == zarpa.Sequence || v.Type == zarpa.Map {
			out[i].Datatype, out[i].Shape = zarpa.String, []int64{-1} // each item a JSON text
		}
	}
	return out
}

func names(values []zarpa.ValueInfo) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.Name
	}
	return out
}
