package score

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Unix(1_000_000, 0)

func at(d time.Duration) time.Time { return start.Add(d) }

const ms = time.Millisecond

func TestDecide(t *testing.T) {
	t.Parallel()
	// a run costs 1ms and 10µs for each row; clients come back within 0.3 to 0.45 ms
	known := func(out ...answered) pace {
		return pace{
			maxDelay: 10 * ms, cost: costs{fixed: .001, perRow: .00001},
			back: returns{known: true, mean: .0003, dev: .00005, out: out},
		}
	}
	vague := known(answered{at(0), 9})
	vague.back.dev = .0006
	slow := known(answered{at(0), 1}) // within 0.9 to 1.05 ms
	slow.back.mean = .0009
	zero := known(answered{at(0), 9})
	zero.maxDelay = 0
	g := func(k int) gathering { return gathering{requests: k, rows: int64(k)} }
	with := func(g gathering, change func(*gathering)) gathering { change(&g); return g }
	for _, c := range []struct {
		name  string
		pace  pace
		g     gathering
		now   time.Duration
		why   reason
		until time.Duration
	}{
		{"nothing is known", pace{maxDelay: ms}, g(1), 0, reasonIdle, 0},
		{"nobody is away", known(), g(1), 0, reasonIdle, 0},
		{"others come back soon", known(answered{at(0), 9}), g(1), 0, keepWaiting, 450 * time.Microsecond},
		{"no delay is allowed", zero, g(1), 0, reasonIdle, 0},
		{"full does not wait", known(answered{at(0), 9}), with(g(1), func(g *gathering) { g.full = true }), 0, reasonFull, 0},
		{"when they come back is anybody's guess", vague, g(1), 0, reasonIdle, 0},
		{"one is not worth the time of nine", slow, g(9), 0, reasonIdle, 0},
		{"one that comes at once is", slow, g(9), ms, keepWaiting, 1050 * time.Microsecond},
		{"one is, when all are one round", known(answered{at(0), 1}), g(9), 0, keepWaiting, 450 * time.Microsecond},
		{"late ones are not waited for", known(answered{at(0), 9}), with(g(1), func(g *gathering) { g.since = start }), 451 * time.Microsecond, reasonLate, 0},
		{"the longest delay", known(answered{at(9900 * time.Microsecond), 9}), with(g(1), func(g *gathering) { g.since = start }), 10 * ms, reasonDelay, 0},
		{"up to the longest delay", known(answered{at(9900 * time.Microsecond), 9}), with(g(1), func(g *gathering) { g.since = start }), 9950 * time.Microsecond, keepWaiting, 10 * ms},
		{
			"a time limit comes first", known(answered{at(0), 9}),
			with(g(1), func(g *gathering) { g.deadline = at(1210 * time.Microsecond) }), 0, keepWaiting, 200 * time.Microsecond,
		},
		{"no time is left", known(answered{at(0), 9}), with(g(1), func(g *gathering) { g.deadline = at(ms) }), 0, reasonDeadline, 0},
	} {
		why, until := c.pace.decide(c.g, at(c.now))
		if why != c.why || why == keepWaiting && until.Sub(at(c.until)).Abs() > time.Microsecond {
			t.Errorf("%s: %s until %v, want %s until %v", c.name, reasonNames[why], until.Sub(start), reasonNames[c.why], c.until)
		}
	}
}

func TestCostsTellFixedFromPerRow(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var c costs
	for i := range 300 {
		rows := 1 + r.Int64N(16)
		took := 2*ms + time.Duration(rows)*100*time.Microsecond
		took += time.Duration(r.Int64N(int64(took / 5)))
		if i%50 == 49 {
			took = time.Second // the machine had something else to do
		}
		c.add(rows, took)
	}
	if got := c.expect(0); got < 1500*time.Microsecond || got > 3*ms {
		t.Errorf("fixed cost %v, want about 2ms", got)
	}
	for range 500 {
		c.add(16, 2*ms+1600*time.Microsecond) // all of one size now
	}
	fixed := c.fixed
	if fixed < .0015 || fixed > .003 {
		t.Errorf("fixed cost %v after batches of one size, want about 2ms", c.expect(0))
	}
	for range 500 {
		c.add(16, 2*(2*ms+1600*time.Microsecond)) // and half as fast
	}
	if ratio := c.fixed / fixed; ratio < 1.5 || ratio > 2.5 {
		t.Errorf("the fixed cost changed by %.2f, want about 2", ratio)
	}
}

// event is something that happens at a time of the simulation.
type event struct {
	at time.Duration
	n  int
	do func()
}

type happenings []event

