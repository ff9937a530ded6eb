package api

import (
	"context"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

// keepRollouts is how many rollouts that are over each endpoint keeps.
const keepRollouts = 20

// ListRollouts lists an endpoint's rollouts, newest first.
func (s *server) ListRollouts(ctx context.Context, req ListRolloutsRequestObject) (ListRolloutsResponseObject, error) {
	limit := defaultOperations
	if req.Params.Limit != nil {
		limit = *req.Params.Limit
	}
	if limit < 1 || limit > maxOperations {
		return nil, zarpa.Errorf(zarpa.Invalid, "limit: %d is not between 1 and %d", limit, maxOperations)
	}
	list, err := s.Store.Nouns().Rollouts.List(ctx, req.Name, limit)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 { // those of an endpoint that was deleted are still told
		if _, err := s.endpoint(ctx, req.Name); err != nil {
			return nil, err
		}
	}
	return ListRollouts200JSONResponse(notNil(list)), nil
}

// StartRollout stores a rollout, which its controller takes up.
func (s *server) StartRollout(ctx context.Context, req StartRolloutRequestObject) (StartRolloutResponseObject, error) {
	if err := req.Body.Validate(); err != nil {
		return nil, err
	}
	if _, err := s.endpoint(ctx, req.Name); err != nil {
		return nil, err
	}
	var r zarpa.Rollout
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		e, err := n.Endpoints.Get(ctx, req.Name)
		if err != nil {
			return err
		}
		r, err = begun(e, *req.Body)
		if err != nil {
			return err
		}
		r.ID, r.Created, r.Who = identity("ro"), s.Now().UTC(), whoOf(ctx)
		if err := n.Rollouts.Create(ctx, r); err != nil {
			return err
		}
		if err := n.Rollouts.Prune(ctx, keepRollouts); err != nil {
			return err
		}
		return s.audit(ctx, n, "rollout.start", req.Name, zarpa.Change{Field: "rollout", To: r.ID + " to " + r.Spec.To})
	})
	if err != nil {
		return nil, err
	}
	s.RolloutChanged(req.Name)
	return StartRollout201JSONResponse(r), nil
}

// begun is a rollout of an endpoint before its first step; the spec is valid.
func begun(e zarpa.Endpoint, spec zarpa.RolloutSpec) (zarpa.Rollout, error) {
	if e.Deleting {
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.Conflict, "endpoint %q is being deleted", e.Name)
	}
	before := e.Spec.Weights()
	share, known := before[spec.To]
	_, comparable := before[spec.Compare]
	sum := 0
	for _, w := range before {
		sum += w
	}
	switch {
	case !known:
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.NotFound, "to: endpoint %q has no deployment %.64q", e.Name, spec.To).
			WithHint("make it first: zarpa deploy %s --deployment NAME --model MODEL", e.Name)
	case spec.Compare != "" && !comparable:
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.NotFound, "compare: endpoint %q has no deployment %.64q", e.Name, spec.Compare).
			WithHint("zarpa endpoint show %s shows them", e.Name)
	case share == 100:
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.Conflict, "to: %q has all the traffic already", spec.To)
	case sum == 0:
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.Conflict, "endpoint %q has no traffic that could be moved", e.Name).
			WithHint("give it some first: zarpa traffic %s NAME=100", e.Name)
	case sum != 100: // of a release that took them for proportions
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.Conflict, "endpoint %q has weights that sum to %d", e.Name, sum).
			WithHint("say what they are in per cent first: zarpa traffic %s DEPLOYMENT=PERCENT...", e.Name)
	case spec.Compare != "" && before[spec.Compare] == 0:
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.Conflict, "compare: %q has no traffic to compare with", spec.Compare).
			WithHint("compare with a deployment that has, or leave it out")
	case e.Spec.Mirror != nil && e.Spec.Mirror.Deployment == spec.To:
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.Conflict, "to: %q gets mirrored traffic", spec.To).
			WithHint("end that first: zarpa traffic %s --no-mirror", e.Name)
	}
	named := len(spec.Steps) > 0
	spec = spec.WithDefaults()
	if spec.Steps[0] <= share && named {
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.Invalid, "steps[0]: %d is not above the share that %q has, %d", spec.Steps[0], spec.To, share).
			WithHint("begin with a larger one")
	}
	spec.Steps = slices.DeleteFunc(spec.Steps, func(step int) bool { return step <= share })
	return zarpa.Rollout{
		Endpoint: e.Name, Spec: spec, State: zarpa.RolloutRunning, Step: -1, Before: before, Judgements: []zarpa.Judgement{},
		Reason: "it begins",
	}, nil
}

// SteerRollout pauses, resumes or aborts the rollout that is under way.
func (s *server) SteerRollout(ctx context.Context, req SteerRolloutRequestObject) (SteerRolloutResponseObject, error) {
	var r zarpa.Rollout
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		list, err := n.Rollouts.List(ctx, req.Name, 1)
		if err != nil {
			return err
		}
		if len(list) == 0 || list[0].State.Over() {
			return zarpa.Errorf(zarpa.NotFound, "endpoint %q: no rollout is under way", req.Name).
				WithHint("zarpa rollout %s shows those that were", req.Name)
		}
		changed := false
		if r, changed, err = steered(list[0], req.Action, whoOf(ctx)); err != nil || !changed {
			return err
		}
		if err := n.Rollouts.Update(ctx, r); err != nil {
			return err
		}
		r.Version++
		return s.audit(ctx, n, "rollout."+req.Action, req.Name, zarpa.Change{Field: "rollout." + r.ID + ".state", From: string(list[0].State), To: string(r.State)})
	})
	if err != nil {
		return nil, err
	}
	s.RolloutChanged(req.Name)
	return SteerRollout200JSONResponse(r), nil
}

// steered is a rollout that is not over after an action, and whether it is another than before.
func steered(r zarpa.Rollout, action, who string) (zarpa.Rollout, bool, error) {
	refused := zarpa.Errorf(zarpa.Conflict, "rollout %s: it is %s", r.ID, r.State)
	switch action {
	case "pause":
		if r.State == zarpa.RolloutRollingBack {
			return r, false, refused
		}
		changed := r.State == zarpa.RolloutRunning
		if changed {
			r.State, r.Reason = zarpa.RolloutPaused, "paused by "+who
		}
		return r, changed, nil
	case "resume":
		if r.State == zarpa.RolloutRollingBack {
			return r, false, refused
		}
		changed := r.State == zarpa.RolloutPaused
		if changed {
			// The step's time begins anew, and so does the patience; what was measured stays.
			r.State, r.Reason, r.Measured = zarpa.RolloutRunning, "resumed by "+who, 0
		}
		return r, changed, nil
	case "abort":
		changed := r.State != zarpa.RolloutRollingBack
		if changed {
			r.State, r.Reason = zarpa.RolloutRollingBack, "aborted by "+who
		}
		return r, changed, nil
	}
	return r, false, zarpa.Errorf(zarpa.Invalid, "action: %.40q is not known", action).WithHint("use pause, resume or abort")
}
