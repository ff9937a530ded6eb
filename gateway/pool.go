package gateway

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// deployment is one deployment in a pool. All is guarded by the pool's mu.
type deployment struct {
	name   string
	weight int
	max    int           // places at one replica
	hold   time.Duration // how long a request waits for the first replica, which it starts; 0 for none
	// control says whether clients may load and unload models.
	control zarpa.ModelControl
	series  *series

	replicas map[string]*replica // by key; those that are gone stay until their last request ends
	usable   int                 // neither gone, benched nor ejected
	out      int                 // ejected
	turned   time.Time           // when the last time of comparison began
	inFlight int
	busy     integral // of inFlight
	roused   bool     // who scales knows that requests wait here for a first replica
	counts   counts

	// byLoad lists the usable replicas by their requests in flight; least is not above the first
	// list that is not empty. Taking and giving back move a replica by one list. Those that warm up
	// for slowStart are in warming instead.
	byLoad    [][]*replica
	least     int
	warming   []*replica
	slowStart time.Duration

	queue queue
}

// replica is one replica in a deployment. All but conns, calls and the counts in record, and what never changes, is guarded by
// the pool's mu.
type replica struct {
	key      string // ID and address
	id       string
	in       *deployment
	conns    connPool
	calls    callPool
	record   record
	inFlight int
	position int       // in byLoad[inFlight], or in warming
	warm     time.Time // when its slow start began; zero when it is over
	listed   bool
	gone     bool        // off the routes
	benched  *time.Timer // set while it is kept out for having refused a connection
}

func (p *pool) newDeployment(name string) *deployment {
	d := &deployment{name: name, replicas: map[string]*replica{}, series: p.metrics.series(p.endpoint, name)}
	d.series.counts = &d.counts
	d.queue.total = &p.drain.waiting
	return d
}

// holds reports whether requests wait for the deployment's first replica.
func (d *deployment) holds() bool { return d.usable == 0 && d.hold > 0 }

// onRoutes is how many replicas are on the routes.
func (d *deployment) onRoutes() (n int) {
	for _, r := range d.replicas {
		if !r.gone {
			n++
		}
	}
	return n
}

// take takes a place at a least loaded replica, any of them, or returns nil when all are full. Those
// that warm up get their part.
func (d *deployment) take() *replica {
	var r *replica
	if len(d.warming) > 0 {
		r = d.takeWarming(time.Now())
	}
	if level := d.level(); r == nil && level < d.max {
		list := d.byLoad[level]
		r = list[0]
		if len(list) > 1 {
			r = list[rand.IntN(len(list))]
		}
	}
	if r == nil {
		r = d.spare()
	}
	if r != nil {
		d.occupy(r)
	}
	return r
}

// level is how many requests the least loaded replicas have; d.max when there is none.
func (d *deployment) level() int {
	for d.least < len(d.byLoad) && len(d.byLoad[d.least]) == 0 {
		d.least++
	}
	if d.least >= len(d.byLoad) {
		return d.max
	}
	return d.least
}

// room reports whether take would find a place.
func (d *deployment) room() bool {
	r := d.take()
	if r == nil {
		return false
	}
	d.give(r)
	return true
}

// occupy takes a place at a replica, whether one is free or not.
func (d *deployment) occupy(r *replica) {
	listed := r.listed
	if listed {
		d.unlist(r)
	}
	r.inFlight++
	d.inFlight++
	d.busy.rise()
	if listed {
		d.list(r)
	}
}

// give takes back a place.
func (d *deployment) give(r *replica) {
	listed := r.listed
	if listed {
		d.unlist(r)
	}
	r.inFlight--
	d.inFlight--
	d.busy.fall()
	if listed {
		d.list(r)
	}
}

