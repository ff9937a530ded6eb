package score

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// own makes a session's results its caller's, as the contract of sessions says: echo gives its
// inputs back.
func own(s *session) *session {
	run := s.run
	s.run = func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		out, err := run(ctx, in, wanted)
		for i := range out {
			out[i].Data, out[i].Shape = slices.Clone(out[i].Data), slices.Clone(out[i].Shape)
		}
		return out, err
	}
	return s
}

// live is a server that serves, and how to reach it.
type live struct {
	*Server
	rest, grpc string // addresses
	stop       context.CancelFunc
	ended      chan error
}

// serve serves srv until the test ends.
func serve(t testing.TB, srv *Server) *live {
	t.Helper()
	var lns [2]net.Listener
	for i := range lns {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		lns[i] = ln
	}
	ctx, stop := context.WithCancel(t.Context())
	l := &live{Server: srv, rest: lns[0].Addr().String(), grpc: lns[1].Addr().String(), stop: stop, ended: make(chan error, 1)}
	go func() { l.ended <- srv.Serve(ctx, lns[0], lns[1]); close(l.ended) }()
	t.Cleanup(func() {
		stop()
		<-l.ended
	})
	return l
}

// waitMetric waits until the server has counted what its client does not wait for.
func (l *live) waitMetric(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		m := ask(l.Handler(), http.MethodGet, "/metrics", "").Body.String()
		if strings.Contains(m, want) {
			return
		}
		if time.Now().After(end) {
			var counts []string
			for line := range strings.Lines(m) {
				if !strings.Contains(line, "_bucket") && !strings.HasPrefix(line, "#") {
					counts = append(counts, line)
				}
			}
			t.Fatalf("not counted: %s in %v", want, counts)
		}
	}
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// overBoth runs a test over the listener of REST and over the one of gRPC alone.
func overBoth(t *testing.T, l *live, test func(t *testing.T, conn *grpc.ClientConn)) {
	t.Helper()
	for name, addr := range map[string]string{"carried": l.rest, "alone": l.grpc} {
		t.Run(name, func(t *testing.T) { test(t, dial(t, addr)) })
	}
}

// request asks the model iris for a prediction of its input.
func request(values ...float32) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName:        "iris",
		Inputs:           []*pb.ModelInferRequest_InferInputTensor{{Name: "input", Datatype: "FP32", Shape: []int64{int64(len(values) / 4), 4}}},
		RawInputContents: [][]byte{le(values)},
	}
}

func boolParam(v bool) *pb.InferParameter {
	return &pb.InferParameter{ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: v}}
}

func intParam(v int64) *pb.InferParameter {
	return &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: v}}
}

func textParam(v string) *pb.InferParameter {
	return &pb.InferParameter{ParameterChoice: &pb.InferParameter_StringParam{StringParam: v}}
}
