package gateway_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func TestStreamsGoBothWaysUnbuffered(t *testing.T) {
	t.Parallel()
	for name, address := range addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := make(chan error, 10)
			a, _ := echo(left).address(t)
			g := serve(t, route(a))
			streamBothWays(t, g, dial(t, address(g)), left)
		})
	}
}

// echo answers each message twice, and tells why a stream ended.
func echo(left chan error) *speaker {
	return &speaker{talk: func(stream pb.GRPCInferenceService_ModelStreamInferServer) error {
		for {
			in, err := stream.Recv()
			if err != nil {
				left <- stream.Context().Err()
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			for range 2 {
				if err := stream.Send(&pb.ModelStreamInferResponse{InferResponse: &pb.ModelInferResponse{Id: in.GetId()}}); err != nil {
					return err
				}
			}
		}
	}}
}

func streamBothWays(t *testing.T, g *served, c client, left chan error) {
	open := func(ctx context.Context) pb.GRPCInferenceService_ModelStreamInferClient {
		stream, err := c.ModelStreamInfer(with(ctx))
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"a", "b", "c"} {
			if err := stream.Send(&pb.ModelInferRequest{ModelName: "iris", Id: id}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if out, err := stream.Recv(); err != nil || out.GetInferResponse().GetId() != id {
					t.Fatalf("%v %v", out, err)
				}
			}
		}
		return stream
	}
	stream := open(t.Context())
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 1`)
	_ = stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	if err := <-left; err != nil {
		t.Errorf("the replica was canceled: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_ = open(ctx)
	cancel()
	if err := <-left; err == nil {
		t.Error("the replica was not canceled")
	}
	g.metric(t, `zarpa_gateway_canceled_total{deployment="blue",endpoint="iris"} 1`)
	stream = open(t.Context())
	_ = stream.Send(&pb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{make([]byte, 1<<20)}})
	_, err := stream.Recv()
	wantCode(t, err, codes.ResourceExhausted, "max_body")
	<-left
	r := g.Routes().Endpoints[0]
	r.RequestTimeout = zarpa.Duration(500 * time.Millisecond)
	g.set(r)
	stream = open(t.Context())
	_, err = stream.Recv()
	wantCode(t, err, codes.DeadlineExceeded, "no message for 500ms")
	<-left
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
}

func TestDrainLetsCallsEnd(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	s := &speaker{infer: func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
		entered <- struct{}{}
		<-leave
		return &pb.ModelInferResponse{Id: "ended"}, nil
	}}
	a, _ := s.address(t)
	g := serve(t, route(a))
	got := make(chan error, 2)
	for _, address := range []string{g.public, g.native} {
		c := dial(t, address)
		go func() {
			out, err := c.ModelInfer(with(context.Background()), &pb.ModelInferRequest{ModelName: "iris"})
			if err == nil && out.GetId() != "ended" {
				err = errors.New("another answer")
			}
			got <- err
		}()
		<-entered
	}
	stopped := make(chan error, 1)
	go func() { stopped <- g.stop() }()
	for _, address := range []string{g.public, g.native} {
		eventually(t, "the address is closed", func() bool {
			c, err := net.Dial("tcp", address)
			if err == nil {
				_ = c.Close()
			}
			return err != nil
		})
	}
	close(leave)
	if err := errors.Join(<-got, <-got, <-stopped); err != nil {
		t.Error(err)
	}
}

// A client that takes no answers holds a replica's place no longer than one that sends no requests.
func TestStreamsWhoseClientDoesNotReadEnd(t *testing.T) {
	t.Parallel()
	for name, address := range addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &speaker{talk: func(stream pb.GRPCInferenceService_ModelStreamInferServer) error {
				part := &pb.ModelStreamInferResponse{InferResponse: &pb.ModelInferResponse{RawOutputContents: [][]byte{make([]byte, 32<<10)}}}
				for {
					if err := stream.Send(part); err != nil {
						return err
					}
				}
			}}
			a, _ := s.address(t)
			r := route(a)
			r.RequestTimeout = zarpa.Duration(300 * time.Millisecond)
			g := serve(t, r)
			stream, err := dial(t, address(g)).ModelStreamInfer(with(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&pb.ModelInferRequest{ModelName: "iris"}); err != nil {
				t.Fatal(err)
			}
			g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 1`)
			g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
		})
	}
}

// A stream that only stands open ends when the gateway stops, long before the drain time is over.
func TestIdleStreamsDoNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	for name, address := range addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := make(chan error, 10)
			a, _ := echo(left).address(t)
			g := serve(t, route(a))
			stream, err := dial(t, address(g)).ModelStreamInfer(with(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&pb.ModelInferRequest{ModelName: "iris", Id: "a"}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			stopped := make(chan error, 1)
			go func() { stopped <- g.stop() }()
			_, err = stream.Recv()
			wantCode(t, err, codes.Unavailable, "the gateway stops")
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > gateway.DefaultDrain/2 {
				t.Errorf("the end took %v", took)
			}
		})
	}
}
