package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// call is one gRPC call on its way: what exchange is for HTTP. Its messages are not parsed, but for
// the model's name in the first one.
type call struct {
	g        *Gateway
	stream   grpc.ServerStream
	path     string // /inference.GRPCInferenceService/ModelInfer
	name     string // ModelInfer
	method   method
	in       metadata.MD
	ids      ids
	start    time.Time
	deadline time.Time
	rule     *rule
	who      identity
	// place and allowance are counted, to be given back with leave.
	place     *share
	allowance *allowance
	wait      ask
	replica   *replica // taken, to be given back
	series    *series  // of the deployment; nil before it is known
	first     *grpcx.Frame
	ending    ending
	mirrored  bool // it has a copy
	trace     trace
	// received and sent are bytes of messages: both ways of a stream go on beside each other.
	received, sent atomic.Int64
}

func (c *call) serve() error {
	c.path, _ = grpc.MethodFromServerStream(c.stream)
	c.in, _ = metadata.FromIncomingContext(c.stream.Context())
	if name := c.g.current.Load().hosts.endpoint(one(c.in, ":authority")); name != "" {
		c.in[metaEndpoint] = []string{name} // at an endpoint's own name there is no other
	}
	var bad *zarpa.Error
	if c.ids, bad = readIDs(c.in); bad != nil {
		return bad
	}
	header := metadata.MD{}
	c.ids.set(header)
	if err := c.stream.SetHeader(header); err != nil {
		return err
	}
	if err := c.find(); err != nil {
		return err
	}
	if c.method.own != nil && (c.method.deliver == nil || one(c.in, metaEndpoint) == "") {
		return c.method.own(c)
	}
	for _, step := range [...]func(*call) error{(*call).admit, (*call).receive, (*call).route, c.method.deliver} {
		if err := step(c); err != nil {
			return c.notReady(err)
		}
	}
	return nil
}

func (c *call) find() error {
	short, ok := strings.CutPrefix(c.path, "/"+inferencepb.GRPCInferenceService_ServiceDesc.ServiceName+"/")
	if ok {
		c.name = short
		c.method, ok = c.g.methods[short]
	}
	if !ok {
		return status.Errorf(codes.Unimplemented, "no such method: %.100s", c.path)
	}
	return nil
}

// admit looks at the key before a byte of a message is read: where the metadata names the endpoint
// the key must open it, else any.
func (c *call) admit() error {
	routes := c.g.current.Load()
	if name := one(c.in, metaEndpoint); name != "" {
		if c.rule = routes.rules[name]; c.rule == nil {
			return unknownModel(name)
		}
		if err := c.authenticate(); err != nil {
			return err
		}
		return c.enter()
	}
	if !routes.admits(c.in[metaKey], c.start) {
		return noKey()
	}
	return c.enterUnnamed()
}

func noKey() *zarpa.Error {
	return zarpa.Errorf(zarpa.Unauthenticated, "the metadata has no key, or one that opens no endpoint").
		WithHint("send authorization: Bearer KEY as metadata; zarpa keys NAME prints the key")
}

func (c *call) authenticate() error {
	var err *zarpa.Error
	if c.who, err = c.rule.check(c.in[metaKey], c.start); err != nil {
		return c.rule.pool.reject("unauthenticated", err)
	}
	return nil
}

// told receives the message of a call that the gateway itself answers. Of a caller who may use no
// endpoint nothing is read.
func (c *call) told() (bool, error) {
	if !c.g.current.Load().admits(c.in[metaKey], c.start) {
		return false, nil
	}
	return true, c.receive()
}

// receive reads the first message whole, within the time that a call has: a slow client costs its
// stream, and no replica.
func (c *call) receive() error {
	began := c.lap()
	defer func() { c.trace.read = c.lap() - began }()
	limit := time.Duration(zarpa.DefaultRequestTimeout)
	if c.rule != nil {
		limit = c.rule.timeout
	}
	frame, got := new(grpcx.Frame), make(chan error, 1)
	go func() { got <- c.stream.RecvMsg(frame) }() // ends with the call at the latest
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-got:
		c.first = frame
		c.received.Store(int64(frame.Len()))
		return c.readError(err)
	case <-timer.C:
		return zarpa.Errorf(zarpa.Timeout, "no message came within %v", limit)
	}
}

// readError says why a message could not be read.
func (c *call) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return zarpa.Errorf(zarpa.Invalid, "the call has no message")
	case c.stream.Context().Err() != nil:
		return gone(c.stream.Context())
	}
	return err
}

// route finds the endpoint, which the model's name is where the metadata names none, and holds the
// message against its limit.
func (c *call) route() error {
	if c.rule == nil {
		name, err := c.modelName()
		if err != nil {
			return err
		}
		if c.rule = c.g.current.Load().rules[name]; c.rule == nil {
			return unknownModel(name)
		}
		if err := c.authenticate(); err != nil {
			return err
		}
		if err := c.enter(); err != nil {
			return err
		}
	}
	c.trace.auth = c.lap() - c.trace.read
	c.deadline = c.start.Add(c.rule.timeout)
	return c.measure(c.first)
}

// modelName is the name in the first message.
func (c *call) modelName() (string, error) {
	name := ""
	if c.method.name != 0 {
		var bad *zarpa.Error
		if name, bad = peek(c.first, c.method.name); bad != nil {
			return "", bad
		}
	}
	if name == "" {
		return "", zarpa.Errorf(zarpa.Invalid, "%s names no model", c.name).WithHint("name the endpoint in the metadata %s", metaEndpoint)
	}
	return name, nil
}

