package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
)

// A share of an endpoint's requests is copied to one deployment, whose answers nobody gets. The live
// request pays for a copy of its head and small body, and waits for nothing: each copy is a goroutine
// of its own, of which there are at most [MaxMirrors] for an endpoint, and it ends with the endpoint's
// request_timeout, or with the gateway. A copy goes through the steps of a request, so that it counts
// as one does, and gives way: in a queue it stands behind all live ones.

const (
	// MaxMirrors is how many copies of an endpoint's requests are under way at a time; further ones
	// are dropped. It bounds the memory of copies to 9 MiB for an endpoint.
	MaxMirrors = 128
	// headerMirror marks copies towards replicas; what a client says in it is not passed on.
	headerMirror = "Zarpa-Mirror"
)

// What became of a request whose turn to be copied had come.
const (
	mirrorSent    = "sent"
	mirrorDropped = "dropped" // too many copies were under way
	mirrorSkipped = "skipped" // the body was larger than [SmallBody]
	mirrorRefused = "refused" // no replica was free within queue_wait, or the deployment has live traffic
)

// mirror is where copies go; the zero value makes none.
type mirror struct {
	deployment string
	share      uint64 // of 2^32 requests
}

func newMirror(m *zarpa.MirrorSpec) mirror {
	if m == nil || m.Percent <= 0 {
		return mirror{}
	}
	return mirror{m.Deployment, uint64(m.Percent) << 32 / 100}
}

// golden steps through all numbers of 32 bits so that each stretch of steps is spread evenly: the share
// is kept within a request or two, and no rhythm of the clients falls in with it.
const golden = 2654435769

// due reports whether the next request is copied.
func (ru *rule) due() bool {
	return uint64(uint32(ru.pool.turns.Add(1)*golden)) < ru.mirror.share //nolint:gosec // the lower half is wanted
}

// mirrors are the copies that are under way.
type mirrors struct {
	wg  sync.WaitGroup
	ctx context.Context //nolint:containedctx // ends them all, when the gateway stops
	cut context.CancelFunc
}

func newMirrors() *mirrors {
	m := &mirrors{}
	m.ctx, m.cut = context.WithCancel(context.Background())
	return m
}

// reserveMirror makes room for a copy, unless there are too many: a live request pays nothing for one
// that is dropped.
func (g *Gateway) reserveMirror(ru *rule) bool {
	if ru.pool.copies.Add(1) > MaxMirrors {
		ru.pool.copies.Add(-1)
		g.metrics.countMirror(ru, mirrorDropped)
		return false
	}
	return true
}

