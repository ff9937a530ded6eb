package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// speaker is a replica that speaks gRPC and HTTP/1.1 on one socket, as all replicas do.
type speaker struct {
	pb.UnimplementedGRPCInferenceServiceServer
	name  string
	calls atomic.Int64
	infer func(ctx context.Context, in *pb.ModelInferRequest) (*pb.ModelInferResponse, error)
	talk  func(stream pb.GRPCInferenceService_ModelStreamInferServer) error
	load  func(name string) error
}

func (s *speaker) ModelInfer(ctx context.Context, in *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	s.calls.Add(1)
	if s.infer != nil {
		return s.infer(ctx, in)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-seen-id", strings.Join(md["x-request-id"], ","), "x-seen-key", strings.Join(md["authorization"], ",")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-cost-bin", "\x00\xff", "x-seen-mine", strings.Join(md["x-mine"], ",")))
	return &pb.ModelInferResponse{ModelName: in.GetModelName(), ModelVersion: s.name, Id: in.GetId(), RawOutputContents: in.GetRawInputContents()}, nil
}

func (s *speaker) ModelReady(_ context.Context, in *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	return &pb.ModelReadyResponse{Ready: in.GetName() == "iris"}, nil
}

func (s *speaker) ModelStreamInfer(stream pb.GRPCInferenceService_ModelStreamInferServer) error {
	s.calls.Add(1)
	return s.talk(stream)
}

func (s *speaker) RepositoryModelLoad(_ context.Context, in *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	s.calls.Add(1)
	return &pb.RepositoryModelLoadResponse{}, s.load(in.GetModelName())
}

// address serves s on a Unix socket. kill ends it at once, with its connections.
func (s *speaker) address(t testing.TB) (address string, kill func()) {
	t.Helper()
	path := filepath.Join(socketDir(t), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer(grpc.MaxRecvMsgSize(1 << 30))
	pb.RegisterGRPCInferenceServiceServer(rpc, s)
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: p, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			rpc.ServeHTTP(w, r)
			return
		}
		echoPath(w, r)
	})}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return "unix:" + path, func() { _ = server.Close() }
}

// client is one of the field's, with a key.
type client struct {
	pb.GRPCInferenceServiceClient
	conn *grpc.ClientConn
}

func dial(t testing.TB, address string) client {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return client{pb.NewGRPCInferenceServiceClient(conn), conn}
}

// with is a context whose calls carry a key and what else is given.
func with(ctx context.Context, pairs ...string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(append([]string{"authorization", "Bearer " + key}, pairs...)...))
}

// onBoth runs a test on the address of all protocols and on that of gRPC alone.
func onBoth(t *testing.T, test func(t *testing.T, g *served, c client), routes func(t *testing.T) []zarpa.Route) {
	for name, address := range addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := serve(t, routes(t)...)
			test(t, g, dial(t, address(g)))
		})
	}
}

func addresses() map[string]func(*served) string {
	return map[string]func(*served) string{
		"public": func(g *served) string { return g.public }, "own": func(g *served) string { return g.native },
	}
}

func speaks(s *speaker) func(t *testing.T) []zarpa.Route {
	return func(t *testing.T) []zarpa.Route {
		a, _ := s.address(t)
		return []zarpa.Route{route(a)}
	}
}

func wantCode(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), text) {
		t.Errorf("%v, want %v with %q", err, code, text)
	}
}

