package score

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// batcher lets requests of one model share runs. A request that runs alone is run by its own
// goroutine, under its own context; a run of several belongs to none of them, so that each can
// leave at any time.
type batcher struct {
	model   *model
	shape   *batchShape
	metrics *batchMetrics
	log     *slog.Logger
	off     atomic.Bool // the model's answers cannot be split after all

	mu      sync.Mutex // guards what follows
	line    line
	timer   *time.Timer   // calls begin when waiting ends
	drained chan struct{} // closed when the line is closing and empty
}

// outcome is what a waiting request is told.
type outcome struct {
	alone   *batch // its own goroutine is to run it, as this batch
	outputs []zarpa.Tensor
	took    time.Duration
	waited  time.Duration
	err     error
}

// newBatcher makes the batcher of a model; nil, and the log says why, for one whose rows cannot be
// run together. A scorer gathers requests by itself, where it can.
func (s *Server) newBatcher(m *model) *batcher {
	if s.opts.MaxBatchRows <= 1 || m.scorer != nil {
		return nil
	}
	shape, err := newBatchShape(m.sig)
	if err != nil {
		s.opts.Log.Warn("requests run one by one", "model", m.entry.Name, "because", err.Error())
		return nil
	}
	b := &batcher{
		model: m, shape: shape, metrics: s.metrics.batch.of(m.entry.Name), log: s.opts.Log, drained: make(chan struct{}),
		line: line{
			maxRows: int64(s.opts.MaxBatchRows), runs: s.opts.BatchRuns, concurrency: s.opts.MaxConcurrency,
			pace: pace{maxDelay: s.opts.MaxBatchDelay},
		},
	}
	b.timer = time.AfterFunc(time.Hour, b.wake)
	b.timer.Stop()
	return b
}

// run executes c, alone or with others. Errors are those of a run by itself; invalid inputs are
// refused before they come near anybody else's, and unavailable is a model that is being unloaded.
func (b *batcher) run(ctx context.Context, c *call) error {
	m := &member{call: c, came: time.Now(), done: ctx.Done(), turn: make(chan outcome, 1)}
	m.deadline, _ = ctx.Deadline()
	if err := b.shape.admit(m, b.line.maxRows); err != nil {
		return err
	}
	b.mu.Lock()
	if b.line.closing {
		b.mu.Unlock()
		return zarpa.Errorf(zarpa.Unavailable, "the model was unloaded")
	}
	b.line.join(m, m.came)
	b.begin(m.came)
	b.mu.Unlock()
	var o outcome
	select {
	case o = <-m.turn:
	case <-m.done:
		b.leave(m)
		return ctx.Err()
	}
	if o.alone != nil {
		return b.runAlone(ctx, m, o.alone)
	}
	c.outputs, c.spent.infer = o.outputs, o.took
	c.spent.queue += o.waited
	return o.err
}

// runAlone runs the one request of a batch.
func (b *batcher) runAlone(ctx context.Context, m *member, bt *batch) error {
	m.call.spent.queue += bt.began.Sub(m.came)
	err := run(ctx, m.call)
	now := time.Now()
	took := m.call.spent.infer
	if err != nil {
		took = 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.line.ended(bt, took)
	b.line.answered(1, now)
	b.begin(now)
	return err
}

// leave takes a request out whose caller has left, and ends the run of a batch that all have left.
// It returns when nobody reads the request's memory any more.
func (b *batcher) leave(m *member) {
	b.mu.Lock()
	bt := m.batch
	b.line.leave(m)
	var end func()
	if bt != nil && bt.left == len(bt.members) {
		if end = bt.cancel; end == nil {
			b.line.ended(bt, 0) // it was to run alone, and has not begun
		}
	}
	b.begin(time.Now())
	b.mu.Unlock()
	if end != nil {
		end()
	}
	if bt != nil && bt.copied != nil {
		<-bt.copied
	}
}

// wake begins what has waited long enough.
func (b *batcher) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begin(time.Now())
}

// begin starts every batch that may begin, and sets the timer for the next. It is called with the
// lock held whenever something has changed.
func (b *batcher) begin(now time.Time) {
	for {
		bt, wake := b.line.next(now)
		if bt == nil {
			if !wake.IsZero() {
				b.timer.Reset(wake.Sub(now))
			}
			break
		}
		if len(bt.members) == 0 {
			continue // all had left
		}
		b.metrics.began(bt)
		if len(bt.members) == 1 {
			bt.members[0].turn <- outcome{alone: bt}
			continue
		}
		// the batch is no one request's: it ends when the last of them has left
		ctx, cancel := context.WithCancel(context.Background())
		bt.copied, bt.cancel = make(chan struct{}), cancel
		go b.runTogether(ctx, bt)
	}
	if b.line.closing && b.line.waiting == 0 && b.line.running == 0 {
		select {
		case <-b.drained:
		default:
			close(b.drained)
		}
	}
}

// runTogether runs a batch of several requests and tells each what came of it.
func (b *batcher) runTogether(ctx context.Context, bt *batch) {
	defer bt.cancel()
	outputs, took, err := b.execute(ctx, bt)
	now := time.Now()
	var parts [][]zarpa.Tensor
	if err == nil {
		if parts, err = b.shape.split(outputs, bt); err != nil && b.off.CompareAndSwap(false, true) {
			b.log.Warn("requests run one by one from now on", "model", b.model.entry.Name, "because", err.Error())
		}
	}
	if err == nil {
		b.model.entry.stats.ran(bt.rows, took, now)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		took = 0
	}
	b.line.ended(bt, took)
	told := 0
	for i, m := range bt.members {
		if m.stage == stageOut {
			continue
		}
		if err != nil && !endsAll(err) {
			b.line.again(m) // one of them may be the reason: each has its own chance
			continue
		}
		o := outcome{err: err, took: took, waited: bt.began.Sub(m.came)}
		if err == nil {
			o.outputs = parts[i]
		}
		m.stage = stageOut
		m.turn <- o
		told++
	}
	b.line.answered(told, now)
	b.begin(now)
}

// endsAll reports whether a failure is no request's own fault.
func endsAll(err error) bool { return zarpa.AsError(err).Code == zarpa.Unavailable }

// execute runs the model on the rows of all. A panic of the session is an error of the batch.
func (b *batcher) execute(ctx context.Context, bt *batch) (outputs []zarpa.Tensor, took time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while the model ran: %v\n%s", p, debug.Stack())
		}
	}()
	inputs, wanted := b.shape.join(bt)
	began := time.Now()
	outputs, err = b.model.session.Run(ctx, inputs, wanted)
	return outputs, time.Since(began), err
}

// close lets what waits run, refuses what comes, and returns when the last run has ended.
func (b *batcher) close() {
	b.mu.Lock()
	b.line.closing = true
	b.begin(time.Now())
	b.mu.Unlock()
	<-b.drained
	b.timer.Stop()
}

// oldestWait is how long the request has waited that has waited longest.
func (b *batcher) oldestWait(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.line.oldest(); !t.IsZero() {
		return now.Sub(t)
	}
	return 0
}
