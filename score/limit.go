package score

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// limiter lets a number of runs go on at a time and a number of others wait for them.
type limiter struct {
	slots   chan struct{} // holds one token for each run
	waiting atomic.Int64
	queue   int64
}

func newLimiter(concurrency, queue int) *limiter {
	return &limiter{slots: make(chan struct{}, concurrency), queue: int64(queue)}
}

// retryAfter is what a refused caller is told: a run is short, and the queue soon has room.
const retryAfter = time.Second

// limit takes a slot, which the caller gives back with [limiter.leave]. Errors: overloaded when
// the queue is full, timeout or canceled when ctx ends before a slot is free.
func (l *limiter) limit(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	defer l.waiting.Add(-1)
	if l.waiting.Add(1) > l.queue {
		return &zarpa.Error{
			Code: zarpa.Overloaded, Message: "the replica is busy and its queue is full", RetryAfter: retryAfter,
			Hint: "try again, or raise replicas or max_concurrency",
		}
	}
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *limiter) leave() { <-l.slots }
