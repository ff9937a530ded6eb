package autoscale_test

import (
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/autoscale"
)

// start is a moment on a full second, as good as any.
func start() time.Time { return time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC) }

// knative is a policy in the numbers of the Knative autoscaler's own tests.
func knative(target float64) autoscale.Policy {
	return autoscale.Policy{
		Target: target, Min: 0, Max: 10_000, Window: time.Minute, Recent: 6 * time.Second, Idle: time.Minute,
		Threshold: 2, MaxUp: 1000, MaxDown: 1000,
	}
}

func azure(target float64, least, most int) autoscale.Policy {
	return autoscale.Policy{
		Target: target, Min: least, Max: most, Window: time.Minute, Recent: time.Second, Idle: 5 * time.Minute,
		Threshold: 1, Peak: true, MaxUp: 1000, MaxDown: 2,
	}
}

// look is one line of a table: what is measured at a time, and what follows.
type look struct {
	at             time.Duration
	stable, recent float64
	peak           float64 // of the window; 0 is the higher one of both
	ready          int
	starting       int
	want           int
	panicking      bool
}

// run plays a table from a state in which wanted replicas are there.
func run(t *testing.T, p autoscale.Policy, wanted int, looks []look) {
	t.Helper()
	s := autoscale.State{Wanted: wanted}
	for i, l := range looks {
		now := start().Add(l.at)
		x := autoscale.Sample{
			Stable: l.stable, Recent: l.recent, Peak: l.peak, StableSeconds: 60, RecentSeconds: 6, Busy: now,
			Ready: l.ready, Starting: l.starting, Capacity: -1,
		}
		if l.peak == 0 {
			x.Peak = max(l.stable, l.recent)
		}
		if l.stable+l.recent == 0 {
			x.Busy = time.Time{}
		}
		var d zarpa.ScaleDecision
		d, s = autoscale.Decide(p, s, x, now)
		if d.To != l.want || s.Wanted != l.want {
			t.Errorf("line %d: wanted %d, expected %d (%s)", i, d.To, l.want, d.Reason)
		}
		if d.Inputs.Panicking != l.panicking {
			t.Errorf("line %d: panicking %v, expected %v", i, d.Inputs.Panicking, l.panicking)
		}
	}
}