func (e happenings) Len() int { return len(e) }
func (e happenings) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e happenings) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *happenings) Push(x any)   { *e = append(*e, x.(event)) }
func (e *happenings) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// simulation is a line under a clock of its own.
type simulation struct {
	line          line
	fixed, perRow time.Duration
	tight         int64 // the rows from which on each costs twice as much; 0 for none
	static        int   // how many requests every batch has; 0 asks the line's pace
	rand          *rand.Rand
	now           time.Duration
	events        happenings
	n             int
	answer        func(client int)
	waits         []time.Duration
	answers       int
	reasons       [numReasons]int
	sizes         map[int]int
}

func (s *simulation) after(d time.Duration, do func()) {
	s.n++
	heap.Push(&s.events, event{s.now + d, s.n, do})
}

func (s *simulation) come(client int) {
	m := &member{key: "k", rows: 1, came: at(s.now), slots: []int{client}}
	s.line.join(m, at(s.now))
	s.begin()
}

func (s *simulation) begin() {
	if s.static > 0 && s.line.waiting < s.static {
		return
	}
	for {
		b, wake := s.line.next(at(s.now))
		if b == nil {
			if !wake.IsZero() {
				s.after(wake.Sub(at(s.now)), s.begin)
			}
			return
		}
		s.reasons[b.why]++
		s.sizes[len(b.members)]++
		for _, m := range b.members {
			s.waits = append(s.waits, s.now-m.came.Sub(start))
		}
		took := s.fixed + time.Duration(b.rows)*s.perRow
		if s.tight > 0 && b.rows > s.tight {
			took += time.Duration(b.rows) * s.perRow
		}
		took += time.Duration(s.rand.Int64N(int64(took/10) + 1))
		s.after(took, func() {
			s.line.ended(b, took)
			s.line.answered(len(b.members), at(s.now))
			s.answers += len(b.members)
			for _, m := range b.members {
				m.stage = stageOut
				s.answer(m.slots[0])
			}
			s.begin()
		})
	}
}

