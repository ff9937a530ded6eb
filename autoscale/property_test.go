package autoscale_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa/autoscale"
)

// tries is how many random cases each property is tried with; the seed is fixed, so that a failure
// comes again.
const tries = 20_000

type random struct{ *rand.Rand }

func seeded() random { return random{rand.New(rand.NewPCG(6, 36))} }

func (r random) policy() autoscale.Policy {
	p := azure(0.1+10*r.Float64(), r.IntN(5), 1+r.IntN(60))
	if r.IntN(2) == 0 {
		p = knative(0.1 + 10*r.Float64())
		p.Max = 1 + r.IntN(60)
		p.MaxDown = 2
	}
	p.Min = min(p.Min, p.Max)
	return p
}

func (r random) sample() autoscale.Sample {
	x := autoscale.Sample{
		Stable: 100 * r.Float64(), Recent: 100 * r.Float64(), StableSeconds: 60 * r.Float64(), RecentSeconds: r.Float64(),
		Waiting: r.IntN(4) == 0, Busy: start().Add(-time.Duration(r.IntN(600)) * time.Second),
		Arrivals: 100 * r.Float64(), Service: r.Float64(), Ready: r.IntN(40), Starting: r.IntN(20),
		Capacity: r.IntN(80) - 1, StartTime: time.Duration(r.IntN(60)) * time.Second,
	}
	if r.IntN(5) == 0 {
		x.Capacity = -1
	}
	x.Peak = max(x.Stable, x.Recent)
	x.Calm = x.Busy.Add(time.Duration(r.IntN(30)) * time.Second)
	switch r.IntN(8) {
	case 0:
		x.Stable, x.Recent = 0, 0
	case 1:
		x.RecentSeconds = 0
	case 2:
		x.Service = 0
	}
	return x
}

func (r random) state(p autoscale.Policy) autoscale.State {
	s := autoscale.Begin(r.IntN(p.Max+1), start().Add(-time.Duration(r.IntN(120))*time.Second))
	if r.IntN(2) == 0 {
		s.Panic = time.Time{}
	}
	s.Served = start().Add(-time.Duration(r.IntN(600)) * time.Second)
	return s
}

func TestPropertyBoundsAreAlwaysKept(t *testing.T) {
	t.Parallel()
	r := seeded()
	for range tries {
		p := r.policy()
		s, x := r.state(p), r.sample()
		d, after := autoscale.Decide(p, s, x, start())
		least := p.Min
		if x.Capacity >= 0 {
			least = min(least, x.Capacity)
		}
		if d.To < least || d.To > p.Max || d.To != after.Wanted || d.From != s.Wanted {
			t.Fatalf("%d → %d of %+v, %+v, %+v", d.From, d.To, p, s, x)
		}
		if x.Capacity >= 0 && d.To > d.From && d.To > x.Capacity {
			t.Fatalf("%d → %d with room for %d", d.From, d.To, x.Capacity)
		}
		if d.Reason == "" {
			t.Fatalf("%d → %d without a reason", d.From, d.To)
		}
	}
}

func TestPropertyMoreLoadNeverFewerReplicas(t *testing.T) {
	t.Parallel()
	r := seeded()
	for range tries {
		p := r.policy()
		s, x := r.state(p), r.sample()
		more := x
		more.Stable += 50 * r.Float64()
		more.Recent += 50 * r.Float64()
		more.Peak = max(x.Peak, more.Stable, more.Recent)
		less, _ := autoscale.Decide(p, s, x, start())
		many, _ := autoscale.Decide(p, s, more, start())
		if many.To < less.To {
			t.Fatalf("%d at %v and %v, %d at %v and %v: %+v, %+v", less.To, x.Stable, x.Recent, many.To, more.Stable, more.Recent, p, s)
		}
	}
}

func TestPropertyNoDataNeverScalesDown(t *testing.T) {
	t.Parallel()
	r := seeded()
	for range tries {
		p := r.policy()
		s, x := r.state(p), r.sample()
		x.StableSeconds, x.Stable = 0, 0
		d, _ := autoscale.Decide(p, s, x, start().Add(time.Duration(r.IntN(1000))*time.Second))
		if d.To < d.From {
			t.Fatalf("%d → %d: %+v, %+v, %+v", d.From, d.To, p, s, x)
		}
	}
}

func TestPropertyNeverDownInPanic(t *testing.T) {
	t.Parallel()
	r := seeded()
	for range tries {
		p := r.policy()
		s, x := r.state(p), r.sample()
		x.Capacity = -1 // a full target is a limit in panic, too
		d, after := autoscale.Decide(p, s, x, start())
		if !after.Panic.IsZero() && d.To < d.From {
			t.Fatalf("%d → %d in panic: %+v, %+v, %+v", d.From, d.To, p, s, x)
		}
	}
}

// TestPropertyARestartTakesNothingAway: whatever the load was, a control plane that begins with what it
// finds has at least as many replicas for the whole of the first window.
func TestPropertyARestartTakesNothingAway(t *testing.T) {
	t.Parallel()
	r := seeded()
	for range tries / 60 {
		p := r.policy()
		wanted := 2 + r.IntN(40)
		p.Max = max(p.Max, wanted)
		s := autoscale.Begin(wanted, start())
		for second := range 60 {
			x := r.sample()
			x.Capacity, x.Ready = -1, s.Wanted
			var after autoscale.State
			if _, after = autoscale.Decide(p, s, x, start().Add(time.Duration(second)*time.Second)); after.Wanted < wanted {
				t.Fatalf("%d → %d after %d s: %+v, %+v", wanted, after.Wanted, second, p, x)
			}
			s = after
		}
	}
}
