package python

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// session is what scripts and models have in common: a number of workers that are kept alive, and
// requests that borrow them.
type session struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	root    *root
	pool    pool
	hello   hello         // the first worker's
	retire  chan struct{} // holds a token while one worker is replaced that still works

	stop   context.CancelFunc // ends the keepers
	keep   sync.WaitGroup
	dead   chan struct{} // closed when the session gave up, or was closed
	dying  sync.Once
	idle   chan struct{} // closed when the session is closed and nothing runs
	ending sync.Once

	mu       sync.Mutex // guards what follows
	running  int
	closed   bool
	err      error // why it gave up
	alive    int   // workers that have loaded and are not lost
	failures int   // starts in a row that failed
}

var _ Mortal = (*session)(nil)

// newSession starts the root and the first worker, within ctx; the others follow.
func newSession(ctx context.Context, e *Engine, o Options, what settings) (*session, error) {
	s := &session{
		opts: o, log: o.Log, metrics: e.metrics, pool: pool{limit: o.QueueLimit},
		retire: make(chan struct{}, 1), dead: make(chan struct{}), idle: make(chan struct{}),
	}
	var err error
	if s.root, err = startRoot(e.python, e.program, &s.opts, what); err != nil {
		return nil, zarpa.Errorf(zarpa.Unavailable, "python %q: cannot be started", e.python).Because(err).
			WithHint("name an interpreter of Python 3.8 or newer")
	}
	s.root.orphans = s.orphaned
	first, err := s.root.start(ctx)
	if err != nil {
		err = s.root.explain(err)
		s.root.close()
		return nil, err
	}
	s.hello = first.hello
	for _, note := range s.hello.Notes {
		s.log.Warn("the model's environment is not what it was made in", "note", note)
	}
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	for i := range o.Workers {
		k := &keeper{s: s}
		if i == 0 {
			k.worker = first
		}
		s.keep.Go(func() { k.run(keeping) })
	}
	return s, nil
}

// enter counts a request in, unless the session is closed.
func (s *session) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return zarpa.Errorf(zarpa.Unavailable, "the model was unloaded")
	}
	s.running++
	return nil
}

// stay counts in what goes on for a request that has entered, and not left yet: that is never refused.
func (s *session) stay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running++
}

func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if s.closed && s.running == 0 {
		close(s.idle)
	}
}

// attempts bounds how many workers a request is given to: those before were gone when it came.
const attempts = 3

// ask borrows a worker for a question.
func (s *session) ask(ctx context.Context, q question) error {
	if err := ctx.Err(); err != nil {
		return zarpa.AsError(err)
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.askLate(ctx, func() question { return q })
}

// askLate is ask for a question that is made when the worker is there; it was counted in before.
func (s *session) askLate(ctx context.Context, prepare func() question) error {
	if err := ctx.Err(); err != nil {
		return zarpa.AsError(err)
	}
	var err error
	var q question
	for n := range attempts {
		began := time.Now()
		var w *worker
		if w, err = s.pool.acquire(ctx); err != nil {
			return err
		}
		s.metrics.queued.Observe(time.Since(began).Seconds())
		if n == 0 {
			q = prepare()
		}
		if ctx.Err() != nil { // while it was prepared
			s.pool.release(w)
			return zarpa.AsError(ctx.Err())
		}
		s.metrics.busy.Inc()
		var f frame
		f, err = w.ask(ctx, q)
		s.metrics.busy.Dec()
		s.giveBack(w, f)
		if !errors.Is(err, errUnasked) {
			return err
		}
	}
	return zarpa.Errorf(zarpa.ModelError, "the workers ended before they took the request").Because(err)
}

// giveBack returns a worker after a request, unless it ended or is to be replaced now.
func (s *session) giveBack(w *worker, f frame) {
	if w.isLost() {
		return
	}
	if w.in.Buffered() > 0 { // it says more than it was asked; the next one must not hear it
		w.kill(reasonCorrupt)
		return
	}
	why := s.worn(w, f)
	if why == reasonOrphaned {
		w.lost(why)
		return
	}
	if why != "" {
		select {
		case s.retire <- struct{}{}: // the worker's keeper takes it out
			w.lost(why)
			return
		default: // another is being replaced: this one goes on until its turn comes
		}
	}
	s.pool.release(w)
}

// worn is why a worker is to be replaced, or "".
func (s *session) worn(w *worker, f frame) reason {
	switch {
	case w.stale.Load():
		return reasonOrphaned
	case s.opts.MaxRequests > 0 && w.answered.Load() >= int64(s.opts.MaxRequests):
		return reasonRequests
	case f.kind == kindResult && len(f.payload) >= resultHead && f.payload[2]&flagReplace != 0:
		return reasonAsked
	case s.opts.MaxMemory > 0 && residentMemory(w.hello.PID) > s.opts.MaxMemory:
		return reasonMemory
	}
	return ""
}

// orphaned replaces a worker whose parent has died, now or after its request.
func (s *session) orphaned(w *worker) {
	if s.pool.take(w) {
		w.lost(reasonOrphaned)
	}
}

// giveUp refuses everything from now on.
func (s *session) giveUp(err error) {
	s.mu.Lock()
	if s.err != nil || s.closed {
		s.mu.Unlock()
		return
	}
	s.err = err
	s.mu.Unlock()
	s.log.Error("the session gave up: its workers cannot be started", "error", err)
	s.pool.fail(zarpa.Errorf(zarpa.Unavailable, "the script's workers cannot be started any more").Because(err))
	s.dying.Do(func() { close(s.dead) })
}

// Done is closed when the session gave up, or was closed.
func (s *session) Done() <-chan struct{} { return s.dead }

// Err is why the session gave up.
func (s *session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close waits for the requests that were accepted and ends all processes: each worker by the end of
// its socket, then by SIGTERM, then by SIGKILL, with the grace between.
func (s *session) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if s.running == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	<-s.idle
	s.ending.Do(func() {
		s.stop()
		s.keep.Wait()
		s.root.close()
		s.dying.Do(func() { close(s.dead) })
	})
	return nil
}
