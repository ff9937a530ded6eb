package python

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// gatherer gives requests that wait to a worker together. The first one opens a batch, which queues
// for a worker like a request; who comes meanwhile joins it. A batch belongs to none of its requests:
// each may leave at any time.
type gatherer struct {
	s *session

	mu      sync.Mutex // guards what follows, and the batches
	open    *batch     // still gathers; nil when the next request is to open one
	waiting int        // requests in batches that have no worker yet
}

// batch is what one worker gets at once.
type batch struct {
	members []*member
	bytes   zarpa.Bytes
	live    int           // members that have not left
	full    chan struct{} // closed when nobody may join any more
	started bool
	sent    chan struct{} // closed when the members' bodies are not needed any more
	stop    context.CancelFunc
}

// member is a request in a batch.
type member struct {
	request
	id     string
	left   bool
	result result
	err    error
	done   chan struct{} // closed after result or err was set
}

// ask answers a request as a part of a batch. Errors: those of a question that is asked alone.
func (g *gatherer) ask(ctx context.Context, r *request, id string) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{}, zarpa.AsError(err)
	}
	if err := g.s.enter(); err != nil {
		return result{}, err
	}
	defer g.s.leave()
	m := &member{request: *r, id: id, done: make(chan struct{})}
	b, err := g.join(ctx, m)
	if err != nil {
		return result{}, err
	}
	select {
	case <-m.done:
		return m.result, m.err
	case <-ctx.Done():
		g.depart(b, m)
		return result{}, zarpa.AsError(ctx.Err())
	}
}

// join puts a request into the open batch, or opens one.
func (g *gatherer) join(ctx context.Context, m *member) (*batch, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting >= g.s.opts.QueueLimit {
		return nil, errFull()
	}
	g.waiting++
	size := zarpa.Bytes(m.size())
	if b := g.open; b != nil && b.bytes+size > g.s.opts.MaxBatchBytes {
		g.close(b)
	}
	b := g.open
	if b == nil {
		b = &batch{full: make(chan struct{}), sent: make(chan struct{})}
		var running context.Context
		running, b.stop = context.WithCancel(context.WithoutCancel(ctx))
		g.open = b
		g.s.stay()           // also when all members have left, and Close came meanwhile
		go g.run(running, b) // every member waits for it, and Close
	}
	b.members = append(b.members, m)
	b.live++
	if b.bytes += size; len(b.members) >= g.s.opts.MaxBatch {
		g.close(b)
	}
	return b, nil
}

// close lets nobody join a batch any more; the caller holds mu.
func (g *gatherer) close(b *batch) {
	if g.open == b {
		g.open = nil
		close(b.full)
	}
}

// depart takes a request out that does not wait any more. It returns when the request's body is not
// needed any more. When all have left, the batch ends.
func (g *gatherer) depart(b *batch, m *member) {
	g.mu.Lock()
	m.left = true
	if b.live--; b.live == 0 {
		g.close(b)
		b.stop()
	}
	started := b.started
	if !started {
		b.members = slices.DeleteFunc(b.members, func(o *member) bool { return o == m })
		b.bytes -= zarpa.Bytes(m.size())
		g.waiting--
	}
	g.mu.Unlock()
	if started {
		<-b.sent
	}
}

// run asks a worker, and tells the members what it said.
func (g *gatherer) run(ctx context.Context, b *batch) {
	defer g.s.leave()
	defer b.stop()
	var members []*member
	err := g.s.askLate(ctx, func() question {
		g.linger(ctx, b)
		members = g.start(b)
		return g.question(b, members)
	})
	if members == nil { // it never had a worker
		members = g.start(b)
	}
	b.sendOnce()
	for _, m := range members {
		m.err = err
		close(m.done)
	}
}

// linger waits for more requests, with a worker in hand.
func (g *gatherer) linger(ctx context.Context, b *batch) {
	if g.s.opts.MaxBatchDelay <= 0 {
		return
	}
	timer := time.NewTimer(g.s.opts.MaxBatchDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.full:
	case <-ctx.Done():
	}
}

// start ends the gathering.
func (g *gatherer) start(b *batch) []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.close(b)
	b.started = true
	g.waiting -= len(b.members)
	return b.members
}

// sendOnce says that the bodies are not needed any more; only run's goroutine calls it.
func (b *batch) sendOnce() {
	select {
	case <-b.sent:
	default:
		close(b.sent)
	}
}

// question is the frame for all members.
func (g *gatherer) question(b *batch, members []*member) question {
	q := question{kind: kindBatch, sent: b.sendOnce}
	q.parts = append(q.parts, binary.LittleEndian.AppendUint32(nil, uint32(len(members))))
	for _, m := range members {
		head := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+m.size()-len(m.body)), uint32(m.size()))
		q.parts = append(q.parts, m.appendScore(head), m.body)
		q.items = append(q.items, m.id)
	}
	q.request = strings.Join(q.items, ",")
	q.check = func(f frame) error {
		results, err := parseBatched(f.payload, len(members))
		for i := range results {
			members[i].result = results[i]
		}
		return err
	}
	return q
}
