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
	GRPC    bool // Request is a ModelInferRequest, encoded
	Clients int  // connections; in a closed loop each sends when it has its answer
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

// sender is one client of the load.
type sender struct {
	spec      loadSpec
	index     int
	once      func() error // one request and its answer
	start     time.Time    // of the schedule
	latencies []time.Duration
	sent      int
	last      time.Time
	err       error
}

func newSender(spec loadSpec, index int, once func() error) *sender {
	room := 1 << 16
	if spec.Rate > 0 {
		room = int(spec.Rate*spec.Duration.Seconds())/spec.Clients + 16
	}
	return &sender{spec: spec, index: index, once: once, latencies: make([]time.Duration, 0, room)}
}

// generate runs a load over HTTP.
func generate(ctx context.Context, spec loadSpec) (loadResult, error) {
	senders := make([]*sender, spec.Clients)
	for i := range senders {
		c := &client{spec: spec, dial: func() (net.Conn, error) { return dial(ctx, spec.Address) }}
		if err := c.connect(); err != nil {
			return loadResult{}, err
		}
		defer c.close()
		senders[i] = newSender(spec, i, c.exchange)
	}
	return runSenders(ctx, senders, spec)
}

// runSenders lets all send at the same time until their time is over.
func runSenders(ctx context.Context, senders []*sender, spec loadSpec) (loadResult, error) {
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

// client is one HTTP connection of the load, made anew when the server closes it.
type client struct {
	spec loadSpec
	dial func() (net.Conn, error)
	link *link
}

func (c *client) connect() error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	if c.spec.Rate > 0 {
		c.link, err = blocking(conn)
		return err
	}
	c.link = polled(conn)
	return nil
}

func (c *client) close() {
	if c.link != nil {
		_ = c.link.Close()
	}
}

// exchange sends the request and reads the answer. A server that closes each connection is charged
// with the next one being made.
func (c *client) exchange() error {
	if c.link == nil {
		if err := c.connect(); err != nil {
			return err
		}
	}
	if _, err := c.link.Write(c.spec.Request); err != nil {
		return err
	}
	answer, err := c.link.read()
	switch {
	case err != nil:
		return err
	case statusOf(answer) != 200:
		return fmt.Errorf("answer: %.300s", answer)
	case closes(answer):
		err = c.link.Close()
		c.link = nil
		return err
	}
	return nil
}

func (s *sender) run() {
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

// tries is how often a load that got no answer in time is run, each time twice as long: on a busy
// machine a short one may come to nothing.
const tries = 4

// load runs a load in a process of its own against a contestant.
func (b *bench) load(ctx context.Context, on *process, spec loadSpec) (sample, error) {
	for range tries {
		spec.Warm = spec.Duration / 5
		before := on.processor()
		var res loadResult
		if err := b.ask(ctx, "load", spec, &res); err != nil {
			return sample{}, err
		}
		used := on.processor() - before
		if res.Failed > 0 {
			return sample{}, fmt.Errorf("load on %s: %d of %d connections failed: %s", on.name, res.Failed, spec.Clients, res.Failure)
		}
		if res.Measured > 0 {
			return sample{loadResult: res, PerRequest: used * 1e6 / float64(res.Sent)}, nil
		}
		spec.Duration *= 2
	}
	return sample{}, errors.Join(fmt.Errorf("load on %s: no answers", on.name), ctx.Err())
}
