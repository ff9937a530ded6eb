package score

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// unaryChain is what every call of one answer goes through: id, panic, error, log, count.
func (s *Server) unaryChain(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	began := arrivedAt(ctx)
	route := routeGRPCOther
	if info.FullMethod == inferencepb.GRPCInferenceService_ModelInfer_FullMethodName {
		route = routeGRPCInfer
	}
	g, leave := s.enterGRPC(ctx, info.FullMethod)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		leave()
		s.metrics.observe(route, began, err)
		err = g.failed(err)
	}()
	if g.refused != nil {
		return nil, g.refused
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs(requestID, g.id)); err != nil {
		return nil, err
	}
	return next(g, req)
}

// streamChain is the same for streams. Each request of a ModelStreamInfer is counted where it is
// answered; the stream itself is one of the others.
func (s *Server) streamChain(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	began := time.Now()
	g, leave := s.enterGRPC(stream.Context(), info.FullMethod)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		leave()
		s.metrics.observe(routeGRPCOther, began, err)
		err = g.failed(err)
	}()
	if g.refused != nil {
		return g.refused
	}
	if err := stream.SetHeader(metadata.Pairs(requestID, g.id)); err != nil {
		return err
	}
	return next(srv, &drainedStream{ServerStream: stream, ctx: g, stopping: s.stopping})
}

const requestID = "x-request-id"

// maxRequestID is the longest id that a client may send, as over REST.
const maxRequestID = 100

// grpcCall is the context of a call over gRPC, with what its log entries say.
type grpcCall struct {
	context.Context //nolint:containedctx // it is a context
	method, id      string
	log             *slog.Logger
	refused         error // why the call is answered with an error at once
}

// transport is the key of the context of the HTTP request that a gRPC call came in.
type transport struct{}

// enterGRPC makes a call's context. It ends with that of the HTTP request that carries the call,
// which gRPC itself does not see, so that an answer can be written after its end; leave gives what
// it holds back.
func (s *Server) enterGRPC(ctx context.Context, method string) (g *grpcCall, leave func()) {
	g = &grpcCall{Context: ctx, method: method, log: s.opts.Log}
	leave = func() {}
	if carrier, ok := ctx.Value(transport{}).(context.Context); ok {
		inner, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(carrier, cancel)
		g.Context, leave = inner, func() { stop(); cancel() }
	}
	if sent := metadata.ValueFromIncomingContext(ctx, requestID); len(sent) > 0 {
		g.id = sent[0]
	}
	if len(g.id) > maxRequestID {
		g.refused = zarpa.Errorf(zarpa.Invalid, "metadata %s: more than %d characters", requestID, maxRequestID).WithHint("send a shorter id")
		g.id = ""
	}
	if g.id == "" {
		g.id = httpx.NewID()
	}
	return g, leave
}

// failed is the status that answers err; its cause goes to the log, once.
func (g *grpcCall) failed(err error) error {
	if err == nil {
		return nil
	}
	answer := grpcStatus(err)
	e := zarpa.AsError(err)
	level := slog.LevelWarn
	switch {
	case e.Code == zarpa.Canceled, e.Code == zarpa.Overloaded:
		return answer
	case status.Code(answer) == codes.Internal:
		level = slog.LevelError
	case e.Code == zarpa.ModelError: // which is what the log is asked for
	case e.Err == nil, e.Code.HTTPStatus() < http.StatusInternalServerError:
		return answer
	}
	attrs := []slog.Attr{
		slog.String("request_id", g.id), slog.String("method", g.method),
		slog.String("status", grpcx.Name(status.Code(answer))), slog.String("message", e.Message),
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("cause", e.Err.Error()))
	}
	g.log.LogAttrs(g, level, "request failed", attrs...)
	return answer
}

// grpcStatus is the status of an error. What the server has no use for is UNIMPLEMENTED.
func grpcStatus(err error) error {
	if err != nil && httpx.Status(err) == http.StatusNotImplemented {
		return status.Error(codes.Unimplemented, zarpa.AsError(err).Error())
	}
	return grpcx.Status(err)
}

// unsupported is the error for what the protocol has and this server has no use for.
func unsupported(format string, args ...any) unsupportedError {
	return unsupportedError{zarpa.Errorf(zarpa.Invalid, format+": not supported by this server", args...)}
}

// unsupportedError is an error of status 501, and UNIMPLEMENTED.
type unsupportedError struct{ err *zarpa.Error }

func (e unsupportedError) WithHint(format string, args ...any) error {
	return httpx.WithStatus(e.err.WithHint(format, args...), http.StatusNotImplemented)
}

// limited is ctx with the time limit of a request that began then, and how long that is: the setting, what the
// gateway says is left, or the client's deadline, whatever is first.
func (s *Server) limited(ctx context.Context, began time.Time) (context.Context, time.Duration, context.CancelFunc) {
	limit := s.opts.RequestTimeout
	if told := metadata.ValueFromIncomingContext(ctx, "zarpa-timeout-ms"); len(told) == 1 {
		if ms, err := strconv.ParseInt(told[0], 10, 32); err == nil && ms >= 0 {
			limit = min(limit, time.Duration(ms)*time.Millisecond)
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, deadline.Sub(began).Round(time.Millisecond))
	}
	ctx, cancel := context.WithDeadline(ctx, began.Add(limit))
	return ctx, limit, cancel
}

// drainedStream is a stream that takes no more messages when the server stops.
type drainedStream struct {
	grpc.ServerStream
	ctx      context.Context //nolint:containedctx // what a stream's Context gives
	stopping <-chan struct{}
}

// Context is that of the call.
func (d *drainedStream) Context() context.Context { return d.ctx }

// RecvMsg waits for a message or for the server's end. After an error, m belongs to gRPC, which
// may still write to it.
func (d *drainedStream) RecvMsg(m any) error {
	got := make(chan error, 1)
	go func() { got <- d.ServerStream.RecvMsg(m) }()
	select {
	case err := <-got:
		return err
	case <-d.stopping:
		return zarpa.Errorf(zarpa.Unavailable, "the replica is stopping").WithHint("send it again")
	}
}