func TestCallsReachTheirReplicaAsTheyAre(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		for _, size := range []int{0, 5, 300 << 10} {
			for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
				raw := bytes.Repeat([]byte{7}, size)
				var header, trailer metadata.MD
				out, err := c.ModelInfer(with(t.Context(), "x-request-id", "A", "x-mine", "m"),
					&pb.ModelInferRequest{ModelName: "iris", Id: "42", RawInputContents: [][]byte{raw}},
					append(options, grpc.Header(&header), grpc.Trailer(&trailer))...)
				if err != nil || out.GetId() != "42" || !bytes.Equal(out.GetRawOutputContents()[0], raw) {
					t.Fatalf("%d bytes: %.100v %v", size, out, err)
				}
				for k, want := range map[string]string{"x-request-id": "A", "x-ms-request-id": "A", "x-seen-id": "A", "x-seen-key": ""} {
					if v := header[k]; len(v) != 1 || v[0] != want {
						t.Errorf("%s: %q, want %q", k, v, want)
					}
				}
				if trailer["x-cost-bin"][0] != "\x00\xff" || trailer["x-seen-mine"][0] != "m" {
					t.Errorf("trailer %q", trailer)
				}
			}
		}
		// The metadata names the endpoint, the message a model of it.
		out, err := c.ModelInfer(with(t.Context(), "zarpa-endpoint", "iris"), &pb.ModelInferRequest{ModelName: "other model"})
		if err != nil || out.GetModelName() != "other model" {
			t.Errorf("%v %v", out, err)
		}
		g.want(call{method: "GET"}, 200, "GET /score") // the same replica by HTTP/1.1
		g.metric(t, `zarpa_gateway_requests_total{code="OK",deployment="blue",endpoint="iris"} 7`)
		g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
	}, speaks(&speaker{}))
}

func TestRefusalsHaveTheirCodes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		ctx := t.Context()
		in := &pb.ModelInferRequest{ModelName: "iris"}
		for _, keys := range []metadata.MD{
			nil, metadata.Pairs("authorization", "Bearer wrong"), metadata.Pairs("authorization", "Basic "+key),
			metadata.Pairs("authorization", "Bearer "+key, "authorization", "Bearer "+key),
		} {
			_, err := c.ModelInfer(metadata.NewOutgoingContext(ctx, keys), in)
			wantCode(t, err, codes.Unauthenticated, "zarpa keys")
		}
		_, err := c.ModelInfer(with(ctx), &pb.ModelInferRequest{ModelName: "mine"})
		wantCode(t, err, codes.Unauthenticated, `not one of endpoint "mine"`)
		_, err = c.ModelInfer(with(ctx, "zarpa-endpoint", "mine"), in)
		wantCode(t, err, codes.Unauthenticated, `not one of endpoint "mine"`)
		_, err = c.ModelInfer(with(ctx), &pb.ModelInferRequest{ModelName: "none"})
		wantCode(t, err, codes.NotFound, "Request for unknown model: 'none' is not found")
		_, err = c.ModelInfer(with(ctx, "zarpa-endpoint", "none"), in)
		wantCode(t, err, codes.NotFound, "Request for unknown model: 'none'")
		_, err = c.ModelInfer(with(ctx, "azureml-model-deployment", "none"), in)
		wantCode(t, err, codes.NotFound, "no deployment")
		_, err = c.ModelInfer(with(ctx, "x-request-id", strings.Repeat("x", 101)), in)
		wantCode(t, err, codes.InvalidArgument, "x-request-id")
		_, err = c.ModelInfer(with(ctx), &pb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{make([]byte, 1<<20)}})
		wantCode(t, err, codes.ResourceExhausted, "max_body")
		_, err = c.ModelStatistics(with(ctx), &pb.ModelStatisticsRequest{})
		wantCode(t, err, codes.InvalidArgument, "ModelStatistics names no model")
		if status, err := c.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{}); err != nil || len(status.GetRegions()) != 0 {
			t.Errorf("shared memory of the gateway: %v %v", status, err)
		}
		_, err = c.CudaSharedMemoryRegister(ctx, &pb.CudaSharedMemoryRegisterRequest{Name: "r"})
		wantCode(t, err, codes.Unimplemented, "CudaSharedMemoryRegister: not supported")
		_, err = c.SystemSharedMemoryStatus(with(ctx, "zarpa-endpoint", "iris"), &pb.SystemSharedMemoryStatusRequest{})
		wantCode(t, err, codes.Unimplemented, "SystemSharedMemoryStatus") // the replica's own word
		err = c.conn.Invoke(with(ctx), "/inference.GRPCInferenceService/Nothing", in, &pb.ModelInferResponse{})
		wantCode(t, err, codes.Unimplemented, "Nothing")
		g.metric(t, `zarpa_gateway_rejected_total{endpoint="mine",reason="unauthenticated"} 2`)
		g.metric(t, `zarpa_gateway_requests_total{code="NOT_FOUND",deployment="",endpoint=""} 2`)
		g.metric(t, `zarpa_gateway_requests_total{code="RESOURCE_EXHAUSTED",deployment="",endpoint="iris"} 1`)
	}, func(t *testing.T) []zarpa.Route {
		iris, _ := (&speaker{}).address(t)
		other := route(iris)
		other.Endpoint, other.Keys = "mine", [][]byte{zarpa.KeyDigest("another")}
		return []zarpa.Route{route(iris), other}
	})
}

