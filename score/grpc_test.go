package score

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func TestGRPCInfer(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{}))
	overBoth(t, l, func(t *testing.T, conn *grpc.ClientConn) {
		client := pb.NewGRPCInferenceServiceClient(conn)
		in := request(1, 2, 3, 4, 5, 6, 7, 8)
		in.Id = "42"
		in.ModelVersion = "3"
		in.Parameters = map[string]*pb.InferParameter{"mine": textParam("x"), "sequence_id": intParam(7)}
		got, err := client.ModelInfer(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		want := &pb.ModelInferResponse{
			ModelName: "iris", ModelVersion: "3", Id: "42",
			Outputs: []*pb.ModelInferResponse_InferOutputTensor{
				{Name: "label", Datatype: "INT64", Shape: []int64{2}},
				{Name: "probabilities", Datatype: "BYTES", Shape: []int64{2}, Parameters: map[string]*pb.InferParameter{"content_type": textParam("application/json")}},
			},
			RawOutputContents: [][]byte{le(int64(1), int64(1)), bytes.Repeat([]byte("\x11\x00\x00\x00"+`{"0":0.1,"1":0.9}`), 2)},
		}
		if !proto.Equal(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
		in = request(1, 2, 3, 4)
		in.ModelName = "flowers"
		in.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "label"}}
		if got, err = client.ModelInfer(t.Context(), in, grpc.UseCompressor(gzip.Name)); err != nil || got.GetModelName() != "flowers" || len(got.GetOutputs()) != 1 || got.GetId() != "" {
			t.Errorf("%v %v", got, err)
		}
	})
	m := ask(l.Handler(), http.MethodGet, "/metrics", "").Body.String()
	for _, want := range []string{`zarpa_score_requests_total{code="OK",route="grpc_infer"} 4`, `zarpa_score_request_duration_seconds_count{route="grpc_infer"} 4`} {
		if !strings.Contains(m, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// TestGRPCRefuses changes one thing of a good request, and names what is wrong in the answer.
func TestGRPCRefuses(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{MaxBody: 1 << 20}))
	for _, c := range []struct {
		name   string
		change func(in *pb.ModelInferRequest)
		code   codes.Code
		want   []string
	}{
		{"unknown model", func(in *pb.ModelInferRequest) { in.ModelName = "rose" }, codes.NotFound, []string{"Request for unknown model: 'rose' is not found"}},
		{"unknown version", func(in *pb.ModelInferRequest) { in.ModelVersion = "9" }, codes.NotFound, []string{"Request for unknown model: 'iris' version 9"}},
		{"no inputs", func(in *pb.ModelInferRequest) { in.Inputs, in.RawInputContents = nil, nil }, codes.InvalidArgument, []string{`input "input": missing`, "FP32"}},
		{"input twice", func(in *pb.ModelInferRequest) { in.Inputs = append(in.Inputs, in.Inputs[0]) }, codes.InvalidArgument, []string{"inputs: more than 1"}},
		{"unknown input", func(in *pb.ModelInferRequest) { in.Inputs[0].Name = "imput" }, codes.InvalidArgument, []string{`input "imput": unknown`, "did you mean input?"}},
		{"type", func(in *pb.ModelInferRequest) { in.Inputs[0].Datatype = "FP64" }, codes.InvalidArgument, []string{`input "input": datatype FP64, the model takes FP32`}},
		{"unknown type", func(in *pb.ModelInferRequest) { in.Inputs[0].Datatype = "FLOAT" }, codes.InvalidArgument, []string{`datatype "FLOAT": unknown`}},
		{"shape", func(in *pb.ModelInferRequest) { in.Inputs[0].Shape = []int64{4, 1} }, codes.InvalidArgument, []string{"shape [4 1], the model takes [-1 4]"}},
		{"negative", func(in *pb.ModelInferRequest) { in.Inputs[0].Shape[0] = -1 }, codes.InvalidArgument, []string{"dimension 0 is negative"}},
		{"huge", func(in *pb.ModelInferRequest) { in.Inputs[0].Shape = []int64{1 << 62, 1 << 62} }, codes.InvalidArgument, []string{"too many elements"}},
		{"rank", func(in *pb.ModelInferRequest) { in.Inputs[0].Shape = make([]int64, 33) }, codes.InvalidArgument, []string{"inputs[0]: shape: more than 32"}},
		{"short", func(in *pb.ModelInferRequest) { in.RawInputContents[0] = in.RawInputContents[0][:12] }, codes.InvalidArgument, []string{`input "input": 12 bytes, shape [1 4] of FP32 has 16`}},
		{"raw count", func(in *pb.ModelInferRequest) { in.RawInputContents = append(in.RawInputContents, nil) }, codes.InvalidArgument, []string{"raw_input_contents: 2, and 1 inputs"}},
		{"both", func(in *pb.ModelInferRequest) {
			in.Inputs[0].Contents = &pb.InferTensorContents{Fp32Contents: []float32{1, 2, 3, 4}}
		}, codes.InvalidArgument, []string{"contents: given beside raw_input_contents"}},
		{"neither", func(in *pb.ModelInferRequest) { in.RawInputContents = nil }, codes.InvalidArgument, []string{"contents: 0 elements in fp32_contents, shape [1 4] has 4"}},
		{"other contents", func(in *pb.ModelInferRequest) {
			in.RawInputContents = nil
			in.Inputs[0].Contents = &pb.InferTensorContents{Fp64Contents: []float64{1, 2, 3, 4}}
		}, codes.InvalidArgument, []string{"fp64_contents given, FP32 takes fp32_contents"}},
		{"unknown output", func(in *pb.ModelInferRequest) {
			in.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "lable"}}
		}, codes.InvalidArgument, []string{"did you mean label?"}},
		{"output twice", func(in *pb.ModelInferRequest) {
			in.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "label"}, {Name: "label"}}
		}, codes.InvalidArgument, []string{"twice"}},
		{"shared memory in", func(in *pb.ModelInferRequest) {
			in.Inputs[0].Parameters = map[string]*pb.InferParameter{"shared_memory_region": textParam("r")}
		}, codes.Unimplemented, []string{"inputs[0]: parameter shared_memory_region", "not supported"}},
		{"shared memory out", func(in *pb.ModelInferRequest) {
			in.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "label", Parameters: map[string]*pb.InferParameter{"shared_memory_region": textParam("r")}}}
		}, codes.Unimplemented, []string{"outputs[0]: parameter shared_memory_region"}},
		{"classification of texts", func(in *pb.ModelInferRequest) {
			in.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "probabilities", Parameters: map[string]*pb.InferParameter{"classification": intParam(1)}}}
		}, codes.InvalidArgument, []string{"SEQUENCE has no classes"}},
		{"classification", func(in *pb.ModelInferRequest) {
			in.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "label", Parameters: map[string]*pb.InferParameter{"classification": textParam("1")}}}
		}, codes.InvalidArgument, []string{"outputs[0]: parameter classification"}},
		{"allow_nan", func(in *pb.ModelInferRequest) {
			in.Parameters = map[string]*pb.InferParameter{"allow_nan": intParam(1)}
		}, codes.InvalidArgument, []string{"allow_nan"}},
		{"too large", func(in *pb.ModelInferRequest) { in.RawInputContents[0] = make([]byte, 1<<20) }, codes.ResourceExhausted, []string{"1048576"}},
	} {
		for _, addr := range []string{l.rest, l.grpc} {
			in := request(1, 2, 3, 4)
			c.change(in)
			_, err := pb.NewGRPCInferenceServiceClient(dial(t, addr)).ModelInfer(t.Context(), in)
			s := status.Convert(err)
			if s.Code() != c.code {
				t.Errorf("%s: %v", c.name, err)
			}
			for _, want := range c.want {
				if !strings.Contains(s.Message(), want) {
					t.Errorf("%s: %q lacks %q", c.name, s.Message(), want)
				}
			}
		}
	}
	client := pb.NewGRPCInferenceServiceClient(dial(t, l.grpc))
	in := request(1, 2, 3, 4)
	in.RawInputContents[0] = make([]byte, 1<<21)
	if _, err := client.ModelInfer(t.Context(), in, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "after decompression larger than max 1048576") {
		t.Errorf("a bomb: %v", err)
	}
	if _, err := client.ModelInfer(t.Context(), request(1, 2, 3, 4)); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func TestGRPCFailuresOfTheModel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		code   codes.Code
		want   string
		logged bool
	}{
		{zarpa.Errorf(zarpa.ModelError, "the model failed: bad index").Because(errors.New("cause")), codes.Unknown, "the model failed: bad index", true},
		{zarpa.Errorf(zarpa.Invalid, "input x: rank"), codes.InvalidArgument, "input x: rank", false},
		{errors.New("secret"), codes.Internal, "an internal error happened", true},
		{nil, codes.Internal, "an internal error happened", true}, // a panic
	} {
		s := iris()
		s.run = func(context.Context, []zarpa.Tensor, []string) ([]zarpa.Tensor, error) {
			if c.err == nil {
				panic("secret")
			}
			return nil, c.err
		}
		var log bytes.Buffer
		l := serve(t, newServer(t, s, Options{Log: slog.New(slog.NewTextHandler(&log, nil)), MaxConcurrency: 1}))
		client := pb.NewGRPCInferenceServiceClient(dial(t, l.grpc))
		for range 2 { // the slot is free again
			var header metadata.MD
			ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "R7")
			_, err := client.ModelInfer(ctx, request(1, 2, 3, 4), grpc.Header(&header))
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") || strings.Join(header["x-request-id"], "") != "R7" {
				t.Errorf("%v: %v %v", c.err, err, header)
			}
		}
		l.stop()
		<-l.ended
		if got := strings.Count(log.String(), "request_id=R7"); (got == 2) != c.logged {
			t.Errorf("%v: log %s", c.err, log.String())
		}
	}
}

