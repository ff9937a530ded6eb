package targettest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func ids(s zarpa.DeploymentStatus) []string {
	var out []string
	for _, r := range s.Replicas {
		out = append(out, r.ID)
	}
	slices.Sort(out)
	return out
}

func applyTwice(t *testing.T, g *ground) {
	d := g.Deployment("twice", "blue")
	d.Handle = g.apply(t, d)
	h := g.apply(t, d)
	first := g.await(t, h, "ready", ready(d, 1))
	d.Handle = h
	h = g.apply(t, d)
	second := g.await(t, h, "ready", ready(d, 1))
	if first.Replicas[0].ID != second.Replicas[0].ID || first.Replicas[0].PID != second.Replicas[0].PID || second.Replicas[0].Restarts != 0 {
		t.Errorf("a second Apply made another replica: %+v, then %+v", first.Replicas, second.Replicas)
	}
}

func applyWithoutHandle(t *testing.T, g *ground) {
	d := g.Deployment("lost", "blue")
	first := g.await(t, g.apply(t, d), "ready", ready(d, 1))
	second := g.await(t, g.apply(t, d), "ready", ready(d, 1))
	if !slices.Equal(ids(first), ids(second)) {
		t.Errorf("replicas %v after the handle was lost, were %v", ids(second), ids(first))
	}
}

func scales(t *testing.T, g *ground) {
	d := g.Deployment("scales", "blue")
	one := g.reconcile(t, d, "one ready", ready(d, 1))
	d = scaled(d, 3)
	three := g.reconcile(t, d, "three ready", ready(d, 3))
	if !slices.Contains(ids(three), ids(one)[0]) {
		t.Errorf("scaling up replaced %v: now %v", ids(one), ids(three))
	}
	d = scaled(d, 1)
	last := g.reconcile(t, d, "one left", ready(d, 1))
	if !slices.Contains(ids(three), ids(last)[0]) {
		t.Errorf("scaling down made a new replica %v out of %v", ids(last), ids(three))
	}
}

func checks(t *testing.T, g *ground) {
	c, ok := g.driver.(zarpa.Checker)
	if !ok {
		t.Skip("this driver checks nothing beforehand")
	}
	d := g.Deployment("checks", "blue")
	if err := c.Check(d.Spec); err != nil {
		t.Errorf("Check of what runs: %v", err)
	}
	d.Spec.Replicas = -1
	if err := c.Check(d.Spec); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("Check of -1 replicas: %v, want invalid", err)
	}
	if _, err := g.driver.Apply(g.ctx, d); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("Apply of -1 replicas: %v, want invalid", err)
	}
}

func observeUnknown(t *testing.T, g *ground) {
	d := g.Deployment("known", "blue")
	h := g.apply(t, d)
	g.await(t, h, "ready", ready(d, 1))
	g.remove(t, h)
	g.gone(t, h)
	for _, unknown := range []zarpa.Handle{h, {}} {
		if _, err := g.driver.Observe(g.ctx, unknown); !errors.Is(err, zarpa.ErrNotFound) {
			t.Errorf("Observe(%+v) = %v, want not_found", unknown, err)
		}
	}
}

func removeUnknown(t *testing.T, g *ground) {
	g.remove(t, zarpa.Handle{})
	d := g.Deployment("once", "blue")
	h := g.apply(t, d)
	g.remove(t, h)
	g.remove(t, h)
	g.gone(t, h)
	g.remove(t, h)
}

func removes(t *testing.T, g *ground) {
	d := scaled(g.Deployment("goes", "blue"), 2)
	h := g.apply(t, d)
	s := g.await(t, h, "ready", ready(d, 2))
	g.remove(t, h)
	g.gone(t, h)
	for _, r := range s.Replicas {
		if err := g.Call(g.ctx, r.Address, 0); err == nil {
			t.Errorf("replica %s still answers after it was removed", r.ID)
		}
	}
}

func appliedWhileRemoved(t *testing.T, g *ground) {
	d := g.Deployment("again", "blue")
	h := g.apply(t, d)
	before := g.await(t, h, "ready", ready(d, 1))
	g.remove(t, h)
	after := g.reconcile(t, d, "ready again", ready(d, 1))
	if slices.Equal(ids(before), ids(after)) {
		t.Errorf("replica %v was told to end and is still ready", ids(after))
	}
}

func canceled(t *testing.T, g *ground) {
	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	d := g.Deployment("never", "blue")
	if _, err := g.driver.Apply(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply with a canceled context: %v", err)
	}
	h := g.apply(t, d)
	g.await(t, h, "ready", ready(d, 1))
	if _, err := g.driver.Observe(ctx, h); !errors.Is(err, context.Canceled) {
		t.Errorf("Observe with a canceled context: %v", err)
	}
	if err := g.driver.Remove(ctx, h); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove with a canceled context: %v", err)
	}
	g.await(t, h, "still ready", ready(d, 1))
}

func many(t *testing.T, g *ground) {
	const n = 4
	errs := make(chan error, n)
	var wg sync.WaitGroup
	handles := make([]zarpa.Handle, n)
	deployments := make([]zarpa.Deployment, n)
	for i := range n {
		deployments[i] = g.Deployment(fmt.Sprintf("many%d", i/2), []string{"blue", "green"}[i%2])
		wg.Go(func() {
			var err error
			if handles[i], err = g.driver.Apply(g.ctx, deployments[i]); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatalf("Apply: %v", err)
	}
	seen := map[string]bool{}
	for i, h := range handles {
		for _, id := range ids(g.await(t, h, "ready", ready(deployments[i], 1))) {
			if seen[id] {
				t.Errorf("replica ID %s is not unique", id)
			}
			seen[id] = true
		}
	}
	g.remove(t, handles[0])
	g.gone(t, handles[0])
	g.await(t, handles[1], "its neighbour stays", ready(deployments[1], 1))
}

func notifies(t *testing.T, g *ground) {
	if _, ok := g.driver.(zarpa.Notifier); !ok {
		t.Skip("this driver tells nobody of changes")
	}
	d := g.Deployment("tells", "blue")
	h := g.apply(t, d)
	g.await(t, h, "ready", ready(d, 1))
	select {
	case key := <-g.keys:
		if key != d.Key() {
			t.Errorf("notified of %q, want %q", key, d.Key())
		}
	case <-g.ctx.Done():
		t.Fatal("never notified of a start")
	}
	for len(g.keys) > 0 {
		<-g.keys
	}
	g.remove(t, h)
	select {
	case <-g.keys:
	case <-g.ctx.Done():
		t.Fatal("never notified of an end")
	}
	g.gone(t, h)
}
