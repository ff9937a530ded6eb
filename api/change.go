package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// change is a planned change and how it is made.
type change struct {
	planned
	kind string // of the operation
	who  string
	// interrupt takes the place of an operation that runs, whatever it is at.
	interrupt bool
}

// identity makes an ID of a kind: "op-1f…".
func identity(kind string) string {
	id := make([]byte, 6)
	_, _ = rand.Read(id) // crypto/rand never fails: it ends the program
	return kind + "-" + hex.EncodeToString(id)
}

// change stores the next generation and the operation that brings it about.
func (s *server) change(ctx context.Context, n zarpa.Nouns, c change) (*zarpa.Operation, error) {
	now := s.Now().UTC()
	op := zarpa.Operation{
		ID: identity("op"), Kind: c.kind, Endpoint: c.next.Name, Generation: c.next.Generation,
		State: zarpa.OperationRunning, Created: now, Who: c.who,
		Phases: []zarpa.Phase{{Name: "validate", State: zarpa.OperationSucceeded, Started: now, Ended: now}},
	}
	if c.was != nil {
		op.Before = &c.was.Spec
	}
	ended, err := s.supersede(ctx, n, c)
	if err != nil {
		return nil, err
	}
	if ended != "" && ended != zarpa.OperationTraffic && op.Kind == zarpa.OperationTraffic {
		op.Kind = "update" // it brings about what the other one had begun, too
	}
	if err := n.Operations.Create(ctx, op); err != nil {
		return nil, err
	}
	return &op, n.Endpoints.Put(ctx, c.next)
}

// tookItsPlace is why an operation ended before its time.
const tookItsPlace = "a later change took its place"

// supersede ends the operation that runs, and returns its kind: when the change interrupts, and when
// it only waits for an environment, which may take half an hour. Any other stays and is in the way.
func (s *server) supersede(ctx context.Context, n zarpa.Nouns, c change) (kind string, err error) {
	ops, err := n.Operations.List(ctx, c.next.Name, 1)
	if err != nil || len(ops) == 0 || ops[0].State != zarpa.OperationRunning {
		return "", err
	}
	op, now := ops[0], s.Now().UTC()
	if !c.interrupt && !builds(op) {
		return "", nil
	}
	op.Phases = slices.Clone(op.Phases)
	for i := range op.Phases {
		if ph := &op.Phases[i]; ph.State == zarpa.OperationRunning {
			ph.State, ph.Ended, ph.Cause = zarpa.OperationFailed, now, tookItsPlace
		}
	}
	op.State, op.Ended = zarpa.OperationFailed, now
	op.Error = zarpa.Errorf(zarpa.Conflict, tookItsPlace).WithHint("zarpa explain %s shows it", op.Endpoint)
	return op.Kind, n.Operations.Update(ctx, op)
}

// builds reports whether an operation waits for environments and nothing else.
func builds(op zarpa.Operation) bool {
	waits := false
	for _, ph := range op.Phases {
		if ph.State != zarpa.OperationRunning {
			continue
		}
		if ph.Name != "environment" {
			return false
		}
		waits = true
	}
	return waits
}

// kindOf is the kind of the operation that makes a change.
func kindOf(p planned) string {
	switch {
	case p.was == nil:
		return "deploy"
	case maps.Equal(flatten(apart(p.was.Spec)), flatten(apart(p.next.Spec))):
		return zarpa.OperationTraffic
	}
	return "update"
}

// apart is a spec without what only says who gets the traffic.
func apart(spec zarpa.EndpointSpec) zarpa.EndpointSpec {
	spec = spec.WithDefaults()
	spec.Default, spec.Mirror, spec.Sticky = "", nil, ""
	for i := range spec.Deployments { // WithDefaults has copied them
		spec.Deployments[i].Weight = nil
	}
	return spec
}

// weigh writes down who gets the traffic where nobody says: the deployment that has it already, or
// the first of a new endpoint. A further deployment gets traffic only when told.
func weigh(spec *zarpa.EndpointSpec, was *zarpa.Endpoint) {
	list := spec.Deployments
	if len(list) < 2 || spec.Default != "" {
		return
	}
	zero := 0
	if slices.ContainsFunc(list, func(d zarpa.DeploymentSpec) bool { return d.Weight != nil }) {
		rest := *spec
		rest.Deployments = slices.DeleteFunc(slices.Clone(list), func(d zarpa.DeploymentSpec) bool { return d.Weight == nil && isNew(d, was) })
		if was == nil || len(rest.Deployments) == len(list) || rest.Validate() != nil {
			return // they say it all, or need the others to
		}
		for i, d := range list {
			if d.Weight == nil && isNew(d, was) {
				list[i].Weight = &zero
			}
		}
		return
	}
	first := 0
	if was != nil {
		before := was.Spec.Weights()
		first = max(0, slices.IndexFunc(list, func(d zarpa.DeploymentSpec) bool { return before[d.Name] > 0 }))
	}
	for i := range list {
		weight := 0
		if i == first {
			weight = 100
		}
		list[i].Weight = &weight
	}
}