func TestGRPCRequestIDs(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{}))
	overBoth(t, l, func(t *testing.T, conn *grpc.ClientConn) {
		client := pb.NewGRPCInferenceServiceClient(conn)
		var header metadata.MD
		if _, err := client.ModelInfer(t.Context(), request(1, 2, 3, 4), grpc.Header(&header)); err != nil || len(strings.Join(header["x-request-id"], "")) != 36 {
			t.Errorf("%v %v", header, err)
		}
		long := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", strings.Repeat("x", 101))
		if _, err := client.ServerLive(long, &pb.ServerLiveRequest{}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "x-request-id") {
			t.Errorf("long: %v", err)
		}
	})
}

func TestGRPCTimeLimits(t *testing.T) {
	t.Parallel()
	g := newGate()
	setting := serve(t, newServer(t, g, Options{RequestTimeout: 50 * time.Millisecond}))
	patient := serve(t, newServer(t, g, Options{RequestTimeout: time.Hour}))
	for name, c := range map[string]struct {
		l    *live
		ctx  func() (context.Context, context.CancelFunc)
		want string
	}{
		"setting": {setting, func() (context.Context, context.CancelFunc) { return t.Context(), func() {} }, "Scoring timeout after 50 ms"},
		"told": {patient, func() (context.Context, context.CancelFunc) {
			return metadata.AppendToOutgoingContext(t.Context(), "zarpa-timeout-ms", "30"), func() {}
		}, "Scoring timeout after 30 ms"},
		"deadline": {patient, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 40*time.Millisecond)
		}, ""},
	} {
		overBoth(t, c.l, func(t *testing.T, conn *grpc.ClientConn) {
			ctx, cancel := c.ctx()
			defer cancel()
			_, err := pb.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, request(1, 2, 3, 4), grpc.WaitForReady(true))
			if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestGRPCClientThatLeavesCancelsTheRun(t *testing.T) {
	t.Parallel()
	g := newGate()
	canceled := make(chan struct{}, 2)
	inner := g.run
	g.run = func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		out, err := inner(ctx, in, wanted)
		if errors.Is(err, context.Canceled) {
			canceled <- struct{}{}
		}
		return out, err
	}
	l := serve(t, newServer(t, g, Options{}))
	overBoth(t, l, func(t *testing.T, conn *grpc.ClientConn) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := pb.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, request(1, 2, 3, 4))
			done <- err
		}()
		<-g.entered
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Error(err)
		}
		<-canceled
	})
	l.waitMetric(t, "zarpa_score_canceled_total 2")
	l.waitMetric(t, `{code="CANCELLED",route="grpc_infer"} 2`)
}

