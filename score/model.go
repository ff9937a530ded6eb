package score

import (
	"encoding/json"

	"github.com/zarpa-dev/zarpa"
)

// model is a session with all that is known before a request comes.
type model struct {
	entry    *entry
	session  zarpa.Session
	streamer zarpa.Streamer // the session, when it streams; else nil
	scorer   zarpa.Scorer   // the session, when it answers /score itself; else nil
	methods  []string       // of the object that the model is, if it is one
	sig      zarpa.Signature
	inputs   map[string]int
	outputs  map[string]int
	metadata []byte // from "versions" on: the name before it is the one that was asked for
	swagger  map[string][]byte
	batcher  *batcher // nil where requests share no runs
}

func (s *Server) describe(e *entry, session zarpa.Session) *model {
	m := &model{entry: e, session: session, sig: session.Signature(), inputs: map[string]int{}, outputs: map[string]int{}}
	m.streamer, _ = session.(zarpa.Streamer)
	m.scorer, _ = session.(zarpa.Scorer)
	if c, ok := session.(caller); ok {
		m.methods = c.Methods()
	}
	for i, v := range m.sig.Inputs {
		m.inputs[v.Name] = i
	}
	for i, v := range m.sig.Outputs {
		m.outputs[v.Name] = i
	}
	m.metadata, _ = json.Marshal(struct { // plain values only: cannot fail
		Versions []string        `json:"versions"`
		Platform string          `json:"platform"`
		Inputs   []valueMetadata `json:"inputs"`
		Outputs  []valueMetadata `json:"outputs"`
	}{e.versions(), e.Platform, describeAll(m.sig.Inputs), describeAll(m.sig.Outputs)})
	m.swagger = openapi(e.Name, e.Version, m.sig)
	m.batcher = s.newBatcher(m)
	return m
}

// tensors refuses what asks a scoring script for tensors, of which it knows nothing.
func (m *model) tensors() error {
	if m.scorer == nil {
		return nil
	}
	return zarpa.Errorf(zarpa.Invalid, "%s is answered by a scoring script, which takes no tensors", m.entry.Name).
		WithHint("POST to /score what the script's run() expects; /swagger.json describes it")
}

// close takes the model out of memory, after its last run.
func (m *model) close() error {
	if m.batcher != nil {
		m.batcher.close()
	}
	return m.session.Close()
}

func (e *entry) versions() []string {
	if e.Version == "" {
		return []string{}
	}
	return []string{e.Version}
}

// valueMetadata is one input or output as the protocol describes it.
type valueMetadata struct {
	Name     string            `json:"name"`
	Datatype zarpa.ElementType `json:"datatype"`
	Shape    []int64           `json:"shape"`
}

func describeAll(values []zarpa.ValueInfo) []valueMetadata {
	out := make([]valueMetadata, len(values))
	for i, v := range values {
		out[i] = valueMetadata{v.Name, v.Type, v.Sizes()}
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