func (c *call) measure(f *grpcx.Frame) error {
	if int64(f.Len()) > c.rule.maxBody {
		return zarpa.Errorf(zarpa.TooLarge, "the message is larger than %v", zarpa.Bytes(c.rule.maxBody)).
			WithHint("the endpoint's max_body sets the limit")
	}
	return nil
}

// queue takes a replica, waiting for one as long as the endpoint allows.
func (c *call) queue() error {
	c.wait = ask{
		deployment: c.pinned(), since: time.Now(), wait: c.rule.wait, deadline: c.deadline,
		spot: c.rule.spot(c.who, func(name string) string { return one(c.in, strings.ToLower(name)) }),
	}
	return c.acquire()
}

// pinned is the deployment that the metadata names.
func (c *call) pinned() string {
	if name := one(c.in, "azureml-model-deployment"); name != "" {
		return name
	}
	return one(c.in, "zarpa-deployment")
}

func (c *call) acquire() error {
	began := c.lap()
	r, err := c.rule.pool.acquire(c.stream.Context(), c.wait)
	c.trace.queue += c.lap() - began
	if err == nil {
		c.replica, c.series = r, r.in.series
		return nil
	}
	c.ending = refused
	switch {
	case c.stream.Context().Err() != nil:
		return gone(c.stream.Context())
	case err.Code == zarpa.Timeout:
		return c.rule.timeoutError()
	}
	return err
}

// notReady turns what says that a model cannot be used into the answer of ModelReady, which has no
// such errors.
func (c *call) notReady(err error) error {
	if err == nil || c.name != "ModelReady" {
		return err
	}
	e, ok := errors.AsType[*zarpa.Error](err)
	if !ok || e.Code != zarpa.NotFound && e.Code != zarpa.Unavailable {
		return err
	}
	return c.stream.SendMsg(&inferencepb.ModelReadyResponse{})
}

func unknownModel(name string) *zarpa.Error {
	return zarpa.Errorf(zarpa.NotFound, "Request for unknown model: '%.64s' is not found", name)
}

// giveBack frees the replica for the next request.
func (c *call) giveBack() {
	if c.replica != nil {
		c.rule.pool.release(c.replica)
		c.replica = nil
	}
}

// finish gives back what the call holds, counts it, and says its end as gRPC does.
func (c *call) finish(err error) error {
	c.giveBack()
	c.leave()
	if c.first != nil {
		c.first.Free()
	}
	c.report(err)
	err = c.statusOf(err)
	code, took := status.Code(err), time.Since(c.start)
	switch {
	case c.series != nil:
		c.series.countRPC(code, took)
		c.series.counts.settle(c.ended(code), took)
	case c.rule != nil:
		c.g.metrics.requests.WithLabelValues(c.rule.name, "", grpcx.Name(code)).Inc()
		if code == codes.Canceled {
			c.g.metrics.canceled.WithLabelValues(c.rule.name, "").Inc()
		}
	case c.method.own == nil:
		c.g.metrics.requests.WithLabelValues("", "", grpcx.Name(code)).Inc()
	}
	if c.g.debug {
		c.g.log.LogAttrs(context.WithoutCancel(c.stream.Context()), slog.LevelDebug, "request",
			c.attrs(slog.String("code", grpcx.Name(code)), slog.Duration("took", took))...)
	}
	if c.g.access != nil {
		c.logAccess(code, took)
	}
	return err
}

// ended tells for which ends the deployment is to blame. A deadline that the client set itself is not
// one: it left.
func (c *call) ended(code codes.Code) ending {
	switch {
	case c.ending == refused:
		return refused
	case code == codes.Canceled, c.stream.Context().Err() != nil:
		return gaveUp
	case code == codes.OK && c.name == "ModelStreamInfer":
		return talked
	}
	return endingOf(code)
}

// endingOf tells the codes that say that a replica failed from those that say that a request was wrong.
func endingOf(code codes.Code) ending {
	switch code {
	case codes.Unknown, codes.Internal, codes.Unavailable, codes.DataLoss, codes.DeadlineExceeded:
		return faulty
	default:
		return served
	}
}

// report writes the failures that are the gateway's or a replica's to the log.
func (c *call) report(err error) {
	e, ok := errors.AsType[*zarpa.Error](err)
	if !ok || e.Err == nil || e.Code != zarpa.ModelError && e.Code != zarpa.Internal && e.Code != zarpa.Unavailable {
		return
	}
	c.g.log.LogAttrs(context.WithoutCancel(c.stream.Context()), slog.LevelWarn, "request failed",
		c.attrs(slog.String("message", e.Message), slog.String("cause", e.Err.Error()))...)
}

// attrs are what a line of the log says of a call, before more.
func (c *call) attrs(more ...slog.Attr) []slog.Attr {
	endpoint, deployment := "", ""
	if c.rule != nil {
		endpoint = c.rule.name
	}
	if c.series != nil {
		deployment = c.series.deployment
	}
	return append([]slog.Attr{
		slog.String("request_id", c.ids.request), slog.String("method", c.path),
		slog.String("endpoint", endpoint), slog.String("deployment", deployment),
	}, more...)
}
