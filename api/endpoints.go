package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
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
	report := zarpa.EndpointReport{
		Endpoint: e, Effective: e.Spec.WithDefaults(), Deployments: notNil(seen),
		URLs: s.urls(e),
	}
	if len(ops) > 0 {
		report.Operation = &ops[0]
	}
	scalings, err := s.Store.Nouns().Scalings.List(ctx, e.Name)
	if err != nil {
		return zarpa.EndpointReport{}, err
	}
	report.Phase = phase(report, s.wanted(report, scalings))
	tellMissing(report, scalings)
	return report, nil
}

// phase sums an endpoint up in a word. A replica that starts again after it died before it was ready
// is not counted as on its way: it would be there at one look and gone at the next. want holds how many
// replicas each deployment should have.
func phase(r zarpa.EndpointReport, want map[string]int) zarpa.EndpointPhase {
	wanted, ready, coming, all := 0, 0, 0, 0
	for _, d := range r.Effective.Deployments {
		wanted += want[d.Name]
		for _, o := range r.Deployments {
			if o.Deployment == d.Name && o.Target == d.Target {
				ready += min(o.Status.Ready(o.Status.Revision), want[d.Name])
				all += len(o.Status.Replicas)
				for _, rep := range o.Status.Replicas {
					starts := rep.Phase == zarpa.ReplicaStarting || rep.Phase == zarpa.ReplicaLoading
					if starts && (rep.Last == nil || rep.Last.Ready) {
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
	case len(r.Effective.Deployments) == 0:
		return zarpa.EndpointEmpty
	case wanted == 0:
		return zarpa.EndpointIdle
	case all == 0 && r.Operation != nil && r.Operation.State == zarpa.OperationSucceeded: // it worked, and is about to start again
		return zarpa.EndpointDegraded
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
	if err := validate(apart(spec)); err != nil { // who gets the traffic is checked when all is known
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
		if e.was == nil {
			if err := s.createKeys(ctx, n, req.Name); err != nil {
				return err
			}
		}
		if answer.Operation, err = s.change(ctx, n, change{planned: e, kind: kindOf(e), who: whoOf(ctx), interrupt: value(req.Params.Interrupt)}); err != nil {
			return err
		}
		return s.audit(ctx, n, auditedAs(answer.Operation.Kind), req.Name, answer.Changes...)
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

// auditedAs is what the audit log calls an operation of a kind.
func auditedAs(kind string) string {
	if kind == "deploy" {
		return "endpoint.create"
	}
	return "endpoint." + kind
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
	if err := s.resolveHostname(ctx, n, w.name, &spec); err != nil {
		return p, err
	}
	weigh(&spec, p.was)
	slices.SortFunc(spec.Deployments, func(a, b zarpa.DeploymentSpec) int { return cmp.Compare(a.Name, b.Name) })
	p.next.Spec = spec
	return p, spec.Validate()
}

// resolve fills in what must not change by itself later: the deployment's name, its target, and
// the versions of its models.
func (s *server) resolve(ctx context.Context, n zarpa.Nouns, d *zarpa.DeploymentSpec, pending []string) error {
	full := d.WithDefaults()
	d.Name, d.Target = full.Name, full.Target
	all := d.AllModels()
	for i, model := range all {
		if slices.Contains(pending, model) {
			continue
		}
		var err error
		if all[i], err = s.resolveModel(ctx, n, d.Name, model); err != nil {
			return err
		}
	}
	if d.Model != "" {
		d.Model, d.Models = all[0], all[1:]
	}
	if err := s.resolveCode(ctx, d); err != nil {
		return err
	}
	if err := checkSecrets(ctx, n, *d); err != nil {
		return err
	}
	if _, err := n.Targets.Get(ctx, d.Target); err != nil {
		if errors.Is(err, zarpa.ErrNotFound) {
			return zarpa.Errorf(zarpa.NotFound, "deployment %q: target %q does not exist", d.Name, d.Target).
				WithHint("zarpa target list shows those that do")
		}
		return err
	}
	return s.Reconciler.Check(d.WithDefaults())
}

// resolveCode wants the script and the environment's files to be stored.
func (s *server) resolveCode(ctx context.Context, d *zarpa.DeploymentSpec) error {
	if d.Code != "" {
		code, err := bundle.ReadContent(ctx, s.Blobs, d.Code)
		if err != nil {
			return fmt.Errorf("deployment %q: code: %w", d.Name, err)
		}
		d.Entry = d.WithDefaults().Entry
		if !slices.ContainsFunc(code.Files, func(f zarpa.File) bool { return f.Path == d.Entry }) {
			return zarpa.Errorf(zarpa.Invalid, "deployment %q: entry: %q is not in the code folder, which holds %s", d.Name, d.Entry, someFiles(code)).
				WithHint("name the script by its path within the folder: --entry score.py")
		}
	}
	if d.Environment == nil || d.Environment.Content == "" {
		return nil
	}
	if _, err := bundle.ReadContent(ctx, s.Blobs, d.Environment.Content); err != nil {
		return fmt.Errorf("deployment %q: environment: %w", d.Name, err)
	}
	return nil
}

// someFiles names the first few files of a content.
func someFiles(c zarpa.Content) string {
	const most = 8
	var names []string
	for _, f := range c.Files[:min(most, len(c.Files))] {
		names = append(names, f.Path)
	}
	if len(c.Files) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// resolveModel makes NAME the newest NAME:VERSION, and refuses what is not registered or not allowed.
func (s *server) resolveModel(ctx context.Context, n zarpa.Nouns, deployment, model string) (string, error) {
	ref, err := zarpa.ParseModelRef(model)
	if err != nil {
		return "", err
	}
	m, err := n.Models.Get(ctx, ref)
	if errors.Is(err, zarpa.ErrNotFound) {
		return "", zarpa.Errorf(zarpa.NotFound, "deployment %q: model %s is not registered", deployment, ref).
			WithHint("zarpa model list shows those that are; zarpa model register NAME PATH adds one")
	}
	if err != nil {
		return "", err
	}
	return m.Ref().String(), s.allow(fmt.Sprintf("deployment %q: model %s", deployment, m.Ref()), m.Format)
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

// DeleteEndpoint begins the end of an endpoint, also in the midst of another operation: what that brings
// about is not wanted any more.
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
		was := e
		e.Deleting, e.Updated = true, s.Now().UTC()
		e.Generation++
		if answer.Operation, err = s.change(ctx, n, change{planned: planned{&was, e}, kind: "delete", who: whoOf(ctx), interrupt: true}); err != nil {
			return err
		}
		return s.audit(ctx, n, "endpoint.delete", req.Name, answer.Changes...)
	})
	if err != nil {
		return nil, err
	}
	s.Reconciler.Wake(req.Name)
	return DeleteEndpoint200JSONResponse(answer), nil
}
