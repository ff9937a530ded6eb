package targettest

import (
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// scalesToNone wants a deployment without replicas to be known, and to come back when it is asked to.
func scalesToNone(t *testing.T, g *ground) {
	d := g.Deployment("none", "blue")
	g.reconcile(t, d, "one ready", ready(d, 1))
	none := scaled(d, 0)
	g.reconcile(t, none, "none left", ready(none, 0))
	if s, err := g.driver.Observe(g.ctx, g.apply(t, none)); err != nil || s.Revision != d.Revision() {
		t.Errorf("Observe of a deployment of no replicas: %+v, %v", s, err)
	}
	g.reconcile(t, d, "one ready again", ready(d, 1))
}

// capacity wants what runs to be counted, with what it asks for.
func capacity(t *testing.T, g *ground) {
	c, ok := g.driver.(zarpa.Capacity)
	if !ok {
		t.Skip("this driver does not tell its capacity")
	}
	tell := func() zarpa.CapacityReport {
		t.Helper()
		r, err := c.Capacity(g.ctx)
		if err != nil {
			t.Fatalf("Capacity: %v", err)
		}
		return r
	}
	d := g.Deployment("capacity", "blue")
	d.Spec.CPU, d.Spec.Memory = 0.25, 64<<20
	if r := tell(); r.Replicas != 0 || r.UsedCPU != 0 || r.UsedMemory != 0 {
		t.Errorf("of nothing: %+v", r)
	}
	two := scaled(d, 2)
	g.reconcile(t, two, "two ready", ready(two, 2))
	r := tell()
	if r.Replicas != 2 || r.UsedCPU != 0.5 || r.UsedMemory != 128<<20 {
		t.Errorf("of two replicas: %+v", r)
	}
	if n := r.Of[zarpa.ReplicasOf(d.Endpoint, d.Spec.Name)]; r.Of != nil && n != 2 {
		t.Errorf("%d of the deployment's: %+v", n, r)
	}
	if slots := r.Slots(); r.MaxReplicas > 0 && slots != r.MaxReplicas-2 {
		t.Errorf("%d more beside two of %d", slots, r.MaxReplicas)
	}
	h := g.apply(t, two)
	g.remove(t, h)
	g.gone(t, h)
	if r := tell(); r.Replicas != 0 || r.UsedCPU != 0 {
		t.Errorf("after the end: %+v", r)
	}
}
