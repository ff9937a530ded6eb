package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

func (s *server) endpoint(ctx context.Context, name string) (zarpa.Endpoint, error) {
	e, err := s.Store.Nouns().Endpoints.Get(ctx, name)
	if errors.Is(err, zarpa.ErrNotFound) {
		return e, zarpa.Errorf(zarpa.NotFound, "endpoint %q does not exist", name).WithHint("zarpa endpoint list shows those that do")
	}
	return e, err
}

// ListEndpoints reports all endpoints.
func (s *server) ListEndpoints(ctx context.Context, _ ListEndpointsRequestObject) (ListEndpointsResponseObject, error) {
	endpoints, err := s.Store.Nouns().Endpoints.List(ctx)
	if err != nil {
		return nil, err
	}
	reports := make([]zarpa.EndpointReport, 0, len(endpoints))
	for _, e := range endpoints {
		report, err := s.report(ctx, e)
		if err != nil {
			return nil, err
		}
		reports = append(reports, report)
	}
	return ListEndpoints200JSONResponse(reports), nil
}

// GetEndpoint reports one endpoint.
func (s *server) GetEndpoint(ctx context.Context, req GetEndpointRequestObject) (GetEndpointResponseObject, error) {
	e, err := s.endpoint(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	report, err := s.report(ctx, e)
	if err != nil {
		return nil, err
	}
	return GetEndpoint200JSONResponse(report), nil
}

func (s *server) report(ctx context.Context, e zarpa.Endpoint) (zarpa.EndpointReport, error) {
	seen, err := s.Store.Nouns().Deployments.List(ctx, e.Name)
	if err != nil {
		return zarpa.EndpointReport{}, err
	}
	ops, err := s.Store.Nouns().Operations.List(ctx, e.Name, 1)
	if err != nil {
		return zarpa.EndpointReport{}, err
	}
	base := s.Server.GatewayURL + "/endpoints/" + e.Name
	report := zarpa.EndpointReport{
		Endpoint: e, Effective: e.Spec.WithDefaults(), Deployments: notNil(seen),
		URLs: zarpa.URLs{Score: base + "/score", Infer: s.Server.GatewayURL + "/v2/models/" + e.Name + "/infer", Swagger: base + "/swagger.json"},
	}
	if len(ops) > 0 {
		report.Operation = &ops[0]
	}
	report.Phase = phase(report)
	return report, nil
}

// phase sums an endpoint up in a word.
func phase(r zarpa.EndpointReport) zarpa.EndpointPhase {
	wanted, ready, coming := 0, 0, 0
	for _, d := range r.Effective.Deployments {
		wanted += d.Replicas
		for _, o := range r.Deployments {
			if o.Deployment == d.Name && o.Target == d.Target {
				ready += min(o.Status.Ready(o.Status.Revision), d.Replicas)
				for _, rep := range o.Status.Replicas {
					if rep.Phase == zarpa.ReplicaStarting || rep.Phase == zarpa.ReplicaLoading {
						coming++
					}
				}
			}
		}
	}
	switch {
	case r.Endpoint.Deleting:
		return zarpa.EndpointDeleting
	case r.Operation != nil && r.Operation.State == zarpa.OperationRunning:
		return zarpa.EndpointUpdating
	case wanted == 0:
		return zarpa.EndpointEmpty
	case ready+coming == 0:
		return zarpa.EndpointFailed
	case ready < wanted:
		return zarpa.EndpointDegraded
	}
	return zarpa.EndpointReady
}

// PutEndpoint makes the endpoint be as described.
func (s *server) PutEndpoint(ctx context.Context, req PutEndpointRequestObject) (PutEndpointResponseObject, error) {
	if err := zarpa.ValidateName("endpoint", req.Name); err != nil {
		return nil, err
	}
	spec := *req.Body
	if spec.Deployments == nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "deployments: missing").WithHint("an endpoint without any is written deployments: []")
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	answer := zarpa.ChangeSet{Endpoint: req.Name}
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		answer.Operation = nil
		var pending []string
		if value(req.Params.DryRun) {
			pending = value(req.Params.Pending)
		}
		e, err := s.plan(ctx, n, wanted{req.Name, spec, pending})
		if err != nil {
			return err
		}
		if err := checkGeneration(e, req.Params.Generation); err != nil {
			return err
		}
		answer.Changes = diff(e)
		if len(answer.Changes) == 0 || value(req.Params.DryRun) {
			return nil
		}
		kind := "update"
		if e.was == nil {
			kind = "deploy"
			if err := s.createKeys(ctx, n, req.Name); err != nil {
				return err
			}
		}
		answer.Operation, err = s.change(ctx, n, e.next, kind)
		return err
	})
	if err != nil {
		return nil, err
	}
	if answer.Operation != nil {
		s.Reconciler.Wake(req.Name)
	}
	answer.Changes = notNil(answer.Changes)
	return PutEndpoint200JSONResponse(answer), nil
}

