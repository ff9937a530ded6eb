package targettest

import (
	"errors"
	"slices"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// keepsBounds updates in steps of one: one more at a time, then one fewer.
func keepsBounds(t *testing.T, g *ground) {
	const n = 3
	d := scaled(g.Deployment("steps", "blue"), n)
	first := g.reconcile(t, d, "ready", ready(d, n))
	for _, c := range []struct {
		surge, unavailable string
		most, least        int
	}{{"1", "0", n + 1, n}, {"0", "30%", n, n - 1}} {
		d.Spec.Restarted = "with a surge of " + c.surge
		d.Spec.MaxSurge, d.Spec.MaxUnavailable = c.surge, c.unavailable
		last := g.reconcile(t, d, "updated with a surge of "+c.surge, func(s zarpa.DeploymentStatus) bool {
			routed, there := 0, 0
			for _, r := range s.Replicas {
				switch r.Phase {
				case zarpa.ReplicaReady:
					routed++
					there++
				case zarpa.ReplicaDraining:
				default:
					there++
				}
			}
			if routed < c.least || there > c.most {
				t.Fatalf("surge %s, unavailable %s: %d ready of %d that are not on their way out, want at least %d of at most %d: %+v",
					c.surge, c.unavailable, routed, there, c.least, c.most, s.Replicas)
			}
			return ready(d, n)(s)
		})
		for _, id := range ids(first) {
			if slices.Contains(ids(last), id) {
				t.Errorf("replica %s serves both revisions", id)
			}
		}
		first = last
	}
}

// replace marks one replica, by a driver that can.
func (g *ground) replace(t *testing.T, h zarpa.Handle, id string) {
	t.Helper()
	r, ok := g.driver.(zarpa.Replacer)
	if !ok {
		t.Skip("this driver replaces no single replicas")
	}
	for range 2 { // marking twice is marking once
		if err := r.Replace(g.ctx, h, id); err != nil {
			t.Fatalf("Replace %s: %v", id, err)
		}
	}
}

// replacedBy awaits that one replica is another, and that all others are as they were.
func (g *ground) replacedBy(t *testing.T, d zarpa.Deployment, before zarpa.DeploymentStatus, gone string) {
	t.Helper()
	after := g.reconcile(t, d, "one is replaced", func(s zarpa.DeploymentStatus) bool {
		if s.Ready("") < len(before.Replicas) {
			t.Fatalf("fewer than before are ready: %+v", s.Replicas)
		}
		return ready(d, len(before.Replicas))(s) && !slices.Contains(ids(s), gone)
	})
	for _, id := range ids(before) {
		if id != gone && !slices.Contains(ids(after), id) {
			t.Errorf("replica %s is gone, too: %v", id, ids(after))
		}
	}
}

func replacesOne(t *testing.T, g *ground) {
	d := scaled(g.Deployment("one", "blue"), 2)
	d.Spec.MaxSurge, d.Spec.MaxUnavailable = "0", "1" // which is for updates
	h := g.apply(t, d)
	before := g.await(t, h, "ready", ready(d, 2))
	id := before.Replicas[1].ID
	g.replace(t, h, id)
	g.replacedBy(t, d, before, id)
	if r, ok := g.driver.(zarpa.Replacer); ok {
		for _, unknown := range []zarpa.Handle{h, {}} {
			if err := r.Replace(g.ctx, unknown, "nobody-0.0000"); !errors.Is(err, zarpa.ErrNotFound) {
				t.Errorf("Replace of an unknown replica: %v, want not_found", err)
			}
		}
	}
}

func replacesOneAfterRestart(t *testing.T, g *ground) {
	d := g.Deployment("later", "blue")
	h := g.apply(t, d)
	before := g.await(t, h, "ready", ready(d, 1))
	id := before.Replicas[0].ID
	g.replace(t, h, id)
	g.reopen(t)
	g.replacedBy(t, d, before, id)
}
