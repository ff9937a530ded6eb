package target

import (
	"context"
	"maps"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

// settle decides which shares of the traffic are in use, by deployment, from the wanted ones and
// those in use before. A deployment that cannot answer gains nothing: as long as one that shall get
// more is not able, all shares stay as they are, so that nobody is sent where nobody answers. Where
// nothing is in use yet, those that are able share what is wanted of them. Shares that are kept may
// be of deployments that the spec does not have any more: they serve until the others do.
func settle(spec zarpa.EndpointSpec, seen []zarpa.Observed) map[string]int {
	wanted, used, able := spec.Weights(), inUse(seen), capable(spec, seen)
	if len(used) == 0 {
		return among(wanted, able)
	}
	held := map[string]int{}
	for name := range wanted {
		held[name] = 0
	}
	maps.Copy(held, used)
	for name, share := range wanted {
		if share > used[name] && !able[name] {
			return held
		}
	}
	return wanted
}

// inUse are the shares that the records tell of, without those of 0.
func inUse(seen []zarpa.Observed) map[string]int {
	used := map[string]int{}
	for _, o := range seen { // a deployment that moves has two records
		if share := max(used[o.Deployment], o.Weight); share > 0 {
			used[o.Deployment] = share
		}
	}
	return used
}

// capable are the deployments that can answer: with a ready replica, or with one that starts when a
// request comes.
func capable(spec zarpa.EndpointSpec, seen []zarpa.Observed) map[string]bool {
	able := map[string]bool{}
	for _, o := range seen {
		able[o.Deployment] = able[o.Deployment] || o.Status.Ready("") > 0
	}
	for _, d := range spec.Deployments {
		if d.Scale.MayIdle() {
			able[d.Name] = true
		}
	}
	return able
}

// among shares 100 per cent among those of the wanted that are able, in the proportion that is wanted.
// When none is, it is as wanted: requests wait for the first.
func among(wanted map[string]int, able map[string]bool) map[string]int {
	sum, all := 0, 0
	for name, share := range wanted {
		all += share
		if able[name] {
			sum += share
		}
	}
	if sum == 0 || sum == all {
		return wanted
	}
	shares, left, most := map[string]int{}, all, ""
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		shares[name] = 0
		if !able[name] {
			continue
		}
		shares[name] = wanted[name] * all / sum
		left -= shares[name]
		if most == "" || wanted[name] > wanted[most] {
			most = name
		}
	}
	shares[most] += left
	return shares
}

// use notes the shares that the gateway has taken, of all records at once. Nothing is noted before
// somebody is able to answer.
func (s *step) use(ctx context.Context) error {
	able, begun := capable(s.spec, s.seen), len(inUse(s.seen)) > 0
	for name, share := range s.weights {
		begun = begun || share > 0 && able[name]
	}
	if !begun {
		return nil
	}
	var changed []zarpa.Observed
	for i, o := range s.seen {
		if o.Weight != s.weights[o.Deployment] {
			s.seen[i].Weight = s.weights[o.Deployment]
			changed = append(changed, s.seen[i])
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return s.r.o.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		for _, o := range changed {
			if err := n.Deployments.Put(ctx, o); err != nil {
				return err
			}
		}
		return nil
	})
}

// leaving reports whether a record is of a deployment that nobody wants any more, which still has a
// share of the traffic.
func (s *step) leaving(o zarpa.Observed) bool {
	return !s.endpoint.Deleting && !s.wants(o.Deployment) && s.weights[o.Deployment] > 0
}

func (s *step) wants(deployment string) bool {
	return slices.ContainsFunc(s.spec.Deployments, func(d zarpa.DeploymentSpec) bool { return d.Name == deployment })
}

// past finds what deployments were that are not in the spec any more, in what was before the last
// changes. One that nobody remembers has the defaults.
func (r *Reconciler) past(ctx context.Context, endpoint string, names []string) ([]zarpa.DeploymentSpec, error) {
	if len(names) == 0 {
		return nil, nil
	}
	ops, err := r.o.Store.Nouns().Operations.List(ctx, endpoint, 0)
	if err != nil {
		return nil, err
	}
	var specs []zarpa.DeploymentSpec
	for _, name := range names {
		spec := zarpa.DeploymentSpec{Name: name}.WithDefaults()
		for _, op := range ops { // newest first
			if was := deploymentOf(op.Before, name); was != nil {
				spec = was.WithDefaults()
				break
			}
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

func deploymentOf(spec *zarpa.EndpointSpec, name string) *zarpa.DeploymentSpec {
	if spec == nil {
		return nil
	}
	for _, d := range spec.Deployments {
		if d.WithDefaults().Name == name {
			return &d
		}
	}
	return nil
}
