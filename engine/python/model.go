package python

import (
	"context"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/inputs"
)

// modelSession is a loaded model without code.
type modelSession struct {
	*session
	signature zarpa.Signature
	checker   *inputs.Checker
}

var _ zarpa.Session = (*modelSession)(nil)

func newModelSession(s *session) *modelSession {
	sig := s.hello.signature()
	return &modelSession{session: s, signature: sig, checker: inputs.New(sig)}
}

// Signature is what the framework, and the file, say of the model.
func (s *modelSession) Signature() zarpa.Signature { return s.signature }

// Methods are those of the object that the model is: its outputs are called after them. None is a
// model that is no such object.
func (s *modelSession) Methods() []string { return s.hello.Signature.Methods }

// Run executes the model in a worker, as [zarpa.Session] says. Its inputs must not change until it
// returns; it returns when ctx ends, at the latest after the grace.
func (s *modelSession) Run(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
	want, err := s.checker.Want(wanted, nil)
	if err != nil {
		return nil, err
	}
	if err := s.checker.Place(in, make([]int, len(s.signature.Inputs)), s.checker.NewSeen()); err != nil {
		return nil, err
	}
	var names []string // nil is all
	if len(wanted) > 0 {
		for _, n := range want {
			names = append(names, s.signature.Outputs[n].Name)
		}
	}
	parts, err := appendRun(in, names)
	if err != nil {
		return nil, err
	}
	var out []zarpa.Tensor
	err = s.ask(ctx, question{kind: kindRun, parts: parts, request: httpx.ID(ctx), check: func(f frame) (err error) {
		out, err = parseTensors(f.payload)
		return err
	}})
	if err != nil {
		return nil, err
	}
	return pick(out, s.signature, want)
}
