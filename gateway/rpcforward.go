package gateway

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
)

// upstream is a call at a replica.
type upstream struct {
	grpc.ClientStream
	ctx    context.Context //nolint:containedctx // the stream's own, which its type does not show
	calls  *callPool
	deaths int64 // of the replica's connections, before the call
	at     *replica
	began  time.Time
}

// connect begins the call at the replica that was taken. As over HTTP/1.1, a replica that refuses
// the connection is left out for benchTime, and the call goes back to the head of the queue.
func (c *call) connect(ctx context.Context, desc *grpc.StreamDesc) (*upstream, error) {
	out := c.outgoing(ctx)
	for {
		calls := &c.replica.calls
		c.trace.tries++
		c.trace.replica = c.replica.id
		up := &upstream{ctx: ctx, calls: calls, deaths: calls.deaths.Load(), at: c.replica, began: time.Now()}
		var err error
		if up.ClientStream, err = calls.open(out, desc, c.path); err == nil {
			return up, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, whyEnded(ctx)
		case status.Code(err) != codes.Unavailable:
			return nil, zarpa.Errorf(zarpa.Internal, "the call could not be made").Because(err)
		case !calls.refused.Load():
			return nil, zarpa.Errorf(zarpa.Unavailable, "the replica of endpoint %s does not answer gRPC", c.rule.name).
				WithHint("it may serve HTTP/1.1 alone, or have ended just now").Because(err)
		}
		c.rule.pool.bench(c.replica)
		c.giveBack()
		c.series.retries.Inc()
		c.wait.again = true
		if queued := c.acquire(); queued != nil {
			return nil, queued
		}
	}
}

// whyEnded says why a context did: the gateway's own reason, or the client's.
func whyEnded(ctx context.Context) error {
	if e, ok := errors.AsType[*zarpa.Error](context.Cause(ctx)); ok {
		return e // the gateway's own reason
	}
	return gone(ctx)
}

// gone is the error of a client that waits no longer. One that keeps its own deadline may say so
// before the deadline is seen here.
func gone(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < deadlineSlack {
		return zarpa.Errorf(zarpa.Timeout, "the deadline that the client set passed")
	}
	return errLeft()
}

// deadlineSlack is how much earlier than here a deadline may pass at a client or a replica, which
// tell each other the time that is left.
const deadlineSlack = 20 * time.Millisecond

// due waits for a deadline that is as good as passed; false says that there is none such.
func due(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	if !ok || time.Until(deadline) > deadlineSlack {
		return false
	}
	<-ctx.Done()
	return true
}

// failure is the end of a call as the client hears it: the replica's own status goes on as it is.
func (up *upstream) failure(err error) error {
	switch {
	case up.ctx.Err() != nil:
		return whyEnded(up.ctx)
	case status.Code(err) == codes.DeadlineExceeded && due(up.ctx):
		return whyEnded(up.ctx)
	case status.Code(err) == codes.Unavailable && (up.calls.deaths.Load() != up.deaths || up.calls.refused.Load()):
		return brokenReplica(err)
	}
	return err
}

// forward hands on one message and brings back one.
func (c *call) forward() error {
	if err := c.queue(); err != nil {
		return err
	}
	c.mirror()
	ctx, cancel := context.WithDeadlineCause(c.stream.Context(), c.deadline, c.rule.timeoutError())
	defer cancel()
	up, err := c.connect(ctx, &grpc.StreamDesc{})
	if err != nil {
		return err
	}
	answer := new(grpcx.Frame)
	defer answer.Free()
	if err = up.SendMsg(c.first); err == nil || errors.Is(err, io.EOF) {
		err = up.RecvMsg(answer) // which knows more of what went wrong
	}
	c.worked(up)
	c.giveBack() // the client may take its time for the answer
	if header, bad := up.Header(); bad == nil {
		if bad = c.stream.SetHeader(public(header)); bad != nil {
			return bad
		}
	}
	c.stream.SetTrailer(public(up.Trailer()))
	if err != nil {
		err = up.failure(err)
		c.rule.pool.judge(up.ctx, up.at, c.verdict(err))
		return err
	}
	c.rule.pool.judge(up.ctx, up.at, good)
	c.sent.Add(int64(answer.Len()))
	if err := c.stream.SendMsg(answer); err != nil {
		return c.readError(err)
	}
	return nil
}

