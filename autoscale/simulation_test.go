package autoscale_test

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"

	"github.com/zarpa-dev/zarpa/autoscale"
)

// simulation is an M/G/c queue whose number of servers follows Decide, on a clock of its own: requests
// arrive at random with a rate that the pattern gives, take a log-normal time, and wait in one queue as
// the gateway's, which is bounded in length and in time. What is measured and decided is the product's own code.
type simulation struct {
	pattern func(second float64) float64 // requests a second
	delay   time.Duration                // from the decision to a ready replica
	policy  autoscale.Policy
	length  float64 // seconds
	seed    uint64

	random   *rand.Rand
	events   events
	now      float64
	queue    []waiting
	replicas []*server
	state    autoscale.State
	window   *autoscale.Window
	service  float64 // the last that was known
	tickedAt float64

	// integrals and counters since the last tick
	busySum, queuedSum, lastAt float64
	arrived, answered          float64
	inFlight                   int

	result result
}

// The queue: 0.1 s for a request, two at a time in each replica, at most 256 wait for half a second, or
// for half a minute while there is no replica.
const (
	meanService    = 0.1
	concurrency    = 2
	longestQueue   = 256
	patience       = 0.5
	patienceAtZero = 30
)

type waiting struct{ arrived, leaves float64 }

type server struct {
	ready    bool
	draining bool
	busy     int
}

type event struct {
	at  float64
	run func()
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// result is what a run showed.
type result struct {
	requests, refused int
	most              int     // replicas that were wanted at most
	turns             int     // ups that followed a down, and downs that followed an up
	flaps             int     // ups within a window after a down
	used              float64 // replica-seconds
	enough            float64 // when there were first as many ready replicas as the highest load needs
	ups, downs        []float64
}

func (s *simulation) at(second float64, run func()) { heap.Push(&s.events, event{second, run}) }

func (s *simulation) time() time.Time {
	return start().Add(time.Duration(s.now * float64(time.Second)))
}

// simulate runs it, from a state with wanted replicas that are ready.
func (s *simulation) simulate(wanted int) result {
	s.random = rand.New(rand.NewPCG(s.seed, 2))
	s.window = autoscale.NewWindow(s.policy.Window)
	s.state = autoscale.State{Wanted: wanted}
	s.result.enough = math.NaN()
	for range wanted {
		s.replicas = append(s.replicas, &server{ready: true})
	}
	s.at(0, s.arrive)
	s.at(1, s.tick)
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(event) //nolint:forcetypeassert // nothing else is pushed
		if e.at > s.length {
			break
		}
		s.now = e.at
		s.integrate()
		e.run()
	}
	return s.result
}

// integrate brings the sums up to now.
func (s *simulation) integrate() {
	took := s.now - s.lastAt
	s.lastAt = s.now
	s.busySum += took * float64(s.inFlight)
	s.queuedSum += took * float64(len(s.queue))
	s.result.used += took * float64(len(s.replicas))
}

// arrive is a Poisson process of a changing rate, by thinning.
func (s *simulation) arrive() {
	const highest = float64(high)
	s.at(s.now+s.random.ExpFloat64()/highest, s.arrive)
	if s.random.Float64() >= s.pattern(s.now)/highest {
		return
	}
	s.result.requests++
	s.arrived++
	if len(s.queue) >= longestQueue {
		s.result.refused++
		return
	}
	longest := float64(patience)
	if s.ready() == 0 {
		longest = patienceAtZero
	}
	leaves := s.now + longest
	s.queue = append(s.queue, waiting{s.now, leaves})
	s.serve()
	if s.ready() == 0 && s.state.Wanted == 0 {
		s.decide(true)
	}
	s.at(leaves, s.leave)
}

func (s *simulation) ready() int {
	n := 0
	for _, r := range s.replicas {
		if r.ready && !r.draining {
			n++
		}
	}
	return n
}

// leave drops those that have waited for long enough.
func (s *simulation) leave() {
	kept := s.queue[:0]
	for _, w := range s.queue {
		if w.leaves > s.now {
			kept = append(kept, w)
			continue
		}
		s.result.refused++
	}
	s.queue = kept
}

