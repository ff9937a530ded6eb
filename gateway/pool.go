package gateway

import (
	"math/rand/v2"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// deployment is one deployment in a pool. All is guarded by the pool's mu.
type deployment struct {
	name   string
	weight int
	max    int // places at one replica
	series *series

	replicas map[string]*replica // by key; those that are gone stay until their last request ends
	usable   int                 // neither gone nor benched
	inFlight int

	// byLoad lists the usable replicas by their requests in flight; least is not above the first
	// list that is not empty. Taking and giving back move a replica by one list.
	byLoad [][]*replica
	least  int

	queue queue
}

// replica is one replica in a deployment. All but conns, and what never changes, is guarded by
// the pool's mu.
type replica struct {
	key      string // ID and address
	id       string
	in       *deployment
	conns    connPool
	inFlight int
	position int // in byLoad[inFlight]
	listed   bool
	gone     bool        // off the routes
	benched  *time.Timer // set while it is kept out for having refused a connection
}

func (p *pool) newDeployment(name string) *deployment {
	return &deployment{name: name, replicas: map[string]*replica{}, series: p.metrics.series(p.endpoint, name)}
}

// take takes a place at a least loaded replica, any of them, or returns nil when all are full.
func (d *deployment) take() *replica {
	for d.least < len(d.byLoad) && len(d.byLoad[d.least]) == 0 {
		d.least++
	}
	if d.least >= len(d.byLoad) || d.least >= d.max {
		return nil
	}
	list := d.byLoad[d.least]
	r := list[0]
	if len(list) > 1 {
		r = list[rand.IntN(len(list))]
	}
	d.unlist(r)
	r.inFlight++
	d.inFlight++
	d.list(r)
	return r
}

// give takes back a place.
func (d *deployment) give(r *replica) {
	listed := r.listed
	if listed {
		d.unlist(r)
	}
	r.inFlight--
	d.inFlight--
	if listed {
		d.list(r)
	}
}

func (d *deployment) list(r *replica) {
	for len(d.byLoad) <= r.inFlight {
		d.byLoad = append(d.byLoad, nil)
	}
	r.position, r.listed = len(d.byLoad[r.inFlight]), true
	d.byLoad[r.inFlight] = append(d.byLoad[r.inFlight], r)
	d.least = min(d.least, r.inFlight)
}

func (d *deployment) unlist(r *replica) {
	list := d.byLoad[r.inFlight]
	last := len(list) - 1
	list[r.position] = list[last]
	list[r.position].position = r.position
	list[last] = nil
	d.byLoad[r.inFlight] = list[:last]
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
	r.gone = true
	if r.inFlight > 0 {
		return false
	}
	delete(d.replicas, r.key)
	return true
}

// reconcile makes a deployment's replicas those of the route, and returns those to close.
func (d *deployment) reconcile(rd zarpa.RouteDeployment) (idle []*replica) {
	d.weight, d.max = rd.Weight, rd.MaxConcurrency
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
			r = &replica{key: key, id: rr.ID, in: d, conns: connPool{network: network, address: address}}
			d.replicas[key] = r
		case !r.gone:
			continue
		}
		r.gone = false
		r.conns.open()
		d.list(r)
		d.usable++
	}
	for key, r := range d.replicas {
		if !wanted[key] && d.dismiss(r) {
			idle = append(idle, r)
		}
	}
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
	for _, d := range before {
		idle = append(idle, d.reconcile(zarpa.RouteDeployment{Name: d.name})...)
		p.metrics.forget(p.endpoint, d.name)
	}
	p.resettle(before)
	for _, d := range p.deployments {
		p.grant(d)
	}
	p.mu.Unlock()
	for _, r := range idle {
		r.conns.close()
	}
}

// resettle gives the waiters of deployments that cannot serve them to those that can. p.mu is held.
func (p *pool) resettle(removed map[string]*deployment) {
	var move []*waiter
	take := func(d *deployment, pinned bool) {
		var stay []*waiter
		for d.queue.length > 0 {
			if w := d.queue.pop(); w.pinned && !pinned {
				stay = append(stay, w)
			} else {
				move = append(move, w)
			}
		}
		for _, w := range stay {
			d.queue.push(w, false)
		}
	}
	take(p.limbo, true)
	for _, d := range removed {
		take(d, true)
	}
	for _, d := range p.deployments {
		if d.usable == 0 {
			take(d, false)
		}
	}
	for _, w := range move {
		name := ""
		if w.pinned {
			name = w.in.name
		}
		d, err := p.choose(name)
		if err != nil {
			w.in = nil
			p.waiting--
			w.granted <- grant{err: err}
			continue
		}
		w.in = d
		d.queue.push(w, false)
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
		n := 0
		for _, r := range d.replicas {
			if !r.gone {
				n++
			}
		}
		out = append(out, load{d.name, d.queue.length, d.inFlight, n})
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
	in         *deployment
	prev, next *waiter
}

// grant is what a waiter gets: a place, or the reason why there will be none.
type grant struct {
	replica *replica
	err     *zarpa.Error
}

// queue is first in, first out; leaving it from the middle costs the same as from an end.
type queue struct {
	first, last *waiter
	length      int
}

func (q *queue) push(w *waiter, front bool) {
	w.prev, w.next = nil, nil
	switch {
	case q.length == 0:
		q.first, q.last = w, w
	case front:
		w.next, q.first.prev = q.first, w
		q.first = w
	default:
		w.prev, q.last.next = q.last, w
		q.last = w
	}
	q.length++
}

func (q *queue) pop() *waiter {
	w := q.first
	q.remove(w)
	return w
}

func (q *queue) remove(w *waiter) {
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
}
