package python

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// pool lends workers to requests, in the order in which they came.
type pool struct {
	limit int // of requests that wait

	mu      sync.Mutex // guards what follows
	idle    []*worker  // the one that worked last is at the end: its memory is warm
	waiting []chan *worker
	err     error // why nobody gets a worker any more
}

// retryAfter is what a refused caller is told: a request is short, and the queue soon has room.
const retryAfter = time.Second

func errFull() error {
	return &zarpa.Error{
		Code: zarpa.Overloaded, Message: "all workers are busy and their queue is full", RetryAfter: retryAfter,
		Hint: "try again, or raise replicas or workers",
	}
}

// acquire waits for a worker, which the caller gives back with release. Errors: overloaded when too
// many wait, ctx's, and what fail was given.
func (p *pool) acquire(ctx context.Context) (*worker, error) {
	p.mu.Lock()
	switch {
	case p.err != nil:
		p.mu.Unlock()
		return nil, p.err
	case len(p.idle) > 0:
		w := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		p.mu.Unlock()
		return w, nil
	case len(p.waiting) >= p.limit:
		p.mu.Unlock()
		return nil, errFull()
	}
	turn := make(chan *worker, 1)
	p.waiting = append(p.waiting, turn)
	p.mu.Unlock()
	select {
	case w := <-turn:
		if w == nil {
			return nil, p.failure()
		}
		return w, nil
	case <-ctx.Done():
		p.leave(turn)
		return nil, zarpa.AsError(ctx.Err())
	}
}

// leave takes a request out of the queue; a worker that it was just given goes to the next one.
func (p *pool) leave(turn chan *worker) {
	p.mu.Lock()
	if i := slices.Index(p.waiting, turn); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	if w := <-turn; w != nil {
		p.release(w)
	}
}

// release gives a worker, a used or a new one, to the next request. One that is lost is dropped: its
// keeper looks for it in the pool after it was lost, so that it stays in neither order.
func (p *pool) release(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.isLost() {
		return
	}
	if len(p.waiting) > 0 {
		p.waiting[0] <- w // it has room for one
		p.waiting = slices.Delete(p.waiting, 0, 1)
		return
	}
	p.idle = append(p.idle, w)
}

// take removes a worker that nobody uses; false when somebody does.
func (p *pool) take(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.idle, w)
	if i < 0 {
		return false
	}
	p.idle = slices.Delete(p.idle, i, i+1)
	return true
}

// fail refuses all requests from now on, those that wait too.
func (p *pool) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	for _, turn := range p.waiting {
		close(turn)
	}
	p.waiting = nil
}

func (p *pool) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}