func TestGRPCQueueIsFull(t *testing.T) {
	t.Parallel()
	g := newGate()
	l := serve(t, newServer(t, g, Options{MaxConcurrency: 1, QueueLimit: 1}))
	client := pb.NewGRPCInferenceServiceClient(dial(t, l.grpc))
	results := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := client.ModelInfer(t.Context(), request(1, 2, 3, 4))
			results <- err
		}()
	}
	<-g.entered
	if err := <-results; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "queue is full") {
		t.Errorf("%v", err)
	}
	close(g.leave)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestGRPCDrains(t *testing.T) {
	t.Parallel()
	g := newGate()
	l := serve(t, newServer(t, g, Options{DrainTimeout: time.Minute}))
	results := make(chan error, 2)
	for _, addr := range []string{l.rest, l.grpc} {
		client := pb.NewGRPCInferenceServiceClient(dial(t, addr))
		idle, err := client.ModelStreamInfer(t.Context()) // holds nothing up
		if err != nil {
			t.Fatal(err)
		}
		if err := idle.Send(&pb.ModelInferRequest{ModelName: "rose", Id: "1"}); err != nil {
			t.Fatal(err)
		}
		if _, err := idle.Recv(); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := client.ModelInfer(t.Context(), request(1, 2, 3, 4))
			results <- err
		}()
		<-g.entered
	}
	l.stop()
	<-l.stopping
	close(g.leave)
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("a running request: %v", err)
		}
	}
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
}

