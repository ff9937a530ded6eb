package gateway

import (
	"math/rand/v2"
	"time"
)

// A replica that is new beside others, or comes back from an ejection, warms up: the requests that it
// has at a time, beside those that a least loaded fellow has, grow in proportion to its time. Such
// replicas stand in a list of their own, so that the choice costs the same for any number of either.

// warmUp begins a replica's slow start, if others serve and nobody waits. It is not listed yet. The
// pool's mu is held.
func (d *deployment) warmUp(r *replica, now time.Time) {
	r.warm = time.Time{}
	if d.slowStart > 0 && d.usable > 0 && d.queue.length == 0 {
		r.warm = now
	}
}

// takeWarming is a replica that warms up, if it is its turn, or nil. The pool's mu is held.
func (d *deployment) takeWarming(now time.Time) *replica {
	r := d.warming[rand.IntN(len(d.warming))]
	elapsed := now.Sub(r.warm)
	switch {
	case d.usable <= len(d.warming): // there are no others
		for len(d.warming) > 0 {
			d.ripen(d.warming[0])
		}
		return nil
	case elapsed >= d.slowStart, d.queue.length > 0: // it is as good as the others now, or needed
		d.ripen(r)
		return nil
	}
	level := d.level()
	if level >= d.max {
		return nil
	}
	room := float64(elapsed)/float64(d.slowStart)*float64(level+1) - float64(r.inFlight)
	if room >= 1 {
		return r
	}
	chances := max(0, room) * float64(len(d.warming))
	if rand.Float64()*(float64(len(d.byLoad[level]))+chances) < chances {
		return r
	}
	return nil
}

// ripen ends a replica's slow start.
func (d *deployment) ripen(r *replica) {
	d.unlist(r)
	r.warm = time.Time{}
	d.list(r)
}

// spare is a replica that warms up and has a place, for a request that would wait else.
func (d *deployment) spare() *replica {
	for _, r := range d.warming {
		if r.inFlight < d.max {
			return r
		}
	}
	return nil
}
