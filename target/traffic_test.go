package target_test

import (
	"maps"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target"
)

// weights are those on the routes of an endpoint, with how many replicas have them.
func (r *router) weights(endpoint string) (weights, replicas map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	weights, replicas = map[string]int{}, map[string]int{}
	for _, e := range r.last.Endpoints {
		for _, d := range e.Deployments {
			if e.Endpoint == endpoint {
				weights[d.Name], replicas[d.Name] = d.Weight, len(d.Replicas)
			}
		}
	}
	return weights, replicas
}

func split(generation int64, deployments ...zarpa.DeploymentSpec) zarpa.Endpoint {
	for i := range deployments {
		deployments[i].Target = "local"
	}
	return zarpa.Endpoint{Name: "a", Generation: generation, Spec: zarpa.EndpointSpec{Auth: zarpa.AuthNone, Deployments: deployments}}
}

func share(name, model string, weight int) zarpa.DeploymentSpec {
	return zarpa.DeploymentSpec{Name: name, Model: model, Weight: &weight}
}

func (g *ground) expectWeights(t *testing.T, want map[string]int) {
	t.Helper()
	got, replicas := g.router.weights("a")
	if !maps.Equal(got, want) {
		t.Fatalf("the weights on the routes are %v, want %v", got, want)
	}
	for name, w := range want {
		if w > 0 && replicas[name] == 0 {
			t.Fatalf("%s has %d per cent of the traffic and no replica", name, w)
		}
	}
}

func TestADeploymentThatNeverBecomesReadyNeverGetsTraffic(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	op := g.want(t, split(1, share("blue", "good:1", 100)), "deploy")
	r, stop := g.reconcile(t)
	g.ends(t, r, op)
	g.expectWeights(t, map[string]int{"blue": 100})
	op = g.want(t, split(2, share("blue", "good:1", 50), share("green", "broken:1", 50)), "update")
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationFailed {
		t.Fatalf("%+v", got)
	}
	g.expectWeights(t, map[string]int{"blue": 100, "green": 0})
	stop() // what is in use outlives the control plane
	g.router.last = zarpa.Routes{}
	r, _ = g.reconcile(t)
	op = g.want(t, split(3, share("blue", "good:1", 40), share("green", "other:1", 60)), "update")
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	g.expectWeights(t, map[string]int{"blue": 40, "green": 60})
}

func TestADeploymentThatIsRemovedServesUntilTheOthersDo(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	was := split(1, share("blue", "good:1", 100))
	was.Spec.Deployments[0].MaxConcurrency = 77
	op := g.want(t, was, "deploy")
	running, stop := g.reconcile(t)
	g.ends(t, running, op)
	stop()
	next := split(2, share("green", "broken:1", 100))
	g.want(t, next, "update")
	r := target.New(g.options())
	for range 5 {
		if _, err := r.Step(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	g.expectWeights(t, map[string]int{"blue": 100, "green": 0})
	if left := g.router.last.Endpoints[0].Deployments[1]; left.Name != "blue" || left.MaxConcurrency != 77 {
		t.Errorf("what is to go is on the routes as %+v; want its own max_concurrency", left)
	}
	ops, err := g.store.Nouns().Operations.List(t.Context(), "a", 1)
	if err != nil || ops[0].State == zarpa.OperationSucceeded {
		t.Fatalf("%+v, %v", ops, err)
	}
	ops[0].State = zarpa.OperationFailed
	if err := g.store.Nouns().Operations.Update(t.Context(), ops[0]); err != nil {
		t.Fatal(err)
	}
	op = g.want(t, split(3, share("green", "good:1", 100)), "update")
	running, _ = g.reconcile(t)
	if got := g.ends(t, running, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	g.expectWeights(t, map[string]int{"green": 100})
	seen, err := g.store.Nouns().Deployments.List(t.Context(), "a")
	if err != nil || len(seen) != 1 || seen[0].Deployment != "green" || seen[0].Weight != 100 {
		t.Errorf("observed: %+v, %v", seen, err)
	}
}

func TestAChangeOfTheTrafficWaitsForNoReplicasButThoseThatGain(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	ctx := t.Context()
	op := g.want(t, split(1, share("blue", "good:1", 100), share("green", "other:1", 0)), "deploy")
	r, _ := g.reconcile(t)
	g.ends(t, r, op)
	// blue is broken from now on, and its old replica serves: the update fails.
	op = g.want(t, split(2, share("blue", "broken:1", 100), share("green", "other:1", 0)), "update")
	r.Wake("a")
	g.ends(t, r, op)
	op = g.want(t, split(3, share("blue", "broken:1", 10), share("green", "other:1", 90)), zarpa.OperationTraffic)
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded || got.Phases[0].Name != "route" || len(got.Phases) != 1 {
		t.Fatalf("%+v", got)
	}
	g.expectWeights(t, map[string]int{"blue": 10, "green": 90})
	// An operation that somebody ended stays as it was left.
	op = g.want(t, split(4, share("blue", "broken:1", 100), share("green", "other:1", 0), share("red", "dying:1", 0)), "update")
	op.State, op.Ended = zarpa.OperationFailed, time.Now().UTC()
	op.Error = &zarpa.Error{Code: zarpa.Conflict, Message: "a later change took its place"}
	if err := g.store.Nouns().Operations.Update(ctx, op); err != nil {
		t.Fatal(err)
	}
	later := g.want(t, split(5, share("blue", "good:1", 100), share("green", "other:1", 0)), "update")
	r.Wake("a")
	if got := g.ends(t, r, later); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	got, err := g.store.Nouns().Operations.Get(ctx, op.ID)
	if err != nil || got.State != zarpa.OperationFailed || got.Error.Code != zarpa.Conflict {
		t.Errorf("%+v, %v", got, err)
	}
}
