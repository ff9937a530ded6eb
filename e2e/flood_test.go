package e2e

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// flood sends predictions to one endpoint at a rate that does not follow the answers: what a stall holds
// up comes all the same.
type flood struct {
	url   string
	body  string
	right func(answer []byte) bool
	http  *http.Client
	key   atomic.Pointer[string]
	rate  atomic.Int64 // per second

	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	took     []time.Duration // of the answered ones since the last take
	failures []failure
}

// pulse is how often requests are sent that have become due.
const pulse = 2 * time.Millisecond

// most is how many requests of a flood are under way at a time: more means that nothing is answered.
const most = 4000

func newFlood(url, body, key string, right func([]byte) bool) *flood {
	f := &flood{url: url, body: body, right: right}
	f.key.Store(&key)
	f.http = &http.Client{Timeout: callTimeout, Transport: &http.Transport{
		MaxIdleConnsPerHost: most, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	}}
	return f
}

// begin sends until the end of ctx or stop.
func (f *flood) begin(ctx context.Context, rate int64) {
	f.rate.Store(rate)
	ctx, f.stop = context.WithCancel(ctx)
	slots := make(chan struct{}, most)
	f.done.Go(func() {
		tick := time.NewTicker(pulse)
		defer tick.Stop()
		due, last := 0.0, time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now := time.Now()
			due += float64(f.rate.Load()) * now.Sub(last).Seconds()
			for last = now; due >= 1; due-- {
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return
				}
				f.done.Go(func() {
					defer func() { <-slots }()
					f.once(ctx)
				})
			}
		}
	})
}

// end stops sending and waits for the answers.
func (f *flood) end() {
	f.stop()
	f.done.Wait()
	f.http.CloseIdleConnections()
}

func (f *flood) once(ctx context.Context) {
	start := time.Now()
	class, detail := f.predict(context.WithoutCancel(ctx)) // what was sent is waited for
	end := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if class == answered {
		f.took = append(f.took, end.Sub(start))
	} else {
		f.failures = append(f.failures, failure{f.url, start, end, class, detail})
	}
}

func (f *flood) predict(ctx context.Context) (class, detail string) {
	status, body, err := prediction{f.url, *f.key.Load(), f.body}.post(ctx, f.http)
	switch {
	case err != nil:
		return classOf(err), err.Error()
	case status == http.StatusOK && f.right(body):
		return answered, ""
	case status == http.StatusOK:
		return "wrong answer", string(body)
	}
	return fmt.Sprintf("status %d", status), string(body)
}

// take returns what came since the last call.
func (f *flood) take() (took []time.Duration, failures []failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	took, failures = f.took, f.failures
	f.took, f.failures = nil, nil
	return took, failures
}

// tally is a line of the report.
type tally struct {
	scene     string
	sent      int
	explained int
	failures  map[string]int
	p50, p99  time.Duration
	longest   time.Duration
	took      time.Duration
	note      string
}

func newTally(scene string, took []time.Duration, failures []failure) tally {
	t := tally{scene: scene, sent: len(took) + len(failures), failures: map[string]int{}}
	for _, f := range failures {
		t.failures[f.class]++
	}
	slices.Sort(took)
	if n := len(took); n > 0 {
		t.p50, t.p99, t.longest = took[n/2], took[n*99/100], took[n-1]
	}
	return t
}

func (t tally) String() string {
	var failed []string
	for class, n := range t.failures {
		failed = append(failed, fmt.Sprintf("%d × %s", n, class))
	}
	slices.Sort(failed)
	text := cmp.Or(strings.Join(failed, ", "), "none failed")
	return fmt.Sprintf("%-34s %6d sent in %5.1fs  p50 %6.1fms  p99 %7.1fms  longest %7.1fms  %s (%d explained) %s", t.scene, t.sent, t.took.Seconds(),
		t.p50.Seconds()*1000, t.p99.Seconds()*1000, t.longest.Seconds()*1000, text, t.explained, t.note)
}