// worked measures a call that the replica is done with.
func (c *call) worked(up *upstream) {
	took := time.Since(up.began)
	c.trace.upstream = took
	c.series.upstream.Observe(took.Seconds())
}

// forwardStream hands on messages both ways as they come, one at a time: gRPC's windows are all
// that is kept of them. The replica's place is held until the end, which also comes when no message
// went either way for request_timeout.
func (c *call) forwardStream() error {
	if err := c.queue(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(c.stream.Context())
	defer cancel(nil)
	up, err := c.connect(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true})
	if err != nil {
		return err
	}
	idle := time.AfterFunc(c.rule.timeout, func() { cancel(c.idled()) })
	defer idle.Stop()
	defer c.worked(up)
	first := c.first
	c.first = nil // upload frees it
	go c.upload(up, first, func(cause error) {
		if cause != nil {
			cancel(cause)
			return
		}
		idle.Reset(c.patience())
	})
	ended := make(chan error, 1)
	go func() { ended <- c.download(up, idle) }()
	select {
	case err := <-ended:
		return err
	case <-c.g.stopping:
		idle.Reset(c.patience())
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done(): // sending may wait for a client that takes nothing; like upload, it ends with the call
		return whyEnded(ctx)
	}
}

// stopIdle is how long a stream may be without a message when the gateway stops, so that one that
// only stands open does not hold up the end.
const stopIdle = time.Second

// patience is how long a stream may be without a message.
func (c *call) patience() time.Duration {
	select {
	case <-c.g.stopping:
		return min(stopIdle, c.rule.timeout)
	default:
		return c.rule.timeout
	}
}

// idled is why a stream without messages ended.
func (c *call) idled() error {
	select {
	case <-c.g.stopping:
		return zarpa.Errorf(zarpa.Unavailable, "the gateway stops").WithHint("open the stream again")
	default:
		return zarpa.Errorf(zarpa.Timeout, "no message for %v", c.rule.timeout).WithHint("the endpoint's request_timeout sets the limit")
	}
}

// upload hands on the client's messages, beginning with first. It ends with the call, which does
// not wait for it: gRPC ends the reading when the call has its status. step is told of every
// message, and why there will be no further one.
func (c *call) upload(up *upstream, first *grpcx.Frame, step func(error)) {
	for frame := first; ; frame = new(grpcx.Frame) {
		if frame != first {
			err := c.stream.RecvMsg(frame)
			if errors.Is(err, io.EOF) {
				_ = up.CloseSend() // what went wrong is what receiving says
				return
			}
			if err = c.readError(err); err == nil {
				c.received.Add(int64(frame.Len()))
				err = c.measure(frame)
			}
			if err != nil {
				frame.Free()
				step(err)
				return
			}
			step(nil)
		}
		err := up.SendMsg(frame)
		frame.Free()
		if err != nil {
			return // as above
		}
	}
}

// download hands on the replica's messages.
func (c *call) download(up *upstream, idle *time.Timer) error {
	var frame grpcx.Frame
	defer frame.Free()
	for sent := false; ; sent = true {
		err := up.RecvMsg(&frame)
		if !sent {
			if header, bad := up.Header(); bad == nil {
				if bad = c.stream.SetHeader(public(header)); bad != nil {
					return bad
				}
			}
		}
		if err != nil {
			c.stream.SetTrailer(public(up.Trailer()))
			if errors.Is(err, io.EOF) {
				c.rule.pool.judge(up.ctx, up.at, good)
				return nil
			}
			err = up.failure(err)
			if zarpa.AsError(err).Code != zarpa.Timeout { // of a stream's pauses either side may be the cause
				c.rule.pool.judge(up.ctx, up.at, c.verdict(err))
			}
			return err
		}
		idle.Reset(c.patience())
		c.sent.Add(int64(frame.Len()))
		if err := c.stream.SendMsg(&frame); err != nil {
			return c.readError(err)
		}
	}
}
