package score

import "time"

// pace knows what a model's runs cost and when the clients that were answered come back, and
// decides by that when a batch begins. It reads no clock.
type pace struct {
	maxDelay time.Duration
	cost     costs
	back     returns
}

// reason is why a batch began, as the metrics name it.
type reason int

const (
	keepWaiting    reason = iota
	reasonFull            // no further request fits
	reasonIdle            // nothing was worth waiting for
	reasonLate            // those who were waited for did not come in time
	reasonDelay           // MaxBatchDelay had passed
	reasonDeadline        // a request's time limit left no more time
	reasonAlone           // a request that shares no run
	numReasons
)

var reasonNames = [numReasons]string{"", "full", "idle", "late", "delay", "deadline", "alone"}

// gathering is a batch that could begin now.
type gathering struct {
	requests int
	rows     int64
	full     bool
	since    time.Time // since when it could have begun; zero when it could not before
	deadline time.Time // the earliest of its requests' time limits; zero for none
}

// decide says why g begins now, or until when it waits unless somebody comes or leaves before. It
// is asked only while a run may begin.
//
// Waiting for e more requests takes their time to come, w, from each of the k+e in the batch. It
// saves the fixed cost of a second run to the e, who would have to wait for the first run to end:
// it is worth it while w·(k+e) ≤ e·fixed. Where all come back within the fixed cost of a run, it
// also saves the rest, fixed-w, to all in the next round, and that counts as well. Expected are
// clients that were just answered, and only as far as their return can be told more exactly than
// the fixed cost is long: who sends one request after the other, and steady traffic, is not waited
// for.
func (p *pace) decide(g gathering, now time.Time) (reason, time.Time) {
	if g.full {
		return reasonFull, now
	}
	until := p.worthWaiting(g.requests, now)
	if p.maxDelay <= 0 || !until.After(now) {
		if !g.since.IsZero() && p.back.overdue(now) {
			return reasonLate, now
		}
		return reasonIdle, now
	}
	latest := now.Add(p.maxDelay)
	if !g.since.IsZero() {
		latest = g.since.Add(p.maxDelay)
	}
	if !g.deadline.IsZero() {
		if d := g.deadline.Add(-p.cost.expect(g.rows)); d.Before(latest) {
			if !now.Before(d) {
				return reasonDeadline, now
			}
			latest = d
		}
	}
	if !now.Before(latest) {
		return reasonDelay, now
	}
	if latest.Before(until) {
		until = latest
	}
	return keepWaiting, until
}

// worthWaiting is the time until which k requests should wait for others; now or before when they
// should not.
func (p *pace) worthWaiting(k int, now time.Time) time.Time {
	var until time.Time
	if !p.back.known || 2*p.back.dev > p.cost.fixed {
		return until
	}
	rounds := p.back.mean+margin*p.back.dev <= p.cost.fixed
	e := 0
	for _, a := range p.back.out {
		due := p.back.due(a)
		w := due.Sub(now).Seconds()
		if w <= 0 {
			continue // it is late, and may not come at all
		}
		e += a.n
		lost, saved := w*float64(k+e), p.cost.fixed*float64(e)
		if rounds {
			saved += (p.cost.fixed - w) * float64(k+e)
		}
		if lost <= saved {
			until = due
		}
	}
	return until
}

// costs is the duration of a run as a straight line over its rows, fixed + perRow·rows, in
// seconds. Older runs count less and less, so that it follows a machine that gets slower.
type costs struct {
	n, x, y, xx, xy float64 // sums of weights, rows, durations, and products
	fixed, perRow   float64
}

const (
	// costMemory is the weight of a run after the next one: about the last 50 runs count.
	costMemory = 0.98
	// hiccup is how many times the expected duration a run counts for at most: a longer one says
	// something about the machine at that moment, not about the model.
	hiccup = 4
	// spread is the variance of rows, relative to their mean's square, below which two parts of
	// the cost cannot be told from each other.
	spread = 0.05
)