func TestTheGatewayAnswersForItself(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		ctx := t.Context()
		live, err := c.ServerLive(ctx, &pb.ServerLiveRequest{})
		ready, err2 := c.ServerReady(ctx, &pb.ServerReadyRequest{})
		about, err3 := c.ServerMetadata(ctx, &pb.ServerMetadataRequest{})
		if errors.Join(err, err2, err3) != nil || !live.GetLive() || !ready.GetReady() || about.GetName() != "zarpa" || about.GetVersion() != "test" {
			t.Error(live, ready, about, err, err2, err3)
		}
		for name, want := range map[string]bool{"iris": true, "none": false, "empty": false} {
			r, err := c.ModelReady(with(ctx), &pb.ModelReadyRequest{Name: name})
			if err != nil || r.GetReady() != want {
				t.Errorf("%s: %v %v", name, r, err)
			}
		}
		health := healthpb.NewHealthClient(c.conn)
		for _, name := range []string{"", "inference.GRPCInferenceService"} {
			h, err := health.Check(with(ctx), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
				t.Errorf("%q: %v %v", name, h, err)
			}
		}
		_, err = health.Check(with(ctx), &healthpb.HealthCheckRequest{Service: "other"})
		wantCode(t, err, codes.NotFound, "other")
		watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if h, err := watch.Recv(); err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%v %v", h, err)
		}
		reflected, err := reflectionpb.NewServerReflectionClient(c.conn).ServerReflectionInfo(with(ctx))
		if err != nil {
			t.Fatal(err)
		}
		_ = reflected.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		list, err := reflected.Recv()
		if err != nil || !strings.Contains(list.String(), "inference.GRPCInferenceService") {
			t.Errorf("%v %v", list, err)
		}
		_ = reflected.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "inference.GRPCInferenceService"}})
		if file, err := reflected.Recv(); err != nil || len(file.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%v %v", file, err)
		}
		_ = reflected.CloseSend()
		if err := g.stop(); err != nil {
			t.Error(err)
		}
		_, err = watch.Recv()
		wantCode(t, err, codes.Unavailable, "the gateway stops")
	}, func(t *testing.T) []zarpa.Route {
		iris, _ := (&speaker{}).address(t)
		empty := route()
		empty.Endpoint, empty.QueueWait = "empty", zarpa.Duration(time.Millisecond)
		return []zarpa.Route{route(iris), empty}
	})
}