// TestKnativeTables are worked by hand from ceil(mean/target), the threshold of 2, the window of 60 s and
// the rates; the names are those of the tests that the Knative autoscaler has for the same rules.
func TestKnativeTables(t *testing.T) {
	t.Parallel()
	slow := knative(10)
	slow.MaxUp, slow.MaxDown = 10, 10
	cases := map[string]struct {
		policy autoscale.Policy
		wanted int
		looks  []look
	}{
		"StableModeIncrease": {knative(10), 1, []look{
			{at: 0, stable: 50, recent: 10, ready: 5, want: 5},
			{at: 2 * time.Second, stable: 100, recent: 10, ready: 6, want: 10},
		}},
		"StableModeDecrease": {knative(10), 10, []look{
			{at: 0, stable: 100, recent: 100, ready: 8, want: 10},
			{at: 2 * time.Second, stable: 50, recent: 100, ready: 10, want: 5},
		}},
		"StableModeNoTrafficScaleToZero": {knative(10), 1, []look{
			{at: 0, stable: 1, recent: 1, ready: 1, want: 1},
			{at: 59 * time.Second, ready: 1, want: 1},
			{at: 60 * time.Second, ready: 1, want: 0},
		}},
		"PanicModeDoublePercentage": {knative(10), 10, []look{
			{at: 0, stable: 100, recent: 100, ready: 10, want: 10},
			{at: 2 * time.Second, stable: 200, recent: 200, ready: 10, want: 20, panicking: true},
		}},
		// 6 → 36 → 216 → 1296: the load is always six times what the replicas were made for.
		"PanicModeExponentialTrackAndStabilize": {knative(1), 1, []look{
			{at: 0, stable: 6, recent: 6, ready: 1, want: 6, panicking: true},
			{at: 2 * time.Second, stable: 36, recent: 36, ready: 6, want: 36, panicking: true},
			{at: 4 * time.Second, stable: 216, recent: 216, ready: 36, want: 216, panicking: true},
			{at: 6 * time.Second, stable: 1296, recent: 1296, ready: 216, want: 1296, panicking: true},
			{at: 8 * time.Second, stable: 1008, recent: 1008, ready: 1296, want: 1296, panicking: true}, // never down in panic
			{at: 67 * time.Second, stable: 1008, recent: 1008, ready: 1296, want: 1008},                 // a window later
		}},
		"PanicThenUnPanicScaleDown": {knative(10), 10, []look{
			{at: 0, stable: 100, recent: 100, ready: 10, want: 10},
			{at: 2 * time.Second, stable: 100, recent: 1000, ready: 10, want: 100, panicking: true},
			{at: 4 * time.Second, stable: 1000, recent: 0, ready: 100, want: 100, panicking: true},
			{at: 63 * time.Second, stable: 100, recent: 0, ready: 100, want: 10},
		}},
		"ExtendPanicWindow": {knative(10), 1, []look{
			{at: 0, stable: 50, recent: 100, ready: 5, want: 10, panicking: true},
			{at: 31 * time.Second, stable: 101, recent: 201, ready: 10, want: 21, panicking: true},
			{at: 90 * time.Second, stable: 50, recent: 50, ready: 21, want: 21, panicking: true}, // 59 s after the last
			{at: 92 * time.Second, stable: 50, recent: 50, ready: 21, want: 5},
		}},
		"UnpanicAfterSlowIncrease": {knative(10), 1, []look{
			{at: 0, stable: 2, recent: 20, ready: 1, want: 2, panicking: true},
			{at: 30 * time.Second, stable: 20, recent: 30, ready: 2, want: 3, panicking: true},
			{at: 61 * time.Second, stable: 30, recent: 35, ready: 3, want: 3},
		}},
		"RateLimitScaleUp": {slow, 1, []look{
			{at: 0, stable: 1000, recent: 1001, ready: 1, want: 10, panicking: true},
			{at: 2 * time.Second, stable: 1000, recent: 1001, ready: 10, want: 100, panicking: true}, // 101 in panic, 10×10 allowed
		}},
		"RateLimitScaleDown": {slow, 100, []look{
			{at: 0, stable: 1, recent: 1, ready: 100, want: 10},
			{at: 2 * time.Second, stable: 1, recent: 1, ready: 10, want: 1},
		}},
		"UseOnePodAsMinimumIfNoReplicasAreThere": {knative(10), 1, []look{
			{at: 0, stable: 100, recent: 100, ready: 0, want: 10, panicking: true},
		}},
		// What starts counts: one ready, nine on their way, and load for ten is no new panic.
		"StartingReplicasCount": {knative(10), 10, []look{
			{at: 0, stable: 100, recent: 190, ready: 1, starting: 9, want: 10},
			{at: 2 * time.Second, stable: 100, recent: 200, ready: 1, starting: 9, want: 20, panicking: true},
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, c.policy, c.wanted, c.looks)
		})
	}
}

// TestAzureTables are worked by hand from utilization = (busy + queued) / (replicas × max_concurrency):
// with a max_concurrency of 1 and 70 per cent, a replica should have 0.7 requests at a time.
func TestAzureTables(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		policy autoscale.Policy
		wanted int
		looks  []look
	}{
		"UpWithinASecond": {azure(0.7, 1, 10), 1, []look{
			{at: 0, stable: 0.5, recent: 0.7, ready: 1, want: 1}, // 70 %: right as it is
			{at: time.Second, stable: 0.5, recent: 0.71, ready: 1, want: 2, panicking: true},
			{at: 2 * time.Second, stable: 0.6, recent: 2.8, ready: 2, want: 4, panicking: true},
		}},
		"QueuedRequestsCountAsBusy": {azure(0.7, 1, 10), 2, []look{
			{at: 0, stable: 1, recent: 2 + 4, ready: 2, want: 9, panicking: true}, // 6 / 0.7 = 8.6
		}},
		"DownAfterAMinute": {azure(0.7, 1, 10), 1, []look{
			{at: 0, stable: 1, recent: 2.8, ready: 1, want: 4, panicking: true},
			{at: time.Second, stable: 1, recent: 0.1, peak: 2.8, ready: 4, want: 4, panicking: true},
			{at: 60 * time.Second, stable: 0.1, recent: 0.1, ready: 4, want: 4, panicking: true},
			{at: 61 * time.Second, stable: 0.1, recent: 0.1, ready: 4, want: 2}, // by half at most
			{at: 62 * time.Second, stable: 0.1, recent: 0.1, ready: 2, want: 1},
		}},
		"AShortDipTakesNothingAway": {azure(0.7, 1, 10), 4, []look{
			{at: 0, stable: 2.8, recent: 2.8, ready: 4, want: 4, panicking: true},
			{at: 50 * time.Second, stable: 0.5, recent: 0, ready: 4, want: 4, panicking: true},
			{at: 55 * time.Second, stable: 0.5, recent: 2.8, ready: 4, want: 4, panicking: true},
			{at: 115 * time.Second, stable: 0.5, recent: 0, ready: 4, want: 4, panicking: true},
		}},
		// The mean asks for two, one second in the last minute for three.
		"TheHighestSecondOfAWindowIsKept": {azure(0.7, 1, 10), 4, []look{
			{at: 0, stable: 1.2, recent: 0.5, peak: 2, ready: 4, want: 3},
			{at: time.Second, stable: 1.2, recent: 0.5, peak: 2, ready: 3, want: 3},
			{at: 2 * time.Second, stable: 1.2, recent: 0.5, peak: 1.4, ready: 3, want: 2},
			{at: 3 * time.Second, stable: 1.2, recent: 0.5, peak: 5, ready: 2, want: 2}, // a peak that is over asks for nothing
		}},
		"NeverBeyondMax": {azure(0.7, 1, 10), 1, []look{
			{at: 0, stable: 50, recent: 50, ready: 1, want: 10, panicking: true},
		}},
		"NeverBelowMin": {azure(0.7, 2, 10), 2, []look{
			{at: 0, stable: 0, recent: 0, ready: 2, want: 2},
			{at: time.Hour, stable: 0, recent: 0, ready: 2, want: 2},
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, c.policy, c.wanted, c.looks)
		})
	}
}

