package gateway

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// pool is one endpoint's deployments, replicas and queues. It outlives snapshots: a replica whose
// ID and address stay keeps its connections and its count.
//
// Taking and giving back a replica cost the same for any number of replicas and waiters: a few
// dozen instructions under mu, which is never held over I/O.
type pool struct {
	endpoint string
	metrics  *metrics

	mu          sync.Mutex
	deployments []*deployment
	// limbo queues the requests of an endpoint that has no deployment yet.
	limbo    *deployment
	waiting  int // in all queues together
	maxQueue int
	closed   bool
}

// ask is what a request wants of a pool.
type ask struct {
	// deployment is the one that the request names; empty leaves the choice to the weights.
	deployment string
	// until is when waiting ends.
	until time.Time
	// again puts a request that waited its turn before, and got a replica that could not be
	// reached, at the head of the queue.
	again bool
}

func newPool(endpoint string, m *metrics) *pool {
	return &pool{endpoint: endpoint, metrics: m, limbo: &deployment{}}
}

// acquire takes a place at the least loaded replica of a deployment, and waits for one in a queue
// where all are full or there is none. The caller gives it back with release, once.
//
// Errors: not_found (no such deployment, none with traffic, endpoint removed meanwhile), overloaded
// (queue full, or waited until ask.until), canceled.
func (p *pool) acquire(ctx context.Context, a ask) (*replica, *zarpa.Error) {
	p.mu.Lock()
	d, err := p.choose(a.deployment)
	if err != nil {
		p.mu.Unlock()
		return nil, err
	}
	if d.queue.length == 0 || a.again {
		if r := d.take(); r != nil {
			p.mu.Unlock()
			return r, nil
		}
	}
	if p.waiting >= p.maxQueue && !a.again {
		p.mu.Unlock()
		return nil, p.reject("queue_full", overloaded(p.endpoint))
	}
	w := &waiter{granted: make(chan grant, 1), pinned: a.deployment != ""}
	p.waiting++
	d.queue.push(w, a.again)
	w.in = d
	p.mu.Unlock()
	return p.await(ctx, w, a.until)
}

func (p *pool) await(ctx context.Context, w *waiter, until time.Time) (*replica, *zarpa.Error) {
	began := time.Now()
	timer := time.NewTimer(until.Sub(began))
	defer timer.Stop()
	var got grant
	select {
	case got = <-w.granted:
	case <-timer.C:
		if got = p.leave(w); got.replica == nil && got.err == nil {
			got.err = p.starved()
		}
	case <-ctx.Done():
		if got = p.leave(w); got.replica != nil {
			p.release(got.replica)
		}
		return nil, errLeft()
	}
	if got.err != nil {
		return nil, got.err
	}
	if ctx.Err() != nil { // the client left as its turn came: the replica is not bothered
		p.release(got.replica)
		return nil, errLeft()
	}
	got.replica.in.series.wait.Observe(time.Since(began).Seconds())
	return got.replica, nil
}

// leave takes a waiter out of its queue. A grant that came first is returned.
func (p *pool) leave(w *waiter) grant {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.in == nil {
		return <-w.granted // buffered, and already sent under mu
	}
	w.in.queue.remove(w)
	w.in = nil
	p.waiting--
	return grant{}
}

// starved says why a request that waited got no replica.
func (p *pool) starved() *zarpa.Error {
	p.mu.Lock()
	ready := 0
	for _, d := range p.deployments {
		ready += d.usable
	}
	p.mu.Unlock()
	if ready == 0 {
		return p.reject("no_replica", noReplica(p.endpoint))
	}
	return p.reject("queue_wait", overloaded(p.endpoint))
}

// release gives a place back; the next waiter gets it, or a better one, directly.
func (p *pool) release(r *replica) {
	p.mu.Lock()
	d := r.in
	d.give(r)
	p.grant(d)
	idle := r.gone && r.inFlight == 0
	if idle {
		delete(d.replicas, r.key)
	}
	p.mu.Unlock()
	if idle {
		r.conns.close()
	}
}

// another exchanges a place at r, where a try failed, for one at another replica of the same
// deployment if one is free now; else r stays taken and is returned.
func (p *pool) another(r *replica) *replica {
	p.mu.Lock()
	d := r.in
	listed := r.listed
	if listed {
		d.unlist(r)
	}
	other := d.take()
	if listed {
		d.list(r)
	}
	p.mu.Unlock()
	if other == nil {
		return r
	}
	p.release(r)
	return other
}

// bench keeps a replica that could not be reached out of the choice for a short while. It counts
// on nobody: the control plane may be down.
func (p *pool) bench(r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !r.listed || r.gone {
		return
	}
	r.in.unlist(r)
	r.in.usable--
	r.benched = time.AfterFunc(benchTime, func() { p.unbench(r) })
}

func (p *pool) unbench(r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.gone || r.listed || p.closed {
		return
	}
	r.benched = nil
	r.in.list(r)
	r.in.usable++
	p.grant(r.in)
}

// grant hands free places of a deployment to its waiters, in their order. p.mu is held.
func (p *pool) grant(d *deployment) {
	for d.queue.length > 0 {
		r := d.take()
		if r == nil {
			return
		}
		w := d.queue.pop()
		w.in = nil
		p.waiting--
		w.granted <- grant{replica: r} // buffered: a waiter is granted once
	}
}

// choose picks a deployment: the named one, else one by weight. Deployments without a usable
// replica are left out unless all are without. p.mu is held.
func (p *pool) choose(name string) (*deployment, *zarpa.Error) {
	switch {
	case p.closed:
		return nil, unknownEndpoint(httpx.Score, p.endpoint)
	case name != "":
		for _, d := range p.deployments {
			if d.name == name {
				return d, nil
			}
		}
		return nil, zarpa.Errorf(zarpa.NotFound, "endpoint %q has no deployment %.64q", p.endpoint, name).
			WithHint("zarpa endpoint show %s lists them", p.endpoint)
	case len(p.deployments) == 0:
		return p.limbo, nil
	case len(p.deployments) == 1 && p.deployments[0].weight > 0:
		return p.deployments[0], nil
	}
	usable, all := 0, 0
	for _, d := range p.deployments {
		all += d.weight
		if d.usable > 0 {
			usable += d.weight
		}
	}
	if all == 0 {
		return nil, zarpa.Errorf(zarpa.NotFound, "endpoint %q has no deployment with traffic", p.endpoint).
			WithHint("give one a weight, or name one in the header azureml-model-deployment")
	}
	total := all
	if usable > 0 {
		total = usable
	}
	n := rand.IntN(total)
	for _, d := range p.deployments {
		if usable > 0 && d.usable == 0 {
			continue
		}
		if n -= d.weight; n < 0 {
			return d, nil
		}
	}
	return p.deployments[0], nil // not reached: n is less than the sum
}

func (p *pool) reject(reason string, err *zarpa.Error) *zarpa.Error {
	p.metrics.rejected.WithLabelValues(p.endpoint, reason).Inc()
	return err
}

func overloaded(endpoint string) *zarpa.Error {
	e := zarpa.Errorf(zarpa.Overloaded, "Too many requests for endpoint %s (overloaded)", endpoint)
	e.RetryAfter = time.Second
	return e
}

func noReplica(endpoint string) *zarpa.Error {
	e := zarpa.Errorf(zarpa.Unavailable, "No ready replicas for endpoint %s", endpoint).
		WithHint("zarpa explain %s says why", endpoint)
	e.RetryAfter = time.Second
	return e
}

func errLeft() *zarpa.Error {
	return zarpa.Errorf(zarpa.Canceled, "the client left")
}