func TestGRPCDrainTimeoutCutsOff(t *testing.T) {
	t.Parallel()
	g := newGate()
	l := serve(t, newServer(t, g, Options{DrainTimeout: time.Millisecond}))
	results := make(chan error, 2)
	for _, addr := range []string{l.rest, l.grpc} {
		client := pb.NewGRPCInferenceServiceClient(dial(t, addr))
		go func() {
			_, err := client.ModelInfer(t.Context(), request(1, 2, 3, 4))
			results <- err
		}()
		<-g.entered
	}
	l.stop()
	for range 2 {
		if err := <-results; status.Code(err) != codes.Unavailable {
			t.Errorf("cut off: %v", err)
		}
	}
	if err := <-l.ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Serve: %v", err)
	}
}

// TestGRPCHalfAMessageEnds begins a message over HTTP/2 and sends no more of it.
func TestGRPCHalfAMessageEnds(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{RequestTimeout: 50 * time.Millisecond}))
	var two http.Protocols
	two.SetUnencryptedHTTP2(true)
	for _, addr := range []string{l.rest, l.grpc} {
		body, rest := io.Pipe()
		defer rest.Close()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+pb.GRPCInferenceService_ModelInfer_FullMethodName, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
		go func() { _, _ = rest.Write([]byte("\x00\x00\x00\x01\x00half")) }()
		transport := &http.Transport{Protocols: &two}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Logf("%v", err) // ended all the same
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if code := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status"); code == "" || code == "0" {
			t.Errorf("%s: status %q", addr, code)
		}
		transport.CloseIdleConnections()
	}
	if _, err := pb.NewGRPCInferenceServiceClient(dial(t, l.rest)).ModelInfer(t.Context(), request(1, 2, 3, 4)); err != nil {
		t.Error(err)
	}
}
