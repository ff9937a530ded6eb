package target

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// observed is a deployment with a share in use, and a replica that is ready or not.
func observed(name string, used int, phase zarpa.ReplicaPhase) zarpa.Observed {
	return zarpa.Observed{Deployment: name, Target: "local", Weight: used, Status: zarpa.DeploymentStatus{
		Replicas: []zarpa.Replica{{ID: name + "-0", Phase: phase}},
	}}
}

// shared is an endpoint whose deployments have the weights.
func shared(weights map[string]int) zarpa.EndpointSpec {
	var spec zarpa.EndpointSpec
	for name, share := range weights {
		spec.Deployments = append(spec.Deployments, zarpa.DeploymentSpec{Name: name, Weight: &share})
	}
	return spec.WithDefaults()
}

func TestSharesAreInUseOnceWhoGainsCanAnswer(t *testing.T) {
	t.Parallel()
	const up, down = zarpa.ReplicaReady, zarpa.ReplicaLoading
	type shares = map[string]int
	for _, c := range []struct {
		name   string
		wanted shares
		seen   []zarpa.Observed
		want   shares
	}{
		{"new, nobody is ready", shares{"blue": 90, "green": 10}, nil, shares{"blue": 90, "green": 10}},
		{"new, one is ready", shares{"blue": 90, "green": 10}, []zarpa.Observed{observed("blue", 0, up), observed("green", 0, down)}, shares{"blue": 100, "green": 0}},
		{"new, two of three", shares{"blue": 60, "green": 30, "red": 10}, []zarpa.Observed{observed("blue", 0, up), observed("red", 0, up)}, shares{"blue": 86, "green": 0, "red": 14}},
		{"a store from before", shares{"blue": 90, "green": 10}, []zarpa.Observed{observed("blue", 0, up), observed("green", 0, up)}, shares{"blue": 90, "green": 10}},
		{"who gains is not ready", shares{"blue": 50, "green": 50}, []zarpa.Observed{observed("blue", 100, up), observed("green", 0, down)}, shares{"blue": 100, "green": 0}},
		{"who gains is ready", shares{"blue": 50, "green": 50}, []zarpa.Observed{observed("blue", 100, up), observed("green", 0, up)}, shares{"blue": 50, "green": 50}},
		{"who loses is not ready", shares{"blue": 0, "green": 100}, []zarpa.Observed{observed("blue", 50, down), observed("green", 50, up)}, shares{"blue": 0, "green": 100}},
		{"nobody gains", shares{"blue": 90, "green": 10}, []zarpa.Observed{observed("blue", 90, up), observed("green", 10, down)}, shares{"blue": 90, "green": 10}},
		{"removed before the other is ready", shares{"green": 100}, []zarpa.Observed{observed("blue", 100, up), observed("green", 0, down)}, shares{"blue": 100, "green": 0}},
		{"removed when the other is ready", shares{"green": 100}, []zarpa.Observed{observed("blue", 100, up), observed("green", 0, up)}, shares{"green": 100}},
		{"no traffic wanted", shares{"blue": 0}, []zarpa.Observed{observed("blue", 100, up)}, shares{"blue": 0}},
		{"moves to another target", shares{"blue": 100}, []zarpa.Observed{observed("blue", 100, up), observed("blue", 0, down)}, shares{"blue": 100}},
	} {
		if got := settle(shared(c.wanted), c.seen); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	least := 0
	zero := shared(shares{"blue": 0, "green": 100})
	for i := range zero.Deployments {
		zero.Deployments[i].Scale = &zarpa.ScaleSpec{Min: &least}
	}
	if got := settle(zero, []zarpa.Observed{observed("blue", 100, up)}); got["green"] != 100 {
		t.Errorf("a deployment that requests start: %v", got)
	}
}

// TestSharesAddUpAndNeverGoWhereNobodyAnswers lets weights and readiness change at random.
func TestSharesAddUpAndNeverGoWhereNobodyAnswers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		seen := []zarpa.Observed{observed("a", 0, zarpa.ReplicaReady), observed("b", 0, zarpa.ReplicaLoading), observed("c", 0, zarpa.ReplicaLoading)}
		for step := range 30 {
			first := random.IntN(101)
			second := random.IntN(101 - first)
			wanted := map[string]int{"a": first, "b": second, "c": 100 - first - second}
			for i := range seen {
				if random.IntN(2) == 0 {
					seen[i].Status.Replicas[0].Phase = []zarpa.ReplicaPhase{zarpa.ReplicaReady, zarpa.ReplicaLoading}[random.IntN(2)]
				}
			}
			spec := shared(wanted)
			got, sum, able := settle(spec, seen), 0, capable(spec, seen)
			begun := len(inUse(seen)) > 0
			for i, o := range seen {
				share := got[o.Deployment]
				sum += share
				if begun && share > o.Weight && !able[o.Deployment] {
					t.Fatalf("seed %d, step %d: %s gains, from %d to %d, and cannot answer", seed, step, o.Deployment, o.Weight, share)
				}
				if begun || able["a"] {
					seen[i].Weight = share
				}
			}
			if sum != 100 {
				t.Fatalf("seed %d, step %d: the shares are %v", seed, step, fmt.Sprint(got))
			}
		}
	}
}
