package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
)

// A replica that fails while its fellows do not is kept from requests for a while: ejected. What a
// replica answers may be the request's fault, and then all replicas fail alike; so the failures in a
// row that eject are the more, the more of the fellows' answers are failures:
//
//	as many as would come by chance once in a million, were the replica no worse than its fellows,
//	but at least the endpoint's ejection.failures
//
// A deployment all of whose replicas fail loses none of them; when the last one that is left fails, those
// that are out come back, and it goes. Requests that a replica breaks off or
// leaves without an answer count at once; for answers it takes some of the fellows to compare with.

// verdict is what the end of a try says of its replica.
type verdict int

const (
	neutral verdict = iota // the client left, or the replica is full
	good
	failed // answered with a failure that may be the request's
	broken // broke the connection off, or did not answer in time
)

const (
	// byChance is how seldom a replica that is no worse than its fellows may be ejected.
	byChance = 1e-6
	// tallyTime is the time over which answers are compared, twice that at most.
	tallyTime = 10 * time.Second
	// longestEjection is in ejection times.
	longestEjection = 10
)

// record is what a replica's answers were. Counting an answer that is none of a failure takes no lock.
type record struct {
	answered atomic.Int64 // failures included
	failed   atomic.Int64
	// run are the failures since the last good answer, hard those of them that were broken.
	run, hard atomic.Int64

	// Under the pool's mu:
	old, middle tally // what was counted when the times of comparison began
	ejected     *time.Timer
	serial      int // of the last ejection
	ejections   int
	back        time.Time // from the last ejection
}

type tally struct{ answered, failed int64 }

func (r *record) tally() tally { return tally{r.answered.Load(), r.failed.Load()} }

// judge counts how a try at a replica ended, and ejects the replica if need be.
func (p *pool) judge(ctx context.Context, r *replica, v verdict) {
	switch v {
	case neutral:
		return
	case good:
		r.record.answered.Add(1)
		if r.record.run.Load() != 0 {
			r.record.run.Store(0)
			r.record.hard.Store(0)
		}
		return
	case failed, broken:
	}
	if v == broken {
		r.record.hard.Add(1)
	}
	r.record.failed.Add(1)
	r.record.answered.Add(1)
	run := r.record.run.Add(1)
	p.mu.Lock()
	out := p.eject(r, time.Now())
	p.grant(r.in) // others may have come back
	p.mu.Unlock()
	if out == 0 {
		return
	}
	r.in.series.ejections.Inc()
	p.log.LogAttrs(ctx, slog.LevelWarn, "a replica gets no requests for a while: it failed while others did not",
		slog.String("endpoint", p.endpoint), slog.String("deployment", r.in.name), slog.String("replica", r.id),
		slog.Int64("failures_in_a_row", run), slog.Duration("for", out))
}

// eject takes a replica out of the choice if its failures say so, and returns for how long; 0 for not.
// p.mu is held.
func (p *pool) eject(r *replica, now time.Time) time.Duration {
	d, e := r.in, p.ejection
	d.turn(now)
	if e == nil || e.Failures <= 0 || !r.listed || d.usable+d.out < 2 || r.record.run.Load() < int64(e.Failures) {
		return 0
	}
	if d.usable > 1 && !d.mayEject(e) {
		return 0
	}
	fellows := tally{}
	for _, other := range d.replicas {
		if other != r && !other.gone {
			is := other.record.tally()
			fellows.answered += is.answered - other.record.old.answered
			fellows.failed += is.failed - other.record.old.failed
		}
	}
	if r.record.hard.Load() < needed(e.Failures, fellows, 0) && r.record.run.Load() < needed(e.Failures, fellows, 1) {
		return 0
	}
	if d.usable < 2 { // the last one fails: those that are out are no worse
		d.welcomeAll(now)
		if !d.mayEject(e) {
			return 0
		}
	}
	if now.Sub(r.record.back) > time.Duration(r.record.ejections)*time.Duration(e.Time) {
		r.record.ejections = 0 // it has served for longer than it was out
	}
	r.record.ejections = min(r.record.ejections+1, longestEjection)
	out := time.Duration(e.Time) * time.Duration(r.record.ejections)
	d.unlist(r)
	d.usable--
	d.out++
	r.record.serial++
	serial := r.record.serial
	r.record.ejected = time.AfterFunc(out, func() { p.readmit(r, serial) })
	return out
}