// startMirror runs a copy that there is room for, which it gives back.
func (g *Gateway) startMirror(ru *rule, run func()) {
	g.mirrors.wg.Go(func() {
		defer ru.pool.copies.Add(-1)
		defer func() {
			if p := recover(); p != nil {
				g.log.LogAttrs(g.mirrors.ctx, slog.LevelError, "panic in a mirrored request", slog.String("endpoint", ru.name),
					slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			}
		}()
		run()
	})
}

// until is a copy's context: it has what the request's says, and ends with the gateway.
func (m *mirrors) until(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(m.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// mirror copies the request, which has its replica, if its turn has come.
func (ex *exchange) mirror() {
	ru := ex.rule
	if ru.mirror.share == 0 || ex.wait.deployment != "" || ex.r.Method != http.MethodPost || strings.HasSuffix(ex.match.path, "/generate_stream") || !ru.due() {
		return
	}
	if ex.more {
		ex.g.metrics.countMirror(ru, mirrorSkipped)
		return
	}
	if ex.mirrored = ex.g.reserveMirror(ru); !ex.mirrored {
		return
	}
	ctx, end := ex.g.mirrors.until(ex.r.Context())
	copied := &exchange{g: ex.g, w: &nobody{header: http.Header{}}, r: ex.r.Clone(ctx), start: time.Now(), match: ex.match, rule: ru, copied: true}
	copied.r.Body = http.NoBody
	copied.work = ex.g.workspaces.get(int64(len(ex.body)))
	copied.body = copied.work.buffer[headRoom : headRoom+copy(copied.work.buffer[headRoom:], ex.body)]
	copied.size = int64(len(copied.body))
	ex.g.startMirror(ru, func() {
		defer end()
		copied.runMirror()
	})
}

// runMirror takes a copy through the steps that are left.
func (ex *exchange) runMirror() {
	defer ex.release()
	ex.deadline = ex.start.Add(ex.rule.timeout)
	ex.limit = time.AfterFunc(ex.rule.timeout, func() { ex.breakOff(timedOut) })
	ex.stop = context.AfterFunc(ex.r.Context(), func() { ex.breakOff(left) })
	ex.wait = ex.rule.mirrorAsk(ex.start)
	if ex.acquire() != nil {
		ex.g.metrics.countMirror(ex.rule, mirrorRefused)
		return
	}
	ex.series.counts.mirrored.Add(1)
	ex.g.metrics.countMirror(ex.rule, mirrorSent)
	if err := ex.forward(); err != nil {
		ex.fail(err)
	}
	ex.giveBack()
	ex.count(time.Since(ex.start))
}

func (ru *rule) mirrorAsk(now time.Time) ask {
	return ask{deployment: ru.mirror.deployment, mirror: true, since: now, wait: ru.wait, deadline: now.Add(ru.timeout)}
}

// mirror is that of an exchange, for a call of one message and one answer.
func (c *call) mirror() {
	ru := c.rule
	if ru.mirror.share == 0 || c.wait.deployment != "" || c.name != "ModelInfer" || !ru.due() {
		return
	}
	if c.first.Len() > SmallBody {
		c.g.metrics.countMirror(ru, mirrorSkipped)
		return
	}
	if c.mirrored = c.g.reserveMirror(ru); !c.mirrored {
		return
	}
	ctx, end := c.g.mirrors.until(c.stream.Context())
	copied := &mirroredCall{g: c.g, rule: ru, path: c.path, message: bytes.Clone(c.first.Bytes()), start: time.Now()}
	out := metadata.AppendToOutgoingContext(c.outgoing(ctx), headerMirror, "true")
	c.g.startMirror(ru, func() {
		defer end()
		copied.run(out)
	})
}

// mirroredCall is the copy of a gRPC call.
type mirroredCall struct {
	g       *Gateway
	rule    *rule
	path    string
	message []byte
	start   time.Time
}

// run sends the copy, and again while no connection can be made, as long as it may wait.
func (m *mirroredCall) run(ctx context.Context) {
	ctx, cancel := context.WithDeadline(ctx, m.start.Add(m.rule.timeout))
	defer cancel()
	for sent := false; !sent; {
		r, refused := m.rule.pool.acquire(ctx, m.rule.mirrorAsk(m.start))
		if refused != nil {
			m.g.metrics.countMirror(m.rule, mirrorRefused)
			return
		}
		sent = m.send(ctx, r)
		m.rule.pool.release(r)
	}
}

// send is false where nothing has left, because no connection could be made.
func (m *mirroredCall) send(ctx context.Context, r *replica) bool {
	began, series := time.Now(), r.in.series
	stream, err := r.calls.open(ctx, &grpc.StreamDesc{}, m.path)
	if status.Code(err) == codes.Unavailable && r.calls.refused.Load() {
		m.rule.pool.bench(r)
		series.retries.Inc()
		return false
	}
	series.counts.mirrored.Add(1)
	m.g.metrics.countMirror(m.rule, mirrorSent)
	if err == nil {
		var answer grpcx.Frame
		if err = stream.SendMsg(grpcx.NewFrame(m.message)); err == nil || errors.Is(err, io.EOF) {
			err = stream.RecvMsg(&answer) // which knows more of what went wrong
		}
		answer.Free()
	}
	code, now := status.Code(err), time.Now()
	series.upstream.Observe(now.Sub(began).Seconds())
	series.countRPC(code, now.Sub(m.start))
	ended, said := endingOf(code), good
	switch {
	case code == codes.Canceled: // the gateway stops
		ended, said = gaveUp, neutral
	case ended == faulty:
		said = failed
	}
	m.rule.pool.judge(ctx, r, said)
	series.counts.settle(ended, now.Sub(m.start))
	return true
}

// nobody takes the answers to copies.
type nobody struct{ header http.Header }

var _ http.ResponseWriter = (*nobody)(nil)

func (n *nobody) Header() http.Header         { return n.header }
func (n *nobody) Write(b []byte) (int, error) { return len(b), nil }
func (n *nobody) WriteHeader(int)             {}

// Flush has nothing to do; without it an answer in parts would break off.
func (n *nobody) Flush() {}