func (c *costs) add(rows int64, took time.Duration) {
	x, y := float64(rows), took.Seconds()
	if expected := c.expect(rows).Seconds(); expected > 0 {
		y = min(y, hiccup*expected)
	}
	c.n, c.x, c.y = c.n*costMemory+1, c.x*costMemory+x, c.y*costMemory+y
	c.xx, c.xy = c.xx*costMemory+x*x, c.xy*costMemory+x*y
	mx, my := c.x/c.n, c.y/c.n
	variance := c.xx/c.n - mx*mx
	switch known := c.fixed + c.perRow*mx; {
	case variance > spread*mx*mx:
		c.perRow = min(max((c.xy/c.n-mx*my)/variance, 0), my/mx)
		c.fixed = my - c.perRow*mx
	case known > 0: // all runs are alike: both parts change as the whole does
		c.fixed, c.perRow = c.fixed*my/known, c.perRow*my/known
	default:
		c.fixed = my // the first batch that was waited for will tell
	}
}

// expect is how long a run of so many rows takes; 0 while nothing is known.
func (c *costs) expect(rows int64) time.Duration {
	return seconds(c.fixed + c.perRow*float64(rows))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// returns knows how long after an answer the next request comes, as if each client sent one after
// the other. Which client a request is of does not matter: the one who was answered first is
// taken to come back first.
type returns struct {
	known     bool
	mean, dev float64    // of the time from an answer to the return, in seconds; dev is the mean distance from mean
	out       []answered // who has not come back yet, oldest first
}

// answered are the requests that one run answered, as far as no request has come for them since.
type answered struct {
	at time.Time
	n  int
}

const (
	// returnMemory is the weight of one more return in mean and dev.
	returnMemory = 1.0 / 16
	// margin is how many dev after the mean return nobody is expected any more.
	margin = 3
	// gone is how many times that time is left until a client counts as gone.
	gone = 4
	// maxAway bounds the runs whose clients are remembered, and longestAway for how long.
	maxAway     = 64
	longestAway = 10 * time.Second
)

func (r *returns) due(a answered) time.Time {
	return a.at.Add(seconds(r.mean + margin*r.dev))
}

// overdue reports whether somebody is late.
func (r *returns) overdue(now time.Time) bool {
	return len(r.out) > 0 && !r.due(r.out[0]).After(now)
}

// answer notes that n requests were answered.
func (r *returns) answer(n int, now time.Time) {
	if n == 0 {
		return
	}
	if len(r.out) >= maxAway {
		r.out = append(r.out[:0], r.out[1:]...)
	}
	r.out = append(r.out, answered{now, n})
}

// arrive notes that a request came.
func (r *returns) arrive(now time.Time) {
	for len(r.out) > 0 && r.forget(r.out[0], now) {
		r.out = append(r.out[:0], r.out[1:]...)
	}
	if len(r.out) == 0 {
		return
	}
	r.learn(now.Sub(r.out[0].at))
	if r.out[0].n--; r.out[0].n == 0 {
		r.out = append(r.out[:0], r.out[1:]...)
	}
}

// forget reports whether those of one run are gone. They count as one long return, so that
// clients who have become slower are not taken for gone for ever.
func (r *returns) forget(a answered, now time.Time) bool {
	age := now.Sub(a.at)
	if age > longestAway {
		return true
	}
	if !r.known || age.Seconds() <= gone*(r.mean+margin*r.dev) {
		return false
	}
	r.learn(age)
	return true
}

func (r *returns) learn(took time.Duration) {
	s := took.Seconds()
	if !r.known {
		r.known, r.mean, r.dev = true, s, s/2
		return
	}
	off := s - r.mean
	r.mean += returnMemory * off
	if off < 0 {
		off = -off
	}
	r.dev += returnMemory * (off - r.dev)
}
