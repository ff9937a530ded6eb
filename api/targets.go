package api

import (
	"context"
	"maps"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

const targetObject = "target/"

// targets opens the drivers of targets that come and go while the server runs.
type targets interface {
	// Open makes the driver of a target and gives it to the reconciler, in place of the one that the target
	// had. invalid names an option that is wrong, and unavailable is a target that cannot be reached: then
	// nothing has changed. Unless check, whether it can be reached is not looked at, nor whether what runs on
	// the target is there. It returns the target with options that it found by itself.
	Open(ctx context.Context, t zarpa.Target, check bool) (zarpa.Target, error)
	// Close takes the driver of a target away, with all that it remembers of replicas.
	Close(name string) error
}

// ListTargets lists where replicas can run.
func (s *server) ListTargets(ctx context.Context, _ ListTargetsRequestObject) (ListTargetsResponseObject, error) {
	list, err := s.Store.Nouns().Targets.List(ctx)
	if err != nil {
		return nil, err
	}
	return ListTargets200JSONResponse(notNil(list)), nil
}

// GetTarget shows one target.
func (s *server) GetTarget(ctx context.Context, req GetTargetRequestObject) (GetTargetResponseObject, error) {
	t, err := s.Store.Nouns().Targets.Get(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	return GetTarget200JSONResponse(t), nil
}

// CreateTarget makes a new one known.
func (s *server) CreateTarget(ctx context.Context, req CreateTargetRequestObject) (CreateTargetResponseObject, error) {
	spec := *req.Body
	if err := zarpa.ValidateName("target", spec.Name); err != nil {
		return nil, err
	}
	s.targeting.Lock()
	defer s.targeting.Unlock()
	if _, err := s.Store.Nouns().Targets.Get(ctx, spec.Name); err == nil {
		return nil, zarpa.Errorf(zarpa.Conflict, "target %q exists already", spec.Name).
			WithHint("zarpa target set %s changes its options", spec.Name)
	}
	t := zarpa.Target{Name: spec.Name, Kind: spec.Kind, Options: spec.Options, Created: s.Now().UTC()}
	t, err := s.openTarget(ctx, zarpa.Target{}, t, !spec.Unchecked)
	if err != nil {
		return nil, err
	}
	return CreateTarget201JSONResponse(t), nil
}

// UpdateTarget changes the options of one.
func (s *server) UpdateTarget(ctx context.Context, req UpdateTargetRequestObject) (UpdateTargetResponseObject, error) {
	spec := *req.Body
	s.targeting.Lock()
	defer s.targeting.Unlock()
	was, err := s.Store.Nouns().Targets.Get(ctx, req.Name)
	switch {
	case err != nil:
		return nil, err
	case was.Name == zarpa.DefaultTarget:
		return nil, zarpa.Errorf(zarpa.Invalid, "target %q has no options", was.Name).WithHint("the flags of zarpa up are its settings")
	case spec.Name != was.Name || spec.Kind != was.Kind:
		return nil, zarpa.Errorf(zarpa.Invalid, "target %q is of the kind %s: name and kind cannot change", was.Name, was.Kind).
			WithHint("add another target, and move the deployments to it")
	}
	t := was
	t.Options = spec.Options
	if t, err = s.openTarget(ctx, was, t, !spec.Unchecked); err != nil {
		return nil, err
	}
	return UpdateTarget200JSONResponse(t), nil
}

// openTarget opens the driver and stores the target; when that fails, what was before is again: nothing,
// where was has no name.
func (s *server) openTarget(ctx context.Context, was, t zarpa.Target, check bool) (zarpa.Target, error) {
	if s.Targets == nil {
		return t, zarpa.Errorf(zarpa.Unavailable, "this server takes no targets besides %q", zarpa.DefaultTarget)
	}
	t, err := s.Targets.Open(ctx, t, check)
	if err != nil {
		return t, err
	}
	var changes []zarpa.Change
	options := map[string]string{}
	maps.Copy(options, was.Options)
	maps.Copy(options, t.Options)
	for _, option := range slices.Sorted(maps.Keys(options)) {
		if from, to := was.Options[option], t.Options[option]; from != to {
			changes = append(changes, zarpa.Change{Field: option, From: from, To: to})
		}
	}
	action, back := "target.create", s.Targets.Close
	if was.Name != "" {
		action = "target.update"
		back = func(string) error {
			_, err := s.Targets.Open(context.WithoutCancel(ctx), was, false)
			return err
		}
	}
	err = s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		if err := n.Targets.Put(ctx, t); err != nil {
			return err
		}
		return s.audit(ctx, n, action, targetObject+t.Name, changes...)
	})
	if err == nil {
		return t, nil
	}
	if failed := back(t.Name); failed != nil {
		s.Log.Error("a target cannot be brought back to what it was", "target", t.Name, "error", failed)
	}
	return t, err
}

