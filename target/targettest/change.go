package targettest

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// gateway is the least of one: routes, and callers that take them.
type gateway struct {
	mu     sync.Mutex
	routes []string
	next   int
}

func (w *gateway) set(s zarpa.DeploymentStatus) {
	var routes []string
	for _, r := range s.Replicas {
		if r.Phase == zarpa.ReplicaReady {
			routes = append(routes, r.Address)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.routes = routes
}

func (w *gateway) pick() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.routes) == 0 {
		return ""
	}
	w.next++
	return w.routes[w.next%len(w.routes)]
}

// call is one prediction, with the one retry that a gateway has for a connection that failed.
func (w *gateway) call(g *ground, hold time.Duration) error {
	address := w.pick()
	if address == "" {
		return errors.New("no replica is ready")
	}
	err := g.Call(g.ctx, address, hold)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		err = g.Call(g.ctx, w.pick(), hold)
	}
	return err
}

// load calls from several goroutines until the returned function is called, which says how many
// calls were made.
func (w *gateway) load(t *testing.T, g *ground) func() int64 {
	var calls atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := w.call(g, 2*time.Millisecond); err != nil {
					t.Errorf("a request was lost: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	return func() int64 {
		close(done)
		wg.Wait()
		return calls.Load()
	}
}

func replaces(t *testing.T, g *ground) {
	d := scaled(g.Deployment("moves", "blue"), 2)
	var w gateway
	seen := func(ok func(zarpa.DeploymentStatus) bool) func(zarpa.DeploymentStatus) bool {
		return func(s zarpa.DeploymentStatus) bool {
			w.set(s)
			return ok(s)
		}
	}
	first := g.reconcile(t, d, "the first revision is ready", seen(ready(d, 2)))
	stop := w.load(t, g)
	d = g.Change(d)
	second := g.reconcile(t, d, "the second revision is ready", seen(ready(d, 2)))
	d = scaled(d, 1)
	g.reconcile(t, d, "one is left", seen(ready(d, 1)))
	if n := stop(); n == 0 {
		t.Error("no request was made")
	}
	for _, id := range ids(first) {
		if slices.Contains(ids(second), id) {
			t.Errorf("replica %s serves both revisions", id)
		}
	}
}

func drainingIsShown(t *testing.T, g *ground) {
	d := g.Deployment("drains", "blue")
	old := g.await(t, g.apply(t, d), "ready", ready(d, 1)).Replicas[0]
	d = g.Change(d)
	h := g.apply(t, d)
	s := g.await(t, h, "the new one is ready", func(s zarpa.DeploymentStatus) bool { return s.Ready(d.Revision()) == 1 })
	i := slices.IndexFunc(s.Replicas, func(r zarpa.Replica) bool { return r.ID == old.ID })
	if i < 0 || s.Replicas[i].Phase != zarpa.ReplicaDraining {
		t.Fatalf("the old replica is not shown as draining: %+v", s.Replicas)
	}
	if err := g.Call(g.ctx, old.Address, 0); err != nil {
		t.Errorf("a draining replica was stopped before an Apply: %v", err)
	}
	d.Handle = h
	g.reconcile(t, d, "the old one is gone", ready(d, 1))
}

func changedBack(t *testing.T, g *ground) {
	d := g.Deployment("back", "blue")
	before := g.await(t, g.apply(t, d), "ready", ready(d, 1))
	changed := g.Change(d)
	g.await(t, g.apply(t, changed), "the new one is ready", func(s zarpa.DeploymentStatus) bool { return s.Ready(changed.Revision()) == 1 })
	after := g.reconcile(t, d, "the old one alone is ready", ready(d, 1))
	if !slices.Equal(ids(before), ids(after)) {
		t.Errorf("replica %v was replaced by %v though it was ready", ids(before), ids(after))
	}
}

func brokenRevision(t *testing.T, g *ground) {
	d := g.Deployment("breaks", "blue")
	old := g.await(t, g.apply(t, d), "ready", ready(d, 1)).Replicas[0]
	broken := g.Broken(d)
	g.reconcile(t, broken, "the broken one failed twice", func(s zarpa.DeploymentStatus) bool {
		if s.Ready(d.Revision()) != 1 {
			t.Fatalf("the old replica is not ready any more: %+v", s.Replicas)
		}
		return slices.ContainsFunc(s.Replicas, func(r zarpa.Replica) bool {
			return r.Revision == broken.Revision() && r.Restarts >= 1 && r.Last != nil
		})
	})
	if err := g.Call(g.ctx, old.Address, 0); err != nil {
		t.Errorf("the old replica does not answer: %v", err)
	}
	after := g.reconcile(t, d, "the broken one is gone", ready(d, 1))
	if after.Replicas[0].ID != old.ID || after.Replicas[0].Restarts != 0 {
		t.Errorf("the old replica was replaced: %+v", after.Replicas)
	}
}

// backsOff watches the times at which a broken replica is started again, until one is four times as long as
// another. They are longer than the delays by the time that it takes to hear of a death, which is not always the same.
func backsOff(t *testing.T, g *ground) {
	d := g.Broken(g.Deployment("delays", "blue"))
	var delays []time.Duration
	last := -1
	g.reconcile(t, d, "a delay that has grown fourfold", func(s zarpa.DeploymentStatus) bool {
		for _, r := range s.Replicas {
			if r.Phase == zarpa.ReplicaBackoff && r.Last != nil && r.Restarts > last {
				last = r.Restarts
				delays = append(delays, r.NextStart.Sub(r.Last.At))
			}
		}
		return len(delays) > 0 && slices.Max(delays) >= 4*slices.Min(delays)
	})
	t.Logf("delays: %v", delays)
}

func brokenSaysWhy(t *testing.T, g *ground) {
	d := g.Broken(g.Deployment("why", "blue"))
	s := g.reconcile(t, d, "failed", func(s zarpa.DeploymentStatus) bool {
		return len(s.Replicas) == 1 && s.Replicas[0].Phase == zarpa.ReplicaBackoff && s.Replicas[0].Last != nil
	})
	r := s.Replicas[0]
	if r.Last.Reason == "" || r.Last.Ready || r.Last.Code == 0 || r.Message == "" || s.Message == "" {
		t.Errorf("nobody learns why: last %+v, replica %q, deployment %q", r.Last, r.Message, s.Message)
	}
	if len(r.Last.Log) > 20 {
		t.Errorf("%d lines of log, at most 20 are kept", len(r.Last.Log))
	}
}

func crashes(t *testing.T, g *ground) {
	d := g.Deployment("crashes", "blue")
	h := g.apply(t, d)
	before := g.await(t, h, "ready", ready(d, 1)).Replicas[0]
	g.Crash(t, g.driver, before)
	after := g.await(t, h, "back", func(s zarpa.DeploymentStatus) bool {
		return s.Ready("") == 1 && s.Replicas[0].Restarts == 1
	}).Replicas[0]
	if after.ID != before.ID {
		t.Errorf("replica %s came back as %s", before.ID, after.ID)
	}
	if after.Last == nil || !after.Last.Ready || after.Last.Reason == "" || after.Last.At.IsZero() {
		t.Errorf("how the run ended is not kept: %+v", after.Last)
	}
	if err := g.Call(g.ctx, after.Address, 0); err != nil {
		t.Errorf("the replica that came back does not answer: %v", err)
	}
}

func removeDrains(t *testing.T, g *ground) {
	d := g.Deployment("ends", "blue")
	h := g.apply(t, d)
	r := g.await(t, h, "ready", ready(d, 1)).Replicas[0]
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	answer, wrote := make(chan error, 1), make(chan struct{})
	sent := sync.OnceFunc(func() { close(wrote) })
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { sent() }})
	go func() {
		answer <- g.Call(traced, r.Address, 700*time.Millisecond)
		sent() // by something else than HTTP
	}()
	<-wrote
	// a second request, begun later and answered, tells that the first is under way
	if err := g.Call(g.ctx, r.Address, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	g.remove(t, h)
	if err := <-answer; err != nil {
		t.Errorf("a request that was under way was lost: %v", err)
	}
	g.gone(t, h)
}
