package autoscale

import (
	"math"
	"time"
)

// Window keeps what a deployment had to do, second by second, in a ring. What nobody measured is a
// hole: it counts for no mean. It is not for several goroutines.
type Window struct {
	ring []bucket
	// busy is the end of the last stretch with any load, and calm that of the last in which nothing waited.
	busy, calm time.Time
}

// bucket is one second of the clock.
type bucket struct {
	second int64
	// covered is how much of the second was measured, in seconds; the others are sums over that.
	covered, load, queued, running, answered, arrived float64
}

// Stretch is what was measured between two moments.
type Stretch struct {
	From, To time.Time
	// Busy and Queued are the integrals of the requests under way and waiting, in seconds.
	Busy, Queued float64
	// Arrived is how many requests came, refused ones as well, and Answered how many a replica ended.
	Arrived, Answered float64
}

// NewWindow makes a window over at least so much time.
func NewWindow(length time.Duration) *Window {
	return &Window{ring: make([]bucket, int(math.Ceil(length.Seconds()))+1)}
}

// Resize changes the time that the window is over and keeps what still fits.
func (w *Window) Resize(length time.Duration) {
	n := int(math.Ceil(length.Seconds())) + 1
	if n == len(w.ring) {
		return
	}
	old := w.ring
	w.ring = make([]bucket, n)
	for _, b := range old {
		if at := w.slot(b.second); b.covered > 0 && b.second > at.second {
			*at = b
		}
	}
}

func (w *Window) slot(second int64) *bucket { return &w.ring[second%int64(len(w.ring))] }

// Add spreads a stretch evenly over its seconds. One that is older than what stands in its place is
// dropped, and one that is longer than the window loses its beginning.
func (w *Window) Add(s Stretch) {
	total := s.To.Sub(s.From).Seconds()
	if total <= 0 {
		return
	}
	if s.Busy+s.Queued > 0 && s.To.After(w.busy) {
		w.busy = s.To
	}
	if s.Queued <= 0 && s.To.After(w.calm) {
		w.calm = s.To
	}
	first := max(s.From.Unix(), s.To.Unix()-int64(len(w.ring))+1)
	for second := first; second <= s.To.Unix(); second++ {
		begin, end := time.Unix(second, 0), time.Unix(second+1, 0)
		if s.From.After(begin) {
			begin = s.From
		}
		if s.To.Before(end) {
			end = s.To
		}
		part := end.Sub(begin).Seconds()
		b := w.slot(second)
		if part <= 0 || b.second > second {
			continue
		}
		if b.second < second {
			*b = bucket{second: second}
		}
		share := part / total
		b.covered += part
		b.load += share * (s.Busy + s.Queued)
		b.queued += share * s.Queued
		b.running += share * s.Busy
		b.answered += share * s.Answered
		b.arrived += share * s.Arrived
	}
}

// demandTime is over how long arrivals are counted: long enough that a few requests more or less in a
// second are no other demand.
const demandTime = 6 * time.Second

// Sample is what was measured up to a moment, as a policy looks at it. What is not measured by requests
// is left out.
func (w *Window) Sample(p Policy, now time.Time) Sample {
	x := Sample{
		Busy: w.busy, Calm: w.calm, Capacity: -1, Peak: w.Peak(now, p.Window), Service: w.Service(now, p.Window),
		Arrivals: max(w.Arrivals(now, demandTime), w.Arrivals(now, p.Recent)),
	}
	x.Stable, x.StableSeconds = w.Mean(now, p.Window)
	x.Recent, x.RecentSeconds = w.Mean(now, p.Recent)
	return x
}

// Mean is the mean load over the time before now, and the seconds of it that were measured. A window
// that is not full yet gives the mean of what there is; 0 seconds is no data.
func (w *Window) Mean(now time.Time, over time.Duration) (load, seconds float64) {
	w.each(now, over, func(b bucket, share float64) {
		load += share * b.load
		seconds += share * b.covered
	})
	if seconds <= 0 {
		return 0, 0
	}
	return load / seconds, seconds
}

// Peak is the highest mean load of a second before now, of those that were measured for half of it at
// least.
func (w *Window) Peak(now time.Time, over time.Duration) float64 {
	const least = 0.5
	peak := 0.0
	w.each(now, over, func(b bucket, _ float64) {
		if b.covered >= least {
			peak = max(peak, b.load/b.covered)
		}
	})
	return peak
}

// Service is the mean time that a replica takes for a request: in the seconds in which none waited, or in
// all of them where that is more. Clients that leave a queue count as answered in no time, and what a replica
// takes grows with its load. 0 is unknown.
func (w *Window) Service(now time.Time, over time.Duration) float64 {
	var calm, all struct{ running, answered float64 }
	w.each(now, over, func(b bucket, share float64) {
		all.running += share * b.running
		all.answered += share * b.answered
		if b.queued <= 0 {
			calm.running += share * b.running
			calm.answered += share * b.answered
		}
	})
	service := 0.0
	if all.answered >= 1 {
		service = all.running / all.answered
	}
	if calm.answered >= 1 {
		service = max(service, calm.running/calm.answered)
	}
	return service
}

// Arrivals is how many requests came in a second, on average over the time before now.
func (w *Window) Arrivals(now time.Time, over time.Duration) float64 {
	arrived, seconds := 0.0, 0.0
	w.each(now, over, func(b bucket, share float64) {
		arrived += share * b.arrived
		seconds += share * b.covered
	})
	if seconds <= 0 {
		return 0
	}
	return arrived / seconds
}

// each visits the buckets of the time before now, the oldest of them by the share that is in it.
func (w *Window) each(now time.Time, over time.Duration, visit func(b bucket, share float64)) {
	from := now.Add(-over)
	for second := from.Unix(); second <= now.Unix(); second++ {
		b := *w.slot(second)
		if b.second != second || b.covered <= 0 {
			continue
		}
		share := 1.0
		if second == from.Unix() {
			share = time.Unix(second+1, 0).Sub(from).Seconds()
		}
		visit(b, share)
	}
}

// Busy is the end of the last time with any load; zero when there was none.
func (w *Window) Busy() time.Time { return w.busy }