// planned is an endpoint before (nil when it is new) and after a change.
type planned struct {
	was  *zarpa.Endpoint
	next zarpa.Endpoint
}

// wanted is what a caller asks of an endpoint. The pending models are taken as registered.
type wanted struct {
	name    string
	spec    zarpa.EndpointSpec
	pending []string
}

// plan resolves what the spec names and makes the next generation of the endpoint.
func (s *server) plan(ctx context.Context, n zarpa.Nouns, w wanted) (planned, error) {
	now, spec := s.Now().UTC(), w.spec
	p := planned{next: zarpa.Endpoint{Name: w.name, Generation: 1, Created: now, Updated: now}}
	was, err := n.Endpoints.Get(ctx, w.name)
	switch {
	case err == nil && was.Deleting:
		return p, zarpa.Errorf(zarpa.Conflict, "endpoint %q is being deleted", w.name).WithHint("wait until it is gone, then create it anew")
	case err == nil:
		p.was, p.next.Generation, p.next.Created = &was, was.Generation+1, was.Created
	case !errors.Is(err, zarpa.ErrNotFound):
		return p, err
	}
	spec.Deployments = slices.Clone(spec.Deployments)
	for i := range spec.Deployments {
		if err := s.resolve(ctx, n, &spec.Deployments[i], w.pending); err != nil {
			return p, err
		}
	}
	weigh(spec.Deployments, p.was)
	slices.SortFunc(spec.Deployments, func(a, b zarpa.DeploymentSpec) int { return cmp.Compare(a.Name, b.Name) })
	p.next.Spec = spec
	return p, spec.Validate()
}

// weigh writes down who gets the traffic when nobody says: the deployment that has it already, or
// the first of a new endpoint. A further deployment gets traffic only when told.
func weigh(list []zarpa.DeploymentSpec, was *zarpa.Endpoint) {
	if len(list) < 2 || slices.ContainsFunc(list, func(d zarpa.DeploymentSpec) bool { return d.Weight != nil }) {
		return
	}
	first := 0
	if was != nil {
		before := was.Spec.Deployments
		first = max(0, slices.IndexFunc(list, func(d zarpa.DeploymentSpec) bool {
			return slices.ContainsFunc(before, func(b zarpa.DeploymentSpec) bool {
				return b.Name == d.Name && (b.Weight == nil || *b.Weight > 0)
			})
		}))
	}
	for i := range list {
		weight := 0
		if i == first {
			weight = 100
		}
		list[i].Weight = &weight
	}
}

