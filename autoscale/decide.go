package autoscale

import (
	"fmt"
	"math"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Sample is what was measured of a deployment, up to a moment.
type Sample struct {
	// Stable and Recent are the mean numbers of requests under way and waiting over the policy's two
	// times, and StableSeconds and RecentSeconds how much of them was measured; 0 of either is no data.
	Stable, Recent               float64
	StableSeconds, RecentSeconds float64
	// Peak is the highest mean of a second in the policy's window.
	Peak float64
	// Waiting tells that a request waits at this moment.
	Waiting bool
	// Busy is when there was load last, and Calm when nothing waited.
	Busy, Calm time.Time
	// Arrivals is how many requests come in a second, and Service how long a replica takes for one, in
	// seconds; 0 is unknown.
	Arrivals, Service float64
	// Ready and Starting count replicas.
	Ready, Starting int
	// Capacity is how many replicas of the deployment the target can run; -1 is unknown.
	Capacity int
	// StartTime is how long replicas took lately to become ready; 0 is unknown.
	StartTime time.Duration
}

// State is what a decision leaves to the next one.
type State struct {
	Wanted int
	// Panic is when the recent load last asked for so many more replicas that it was panic; zero out of
	// panic. Peak is the most that was wanted in it.
	Panic time.Time
	Peak  int
	// Served is since when there is a ready replica, Idled when the last one was given up, and Raised when
	// more were last wanted.
	Served, Idled, Raised time.Time
	// Missing is how many replicas were right that the target had no room for.
	Missing int
}

// Begin is the state of a deployment of which nothing is known but how many replicas it had: it begins
// in panic, so that a restart takes nothing away for lack of data.
func Begin(wanted int, now time.Time) State {
	s := State{Wanted: wanted}
	if wanted > 1 {
		s.Panic, s.Peak = now, wanted
	}
	if wanted == 0 {
		s.Idled = now
	}
	return s
}

const (
	// youngMargin and oldMargin are how many times the measured demand a load may count, while a queue is
	// young and when it is not.
	youngMargin = 1.5
	oldMargin   = 4
	// demandGrace is how much longer than a replica's start a queue may take to be worked off.
	demandGrace = 3 * time.Second
)

// Decide says how many replicas are wanted now. It is a pure function.
//
// The load asks for ceil(mean / target) replicas, by the stable mean or, in panic, by the recent one
// where that is more. Panic begins when the recent load asks for threshold times the replicas that are
// there or start, and ends when it has not for a whole window; nothing is taken away in it. Without data
// nothing changes but to keep the bounds. The last replica goes after Idle without a request, and the
// first comes back with the next. Decision.From and To are equal when nothing changes.
func Decide(p Policy, s State, x Sample, now time.Time) (zarpa.ScaleDecision, State) {
	d := decision{p: p, s: s, x: x, now: now, have: max(1, x.Ready+x.Starting)}
	if x.Ready == 0 {
		d.s.Served = time.Time{}
	} else if s.Served.IsZero() {
		d.s.Served = now
	}
	to, reason := d.load()
	to, reason = d.bound(to, reason)
	if to > s.Wanted {
		d.s.Raised = now
	}
	if to == 0 && s.Wanted > 0 {
		d.s.Idled, d.s.Panic, d.s.Peak = now, time.Time{}, 0
	}
	d.s.Wanted = to
	return zarpa.ScaleDecision{At: now.UTC(), From: s.Wanted, To: to, Reason: reason, Inputs: d.inputs()}, d.s
}

// decision is one call of Decide.
type decision struct {
	p    Policy
	s    State
	x    Sample
	now  time.Time
	have int
}

func (d *decision) inputs() zarpa.ScaleInputs {
	return zarpa.ScaleInputs{
		Stable: round(d.x.Stable), Recent: round(d.x.Recent), Seconds: int(math.Round(d.x.StableSeconds)), Target: d.p.Target,
		Ready: d.x.Ready, Starting: d.x.Starting, Capacity: d.x.Capacity, Min: d.p.Min, Max: d.p.Max,
		Panicking: !d.s.Panic.IsZero(), StartTime: zarpa.Duration(d.x.StartTime),
	}
}

// round keeps what a reader of a decision looks at: thousandths.
func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// load is what the load asks for, within the rates of change, with the reason.
func (d *decision) load() (int, string) {
	switch {
	case d.s.Wanted == 0 && d.x.Waiting:
		return d.wake("a request waits and there is no replica")
	case !d.measured():
		return d.s.Wanted, "there is no data of the load"
	case d.s.Wanted == 0 && d.x.Busy.After(d.s.Idled):
		return d.wake("a request came and there is no replica")
	case d.s.Wanted == 0:
		return 0, "no request came"
	}
	up, down := d.rates()
	ask := d.p.need(d.demand(d.x.Recent))
	stable := min(max(d.p.need(d.demand(d.x.Stable)), down), up)
	recent := min(max(ask, down), up)
	d.panic(ask)
	want, reason := stable, fmt.Sprintf("%.3g requests at a time in the last %v, %.3g wanted of each replica", d.x.Stable, d.p.Window, d.p.Target)
	if peak := min(d.p.need(d.demand(d.x.Peak)), d.s.Wanted); d.p.Peak && peak > want {
		want = peak
		reason = fmt.Sprintf("%.3g requests at a time in the highest second of the last %v, %.3g wanted of each replica", d.x.Peak, d.p.Window, d.p.Target)
	}
	if !d.s.Panic.IsZero() {
		if recent >= want {
			want = recent
			reason = fmt.Sprintf("%.3g requests at a time in the last %v, %.3g wanted of each replica", d.x.Recent, d.p.Recent, d.p.Target)
		}
		want = max(want, d.s.Peak)
		d.s.Peak = want
	}
	if want <= 1 && d.idle() {
		return 0, fmt.Sprintf("no request for %v", d.p.Idle)
	}
	return max(want, 1), reason
}

func (d *decision) measured() bool { return d.x.StableSeconds > 0 && d.x.RecentSeconds > 0 }

// wake is what is wanted when a request finds no replica.
func (d *decision) wake(reason string) (int, string) {
	want := 1
	if d.x.RecentSeconds > 0 {
		up, _ := d.rates()
		want = max(1, min(d.p.need(d.demand(d.x.Recent)), up))
	}
	if want > 1 {
		d.s.Panic, d.s.Peak = d.now, want
	}
	return want, reason
}

// rates are the most and the fewest replicas that one step may come to.
func (d *decision) rates() (up, down int) {
	return int(min(math.Ceil(d.p.MaxUp*float64(d.have)), math.MaxInt32)), int(float64(d.have) / d.p.MaxDown)
}

// demand is the part of a load that asks for replicas. What waits is no demand by itself: it piles up
// while replicas start, and those that are on their way are for it. So a load counts no more than what
// arrives keeps busy (Little's law) with a margin, and no less than what is wanted already works on. A queue
// that stays for longer than the replicas that were asked for last take to start has a wider margin:
// something takes longer than it did.
func (d *decision) demand(load float64) float64 {
	if d.x.Service <= 0 {
		return load
	}
	since, margin := d.x.Calm, youngMargin
	if d.s.Raised.After(since) {
		since = d.s.Raised
	}
	if d.now.After(since.Add(d.x.StartTime + demandGrace)) {
		margin = oldMargin
	}
	return min(load, max(margin*d.x.Arrivals*d.x.Service, float64(d.s.Wanted)*d.p.Target))
}

// panic enters, prolongs and leaves panic. One replica, or as many as there are at least, are nothing to
// keep: what asks for them is no panic.
func (d *decision) panic(ask int) {
	over := float64(ask) >= d.p.Threshold*float64(d.have) && ask > max(1, d.p.Min)
	switch {
	case over:
		d.s.Panic = d.now
	case !d.s.Panic.IsZero() && d.now.Sub(d.s.Panic) > max(d.p.Window, d.x.StartTime):
		d.s.Panic, d.s.Peak = time.Time{}, 0
	}
}

// idle reports whether the last replica may go: it serves, nothing more starts, and nothing came since.
func (d *decision) idle() bool {
	if d.p.Min > 0 || d.s.Wanted > 1 || d.x.Ready == 0 || d.x.Starting > 0 || d.x.Waiting || !d.s.Panic.IsZero() {
		return false
	}
	since := d.s.Served
	if d.x.Busy.After(since) {
		since = d.x.Busy
	}
	return d.now.Sub(since) >= d.p.Idle
}

// bound keeps the bounds and the target's room.
func (d *decision) bound(want int, reason string) (int, string) {
	to := d.p.Clamp(want)
	switch {
	case to > want:
		reason = fmt.Sprintf("min is %d", d.p.Min)
	case to < want && to < d.s.Wanted:
		reason = fmt.Sprintf("max is %d", d.p.Max)
	case to < want:
		reason += fmt.Sprintf(": %d, but max is %d", want, d.p.Max)
	case to > d.s.Wanted && d.s.Wanted > 0, to < d.s.Wanted && to > 0:
		reason += fmt.Sprintf(": %d", want)
	}
	room := d.x.Capacity
	if !d.measured() {
		room = max(room, d.s.Wanted) // what is there stays
	}
	d.s.Missing = 0
	if d.x.Capacity >= 0 && to > room {
		d.s.Missing, to = to-room, room
		reason += fmt.Sprintf("; the target has room for %d", room)
	}
	return to, reason
}
