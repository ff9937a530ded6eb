package score

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// classifier is a session of an object with methods: each of its outputs is its place among them, for
// every row.
type classifier struct {
	*session
	methods []string
}

func (c *classifier) Methods() []string { return c.methods }

var _ caller = (*classifier)(nil)

// newClassifier has the methods, and outputs in their order, some of which have methods in common.
func newClassifier(methods []string, outputs ...string) *classifier {
	s := &session{sig: zarpa.Signature{Inputs: []zarpa.ValueInfo{info("input", zarpa.Float64, -1, 2)}}}
	for _, o := range outputs {
		s.sig.Outputs = append(s.sig.Outputs, info(o, zarpa.Int64, -1))
	}
	s.run = func(_ context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		var out []zarpa.Tensor
		for i, o := range outputs {
			if wanted == nil || slices.Contains(wanted, o) {
				t := zarpa.Tensor{Name: o, Type: zarpa.Int64, Shape: in[0].Shape[:1]}
				for range in[0].Shape[0] {
					t.Data = append(t.Data, le(int64(i))...)
				}
				out = append(out, t)
			}
		}
		return out, nil
	}
	return &classifier{s, methods}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	both := newServer(t, newClassifier([]string{"predict", "predict_proba"}, "predict", "predict_proba"), Options{}).Handler()
	several := newServer(t, newClassifier([]string{"predict", "predict_proba"}, "predict", "predict_proba_0", "predict_proba_1", "predict_proba_sum"), Options{}).Handler()
	machine := newServer(t, newClassifier([]string{"predict", "decision_function"}, "predict", "decision_function"), Options{}).Handler()
	scaler := newServer(t, newClassifier([]string{"transform"}, "transform"), Options{}).Handler()
	batched := newServer(t, newClassifier([]string{"predict", "predict_proba"}, "predict", "predict_proba"), Options{MaxBatchRows: 4}).Handler()
	const row = `"data":[[1,2]]`
	score := []struct {
		name string
		sc   scenario
	}{
		{"both", scenario{body: `{` + row + `}`, want: []string{`{"predict_proba":[1]}`}}},
		{"both", scenario{body: `{"method":"predict",` + row + `}`, want: []string{`{"predict":[0]}`}}},
		{"both", scenario{body: `{` + row + `,"method":"predict_proba"}`, want: []string{`{"predict_proba":[1]}`}}},
		{"both", scenario{body: `{` + row + `,"outputs":["predict","predict_proba"]}`, want: []string{`{"predict":[0],"predict_proba":[1]}`}}},
		{"both", scenario{body: `{` + row + `,"method":"fit"}`, status: 400, want: []string{`method \"fit\"`, "it has predict, predict_proba"}}},
		{"both", scenario{body: `{` + row + `,"method":""}`, status: 400, want: []string{"method: empty"}}},
		{"both", scenario{body: `{` + row + `,"method":"predict","outputs":["predict"]}`, status: 400, want: []string{"either by method or by outputs"}}},
		{"batched", scenario{body: `{` + row + `}`, want: []string{`{"predict_proba":[1]}`}}},
		{"several", scenario{body: `{` + row + `}`, want: []string{`{"predict_proba_0":[1],"predict_proba_1":[2]}`}}},
		{"machine", scenario{body: `{` + row + `}`, want: []string{`{"predict":[0]}`}}},
		{"machine", scenario{body: `{"method":"decision_function",` + row + `}`, want: []string{`{"decision_function":[1]}`}}},
		{"scaler", scenario{body: `{` + row + `}`, want: []string{`{"transform":[0]}`}}},
	}
	handlers := map[string]http.Handler{
		"both": both, "several": several, "machine": machine, "scaler": scaler, "batched": batched,
	}
	for _, c := range score {
		c.sc.name = c.name + " " + c.sc.body
		c.sc.check(t, handlers[c.name], "/score")
	}
	for name, want := range map[string]string{"both": `{"predictions":[0]}`, "several": `{"predictions":[0]}`, "machine": `{"predictions":[0]}`, "scaler": `{"predictions":[0]}`} {
		scenario{name: name, body: `{"inputs":[[1,2]]}`, want: []string{want}}.check(t, handlers[name], "/invocations")
	}
	scenario{
		name: "all by the protocol", body: `{"inputs":[{"name":"input","datatype":"FP64","shape":[1,2],"data":[1,2]}]}`,
		want: []string{`"name":"predict"`, `"name":"predict_proba"`},
	}.check(t, both, inferPath)
}