func TestCallsEndInTime(t *testing.T) {
	t.Parallel()
	entered := make(chan string, 10)
	var working atomic.Int64
	stuck := &speaker{infer: func(ctx context.Context, in *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
		working.Add(1)
		defer working.Add(-1)
		entered <- in.GetId()
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	a, _ := stuck.address(t)
	long := route(a)
	short := long
	short.RequestTimeout = zarpa.Duration(100 * time.Millisecond)
	g := serve(t, short)
	for _, address := range []string{g.public, g.native} {
		c := dial(t, address)
		g.set(short)
		_, err := c.ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"})
		wantCode(t, err, codes.DeadlineExceeded, "Scoring timeout after 100 ms")
		g.set(long)
		brief, cancel := context.WithTimeout(with(t.Context()), 100*time.Millisecond)
		_, err = c.ModelInfer(brief, &pb.ModelInferRequest{ModelName: "iris"})
		cancel()
		wantCode(t, err, codes.DeadlineExceeded, "")
		ctx, cancel := context.WithCancel(with(t.Context()))
		go func() {
			for id := range entered {
				if id == "left" {
					cancel()
					return
				}
			}
		}()
		_, err = c.ModelInfer(ctx, &pb.ModelInferRequest{ModelName: "iris", Id: "left"})
		wantCode(t, err, codes.Canceled, "")
	}
	g.metric(t, `zarpa_gateway_canceled_total{deployment="blue",endpoint="iris"} 2`)
	g.metric(t, `zarpa_gateway_requests_total{code="CANCELLED",deployment="blue",endpoint="iris"} 2`)
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
	eventually(t, "the replica's work ends", func() bool { return working.Load() == 0 })
}

func TestStatusesOfReplicasPass(t *testing.T) {
	t.Parallel()
	s := &speaker{infer: func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
		return nil, status.Error(codes.Unavailable, "Too many requests")
	}}
	onBoth(t, func(t *testing.T, _ *served, c client) {
		_, err := c.ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"})
		wantCode(t, err, codes.Unavailable, "Too many requests")
	}, speaks(s))
}

func TestWhatAReplicaMayHaveBegunIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"unary", "stream"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			var kill func()
			s := &speaker{}
			s.infer = func(ctx context.Context, _ *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
				kill()
				return nil, ctx.Err()
			}
			s.talk = func(stream pb.GRPCInferenceService_ModelStreamInferServer) error {
				_ = stream.Send(&pb.ModelStreamInferResponse{})
				_, _ = stream.Recv() // the test has the answer
				_, _ = stream.Recv()
				kill()
				return nil
			}
			a, k := s.address(t)
			kill = k
			g := serve(t, route(a))
			c := dial(t, g.native)
			var err error
			if when == "unary" {
				_, err = c.ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"})
			} else {
				var stream pb.GRPCInferenceService_ModelStreamInferClient
				if stream, err = c.ModelStreamInfer(with(t.Context())); err != nil {
					t.Fatal(err)
				}
				_ = stream.Send(&pb.ModelInferRequest{ModelName: "iris"})
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
				_ = stream.Send(&pb.ModelInferRequest{ModelName: "iris"})
				_, err = stream.Recv()
			}
			wantCode(t, err, codes.Unknown, "Replica closed connection")
			if s.calls.Load() != 1 {
				t.Errorf("executed %d times", s.calls.Load())
			}
			g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
		})
	}
}

func TestCallsPassOverADeadReplica(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		for range 20 {
			if _, err := c.ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"}); err != nil {
				t.Fatal(err)
			}
		}
		old := route(replica(t, echoPath)) // HTTP/1.1 alone
		g.set(old)
		_, err := c.ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"})
		wantCode(t, err, codes.Unavailable, "does not answer gRPC")
		g.want(call{method: "GET"}, 200, "/score")
		old.Deployments[0].Replicas, old.QueueWait = nil, zarpa.Duration(time.Millisecond)
		g.set(old)
		_, err = c.ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"})
		wantCode(t, err, codes.Unavailable, "No ready replicas")
	}, func(t *testing.T) []zarpa.Route {
		a, _ := (&speaker{}).address(t)
		return []zarpa.Route{route("unix:/nowhere", a, "http://127.0.0.1:1")}
	})
}

func TestMetadataChoosesTheDeployment(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, _ *served, c client) {
		for _, pair := range [][2]string{{"", "blue"}, {"zarpa-deployment", "green"}, {"azureml-model-deployment", "green"}} {
			ctx := with(t.Context())
			if pair[0] != "" {
				ctx = with(t.Context(), pair[0], pair[1])
			}
			out, err := c.ModelInfer(ctx, &pb.ModelInferRequest{ModelName: "iris"})
			if err != nil || out.GetModelVersion() != pair[1] {
				t.Errorf("%v: %v %v", pair, out, err)
			}
		}
	}, func(t *testing.T) []zarpa.Route {
		blue, _ := (&speaker{name: "blue"}).address(t)
		green, _ := (&speaker{name: "green"}).address(t)
		r := route(blue)
		r.Deployments = append(r.Deployments, zarpa.RouteDeployment{Name: "green", Replicas: []zarpa.RouteReplica{{ID: "g", Address: green}}})
		return []zarpa.Route{r}
	})
}