func isNew(d zarpa.DeploymentSpec, was *zarpa.Endpoint) bool {
	return was == nil || !slices.ContainsFunc(was.Spec.Deployments, func(b zarpa.DeploymentSpec) bool { return b.Name == d.Name })
}

// UndoEndpoint goes back to what was before the last change.
func (s *server) UndoEndpoint(ctx context.Context, req UndoEndpointRequestObject) (UndoEndpointResponseObject, error) {
	if _, err := s.endpoint(ctx, req.Name); err != nil {
		return nil, err
	}
	answer := zarpa.ChangeSet{Endpoint: req.Name}
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		answer.Operation = nil
		ops, err := n.Operations.List(ctx, req.Name, 1)
		if err != nil {
			return err
		}
		if len(ops) == 0 || ops[0].Before == nil {
			return zarpa.Errorf(zarpa.Conflict, "endpoint %q: nothing was before its last change", req.Name).
				WithHint("zarpa endpoint delete %s removes it", req.Name)
		}
		e, err := s.plan(ctx, n, wanted{name: req.Name, spec: *ops[0].Before})
		if err != nil {
			return err
		}
		if answer.Changes = diff(e); len(answer.Changes) == 0 {
			return nil
		}
		if answer.Operation, err = s.change(ctx, n, change{planned: e, kind: kindOf(e), who: whoOf(ctx), interrupt: true}); err != nil {
			return err
		}
		return s.audit(ctx, n, "endpoint.undo", req.Name, answer.Changes...)
	})
	if err != nil {
		return nil, err
	}
	if answer.Operation != nil {
		s.Reconciler.Wake(req.Name)
	}
	answer.Changes = notNil(answer.Changes)
	return UndoEndpoint200JSONResponse(answer), nil
}

// WeightChange gives an endpoint's deployments other shares of the traffic; one that is not named
// gets none.
type WeightChange struct {
	Endpoint string
	Weights  map[string]int
	// Who asks: a part of the server that acts by itself.
	Who string
	// Interrupt takes the place of an operation that runs; else that is a conflict.
	Interrupt bool
}

// SetWeights returns the function that changes weights and nothing else, for the parts of the server
// that do so by themselves. Weights that are wanted already are no change. Errors: not_found, conflict
// while an operation runs or when the endpoint is being deleted, invalid.
func SetWeights(store zarpa.Store, wake func(endpoint string), now func() time.Time) func(context.Context, WeightChange) error {
	s := &server{Options: Options{Store: store, Now: now}}
	return func(ctx context.Context, c WeightChange) error {
		changed := false
		err := store.Atomically(ctx, func(n zarpa.Nouns) error {
			var err error
			changed, err = s.setWeights(ctx, n, c)
			return err
		})
		if err == nil && changed {
			wake(c.Endpoint)
		}
		return err
	}
}

func (s *server) setWeights(ctx context.Context, n zarpa.Nouns, c WeightChange) (bool, error) {
	e, err := n.Endpoints.Get(ctx, c.Endpoint)
	if err != nil {
		return false, err
	}
	if e.Deleting {
		return false, zarpa.Errorf(zarpa.Conflict, "endpoint %q is being deleted", c.Endpoint)
	}
	next := e
	next.Generation, next.Updated = e.Generation+1, s.Now().UTC()
	next.Spec.Deployments = slices.Clone(e.Spec.Deployments)
	for i, d := range next.Spec.Deployments {
		weight := c.Weights[d.WithDefaults().Name]
		next.Spec.Deployments[i].Weight = &weight
	}
	if m := next.Spec.Mirror; m != nil && c.Weights[m.Deployment] > 0 {
		next.Spec.Mirror = nil // it gets live traffic from now on
	}
	if err := next.Spec.Validate(); err != nil {
		return false, err
	}
	if maps.Equal(e.Spec.Weights(), next.Spec.Weights()) {
		return false, nil
	}
	p := planned{&e, next}
	if _, err = s.change(ctx, n, change{planned: p, kind: zarpa.OperationTraffic, who: c.Who, interrupt: c.Interrupt}); err != nil {
		return false, err
	}
	return true, n.Audits.Append(ctx, zarpa.AuditEntry{
		At: s.Now().UTC(), Who: c.Who, Action: "endpoint." + zarpa.OperationTraffic, Object: c.Endpoint, Changes: diff(p),
	})
}