// serve brings waiting requests to the least busy replicas.
func (s *simulation) serve() {
	for len(s.queue) > 0 {
		var free *server
		for _, r := range s.replicas {
			if r.ready && !r.draining && r.busy < concurrency && (free == nil || r.busy < free.busy) {
				free = r
			}
		}
		if free == nil {
			return
		}
		s.queue = s.queue[1:]
		free.busy++
		s.inFlight++
		const sigma = 0.5
		took := meanService * math.Exp(sigma*s.random.NormFloat64()-sigma*sigma/2)
		s.at(s.now+took, func() {
			free.busy--
			s.inFlight--
			s.answered++
			s.sweep()
			s.serve()
		})
	}
}

// sweep removes replicas that have drained.
func (s *simulation) sweep() {
	kept := s.replicas[:0]
	for _, r := range s.replicas {
		if !r.draining || r.busy > 0 {
			kept = append(kept, r)
		}
	}
	s.replicas = kept
}

func (s *simulation) tick() {
	s.at(s.now+1, s.tick)
	s.decide(false)
}

func (s *simulation) decide(waiting bool) {
	from := s.time().Add(-time.Duration((s.now - s.tickedAt) * float64(time.Second)))
	s.window.Add(autoscale.Stretch{From: from, To: s.time(), Busy: s.busySum, Queued: s.queuedSum, Arrived: s.arrived, Answered: s.answered})
	s.busySum, s.queuedSum, s.arrived, s.answered, s.tickedAt = 0, 0, 0, 0, s.now
	x := s.window.Sample(s.policy, s.time())
	if x.Service == 0 {
		x.Service = s.service
	}
	s.service = x.Service
	x.Waiting, x.StartTime = waiting || len(s.queue) > 0, s.delay
	x.Ready = s.ready()
	for _, r := range s.replicas {
		if !r.ready && !r.draining {
			x.Starting++
		}
	}
	d, state := autoscale.Decide(s.policy, s.state, x, s.time())
	s.state = state
	s.note(d.From, d.To)
	s.apply()
}

// note counts what a decision was.
func (s *simulation) note(from, to int) {
	r := &s.result
	r.most = max(r.most, to)
	window := s.policy.Window.Seconds()
	switch {
	case to > from:
		if n := len(r.downs); n > 0 {
			if len(r.ups) == 0 || r.downs[n-1] > r.ups[len(r.ups)-1] {
				r.turns++
			}
			if s.now-r.downs[n-1] < window {
				r.flaps++
			}
		}
		r.ups = append(r.ups, s.now)
	case to < from:
		if n := len(r.ups); n > 0 && (len(r.downs) == 0 || r.ups[n-1] > r.downs[len(r.downs)-1]) {
			r.turns++
		}
		r.downs = append(r.downs, s.now)
	}
}

// apply starts what is missing and drains what is too much, what is not ready first.
func (s *simulation) apply() {
	have := 0
	for _, r := range s.replicas {
		if !r.draining {
			have++
		}
	}
	for ; have < s.state.Wanted; have++ {
		r := &server{}
		s.replicas = append(s.replicas, r)
		s.at(s.now+s.delay.Seconds(), func() {
			r.ready = true
			s.serve()
			s.watch()
		})
	}
	for _, starting := range []bool{true, false} {
		for i := len(s.replicas) - 1; i >= 0 && have > s.state.Wanted; i-- {
			if r := s.replicas[i]; !r.draining && r.ready != starting {
				r.draining = true
				have--
			}
		}
	}
	s.sweep()
}

// watch notes when there are as many replicas as the highest load needs.
func (s *simulation) watch() {
	if math.IsNaN(s.result.enough) && s.ready() >= ideal(s.policy, 100) {
		s.result.enough = s.now
	}
}

// ideal is how many replicas a rate of requests needs.
func ideal(p autoscale.Policy, rate float64) int {
	return int(math.Ceil(rate * meanService / p.Target))
}
