package autoscale_test

import (
	"math"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa/autoscale"
)

// fill adds whole seconds with the given loads, from a moment on; a negative one is a hole.
func fill(w *autoscale.Window, from time.Time, loads ...float64) {
	for i, load := range loads {
		if load >= 0 {
			at := from.Add(time.Duration(i) * time.Second)
			w.Add(autoscale.Stretch{From: at, To: at.Add(time.Second), Busy: load})
		}
	}
}

// mean is what a window says of a stretch of time.
type mean struct {
	at, over      time.Duration
	load, seconds float64
}

func meanOf(w *autoscale.Window, at, over time.Duration) mean {
	load, seconds := w.Mean(start().Add(at), over)
	return mean{at, over, load, seconds}
}

func (m mean) is(t *testing.T, load, seconds float64) {
	t.Helper()
	if math.Abs(m.load-load) > 1e-6 || math.Abs(m.seconds-seconds) > 1e-6 {
		t.Errorf("after %v, over %v: a mean of %.4g in %.4g s, expected %.4g in %.4g", m.at, m.over, m.load, m.seconds, load, seconds)
	}
}

func TestWindowMeans(t *testing.T) {
	t.Parallel()
	w := autoscale.NewWindow(5 * time.Second)
	meanOf(w, 0, 5*time.Second).is(t, 0, 0)
	fill(w, start(), 5, 1)
	meanOf(w, 2*time.Second, 5*time.Second).is(t, 3, 2) // partial: the mean of what there is
	fill(w, start().Add(2*time.Second), 2, 3, 4)
	meanOf(w, 5*time.Second, 5*time.Second).is(t, 3, 5)
	meanOf(w, 5*time.Second, 2*time.Second).is(t, 3.5, 2)
	fill(w, start().Add(5*time.Second), 11)
	meanOf(w, 6*time.Second, 5*time.Second).is(t, 21.0/5, 5) // the first second has left
	meanOf(w, 11*time.Second, 5*time.Second).is(t, 0, 0)     // and nothing is left
}

func TestWindowLeavesHolesOut(t *testing.T) {
	t.Parallel()
	w := autoscale.NewWindow(6 * time.Second)
	fill(w, start(), 6, -1, -1, 3, -1)
	meanOf(w, 5*time.Second, time.Second).is(t, 0, 0)
	fill(w, start().Add(5*time.Second), 0)
	meanOf(w, 6*time.Second, 6*time.Second).is(t, 3, 3)
}

func TestWindowSpreadsAStretchOverItsSeconds(t *testing.T) {
	t.Parallel()
	w := autoscale.NewWindow(10 * time.Second)
	// 2.5 s with 4 at a time, begun within a second
	w.Add(autoscale.Stretch{From: start().Add(500 * time.Millisecond), To: start().Add(3 * time.Second), Busy: 6, Queued: 4})
	meanOf(w, 3*time.Second, 10*time.Second).is(t, 4, 2.5)
	meanOf(w, 3*time.Second, time.Second).is(t, 4, 1)
	// the rest of the third second, without load
	w.Add(autoscale.Stretch{From: start().Add(3 * time.Second), To: start().Add(3500 * time.Millisecond)})
	meanOf(w, 3500*time.Millisecond, time.Second).is(t, 2, 1)
	meanOf(w, 3500*time.Millisecond, 10*time.Second).is(t, 10.0/3, 3)
}

func TestWindowTakesManyStretchesOfOneSecond(t *testing.T) {
	t.Parallel()
	w := autoscale.NewWindow(5 * time.Second)
	for i := range 100 {
		at := start().Add(time.Duration(i) * 10 * time.Millisecond)
		w.Add(autoscale.Stretch{From: at, To: at.Add(10 * time.Millisecond), Busy: 0.01 * float64(i%3)})
	}
	meanOf(w, time.Second, 5*time.Second).is(t, 0.99, 1)
}

func TestWindowTakesNoStretchThatIsTooOldOrEmpty(t *testing.T) {
	t.Parallel()
	w := autoscale.NewWindow(2 * time.Second)
	fill(w, start().Add(10*time.Second), 1, 1, 1)
	fill(w, start().Add(9*time.Second), 50)
	fill(w, start().Add(7*time.Second), 50)
	w.Add(autoscale.Stretch{From: start().Add(13 * time.Second), To: start().Add(13 * time.Second), Busy: 50})
	w.Add(autoscale.Stretch{From: start().Add(13 * time.Second), To: start().Add(12 * time.Second), Busy: 50})
	meanOf(w, 13*time.Second, 2*time.Second).is(t, 1, 2)
	// one that is longer than the window: what is in it counts
	w.Add(autoscale.Stretch{From: start().Add(13 * time.Second), To: start().Add(113 * time.Second), Busy: 700})
	meanOf(w, 113*time.Second, 2*time.Second).is(t, 7, 2)
}

func TestWindowComesInAnyOrderWithinItsTime(t *testing.T) {
	t.Parallel()
	w := autoscale.NewWindow(5 * time.Second)
	for _, i := range []int{3, 0, 4, 1, 2} {
		fill(w, start().Add(time.Duration(i)*time.Second), float64(i))
	}
	meanOf(w, 5*time.Second, 5*time.Second).is(t, 2, 5)
}

func TestWindowResizes(t *testing.T) {
	t.Parallel()
	w := autoscale.NewWindow(5 * time.Second)
	fill(w, start(), 5, 4, 3, 2, 1)
	w.Resize(10 * time.Second)
	meanOf(w, 5*time.Second, 10*time.Second).is(t, 3, 5)
	fill(w, start().Add(5*time.Second), 9, 9, 9, 9, 9)
	meanOf(w, 10*time.Second, 10*time.Second).is(t, 6, 10)
	w.Resize(2 * time.Second)
	meanOf(w, 10*time.Second, 2*time.Second).is(t, 9, 2)
	meanOf(w, 10*time.Second, 10*time.Second).is(t, 9, 3) // two whole seconds, and what was the one under way
}

func TestWindowKnowsTheServiceOfSecondsWithoutAQueue(t *testing.T) {
	t.Parallel()
	w := autoscale.NewWindow(5 * time.Second)
	if s := w.Service(start(), 5*time.Second); s != 0 {
		t.Errorf("%v of nothing", s)
	}
	add := func(second int, s autoscale.Stretch) {
		s.From = start().Add(time.Duration(second) * time.Second)
		s.To = s.From.Add(time.Second)
		w.Add(s)
	}
	add(0, autoscale.Stretch{Busy: 1, Answered: 10, Arrived: 10})
	add(1, autoscale.Stretch{Busy: 1, Queued: 5, Answered: 90, Arrived: 30}) // 80 left without having been served
	if s := w.Service(start().Add(2*time.Second), 5*time.Second); math.Abs(s-0.1) > 1e-9 {
		t.Errorf("service %v, expected 0.1 s", s)
	}
	if a := w.Arrivals(start().Add(2*time.Second), 5*time.Second); math.Abs(a-20) > 1e-9 {
		t.Errorf("%v arrivals a second, expected 20", a)
	}
	if b := w.Busy(); !b.Equal(start().Add(2 * time.Second)) {
		t.Errorf("busy until %v", b)
	}
}
