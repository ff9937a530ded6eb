package api

import (
	"context"
	"fmt"
	"slices"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/autoscale"
)

// GetScaling tells what the autoscaler knows of an endpoint's deployments.
func (s *server) GetScaling(ctx context.Context, req GetScalingRequestObject) (GetScalingResponseObject, error) {
	if _, err := s.endpoint(ctx, req.Name); err != nil {
		return nil, err
	}
	list, err := s.Store.Nouns().Scalings.List(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	return GetScaling200JSONResponse(notNil(list)), nil
}

// validate checks all of a spec that can be checked without asking anybody.
func validate(spec zarpa.EndpointSpec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	for _, d := range spec.Deployments {
		if err := autoscale.Validate(d.Scale); err != nil {
			e := zarpa.AsError(err)
			return zarpa.Errorf(e.Code, "deployment %q: %s", d.WithDefaults().Name, e.Message).WithHint("%s", e.Hint)
		}
	}
	return nil
}

// wanted is how many replicas each deployment of an endpoint should have: what the autoscaler said last,
// where there is scale, within the bounds of now.
func (s *server) wanted(r zarpa.EndpointReport, scalings []zarpa.Scaling) map[string]int {
	wanted, policies := map[string]int{}, map[string]autoscale.Policy{}
	for _, d := range r.Effective.Deployments {
		wanted[d.Name] = d.Replicas
		if d.Scale != nil {
			policies[d.Name] = autoscale.NewPolicy(d, s.Now())
			wanted[d.Name] = policies[d.Name].Initial(d.Replicas)
		}
	}
	for _, scaling := range scalings {
		if p, ok := policies[scaling.Deployment]; ok {
			wanted[scaling.Deployment] = p.Clamp(scaling.Wanted)
		}
	}
	return wanted
}

// tellMissing says in the status of a deployment what the autoscaler found no room for, unless its driver
// has said already what is in the way.
func tellMissing(r zarpa.EndpointReport, scalings []zarpa.Scaling) {
	for _, d := range r.Effective.Deployments {
		i := slices.IndexFunc(scalings, func(s zarpa.Scaling) bool { return s.Deployment == d.Name })
		if d.Scale == nil || i < 0 || scalings[i].Missing == 0 {
			continue
		}
		for j := range r.Deployments {
			if o := &r.Deployments[j]; o.Deployment == d.Name && o.Target == d.Target && o.Status.Message == "" {
				o.Status.Message = fmt.Sprintf("more replicas are right, and target %q has no room for %d of them (zarpa explain %s --scaling tells more)",
					d.Target, scalings[i].Missing, r.Endpoint.Name)
			}
		}
	}
}