// DeleteTarget forgets one that nothing is on.
func (s *server) DeleteTarget(ctx context.Context, req DeleteTargetRequestObject) (DeleteTargetResponseObject, error) {
	if req.Name == zarpa.DefaultTarget {
		return nil, zarpa.Errorf(zarpa.Invalid, "target %q is this machine: it cannot be deleted", req.Name)
	}
	s.targeting.Lock()
	defer s.targeting.Unlock()
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		if _, err := n.Targets.Get(ctx, req.Name); err != nil {
			return err
		}
		if err := abandoned(ctx, n, req); err != nil {
			return err
		}
		if err := n.Targets.Delete(ctx, req.Name); err != nil {
			return err
		}
		return s.audit(ctx, n, "target.delete", targetObject+req.Name)
	})
	if err != nil {
		return nil, err
	}
	if s.Targets == nil {
		return DeleteTarget204Response{}, nil
	}
	return DeleteTarget204Response{}, s.Targets.Close(req.Name)
}

// abandoned is a conflict when a target cannot be deleted: while a deployment is on it or, with force, is to stay
// there.
func abandoned(ctx context.Context, n zarpa.Nouns, req DeleteTargetRequestObject) error {
	on, err := deploymentsOn(ctx, n, req.Name)
	if err != nil {
		return err
	}
	hint := "delete or move its deployments first; where the target is gone for good, --force then forgets what is left there"
	if req.Params.Force != nil && *req.Params.Force {
		hint = "delete or move its deployments first, with --no-wait"
		if on, err = deploymentsFor(ctx, n, req.Name); err != nil {
			return err
		}
	}
	if len(on) == 0 {
		return nil
	}
	return zarpa.Errorf(zarpa.Conflict, "target %q: %s is on it", req.Name, on[0]).WithHint("%s", hint)
}

// deploymentsFor are those that are to be on a target.
func deploymentsFor(ctx context.Context, n zarpa.Nouns, target string) ([]string, error) {
	endpoints, err := n.Endpoints.List(ctx)
	if err != nil {
		return nil, err
	}
	on := []string{}
	for _, e := range endpoints {
		for _, d := range e.Spec.Deployments {
			if !e.Deleting && d.WithDefaults().Target == target {
				on = append(on, e.Name+"/"+d.Name)
			}
		}
	}
	return on, nil
}

// deploymentsOn are those that name a target, and those that still run there.
func deploymentsOn(ctx context.Context, n zarpa.Nouns, target string) ([]string, error) {
	on, err := deploymentsFor(ctx, n, target)
	if err != nil {
		return nil, err
	}
	seen, err := n.Deployments.List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, o := range seen {
		if o.Target == target {
			on = append(on, o.Endpoint+"/"+o.Deployment)
		}
	}
	slices.Sort(on)
	return slices.Compact(on), nil
}

// GetTargetStatus asks a target.
func (s *server) GetTargetStatus(ctx context.Context, req GetTargetStatusRequestObject) (GetTargetStatusResponseObject, error) {
	n := s.Store.Nouns()
	t, err := n.Targets.Get(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	status := zarpa.TargetStatus{Target: t}
	if status.Deployments, err = deploymentsOn(ctx, n, t.Name); err != nil {
		return nil, err
	}
	info, err := s.Reconciler.Describe(ctx, t.Name)
	switch {
	case err != nil:
		status.Problem = zarpa.AsError(err)
	case info.Engine != "":
		status.Info = &info
	}
	if report, err := s.Reconciler.Capacity(ctx, t.Name); err == nil {
		status.Capacity = &report
	}
	return GetTargetStatus200JSONResponse(status), nil
}
