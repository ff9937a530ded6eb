package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"
)

// loadSpec says what one run of the load does.
type loadSpec struct {
	Address string // unix:PATH or HOST:PORT
	Request []byte
	Clients int // connections; in a closed loop each sends when it has its answer
	// Rate, in requests per second over all connections, makes it an open loop: each request has a
	// moment at which it is due, and its latency counts from then on, sent or not.
	Rate     float64
	Warm     time.Duration // before the measurement, with the same load
	Duration time.Duration
}

// loadResult is what one run saw. Latencies are in microseconds.
type loadResult struct {
	Sent      int     `json:"sent"`     // warm-up included
	Measured  int     `json:"measured"` // after it
	Failed    int     `json:"failed"`
	Failure   string  `json:"failure,omitempty"` // the first one
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	// Processor is what the load itself used, in seconds.
	Processor float64 `json:"processor"`
}

// sender is one connection of the load.
type sender struct {
	spec      loadSpec
	index     int
	link      *link
	start     time.Time // of the schedule
	latencies []time.Duration
	sent      int
	last      time.Time
	err       error
}

// generate runs a load.
func generate(ctx context.Context, spec loadSpec) (loadResult, error) {
	senders := make([]*sender, spec.Clients)
	for i := range senders {
		c, err := dial(ctx, spec.Address)
		if err != nil {
			return loadResult{}, err
		}
		l, room := polled(c), 1<<18
		if spec.Rate > 0 {
			if l, err = blocking(c); err != nil {
				return loadResult{}, err
			}
			room = int(spec.Rate*spec.Duration.Seconds())/spec.Clients + 16
		}
		senders[i] = &sender{spec: spec, index: i, link: l, latencies: make([]time.Duration, 0, room)}
	}
	before := ownProcessor()
	start := time.Now().Add(time.Millisecond)
	var wg sync.WaitGroup
	for _, s := range senders {
		s.start = start
		wg.Go(s.run)
	}
	wg.Wait()
	res := gather(senders, start.Add(spec.Warm))
	res.Processor = ownProcessor() - before
	return res, ctx.Err()
}

func (s *sender) run() {
	defer s.link.Close()
	if s.spec.Rate > 0 {
		runtime.LockOSThread() // and the thread ends with it
		sharpenTimers()
	}
	from, until := s.start.Add(s.spec.Warm), s.start.Add(s.spec.Warm+s.spec.Duration)
	gap := time.Duration(0)
	if s.spec.Rate > 0 {
		gap = time.Duration(float64(time.Second) / s.spec.Rate)
	}
	for k := 0; ; k++ {
		due := time.Now()
		if gap > 0 {
			due = s.start.Add(gap * time.Duration(k*s.spec.Clients+s.index))
			sleepUntil(due)
		}
		if due.After(until) {
			return
		}
		if err := s.once(); err != nil {
			s.err = err
			return
		}
		s.sent++
		s.last = time.Now()
		if !due.Before(from) {
			s.latencies = append(s.latencies, s.last.Sub(due))
		}
	}
}

func (s *sender) once() error {
	if _, err := s.link.Write(s.spec.Request); err != nil {
		return err
	}
	answer, err := s.link.read()
	switch {
	case err != nil:
		return err
	case statusOf(answer) != 200:
		return fmt.Errorf("answer: %.300s", answer)
	}
	return nil
}

// gather puts the connections' views together. A failed connection sends no more, so that any
// failure spoils the figures: callers refuse them.
func gather(senders []*sender, from time.Time) loadResult {
	var res loadResult
	var all []time.Duration
	var last time.Time
	for _, s := range senders {
		res.Sent += s.sent
		all = append(all, s.latencies...)
		if s.last.After(last) {
			last = s.last
		}
		if s.err != nil {
			res.Failed++
			res.Failure = s.err.Error()
		}
	}
	slices.Sort(all)
	res.Measured = len(all)
	if took := last.Sub(from).Seconds(); took > 0 {
		res.PerSecond = float64(len(all)) / took
	}
	res.P50, res.P99 = micro(quantile(all, 0.5)), micro(quantile(all, 0.99))
	return res
}

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// dial connects to unix:PATH or HOST:PORT.
func dial(ctx context.Context, address string) (net.Conn, error) {
	network, where := splitAddress(address)
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, where)
}

// sample is one load on one contestant.
type sample struct {
	loadResult
	// PerRequest is the processor time of the contestant's process for one request, in
	// microseconds.
	PerRequest float64
}

// load runs a load in a process of its own against a contestant.
func (b *bench) load(ctx context.Context, on *process, spec loadSpec) (sample, error) {
	if spec.Warm == 0 {
		spec.Warm = spec.Duration / 5
	}
	before := on.processor()
	var res loadResult
	if err := b.ask(ctx, "load", spec, &res); err != nil {
		return sample{}, err
	}
	used := on.processor() - before
	switch {
	case res.Failed > 0:
		return sample{}, fmt.Errorf("load on %s: %d of %d connections failed: %s", on.name, res.Failed, spec.Clients, res.Failure)
	case res.Measured == 0:
		return sample{}, errors.Join(fmt.Errorf("load on %s: no answers", on.name), ctx.Err())
	}
	return sample{loadResult: res, PerRequest: used * 1e6 / float64(res.Sent)}, nil
}
