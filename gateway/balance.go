package gateway

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
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
	wakes    *wakes
	// turns counts the requests that could have been copied, copies those copies that are under way.
	turns  atomic.Uint64
	copies atomic.Int64

	mu          sync.Mutex
	deployments []*deployment // in the order of their names
	// limbo queues the requests of an endpoint that has no deployment yet.
	limbo    *deployment
	waiting  int // in all queues together
	maxQueue int
	closed   bool

	ejection *zarpa.EjectionSpec // nil for none
	log      *slog.Logger

	callers callers
	drain   drain
	budget  budget
	share   share
	bound   atomic.Int64 // maxQueue, for a look without mu
}

// ask is what a request wants of a pool.
type ask struct {
	// deployment is the one that the request names; empty leaves the choice to the weights.
	deployment string
	// spot decides, where it is known, instead of chance.
	spot spot
	// since is when waiting began, and wait how long it may last; see [ask.limit]. deadline, where it
	// is not zero, ends it at the latest.
	since    time.Time
	wait     time.Duration
	deadline time.Time
	// again puts a request that waited its turn before, and got a replica that could not be
	// reached, at the head of the queue.
	again bool
	// mirror marks a copy of a request. It does not count against the queue's length, which is for
	// what clients wait for, and is refused by a deployment with live traffic.
	mirror bool
}

// limit is when a request gives up waiting for a deployment: after its hold where there is no replica
// and a request starts the first, else after the endpoint's queue_wait. The pool's mu is held.
func (a ask) limit(d *deployment) time.Time {
	wait := a.wait
	if d.holds() && !a.mirror {
		wait = d.hold
	}
	at := a.since.Add(wait)
	if !a.deadline.IsZero() && a.deadline.Before(at) {
		return a.deadline
	}
	return at
}

func newPool(endpoint string, m *metrics, w *wakes) *pool {
	p := &pool{endpoint: endpoint, metrics: m, wakes: w, log: slog.New(slog.DiscardHandler), limbo: &deployment{}}
	p.limbo.queue.total = &p.drain.waiting
	return p
}

// acquire takes a place at the least loaded replica of a deployment, and waits for one in a queue
// where all are full or there is none. The caller gives it back with release, once.
//
// Errors: not_found (no such deployment, none with traffic, endpoint removed meanwhile), overloaded
// (queue full, or waited for too long), unavailable (no replica came), timeout (the ask's deadline passed),
// canceled. A copy of a request gets them uncounted.
func (p *pool) acquire(ctx context.Context, a ask) (*replica, *zarpa.Error) {
	p.mu.Lock()
	d, err := p.choose(a)
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
	if p.waiting >= p.maxQueue && !a.again && !a.mirror {
		d.counts.rejected.Add(1)
		p.mu.Unlock()
		return nil, p.reject("queue_full", overloaded(p.endpoint))
	}
	w := &waiter{granted: make(chan grant, 1), pinned: a.deployment != "", mirror: a.mirror, spot: a.spot}
	p.enter(w, d, a.again)
	p.rouse(d)
	if d.holds() && !a.mirror {
		d.series.held.Inc()
	}
	until := a.limit(d)
	p.mu.Unlock()
	return p.await(ctx, w, a, until)
}

func (p *pool) await(ctx context.Context, w *waiter, a ask, until time.Time) (*replica, *zarpa.Error) {
	began := time.Now()
	timer := time.NewTimer(until.Sub(began))
	defer timer.Stop()
	var got grant
	for got == (grant{}) {
		select {
		case got = <-w.granted:
		case <-timer.C:
			if got, until = p.expire(w, a); got == (grant{}) {
				timer.Reset(time.Until(until))
			}
		case <-ctx.Done():
			if got = p.leave(w); got.replica == nil {
				return nil, errLeft()
			}
		}
	}
	if got.err != nil {
		return nil, got.err
	}
	if ctx.Err() != nil { // the client left as its turn came: the replica is not bothered
		if !a.mirror {
			got.replica.in.counts.untimed.Add(1)
		}
		p.release(got.replica)
		return nil, errLeft()
	}
	got.replica.in.series.wait.Observe(time.Since(began).Seconds())
	return got.replica, nil
}

// enter puts a waiter into a deployment's queue. p.mu is held.
func (p *pool) enter(w *waiter, d *deployment, front bool) {
	w.in = d
	d.queue.push(w, front)
	if !w.mirror {
		p.waiting++
	}
}

// exit takes a waiter out of its queue and returns where it was. p.mu is held.
func (p *pool) exit(w *waiter) *deployment {
	d := w.in
	d.queue.remove(w)
	w.in = nil
	if !w.mirror {
		p.waiting--
	}
	return d
}