func (d *deployment) list(r *replica) {
	r.listed = true
	if !r.warm.IsZero() {
		r.position = len(d.warming)
		d.warming = append(d.warming, r)
		return
	}
	for len(d.byLoad) <= r.inFlight {
		d.byLoad = append(d.byLoad, nil)
	}
	r.position = len(d.byLoad[r.inFlight])
	d.byLoad[r.inFlight] = append(d.byLoad[r.inFlight], r)
	d.least = min(d.least, r.inFlight)
}

func (d *deployment) unlist(r *replica) {
	list := &d.warming
	if r.warm.IsZero() {
		list = &d.byLoad[r.inFlight]
	}
	last := len(*list) - 1
	(*list)[r.position] = (*list)[last]
	(*list)[r.position].position = r.position
	(*list)[last] = nil
	*list = (*list)[:last]
	r.listed = false
}

// dismiss takes a replica off the routes; its requests end as they began. It reports whether
// there are none.
func (d *deployment) dismiss(r *replica) (idle bool) {
	if r.gone {
		return false // waits for its last request already
	}
	if r.listed {
		d.unlist(r)
		d.usable--
	}
	if r.benched != nil {
		r.benched.Stop()
		r.benched = nil
	}
	d.pardon(r)
	r.gone = true
	if r.inFlight > 0 {
		return false
	}
	delete(d.replicas, r.key)
	return true
}

// reconcile makes a deployment's replicas those of the route, and returns those to close.
func (d *deployment) reconcile(rd zarpa.RouteDeployment) (idle []*replica) {
	d.weight, d.max, d.control = rd.Weight, rd.MaxConcurrency, rd.ModelControl
	d.hold, d.slowStart = time.Duration(rd.Hold), time.Duration(rd.SlowStart)
	others := d.usable > 0
	if d.max <= 0 {
		d.max = zarpa.DefaultMaxConcurrency
	}
	wanted := make(map[string]bool, len(rd.Replicas))
	for _, rr := range rd.Replicas {
		key := rr.ID + " " + rr.Address
		wanted[key] = true
		r := d.replicas[key]
		switch {
		case r == nil:
			network, address, _ := splitAddress(rr.Address) // validated before
			r = &replica{key: key, id: rr.ID, in: d, conns: connPool{network: network, address: address}, calls: callPool{network: network, address: address}}
			d.replicas[key] = r
		case !r.gone:
			continue
		}
		r.gone = false
		r.conns.open()
		r.warm = time.Time{}
		if others { // those that come together with the first one are no newer than it
			d.warmUp(r, time.Now())
		}
		d.list(r)
		d.usable++
	}
	for key, r := range d.replicas {
		if !wanted[key] && d.dismiss(r) {
			idle = append(idle, r)
		}
	}
	d.rescue()
	return idle
}

// update brings a route into use: replicas that stay keep all they have, waiters whose deployment
// went away or has no replica are given to another, and free places go to waiters at once.
func (p *pool) update(route zarpa.Route) {
	p.mu.Lock()
	var idle []*replica
	p.maxQueue = route.MaxQueue
	if p.maxQueue <= 0 {
		p.maxQueue = zarpa.DefaultMaxQueue
	}
	p.bound.Store(int64(p.maxQueue))
	p.ejection = route.Ejection
	before := map[string]*deployment{}
	for _, d := range p.deployments {
		before[d.name] = d
	}
	p.deployments = nil
	for _, rd := range route.Deployments {
		d := before[rd.Name]
		if d == nil {
			d = p.newDeployment(rd.Name)
		}
		delete(before, rd.Name)
		idle = append(idle, d.reconcile(rd)...)
		p.deployments = append(p.deployments, d)
	}
	slices.SortFunc(p.deployments, func(a, b *deployment) int { return cmp.Compare(a.name, b.name) })
	for _, d := range before {
		idle = append(idle, d.reconcile(zarpa.RouteDeployment{Name: d.name})...)
		p.metrics.forget(p.endpoint, d.name)
	}
	p.resettle(before)
	for _, d := range p.deployments {
		p.grant(d)
		p.rouse(d)
	}
	p.mu.Unlock()
	for _, r := range idle {
		r.close()
	}
}

