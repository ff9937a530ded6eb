package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

// The replica of this part takes a while over each request, as a model does, and costs next to
// nothing meanwhile: the machine has to carry the load itself, too.
const (
	overloadPlaces  = 8
	overloadService = 20 * time.Millisecond
	overloadTimes   = 10 // the capacity is offered so many times
	// overloadClients are more than wait in the queue and for a replica: some are always free to be
	// refused.
	overloadClients = 600
	overloadGrowth  = 8.0 // MiB, from the first round of overload to the last
)

// overloadSpec says what a load does that goes on whatever it is answered.
type overloadSpec struct {
	Address  string
	Request  []byte
	Rate     float64 // in requests per second: each is due at a moment, answered or not
	Clients  int
	Duration time.Duration
}

// overloadResult is what it saw. Latencies are in microseconds, from the moment that a request was due.
type overloadResult struct {
	Answered  int     `json:"answered"` // 200
	Refused   int     `json:"refused"`  // 429 and 503
	Failed    int     `json:"failed"`   // all else
	Unsent    int     `json:"unsent"`   // no client was free
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	RefusedIn float64 `json:"refused_in"` // p50
	Failure   string  `json:"failure,omitempty"`
	// Told are the Retry-After of the refusals, least and greatest.
	Told [2]int `json:"told"`
}

// flood offers the load.
func flood(ctx context.Context, spec overloadSpec) (overloadResult, error) {
	due := make(chan time.Time, spec.Clients)
	views := make([]overloadView, spec.Clients)
	var wg, connected sync.WaitGroup
	connected.Add(len(views))
	for i := range views {
		wg.Go(func() {
			l := views[i].connect(ctx, spec)
			connected.Done()
			views[i].run(ctx, spec, l, due)
		})
	}
	connected.Wait() // clients that come together are another matter
	unsent, offered := 0, 0
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for now := range tick.C {
		passed := min(now.Sub(start), spec.Duration)
		for ; offered < int(passed.Seconds()*spec.Rate); offered++ {
			select {
			case due <- start.Add(time.Duration(float64(offered) / spec.Rate * float64(time.Second))):
			default:
				unsent++
			}
		}
		if passed == spec.Duration || ctx.Err() != nil {
			break
		}
	}
	close(due)
	wg.Wait()
	return sumUp(views, unsent, time.Since(start)), ctx.Err()
}

// overloadView is what one connection saw.
type overloadView struct {
	answered, refused []time.Duration
	failed            int
	failure           error
	told              [2]int
}

// connect returns nil, and counts a failure, when it could not.
func (v *overloadView) connect(ctx context.Context, spec overloadSpec) *link {
	c, err := dial(ctx, spec.Address)
	if err != nil {
		v.fail(err)
		return nil
	}
	return &link{c, make([]byte, 8<<10)}
}

// run sends what is due until nothing will be. A connection that broke is made anew.
func (v *overloadView) run(ctx context.Context, spec overloadSpec, l *link, due <-chan time.Time) {
	for at := range due {
		if l == nil {
			if l = v.connect(ctx, spec); l == nil {
				continue
			}
		}
		_, err := l.Write(spec.Request)
		var answer []byte
		if err == nil {
			answer, err = l.read()
		}
		if err != nil {
			v.fail(err)
			_ = l.Close()
			l = nil
			continue
		}
		v.note(answer, time.Since(at))
		if closes(answer) {
			_ = l.Close()
			l = nil
		}
	}
	if l != nil {
		_ = l.Close()
	}
}

func (v *overloadView) fail(err error) {
	v.failed++
	v.failure = err
}

func (v *overloadView) note(answer []byte, took time.Duration) {
	switch statusOf(answer) {
	case 200:
		v.answered = append(v.answered, took)
	case 429, 503:
		v.refused = append(v.refused, took)
		n, _ := strconv.Atoi(string(field(answer, "retry-after")))
		if v.told[0] == 0 || n < v.told[0] {
			v.told[0] = n
		}
		v.told[1] = max(v.told[1], n)
	default:
		v.fail(fmt.Errorf("answer: %.300s", answer))
	}
}

func sumUp(views []overloadView, unsent int, took time.Duration) overloadResult {
	res := overloadResult{Unsent: unsent}
	var answered, refused []time.Duration
	for _, v := range views {
		answered, refused = append(answered, v.answered...), append(refused, v.refused...)
		res.Failed += v.failed
		if v.failure != nil {
			res.Failure = v.failure.Error()
		}
		if v.told[0] > 0 && (res.Told[0] == 0 || v.told[0] < res.Told[0]) {
			res.Told[0] = v.told[0]
		}
		res.Told[1] = max(res.Told[1], v.told[1])
	}
	slices.Sort(answered)
	slices.Sort(refused)
	res.Answered, res.Refused = len(answered), len(refused)
	res.PerSecond = float64(len(answered)) / took.Seconds()
	res.P50, res.P99, res.RefusedIn = micro(quantile(answered, .5)), micro(quantile(answered, .99)), micro(quantile(refused, .5))
	return res
}

