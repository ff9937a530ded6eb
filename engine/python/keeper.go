package python

import (
	"context"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// keeper keeps one worker alive: when it is lost, it starts another.
type keeper struct {
	s      *session
	worker *worker // that works; nil before the first start
	ending sync.WaitGroup
	// fruitless counts the workers in a row that ended without having answered anything
	fruitless int
	retiring  bool // holds the session's token
}

const (
	// firstDelay and maxDelay bound the wait before a worker is started whose predecessors answered
	// nothing; it doubles each time.
	firstDelay = 100 * time.Millisecond
	maxDelay   = 10 * time.Second
	// maxFailures is how many starts in a row may fail, of all keepers together, before the session
	// gives up, if there is no worker left.
	maxFailures = 6
)

// delay is how long to wait before the next start after so many workers in a row that answered
// nothing: one may be chance.
func delay(fruitless int) time.Duration {
	if fruitless < 2 {
		return 0
	}
	return min(firstDelay<<min(fruitless-2, 20), maxDelay)
}

// run works until ctx ends, and then until the worker has ended.
func (k *keeper) run(ctx context.Context) {
	defer k.ending.Wait()
	for k.worker != nil || k.start(ctx) {
		w := k.worker
		k.s.enlist(w)
		k.settled()
		select {
		case <-w.done:
		case <-ctx.Done():
			w.lost(reasonClosed)
		}
		k.replace(w)
	}
	k.settled()
}

// start tries until there is a worker; false when the session ends.
func (k *keeper) start(ctx context.Context) bool {
	for {
		if !wait(ctx, delay(k.fruitless)) {
			return false
		}
		starting, cancel := context.WithTimeout(ctx, k.s.opts.StartTimeout)
		k.s.metrics.starting.Inc()
		w, err := k.s.root.start(starting)
		k.s.metrics.starting.Dec()
		cancel()
		if err == nil {
			k.s.started()
			k.worker = w
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		k.fruitless++
		if !k.s.failed(err) {
			return false
		}
	}
}

// replace takes a worker out that was lost.
func (k *keeper) replace(w *worker) {
	k.worker = nil
	k.s.pool.take(w)
	k.s.delist()
	k.retiring = w.why == reasonRequests || w.why == reasonMemory || w.why == reasonAsked
	if k.fruitless++; w.answered.Load() > 0 {
		k.fruitless = 0
	}
	if w.why != reasonClosed {
		k.s.metrics.restarts.WithLabelValues(string(w.why)).Inc()
		k.s.log.Warn("a worker is replaced", "worker", w.id, "reason", string(w.why), "answered", w.answered.Load())
	}
	k.ending.Go(w.end)
}

// settled gives the token back: the successor works.
func (k *keeper) settled() {
	if k.retiring {
		k.retiring = false
		<-k.s.retire
	}
}

// enlist lets requests have a worker.
func (s *session) enlist(w *worker) {
	s.metrics.alive.Inc()
	s.mu.Lock()
	s.alive++
	s.mu.Unlock()
	s.pool.release(w)
}

// delist counts a lost worker out.
func (s *session) delist() {
	s.metrics.alive.Dec()
	s.mu.Lock()
	s.alive--
	s.mu.Unlock()
}

// started notes that starting works.
func (s *session) started() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = 0
}

// failed notes a start that failed; false when the session gives up for it.
func (s *session) failed(err error) bool {
	s.log.Warn("a worker did not start", "error", zarpa.AsError(err).Message, "cause", cause(err))
	s.mu.Lock()
	s.failures++
	enough := s.failures >= maxFailures && s.alive == 0
	s.mu.Unlock()
	select {
	case <-s.root.lost: // there is nobody to ask again
		enough = true
	default:
	}
	if enough {
		s.giveUp(err)
	}
	return !enough
}

func cause(err error) string {
	if e := zarpa.AsError(err); e.Err != nil {
		return e.Err.Error()
	}
	return ""
}

// wait waits so long; false when ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
