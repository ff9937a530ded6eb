package targettest

import (
	"slices"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func adopts(t *testing.T, g *ground) {
	d := scaled(g.Deployment("stays", "blue"), 2)
	h := g.apply(t, d)
	before := g.await(t, h, "ready", ready(d, 2))
	g.reopen(t)
	after, err := g.driver.Observe(g.ctx, h)
	if err != nil {
		t.Fatalf("Observe after a restart: %v", err)
	}
	if !ready(d, 2)(after) {
		t.Fatalf("after a restart: %+v, want both replicas ready at once", after)
	}
	d.Handle = h
	h = g.apply(t, d)
	after = g.await(t, h, "ready", ready(d, 2))
	for _, was := range before.Replicas {
		i := slices.IndexFunc(after.Replicas, func(r zarpa.Replica) bool { return r.ID == was.ID })
		if i < 0 {
			t.Fatalf("replica %s was not taken over: %v", was.ID, ids(after))
		}
		is := after.Replicas[i]
		if is.PID != was.PID || !is.Started.Equal(was.Started) || is.Address != was.Address || is.Restarts != was.Restarts {
			t.Errorf("replica %s was started again: %+v, was %+v", was.ID, is, was)
		}
		if err := g.Call(g.ctx, is.Address, 0); err != nil {
			t.Errorf("replica %s: %v", is.ID, err)
		}
	}
}

func adoptedIsRemoved(t *testing.T, g *ground) {
	d := g.Deployment("leaves", "blue")
	h := g.apply(t, d)
	r := g.await(t, h, "ready", ready(d, 1)).Replicas[0]
	g.reopen(t)
	g.remove(t, h)
	g.gone(t, h)
	if err := g.Call(g.ctx, r.Address, 0); err == nil {
		t.Error("the replica still answers")
	}
}

func adoptedCrashes(t *testing.T, g *ground) {
	d := g.Deployment("falls", "blue")
	h := g.apply(t, d)
	r := g.await(t, h, "ready", ready(d, 1)).Replicas[0]
	g.reopen(t)
	g.Crash(t, g.driver, r)
	s := g.await(t, h, "back", func(s zarpa.DeploymentStatus) bool { return s.Ready("") == 1 && s.Replicas[0].Restarts == 1 })
	if last := s.Replicas[0].Last; last == nil || last.Reason == "" || s.Replicas[0].ID != r.ID {
		t.Errorf("replica %+v, last %+v", s.Replicas[0], last)
	}
}

func diedUnseen(t *testing.T, g *ground) {
	if g.Reopen == nil {
		t.Skip("nothing outlives this driver")
	}
	d := g.Deployment("unseen", "blue")
	h := g.apply(t, d)
	r := g.await(t, h, "ready", ready(d, 1)).Replicas[0]
	closer, ok := g.driver.(interface{ Close() error })
	if !ok {
		t.Skip("this driver cannot be closed")
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	g.Crash(t, g.driver, r)
	g.reopen(t)
	s := g.await(t, h, "back", func(s zarpa.DeploymentStatus) bool {
		return s.Ready("") == 1 && s.Replicas[0].Restarts == 1
	})
	if last := s.Replicas[0].Last; last == nil || !last.Ready || s.Replicas[0].ID != r.ID {
		t.Errorf("replica %+v, last %+v", s.Replicas[0], last)
	}
}

func removalGoesOn(t *testing.T, g *ground) {
	d := scaled(g.Deployment("halfway", "blue"), 2)
	h := g.apply(t, d)
	s := g.await(t, h, "ready", ready(d, 2))
	g.remove(t, h)
	g.reopen(t)
	g.gone(t, h)
	for _, r := range s.Replicas {
		if err := g.Call(g.ctx, r.Address, 0); err == nil {
			t.Errorf("replica %s still answers", r.ID)
		}
	}
}

func replacementGoesOn(t *testing.T, g *ground) {
	d := g.Deployment("midway", "blue")
	old := g.await(t, g.apply(t, d), "ready", ready(d, 1)).Replicas[0]
	d = g.Change(d)
	h := g.apply(t, d)
	g.reopen(t)
	if err := g.Call(g.ctx, old.Address, 0); err != nil {
		t.Errorf("the old replica was stopped before its time: %v", err)
	}
	d.Handle = h
	g.reconcile(t, d, "replaced", ready(d, 1))
}