// leave takes a waiter out of its queue. A grant that came first is returned.
func (p *pool) leave(w *waiter) grant {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.in == nil {
		return <-w.granted // buffered, and already sent under mu
	}
	d := p.exit(w)
	if !w.mirror {
		d.counts.untimed.Add(1)
	}
	p.rouse(d)
	return grant{}
}

// expire ends a wait that has lasted for as long as it may, with the reason, or says until when it
// goes on: a waiter may have come to a deployment that is started for it. A grant that came first is
// returned.
func (p *pool) expire(w *waiter, a ask) (grant, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.in == nil {
		return <-w.granted, time.Time{} // as in leave
	}
	now := time.Now()
	if until := a.limit(w.in); until.After(now) {
		return grant{}, until
	}
	d := p.exit(w)
	p.rouse(d)
	return grant{err: p.starved(d, a, now)}, time.Time{}
}

// starved says why a request that waited for a deployment got no replica. p.mu is held.
func (p *pool) starved(d *deployment, a ask, now time.Time) *zarpa.Error {
	ready := 0
	for _, o := range p.deployments {
		ready += o.usable
	}
	reason, err := "queue_wait", overloaded(p.endpoint)
	late := !a.deadline.IsZero() && !now.Before(a.deadline)
	switch {
	case d.holds():
		reason, err, late = "starting", starting(p.endpoint, d.name), false
	case ready == 0:
		reason, err = "no_replica", noReplica(p.endpoint)
	}
	if a.mirror {
		return err
	}
	d.counts.rejected.Add(1)
	err = p.reject(reason, err)
	if late {
		return zarpa.Errorf(zarpa.Timeout, "endpoint %s: the request waited until its time limit", p.endpoint)
	}
	return err
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
		r.close()
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
	r.in.rescue()
	p.grant(r.in)
	r.benched = time.AfterFunc(benchTime, func() { p.unbench(r) })
}

func (p *pool) unbench(r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.gone || r.listed || r.record.ejected != nil || p.closed {
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
		w := d.queue.first
		p.exit(w)
		p.drain.granted.Add(1)
		w.granted <- grant{replica: r} // buffered: a waiter is granted once
	}
}

// choose picks a deployment: the named one, else one by the asker's spot or chance. Deployments that
// cannot serve are left out unless none can; who would have come to them, and nobody else, goes
// elsewhere. p.mu is held.
func (p *pool) choose(a ask) (*deployment, *zarpa.Error) {
	switch {
	case p.closed:
		return nil, unknownEndpoint(httpx.Score, p.endpoint)
	case a.deployment != "":
		return p.named(a)
	case len(p.deployments) == 0:
		return p.limbo, nil
	case len(p.deployments) == 1 && p.deployments[0].weight > 0:
		return p.deployments[0], nil
	}
	at := a.spot
	if !at.known {
		at.first, at.second = rand.Float64(), rand.Float64()
	}
	d := pick(p.deployments, at.first, anyOf)
	if d == nil {
		return nil, zarpa.Errorf(zarpa.NotFound, "endpoint %q has no deployment with traffic", p.endpoint).
			WithHint("give one a weight, or name one in the header azureml-model-deployment")
	}
	if !able(d) {
		if other := pick(p.deployments, at.second, able); other != nil {
			return other, nil
		}
	}
	return d, nil
}

// named is the deployment that a request names.
func (p *pool) named(a ask) (*deployment, *zarpa.Error) {
	for _, d := range p.deployments {
		if d.name != a.deployment {
			continue
		}
		if a.mirror && d.weight > 0 {
			return nil, zarpa.Errorf(zarpa.Conflict, "deployment %q has live traffic", d.name)
		}
		return d, nil
	}
	return nil, p.noDeployment(a.deployment)
}

func (p *pool) noDeployment(name string) *zarpa.Error {
	return zarpa.Errorf(zarpa.NotFound, "endpoint %q has no deployment %.64q", p.endpoint, name).
		WithHint("zarpa endpoint show %s lists them", p.endpoint)
}

// starting is for a request that waited for a deployment's first replica in vain.
func starting(endpoint, deployment string) *zarpa.Error {
	e := zarpa.Errorf(zarpa.Unavailable, "Deployment %s of endpoint %s is starting: no replica is ready yet", deployment, endpoint).
		WithHint("try again; zarpa explain %s says how far it is", endpoint)
	e.RetryAfter = startingRetry
	return e
}

// startingRetry is when a client may ask again for what is starting.
const startingRetry = 2 * time.Second

func errLeft() *zarpa.Error {
	return zarpa.Errorf(zarpa.Canceled, "the client left")
}
