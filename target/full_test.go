package target_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/memory"
)

// TestOnAFullTargetWhatFitsServes: an endpoint of which not all replicas have room is served by those that
// have, and says so; the others come when there is room.
func TestOnAFullTargetWhatFitsServes(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	driver, err := memory.New(t.Context(), memory.Options{Start: g.starts.start, MaxReplicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(driver.StopAll(ctx), driver.Close()); err != nil {
			t.Error(err)
		}
	})
	g.driver = driver
	r, _ := g.reconcile(t)
	other := endpoint("b", "good:1", 2)
	op := g.want(t, other, "deploy")
	r.Wake("b")
	g.ends(t, r, op)

	g.want(t, endpoint("a", "good:1", 2), "deploy")
	g.reaches(t, r, 1)
	seen, err := g.store.Nouns().Deployments.List(t.Context(), "a")
	if err != nil || len(seen) != 1 || !strings.Contains(seen[0].Status.Message, "no room for 1 more") {
		t.Errorf("%+v, %v", seen, err)
	}
	ops, err := g.store.Nouns().Operations.List(t.Context(), "a", 1)
	if err != nil || ops[0].State != zarpa.OperationRunning {
		t.Errorf("%+v, %v", ops, err)
	}

	other.Generation++
	other.Spec.Deployments[0].Replicas = 1
	g.want(t, other, "update")
	r.Wake("b")
	g.reaches(t, r, 2)
}