func TestNoDataChangesNothing(t *testing.T) {
	t.Parallel()
	p := azure(0.7, 1, 10)
	s := autoscale.State{Wanted: 5}
	for i, x := range []autoscale.Sample{
		{Ready: 5, Capacity: -1},
		{Ready: 5, Capacity: -1, StableSeconds: 60},
		{Ready: 5, Capacity: 2, RecentSeconds: 1},
	} {
		d, _ := autoscale.Decide(p, s, x, start().Add(time.Hour))
		if d.To != 5 || !strings.Contains(d.Reason, "no data") {
			t.Errorf("sample %d: %d, %s", i, d.To, d.Reason)
		}
	}
	p.Min, p.Max = 6, 10
	if d, _ := autoscale.Decide(p, s, autoscale.Sample{Capacity: -1}, start()); d.To != 6 {
		t.Errorf("min is 6, and %d are wanted", d.To)
	}
	p.Min, p.Max = 1, 3
	if d, _ := autoscale.Decide(p, s, autoscale.Sample{Capacity: -1}, start()); d.To != 3 {
		t.Errorf("max is 3, and %d are wanted", d.To)
	}
}

func TestFromZeroWithTheFirstRequest(t *testing.T) {
	t.Parallel()
	p := azure(0.7, 0, 10)
	s := autoscale.Begin(0, start())
	old := autoscale.Sample{Stable: 0.3, StableSeconds: 60, RecentSeconds: 1, Busy: start().Add(-time.Second), Capacity: -1}
	d, s := autoscale.Decide(p, s, old, start().Add(time.Second))
	if d.To != 0 {
		t.Fatalf("what came before brings %d back", d.To)
	}
	// It waits since a moment ago: no mean tells of it yet.
	d, _ = autoscale.Decide(p, s, autoscale.Sample{Waiting: true, Capacity: -1}, start().Add(2*time.Second))
	if d.To != 1 || !strings.Contains(d.Reason, "a request waits") {
		t.Fatalf("%d, %s", d.To, d.Reason)
	}
	// Three wait: more than one replica at once.
	d, s = autoscale.Decide(p, s, autoscale.Sample{Waiting: true, Recent: 3, RecentSeconds: 1, StableSeconds: 1, Capacity: -1}, start().Add(2*time.Second))
	if d.To != 5 || s.Panic.IsZero() {
		t.Fatalf("%d, %s", d.To, d.Reason)
	}
}