func (s *simulation) run(limit time.Duration) {
	for len(s.events) > 0 && s.events[0].at < limit {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
}

func simulate(fixed, perRow, maxDelay time.Duration) *simulation {
	s := &simulation{fixed: fixed, perRow: perRow, rand: rand.New(rand.NewPCG(3, 4)), sizes: map[int]int{}}
	s.line = line{maxRows: 64, runs: 1, concurrency: 256, pace: pace{maxDelay: maxDelay}}
	return s
}

// closed lets clients each send one request after the other. A server with one thread for all that
// is not the model spends `gap` on each, one after the other; then the client needs `think`.
func (s *simulation) closed(clients int, gap, think time.Duration) {
	var free time.Duration
	s.answer = func(client int) {
		free = max(free, s.now) + gap
		back := free - s.now + think
		if think > 0 {
			back += time.Duration(s.rand.Int64N(int64(think)))
		}
		s.after(back, func() { s.come(client) })
	}
	for i := range clients {
		s.after(time.Duration(i)*gap, func() { s.come(i) })
	}
}

// open lets requests come at random times, so many a second on average.
func (s *simulation) open(rate float64) {
	s.answer = func(int) {}
	var next func()
	next = func() {
		s.come(0)
		s.after(time.Duration(s.rand.ExpFloat64()/rate*float64(time.Second)), next)
	}
	s.after(0, next)
}

func (s *simulation) String() string {
	var text strings.Builder
	for r, n := range s.reasons {
		if n > 0 {
			fmt.Fprintf(&text, " %s %d", reasonNames[r], n)
		}
	}
	return fmt.Sprint(text.String(), " sizes ", s.sizes)
}

// TestThroughputIsNearTheBestStaticBatch lets many clients press as hard as they can.
func TestThroughputIsNearTheBestStaticBatch(t *testing.T) {
	t.Parallel()
	for _, fixed := range []time.Duration{100 * time.Microsecond, ms, 5 * ms} {
		for _, perRow := range []time.Duration{2 * time.Microsecond, 50 * time.Microsecond, ms} {
			for _, gap := range []time.Duration{time.Microsecond, 20 * time.Microsecond, 100 * time.Microsecond} {
				for _, clients := range []int{1, 2, 5, 16, 64} {
					for _, think := range []time.Duration{0, 200 * time.Microsecond} {
						lasts := 80 * (2*fixed + time.Duration(clients)*(perRow+gap) + think)
						best, size := 0, 0
						for static := 1; static <= clients; static += max(1, static/2) {
							s := simulate(fixed, perRow, 0)
							s.static = static
							s.closed(clients, gap, think)
							s.run(lasts)
							if s.answers > best {
								best, size = s.answers, static
							}
						}
						s := simulate(fixed, perRow, 10*ms)
						s.closed(clients, gap, think)
						s.run(lasts)
						ratio := float64(s.answers) / float64(best)
						if ratio < 0.95 {
							t.Errorf("fixed %v, per row %v, %d clients %v apart, think %v: %d of %d (batches of %d): %.3f%v", fixed, perRow, clients, gap, think, s.answers, best, size, ratio, s)
						}
					}
				}
			}
		}
	}
}

// TestBatchesGrowOnlyAsLongAsRowsGetCheaper: more rows than a cache holds cost twice as much each.
func TestBatchesGrowOnlyAsLongAsRowsGetCheaper(t *testing.T) {
	t.Parallel()
	for _, tight := range []int64{1, 4, 16} {
		tput := func(maxRows int64) (int, *simulation) {
			s := simulate(200*time.Microsecond, ms, 2*ms)
			s.line.maxRows, s.tight = maxRows, tight
			s.closed(64, 10*time.Microsecond, 100*time.Microsecond)
			s.run(60 * time.Second)
			return s.answers, s
		}
		best := 0
		for _, size := range []int64{1, 4, 16, 64} {
			n, _ := tput(size)
			best = max(best, n)
		}
		if n, s := tput(64); float64(n) < .95*float64(best) {
			t.Errorf("tight from %d rows on: %d answers, the best is %d%v", tight, n, best, s)
		}
	}
	var s sizes
	for range 100 {
		for _, rows := range []int64{1, 4, 16, 64} {
			s.add(rows, time.Duration(rows)*ms)
		}
	}
	s.add(64, time.Hour) // one hiccup is none of the model's
	if n := s.limit(100); n != 100 {
		t.Errorf("limit %d where all cost the same", n)
	}
}

// TestLightLoadDoesNotWait compares with what a run of one's own takes.
func TestLightLoadDoesNotWait(t *testing.T) {
	t.Parallel()
	for _, fixed := range []time.Duration{10 * time.Microsecond, ms, 5 * ms} {
		for _, load := range []float64{.01, .1, .3} {
			mean := func(delay time.Duration) time.Duration {
				s := simulate(fixed, fixed/10, delay)
				s.open(load / (fixed + fixed/10).Seconds())
				s.run(20000 * fixed)
				var sum time.Duration
				for _, w := range s.waits {
					sum += w
				}
				return sum / time.Duration(len(s.waits))
			}
			if with, without := mean(10*ms), mean(0); with > without+fixed/50 {
				t.Errorf("fixed %v, load %v: waits %v, without a delay %v", fixed, load, with, without)
			}
		}
		s := simulate(fixed, fixed/10, 10*ms)
		s.closed(1, 50*time.Microsecond, 100*time.Microsecond)
		s.run(2000 * fixed)
		if longest := slices.Max(s.waits); longest > 0 {
			t.Errorf("fixed %v: one client waited %v", fixed, longest)
		}
	}
}

// TestSteadyTrafficWaitsLittle: when greed is enough, waiting must not make it slower.
func TestSteadyTrafficWaitsLittle(t *testing.T) {
	t.Parallel()
	for _, load := range []float64{.5, .9, 1.5, 3, 6} {
		mean := func(delay time.Duration) (time.Duration, *simulation) {
			s := simulate(ms, 50*time.Microsecond, delay)
			s.open(load * 1000)
			s.run(5 * time.Second)
			var sum time.Duration
			for _, w := range s.waits {
				sum += w
			}
			return sum / time.Duration(len(s.waits)), s
		}
		with, s := mean(10 * ms)
		without, _ := mean(0)
		t.Logf("load %v: waits %v, without a delay %v%v", load, with, without, s)
		if with > without+without/5+20*time.Microsecond {
			t.Errorf("load %v: waits %v, without a delay %v", load, with, without)
		}
	}
}

// TestNoRequestWaitsLongerThanTheDelay: whatever the pattern, while a run may begin.
func TestNoRequestWaitsLongerThanTheDelay(t *testing.T) {
	t.Parallel()
	s := simulate(20*ms, 10*time.Microsecond, 2*ms)
	s.closed(16, 100*time.Microsecond, ms)
	s.run(5 * time.Second)
	var most time.Duration
	for _, w := range s.waits {
		most = max(most, w)
	}
	if most > 25*ms { // a run, and the delay
		t.Errorf("one waited %v", most)
	}
	if s.reasons[keepWaiting] > 0 {
		t.Error("a batch began without a reason")
	}
}

// On a machine with other work some runs take many times as long, the first ones too.
func TestOutliersDoNotKeepBatchesSmall(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s sizes
		full := 0
		for run := range 2000 {
			rows := min(s.limit(64), 1+r.Int64N(64))           // as many as have come
			took := time.Duration(8+2*rows) * time.Microsecond // more rows are cheaper
			took += time.Duration(r.Float64() * 0.1 * float64(took))
			if r.IntN(5) == 0 {
				took *= time.Duration(2 + r.IntN(20))
			}
			s.add(rows, took)
			if run >= 1000 && s.limit(64) == 64 {
				full++
			}
		}
		if full < 900 {
			t.Errorf("seed %d: %d of the last 1000 batches may be full", seed, full)
		}
	}
}