// overloadRound is one round: capacity, then ten times as much.
type overloadRound struct {
	capacity sample
	flood    overloadResult
	memory   float64 // MiB, after it
}

func (r overloadRound) goodput() float64 { return r.flood.PerSecond / r.capacity.PerSecond }

// measureOverload is its part.
func (b *bench) measureOverload(ctx context.Context, r *report) error {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return err
	}
	unix, request := "unix:"+filepath.Join(b.temp, "o.sock"), requestText("/endpoints/iris/score", benchKey, []byte(irisBody))
	replica, err := b.role(ctx, "replica", replicaSpec{Addresses: []string{unix}, Answer: irisAnswer, Takes: overloadService},
		answers(unix, requestText("/score", benchKey, []byte(irisBody))))
	if err != nil {
		return err
	}
	defer replica.stop()
	control := filepath.Join(b.temp, "og.sock")
	client := gateway.NewControlClient(control)
	defer client.Close()
	routes := hopRoutes(unix)
	routes.Endpoints[0].Deployments[0].MaxConcurrency = overloadPlaces
	routes.Endpoints[0].Limits = &zarpa.KeyLimits{Rate: 1e6, Concurrent: 1e5} // they are counted, and not reached
	gate, err := b.serve(ctx, "zarpa gateway", func(ctx context.Context) error {
		return errors.Join(client.SetRoutes(ctx, routes), answers(ports[0], request)(ctx))
	}, "gateway", "--listen", ports[0], "--control", control)
	if err != nil {
		return err
	}
	defer gate.stop()
	var rounds []overloadRound
	for n := range b.scale.rounds {
		b.say("overload: round %d of %d", n+1, b.scale.rounds)
		var round overloadRound
		round.capacity, err = b.load(ctx, gate, loadSpec{Address: ports[0], Request: request, Clients: 2 * overloadPlaces, Duration: b.scale.closed})
		if err != nil {
			return err
		}
		spec := overloadSpec{
			Address: ports[0], Request: request, Clients: overloadClients,
			Rate: overloadTimes * round.capacity.PerSecond, Duration: 2 * b.scale.open,
		}
		if err := b.ask(ctx, "overload", spec, &round.flood); err != nil {
			return err
		}
		if round.flood.Failed > 0 {
			return fmt.Errorf("overload: %d requests were neither answered nor refused: %s", round.flood.Failed, round.flood.Failure)
		}
		round.memory = gate.memory().Own
		rounds = append(rounds, round)
	}
	r.overload(rounds)
	return nil
}

// overload reports it.
func (r *report) overload(rounds []overloadRound) {
	figure := func(of func(overloadRound) float64) float64 {
		var all []float64
		for _, round := range rounds {
			all = append(all, of(round))
		}
		return median(all)
	}
	var rows [][]string
	for n, round := range rounds {
		f := round.flood
		rows = append(rows, []string{
			strconv.Itoa(n + 1), whole(round.capacity.PerSecond), strconv.Itoa(f.Answered + f.Refused + f.Unsent), whole(f.PerSecond), fmt.Sprintf("%.1f %%", 100*round.goodput()),
			us(f.P50), us(f.P99), us(f.RefusedIn), fmt.Sprintf("%d–%d s", f.Told[0], f.Told[1]), strconv.Itoa(f.Unsent), fmt.Sprintf("%.1f", round.memory),
		})
	}
	s := r.section("Overload")
	s.text("A replica that takes %v over each request, %d at a time. Its capacity through the gateway is measured first, in a closed loop of %d clients; then "+
		"%d times as many requests are offered in an open loop, which does not wait for answers and does not heed `Retry-After`. Goodput is what is "+
		"answered with 200, against the capacity. Times are in µs, from the moment that a request is due; “unsent” found none of %d connections free.",
		overloadService, overloadPlaces, 2*overloadPlaces, overloadTimes, overloadClients)
	s.table([]string{"round", "capacity/s", "offered", "goodput/s", "goodput", "p50", "p99", "refused in", "Retry-After", "unsent", "gateway's memory, MiB"}, rows)
	goodput := figure(overloadRound.goodput)
	r.aim(aim{
		what: "goodput at ten times the load", want: "≥ 95 %", got: fmt.Sprintf("%.1f %%", 100*goodput), met: goodput >= .95,
		bound: "The load, the gateway and the replica share the cores.",
	})
	grown := rounds[len(rounds)-1].memory - rounds[0].memory
	r.aim(aim{
		what: "the gateway's memory, from the first round of overload to the last", want: fmt.Sprintf("grows by ≤ %.0f MiB", overloadGrowth),
		got: fmt.Sprintf("%+.1f MiB", grown), met: grown <= overloadGrowth, bound: "It is that of the most requests that were there at a time.",
	})
}