func TestToZeroOnlyWhenItServedAndNothingCame(t *testing.T) {
	t.Parallel()
	p := azure(0.7, 0, 10)
	p.Idle = 10 * time.Second
	quiet := autoscale.Sample{StableSeconds: 60, RecentSeconds: 1, Ready: 1, Capacity: -1}
	step := func(s autoscale.State, x autoscale.Sample, at time.Duration) (int, autoscale.State) {
		d, s := autoscale.Decide(p, s, x, start().Add(at))
		return d.To, s
	}
	if n, _ := step(autoscale.State{Wanted: 1}, autoscale.Sample{StableSeconds: 60, RecentSeconds: 1, Starting: 1, Capacity: -1}, time.Hour); n != 1 {
		t.Errorf("a start was broken off: %d", n)
	}
	n, s := step(autoscale.State{Wanted: 1}, quiet, 0)
	if n != 1 {
		t.Errorf("%d right after it became ready", n)
	}
	if n, _ := step(s, quiet, 9*time.Second); n != 1 {
		t.Errorf("%d before Idle is over", n)
	}
	busy := quiet
	busy.Busy = start().Add(5 * time.Second)
	if n, _ := step(s, busy, 14*time.Second); n != 1 {
		t.Errorf("%d nine seconds after a request", n)
	}
	if n, _ := step(s, busy, 15*time.Second); n != 0 {
		t.Errorf("%d ten seconds after the last request", n)
	}
	waiting := quiet
	waiting.Waiting = true
	if n, _ := step(s, waiting, time.Hour); n != 1 {
		t.Errorf("%d while a request waits", n)
	}
}

func TestRestartTakesNothingAwayForAWindow(t *testing.T) {
	t.Parallel()
	p, s := knative(10), autoscale.Begin(8, start())
	x := autoscale.Sample{Stable: 5, Recent: 5, StableSeconds: 2, RecentSeconds: 2, Ready: 8, Capacity: -1}
	for _, c := range []struct {
		at   time.Duration
		want int
	}{{time.Second, 8}, {59 * time.Second, 8}, {60 * time.Second, 8}, {61 * time.Second, 1}} {
		var d zarpa.ScaleDecision
		d, s = autoscale.Decide(p, s, x, start().Add(c.at))
		if d.To != c.want {
			t.Errorf("after %v: %d, expected %d", c.at, d.To, c.want)
		}
	}
}

// TestAYoungQueueIsNoDemand: what waits for no longer than a replica takes to start is what those on
// their way are for.
func TestAYoungQueueIsNoDemand(t *testing.T) {
	t.Parallel()
	p := azure(0.7, 0, 100)
	s := autoscale.State{Wanted: 2, Panic: start(), Peak: 2}
	// 10 requests a second of 0.1 s keep one replica busy; 100 wait, since now.
	x := autoscale.Sample{
		Stable: 100, Recent: 100, Peak: 100, StableSeconds: 10, RecentSeconds: 1, Arrivals: 10, Service: 0.1, Starting: 2, Capacity: -1,
		StartTime: 20 * time.Second, Calm: start(),
	}
	expect := func(at time.Duration, want int) {
		t.Helper()
		if d, _ := autoscale.Decide(p, s, x, start().Add(at)); d.To != want {
			t.Errorf("%d after %v, expected %d", d.To, at, want)
		}
	}
	expect(10*time.Second, 3) // 1.5 × 10 × 0.1 / 0.7 = 2.1
	expect(23*time.Second, 3)
	expect(24*time.Second, 6) // they should have been there for a while: 4 × 10 × 0.1 / 0.7 = 5.7
	s.Raised = start().Add(10 * time.Second)
	expect(24*time.Second, 3) // more were wanted in between
	s.Raised, s.Wanted = time.Time{}, 40
	expect(24*time.Second, 40) // what is wanted already is not talked away
	s.Wanted, x.Service = 2, 0
	expect(10*time.Second, 100) // nobody knows the demand
}

func TestCapacityIsALimitThatIsSeen(t *testing.T) {
	t.Parallel()
	p := azure(0.7, 1, 10)
	x := autoscale.Sample{Stable: 7, Recent: 7, StableSeconds: 60, RecentSeconds: 1, Ready: 2, Capacity: 3}
	d, s := autoscale.Decide(p, autoscale.State{Wanted: 2}, x, start())
	if d.To != 3 || s.Missing != 7 || !strings.Contains(d.Reason, "10; the target has room for 3") || d.Inputs.Capacity != 3 {
		t.Errorf("%d, %s", d.To, d.Reason)
	}
	x.Capacity = 20
	if d, s = autoscale.Decide(p, s, x, start().Add(time.Second)); d.To != 10 || s.Missing != 0 {
		t.Errorf("%d, %s", d.To, d.Reason)
	}
}