// resolve fills in what must not change by itself later: the deployment's name, its target, and
// the version of its model.
func (s *server) resolve(ctx context.Context, n zarpa.Nouns, d *zarpa.DeploymentSpec, pending []string) error {
	full := d.WithDefaults()
	d.Name, d.Target = full.Name, full.Target
	if !slices.Contains(pending, d.Model) {
		if err := resolveModel(ctx, n, d); err != nil {
			return err
		}
	}
	if _, err := n.Targets.Get(ctx, d.Target); err != nil {
		if errors.Is(err, zarpa.ErrNotFound) {
			return zarpa.Errorf(zarpa.NotFound, "deployment %q: target %q does not exist", d.Name, d.Target).
				WithHint("zarpa target list shows those that do")
		}
		return err
	}
	return nil
}

// resolveModel makes NAME the newest NAME:VERSION, and refuses what is not registered.
func resolveModel(ctx context.Context, n zarpa.Nouns, d *zarpa.DeploymentSpec) error {
	ref, err := zarpa.ParseModelRef(d.Model)
	if err != nil {
		return err
	}
	m, err := n.Models.Get(ctx, ref)
	if errors.Is(err, zarpa.ErrNotFound) {
		return zarpa.Errorf(zarpa.NotFound, "deployment %q: model %s is not registered", d.Name, ref).
			WithHint("zarpa model list shows those that are; zarpa model register NAME PATH adds one")
	}
	d.Model = m.Ref().String()
	return err
}

func checkGeneration(p planned, want *int64) error {
	have := p.next.Generation - 1
	if want == nil || *want == have {
		return nil
	}
	if *want == 0 {
		return zarpa.Errorf(zarpa.Conflict, "endpoint %q exists already", p.next.Name).WithHint("zarpa endpoint show %s shows it", p.next.Name)
	}
	return zarpa.Errorf(zarpa.Conflict, "endpoint %q has changed meanwhile: it is at generation %d, not %d", p.next.Name, have, *want).
		WithHint("read it again and repeat the change")
}

func (s *server) createKeys(ctx context.Context, n zarpa.Nouns, endpoint string) error {
	sealed, err := sealKeys(s.Seal, endpoint, zarpa.KeyPair{Primary: newKey(), Secondary: newKey()}, s.Now())
	if err != nil {
		return err
	}
	return n.Keys.Put(ctx, sealed)
}

// change stores the next generation and the operation that brings it about.
func (s *server) change(ctx context.Context, n zarpa.Nouns, e zarpa.Endpoint, kind string) (*zarpa.Operation, error) {
	id := make([]byte, 6)
	_, _ = rand.Read(id)
	now := s.Now().UTC()
	op := zarpa.Operation{
		ID: "op-" + hex.EncodeToString(id), Kind: kind, Endpoint: e.Name, Generation: e.Generation,
		State: zarpa.OperationRunning, Created: now,
		Phases: []zarpa.Phase{{Name: "validate", State: zarpa.OperationSucceeded, Started: now, Ended: now}},
	}
	if err := n.Operations.Create(ctx, op); err != nil {
		return nil, err
	}
	return &op, n.Endpoints.Put(ctx, e)
}

// DeleteEndpoint begins the end of an endpoint.
func (s *server) DeleteEndpoint(ctx context.Context, req DeleteEndpointRequestObject) (DeleteEndpointResponseObject, error) {
	if _, err := s.endpoint(ctx, req.Name); err != nil {
		return nil, err
	}
	answer := zarpa.ChangeSet{Endpoint: req.Name, Changes: []zarpa.Change{{Field: "endpoint", From: req.Name}}}
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		e, err := n.Endpoints.Get(ctx, req.Name)
		if err != nil {
			return err
		}
		if e.Deleting {
			ops, err := n.Operations.List(ctx, req.Name, 1)
			if err == nil && len(ops) > 0 {
				answer.Operation = &ops[0]
			}
			return err
		}
		e.Deleting, e.Updated = true, s.Now().UTC()
		e.Generation++
		answer.Operation, err = s.change(ctx, n, e, "delete")
		return err
	})
	if err != nil {
		return nil, err
	}
	s.Reconciler.Wake(req.Name)
	return DeleteEndpoint200JSONResponse(answer), nil
}