// resettle gives the waiters of deployments that cannot serve them to those that can. Who waits for a
// deployment that is started for it stays. p.mu is held.
func (p *pool) resettle(removed map[string]*deployment) {
	var move []*waiter
	take := func(d *deployment, which func(*waiter) bool) {
		for w := d.queue.first; w != nil; {
			next := w.next
			if which(w) {
				p.exit(w)
				w.from = d.name
				move = append(move, w)
			}
			w = next
		}
	}
	all := func(*waiter) bool { return true }
	take(p.limbo, all)
	for _, d := range removed {
		take(d, all)
	}
	for _, d := range p.deployments {
		if !able(d) {
			take(d, func(w *waiter) bool { return !w.pinned })
		}
		if d.weight > 0 {
			take(d, func(w *waiter) bool { return w.mirror })
		}
	}
	for _, w := range move {
		a := ask{spot: w.spot, mirror: w.mirror}
		if w.pinned {
			a.deployment = w.from
		}
		d, err := p.choose(a)
		if err != nil {
			w.granted <- grant{err: err}
			continue
		}
		p.enter(w, d, false)
	}
}

// close ends a pool whose endpoint is gone: waiters get not_found, running requests end.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.update(zarpa.Route{Endpoint: p.endpoint})
}

// sweep closes connections that nobody used for [IdleTimeout].
func (p *pool) sweep(now time.Time) {
	p.mu.Lock()
	var all []*replica
	for _, d := range p.deployments {
		for _, r := range d.replicas {
			all = append(all, r)
		}
	}
	p.mu.Unlock()
	for _, r := range all {
		r.conns.sweep(now)
	}
}

// hangUp closes gRPC's connections to replicas, at the gateway's end.
func (p *pool) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.deployments {
		for _, r := range d.replicas {
			r.calls.close()
		}
	}
}

// load is what a deployment does at one moment.
type load struct {
	deployment                 string
	queued, inFlight, replicas int
}

func (p *pool) state() []load {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]load, 0, len(p.deployments)+1)
	for _, d := range p.deployments {
		out = append(out, load{d.name, d.queue.length, d.inFlight, d.onRoutes()})
	}
	if p.limbo.queue.length > 0 {
		out = append(out, load{"", p.limbo.queue.length, 0, 0})
	}
	return out
}

// waiter is a request in a queue. All but granted is guarded by the pool's mu.
type waiter struct {
	granted    chan grant // of one
	pinned     bool       // named its deployment
	mirror     bool       // a copy, which nobody waits for
	spot       spot
	in         *deployment
	from       string // the deployment that it was taken from
	prev, next *waiter
}

// grant is what a waiter gets: a place, or the reason why there will be none.
type grant struct {
	replica *replica
	err     *zarpa.Error
}

// queue is first in, first out, but for copies, who stand behind all others; entering and leaving cost the
// same wherever that is.
type queue struct {
	first, last *waiter
	copies      *waiter // the first of them
	length      int
	waited      integral      // of length
	total       *atomic.Int64 // of all queues of the pool, copies left out, readable without mu
}

func (q *queue) push(w *waiter, front bool) {
	w.next = nil // whom w comes before
	switch {
	case w.mirror && q.copies == nil:
		q.copies = w
	case w.mirror:
	case front:
		w.next = q.first
	default:
		w.next = q.copies
	}
	w.prev = q.last
	if w.next != nil {
		w.prev, w.next.prev = w.next.prev, w
	} else {
		q.last = w
	}
	if w.prev != nil {
		w.prev.next = w
	} else {
		q.first = w
	}
	q.length++
	q.waited.rise()
	if !w.mirror {
		q.total.Add(1)
	}
}

func (q *queue) remove(w *waiter) {
	if q.copies == w {
		q.copies = w.next
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.last = w.prev
	}
	w.prev, w.next = nil, nil
	q.length--
	q.waited.fall()
	if !w.mirror {
		q.total.Add(-1)
	}
}
