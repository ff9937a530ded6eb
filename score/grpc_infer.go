package score

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// unaryInfer reads a ModelInfer into memory of the server's own kind.
func (s *Server) unaryInfer(ctx context.Context, read func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
	began := arrivedAt(ctx)
	m := s.requests.get()
	defer s.requests.put(m)
	if err := read(m); err != nil {
		return nil, err
	}
	info := &grpc.UnaryServerInfo{FullMethod: inferencepb.GRPCInferenceService_ModelInfer_FullMethodName}
	return chain(ctx, m, info, func(ctx context.Context, _ any) (any, error) {
		ctx, limit, cancel := s.limited(ctx, began)
		defer cancel()
		c, err := s.open(m, began)
		if err != nil {
			return nil, err
		}
		defer s.end(c)
		reply, err := s.inferOne(ctx, c, m)
		c.count(err)
		return reply, s.endedWithin(ctx, limit, err)
	})
}

// open finds the model of a request and begins its call.
func (s *Server) open(m *inferRequest, began time.Time) (*call, error) {
	if m.err != nil {
		return nil, m.err
	}
	id, err := m.names()
	if err != nil {
		return nil, err
	}
	e, err := s.find(m.model)
	if err != nil {
		return nil, err
	}
	if err := e.version(m.model, m.version); err != nil {
		return nil, err
	}
	loaded, err := e.ready()
	if err == nil {
		err = loaded.tensors()
	}
	if err != nil {
		return nil, err
	}
	c := s.begin(loaded)
	c.name, c.id, c.began = m.model, id, began
	return c, nil
}

func (s *Server) inferOne(ctx context.Context, c *call, m *inferRequest) (inferReply, error) {
	if err := m.decode(c); err != nil {
		return inferReply{}, err
	}
	if err := s.execute(ctx, c); err != nil {
		return inferReply{}, err
	}
	reply, err := c.reply(unary)
	return reply, c.written(err)
}

// streamInfer answers the requests of a ModelStreamInfer in their order. A request that fails has
// an error as its answer, and the stream goes on.
func (s *Server) streamInfer(stream grpc.ServerStream) error {
	for {
		m := s.requests.get()
		if err := stream.RecvMsg(m); err != nil { // m is not put back: see drainedStream
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := s.streamOne(stream, m); err != nil {
			return err
		}
		s.requests.put(m)
	}
}

// sendError is an error in sending: the client has left, and so has the stream.
type sendError struct{ err error }

func (e sendError) Error() string { return e.err.Error() }
func (e sendError) Unwrap() error { return e.err }

// streamOne answers one request of a stream; an error ends the stream.
func (s *Server) streamOne(stream grpc.ServerStream, m *inferRequest) error {
	began := time.Now()
	err := s.answerParts(stream, m, began)
	s.metrics.observe(routeGRPCStream, began, err)
	if err == nil {
		return nil
	}
	var gone sendError
	switch {
	case errors.As(err, &gone):
		return gone.err
	case stream.Context().Err() != nil:
		return err
	}
	text := grpcStatus(err)
	if g, ok := stream.Context().(*grpcCall); ok {
		text = g.failed(err)
	}
	id, _ := m.names() // what could be read of it
	return stream.SendMsg(&inferencepb.ModelStreamInferResponse{
		ErrorMessage: status.Convert(text).Message(), InferResponse: &inferencepb.ModelInferResponse{Id: id},
	})
}

func (s *Server) answerParts(stream grpc.ServerStream, m *inferRequest, began time.Time) (err error) {
	ctx, limit, cancel := s.limited(stream.Context(), began)
	defer cancel()
	c, err := s.open(m, began)
	if err != nil {
		return err
	}
	defer s.end(c)
	defer func() { c.count(err) }()
	if err := m.decode(c); err != nil {
		return err
	}
	end := moreParts
	if c.model.streamer == nil {
		end = lastPart
	}
	send := func() error {
		reply, err := c.reply(end)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(reply); err != nil {
			return sendError{zarpa.AsError(context.Canceled).Because(err)}
		}
		return nil
	}
	switch err := s.stream(ctx, c, send); {
	case errors.As(err, new(sendError)):
		return err
	case err != nil:
		return s.endedWithin(ctx, limit, err)
	}
	if end == moreParts && m.final {
		c.outputs, end = nil, lastPart
		err = send()
	}
	return c.written(err)
}
