package storetest

import (
	"slices"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func deploymentScenarios() []scenario {
	return []scenario{
		{"ReadBackAsPut", deploymentsReadBack},
		{"ListOrdersAndSelects", deploymentsList},
		{"DeleteLooksAtTheKeyAlone", deploymentsDelete},
	}
}

func deploymentsReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	full := observed("iris", "blue", "local")
	ok(t, s.Deployments.Put(ctx, full))
	empty := zarpa.Observed{Endpoint: "rose", Deployment: "blue", Target: "local"}
	ok(t, s.Deployments.Put(ctx, empty))
	s.restart(t)
	all, err := s.Deployments.List(ctx, "")
	ok(t, err)
	same(t, all, []zarpa.Observed{full, empty})
	if !all[1].Handle.IsZero() {
		t.Fatalf("a handle came out of nothing: %+v", all[1].Handle)
	}
	full.Handle, full.Status = zarpa.Handle{Version: 3, Data: []byte("x")}, zarpa.DeploymentStatus{Replicas: []zarpa.Replica{}}
	ok(t, s.Deployments.Put(ctx, full)) // replaces
	all, err = s.Deployments.List(ctx, "iris")
	ok(t, err)
	same(t, all, []zarpa.Observed{full})
}

func deploymentsList(t *testing.T, s *subject) {
	ctx := t.Context()
	expect := func(endpoint string, want ...string) {
		t.Helper()
		all, err := s.Deployments.List(ctx, endpoint)
		ok(t, err)
		var got []string
		for _, o := range all {
			got = append(got, o.Endpoint+"/"+o.Deployment+"/"+o.Target)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("List(%q) = %v, want %v", endpoint, got, want)
		}
	}
	expect("")
	for _, k := range [][3]string{{"b", "blue", "local"}, {"a", "green", "local"}, {"a", "blue", "prod"}, {"a", "blue", "local"}, {"a-b", "blue", "local"}} {
		ok(t, s.Deployments.Put(ctx, observed(k[0], k[1], k[2])))
	}
	expect("", "a/blue/local", "a/blue/prod", "a/green/local", "a-b/blue/local", "b/blue/local")
	expect("a", "a/blue/local", "a/blue/prod", "a/green/local")
	expect("none")
}

func deploymentsDelete(t *testing.T, s *subject) {
	ctx := t.Context()
	key := zarpa.Observed{Endpoint: "iris", Deployment: "blue", Target: "local"}
	ok(t, s.Deployments.Delete(ctx, key))
	for _, target := range []string{"local", "prod"} {
		ok(t, s.Deployments.Put(ctx, observed("iris", "blue", target)))
	}
	ok(t, s.Deployments.Delete(ctx, key))
	ok(t, s.Deployments.Delete(ctx, key))
	all, err := s.Deployments.List(ctx, "")
	ok(t, err)
	same(t, all, []zarpa.Observed{observed("iris", "blue", "prod")})
}

func targetScenarios() []scenario {
	return []scenario{
		{"ReadBackAsPut", targetsReadBack},
		{"ListOrdersByName", targetsList},
		{"DeleteIsForGood", targetsDelete},
	}
}

func targetsReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	_, err := s.Targets.Get(ctx, "local")
	fails(t, err, zarpa.NotFound)
	for _, want := range []zarpa.Target{
		target("local"), // then replaced:
		{Name: "local", Kind: "memory", Created: instant()},
		{Name: "local", Kind: "memory", Created: instant(), Options: map[string]string{}},
	} {
		ok(t, s.Targets.Put(ctx, want))
		s.restart(t)
		got, err := s.Targets.Get(ctx, "local")
		ok(t, err)
		same(t, got, want)
	}
}

func targetsList(t *testing.T, s *subject) {
	ctx := t.Context()
	for _, name := range []string{"prod", "local", "Edge"} {
		ok(t, s.Targets.Put(ctx, target(name)))
	}
	all, err := s.Targets.List(ctx)
	ok(t, err)
	same(t, all, []zarpa.Target{target("Edge"), target("local"), target("prod")})
}

func targetsDelete(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Targets.Delete(ctx, "local"))
	ok(t, s.Targets.Put(ctx, target("local")))
	ok(t, s.Targets.Delete(ctx, "local"))
	_, err := s.Targets.Get(ctx, "local")
	fails(t, err, zarpa.NotFound)
}