// mayEject reports whether one more replica may be out. The pool's mu is held.
func (d *deployment) mayEject(e *zarpa.EjectionSpec) bool {
	return (d.out+1)*percent <= (d.usable+d.out)*e.MaxPercent
}

// needed is how many failures in a row tell a replica from its fellows. doubt is how many failures and
// how many good answers of the fellows are made up, so that few say little.
func needed(least int, fellows tally, doubt float64) int64 {
	share := (float64(fellows.failed) + doubt) / (float64(fellows.answered) + 1 + doubt)
	if share <= 0 {
		return int64(least)
	}
	return max(int64(least), int64(math.Ceil(math.Log(byChance)/math.Log(share))))
}

// turn begins a new time of comparison when one is over. It is called when something fails, so that
// what was long before does not count. The pool's mu is held.
func (d *deployment) turn(now time.Time) {
	since := now.Sub(d.turned)
	if since < tallyTime {
		return
	}
	for _, r := range d.replicas {
		is := r.record.tally()
		r.record.old = r.record.middle
		if since >= 2*tallyTime {
			r.record.old = is
		}
		r.record.middle = is
	}
	d.turned = now
}

// readmit ends an ejection when its time is over, unless something else has: serial says which it was.
func (p *pool) readmit(r *replica, serial int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.record.ejected == nil || r.record.serial != serial || p.closed {
		return
	}
	r.in.welcome(r, time.Now())
	p.grant(r.in)
}

// welcome takes an ejected replica back. The pool's mu is held.
func (d *deployment) welcome(r *replica, now time.Time) {
	d.pardon(r)
	r.record.back = now
	r.record.run.Store(0)
	r.record.hard.Store(0)
	d.warmUp(r, now)
	d.list(r)
	d.usable++
}

// pardon forgets that a replica is out, without making it usable. The pool's mu is held.
func (d *deployment) pardon(r *replica) {
	if r.record.ejected == nil {
		return
	}
	r.record.ejected.Stop()
	r.record.ejected = nil
	d.out--
}

// rescue takes all ejected replicas back when there is no other. The pool's mu is held.
func (d *deployment) rescue() {
	if d.usable == 0 && d.out > 0 {
		d.welcomeAll(time.Now())
	}
}

// welcomeAll takes all ejected replicas back. The pool's mu is held.
func (d *deployment) welcomeAll(now time.Time) {
	for _, r := range d.replicas {
		if r.record.ejected != nil {
			d.welcome(r, now)
		}
	}
}

// ejected are the replicas that are out, by deployment.
func (p *pool) ejected() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]int, len(p.deployments))
	for _, d := range p.deployments {
		out[d.name] = d.out
	}
	return out
}

// verdict is what a try over HTTP says. A client that is slow to send or to take is no fault of the
// replica's.
func (ex *exchange) verdict(out outcome, fresh bool, err error) verdict {
	if out == unread {
		if fresh {
			return broken
		}
		return neutral // the connection was an old one
	}
	if err != nil {
		switch code := zarpa.AsError(err).Code; {
		case code == zarpa.ModelError, code == zarpa.Timeout && !ex.more:
			return broken
		}
		return neutral
	}
	a := &ex.work.answer
	switch {
	case ex.cut && ex.status == http.StatusBadGateway:
		return broken
	case ex.cut, a.status == http.StatusServiceUnavailable && a.overload():
		return neutral
	case a.status >= http.StatusInternalServerError, a.status == http.StatusFailedDependency:
		return failed
	}
	return good
}

// verdict is what the end of a call says.
func (c *call) verdict(err error) verdict {
	if e, ok := errors.AsType[*zarpa.Error](err); ok {
		if e.Code == zarpa.ModelError || e.Code == zarpa.Timeout && !time.Now().Before(c.deadline) {
			return broken
		}
		return neutral
	}
	switch status.Code(err) {
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.Unavailable:
		return failed
	case codes.ResourceExhausted, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return neutral
	default:
		return good
	}
}
