package score

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	alphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func TestGRPCMetadata(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{ServerVersion: "zarpa/0.1"}))
	loading := serve(t, newServer(t, nil, Options{}))
	overBoth(t, l, func(t *testing.T, conn *grpc.ClientConn) {
		client := pb.NewGRPCInferenceServiceClient(conn)
		live, err := client.ServerLive(t.Context(), &pb.ServerLiveRequest{})
		if err != nil || !live.GetLive() {
			t.Errorf("%v %v", live, err)
		}
		ready, err := client.ServerReady(t.Context(), &pb.ServerReadyRequest{})
		if err != nil || !ready.GetReady() {
			t.Errorf("%v %v", ready, err)
		}
		about, err := client.ServerMetadata(t.Context(), &pb.ServerMetadataRequest{})
		if err != nil || about.GetName() != "zarpa" || about.GetVersion() != "zarpa/0.1" || !slices.Contains(about.GetExtensions(), "statistics") {
			t.Errorf("%v %v", about, err)
		}
		for name, want := range map[string]bool{"iris": true, "a/b": true, "rose": false, "": false} {
			if got, err := client.ModelReady(t.Context(), &pb.ModelReadyRequest{Name: name}); err != nil || got.GetReady() != want {
				t.Errorf("%q ready: %v %v", name, got, err)
			}
		}
		if got, err := client.ModelReady(t.Context(), &pb.ModelReadyRequest{Name: "iris", Version: "9"}); err != nil || got.GetReady() {
			t.Errorf("version 9 is ready: %v %v", got, err)
		}
		got, err := client.ModelMetadata(t.Context(), &pb.ModelMetadataRequest{Name: "flowers"})
		want := &pb.ModelMetadataResponse{
			Name: "flowers", Versions: []string{"3"}, Platform: "onnx_onnxv1",
			Inputs:  []*pb.ModelMetadataResponse_TensorMetadata{{Name: "input", Datatype: "FP32", Shape: []int64{-1, 4}}},
			Outputs: []*pb.ModelMetadataResponse_TensorMetadata{{Name: "label", Datatype: "INT64", Shape: []int64{-1}}, {Name: "probabilities", Datatype: "BYTES", Shape: []int64{-1}}},
		}
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%v %v", got, err)
		}
		if _, err := client.ModelMetadata(t.Context(), &pb.ModelMetadataRequest{Name: "rose"}); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "Request for unknown model: 'rose'") {
			t.Error(err)
		}
	})
	client := pb.NewGRPCInferenceServiceClient(dial(t, loading.grpc))
	if ready, err := client.ServerReady(t.Context(), &pb.ServerReadyRequest{}); err != nil || ready.GetReady() {
		t.Errorf("loading: %v %v", ready, err)
	}
	if _, err := client.ModelInfer(t.Context(), request(1, 2, 3, 4)); status.Code(err) != codes.Unavailable {
		t.Errorf("loading: %v", err)
	}
}

func TestGRPCHealth(t *testing.T) {
	t.Parallel()
	s := iris()
	srv := newServer(t, nil, Options{Models: []ModelOptions{{Name: "iris", Load: func(context.Context) (zarpa.Session, error) { return s, nil }}}})
	l := serve(t, srv)
	client := healthpb.NewHealthClient(dial(t, l.grpc))
	check := func(service string) string {
		r, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			return status.Code(err).String()
		}
		return r.GetStatus().String()
	}
	watch := func(service string) func() string {
		w, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return func() string {
			r, err := w.Recv()
			if err != nil {
				return status.Code(err).String()
			}
			return r.GetStatus().String()
		}
	}
	whole, service, other := watch(""), watch("inference.GRPCInferenceService"), watch("other")
	for _, w := range []func() string{whole, service} {
		if got := w(); got != "NOT_SERVING" {
			t.Error(got)
		}
	}
	if got := other(); got != "SERVICE_UNKNOWN" {
		t.Error(got)
	}
	if got := check(""); got != "NOT_SERVING" {
		t.Error(got)
	}
	if err := srv.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{check(""), check("inference.GRPCInferenceService"), whole(), service()} {
		if got != "SERVING" {
			t.Error(got)
		}
	}
	if got := check("other"); got != "NotFound" {
		t.Error(got)
	}
	if list, err := client.List(t.Context(), &healthpb.HealthListRequest{}); err != nil || len(list.GetStatuses()) != 2 {
		t.Errorf("%v %v", list, err)
	}
	l.stop()
	if got := whole() + " " + whole() + " " + other(); got != "NOT_SERVING Unavailable Unavailable" {
		t.Error(got)
	}
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
}

func TestGRPCReflection(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{}))
	overBoth(t, l, func(t *testing.T, conn *grpc.ClientConn) {
		v1, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := v1.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Fatal(err)
		}
		r, err := v1.Recv()
		var names []string
		for _, s := range r.GetListServicesResponse().GetService() {
			names = append(names, s.GetName())
		}
		if err != nil || !slices.Contains(names, "inference.GRPCInferenceService") || !slices.Contains(names, "grpc.health.v1.Health") {
			t.Errorf("%v %v", names, err)
		}
		alpha, err := alphapb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		symbol := &alphapb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "inference.GRPCInferenceService"} //nolint:staticcheck // clients still ask for it
		if err := alpha.Send(&alphapb.ServerReflectionRequest{MessageRequest: symbol}); err != nil {                            //nolint:staticcheck // clients still ask for it
			t.Fatal(err)
		}
		if r, err := alpha.Recv(); err != nil || len(r.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 { //nolint:staticcheck // clients still ask for it
			t.Errorf("%v %v", r, err)
		}
	})
}

// TestEveryMethodIsThere calls each method of the generated service.
func TestEveryMethodIsThere(t *testing.T) {
	t.Parallel()
	srv := newServer(t, nil, Options{})
	var have []string
	for _, m := range srv.inferenceService().Methods {
		have = append(have, m.MethodName)
	}
	for _, m := range pb.GRPCInferenceService_ServiceDesc.Methods {
		if !slices.Contains(have, m.MethodName) {
			t.Errorf("no %s", m.MethodName)
		}
	}
	if len(have) != len(pb.GRPCInferenceService_ServiceDesc.Methods) {
		t.Errorf("%d methods: %v", len(have), have)
	}
}

func TestGRPCExtensions(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{ModelControl: zarpa.ModelControlExplicit}))
	client := pb.NewGRPCInferenceServiceClient(dial(t, l.grpc))
	ctx := t.Context()
	code := func(_ any, err error) string { return status.Code(err).String() }
	bytesParam := map[string]*pb.ModelRepositoryParameter{"file:1/model.onnx": {ParameterChoice: &pb.ModelRepositoryParameter_BytesParam{BytesParam: []byte("x")}}}
	dependents := map[string]*pb.ModelRepositoryParameter{"unload_dependents": {ParameterChoice: &pb.ModelRepositoryParameter_BoolParam{BoolParam: true}}}
	traces := map[string]*pb.TraceSettingRequest_SettingValue{"trace_level": {Value: []string{"TIMESTAMPS"}}}
	logs := map[string]*pb.LogSettingsRequest_SettingValue{"log_info": {ParameterChoice: &pb.LogSettingsRequest_SettingValue_BoolParam{BoolParam: true}}}
	for _, c := range []struct{ name, got, want string }{
		{"system status", code(client.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{})), "OK"},
		{"system status of one", code(client.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{Name: "r"})), "NotFound"},
		{"system register", code(client.SystemSharedMemoryRegister(ctx, &pb.SystemSharedMemoryRegisterRequest{Name: "r"})), "Unimplemented"},
		{"system unregister", code(client.SystemSharedMemoryUnregister(ctx, &pb.SystemSharedMemoryUnregisterRequest{})), "OK"},
		{"cuda status", code(client.CudaSharedMemoryStatus(ctx, &pb.CudaSharedMemoryStatusRequest{})), "OK"},
		{"cuda register", code(client.CudaSharedMemoryRegister(ctx, &pb.CudaSharedMemoryRegisterRequest{Name: "r"})), "Unimplemented"},
		{"cuda unregister", code(client.CudaSharedMemoryUnregister(ctx, &pb.CudaSharedMemoryUnregisterRequest{})), "OK"},
		{"trace", code(client.TraceSetting(ctx, &pb.TraceSettingRequest{})), "OK"},
		{"trace of one", code(client.TraceSetting(ctx, &pb.TraceSettingRequest{ModelName: "rose"})), "NotFound"},
		{"trace update", code(client.TraceSetting(ctx, &pb.TraceSettingRequest{Settings: traces})), "Unimplemented"},
		{"log", code(client.LogSettings(ctx, &pb.LogSettingsRequest{})), "OK"},
		{"log update", code(client.LogSettings(ctx, &pb.LogSettingsRequest{Settings: logs})), "Unimplemented"},
		{"load with a file", code(client.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "iris", Parameters: bytesParam})), "InvalidArgument"},
		{"load of nothing", code(client.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "rose"})), "NotFound"},
		{"unload", code(client.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "iris", Parameters: dependents})), "OK"},
		{"infer after it", code(client.ModelInfer(ctx, request(1, 2, 3, 4))), "Unavailable"},
		{"statistics after it", code(client.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "iris"})), "OK"},
		{"config after it", code(client.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "iris"})), "Unavailable"},
		{"load", code(client.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "iris"})), "OK"},
		{"infer again", code(client.ModelInfer(ctx, request(1, 2, 3, 4))), "OK"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
	index, err := client.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{Ready: true})
	if err != nil || len(index.GetModels()) != 1 || index.GetModels()[0].GetState() != "READY" || index.GetModels()[0].GetVersion() != "3" {
		t.Errorf("%v %v", index, err)
	}
	stats, err := client.ModelStatistics(ctx, &pb.ModelStatisticsRequest{})
	if m := stats.GetModelStats(); err != nil || len(m) != 1 || m[0].GetInferenceCount() != 1 || m[0].GetExecutionCount() != 1 || m[0].GetInferenceStats().GetSuccess().GetCount() != 1 ||
		m[0].GetInferenceStats().GetComputeInfer().GetNs() == 0 || m[0].GetBatchStats()[0].GetBatchSize() != 1 || m[0].GetLastInference() == 0 {
		t.Errorf("%v %v", stats, err)
	}
	config, err := client.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "flowers", Version: "3"})
	if c := config.GetConfig(); err != nil || c.GetName() != "flowers" || c.GetMaxBatchSize() != 0 || c.GetInput()[0].GetDataType() != pb.DataType_TYPE_FP32 || c.GetOutput()[1].GetDataType() != pb.DataType_TYPE_STRING {
		t.Errorf("%v %v", config, err)
	}
}

// TestRESTOverHTTP2 asks over one cleartext HTTP/2 connection and over HTTP/1.1 on the same address.
func TestRESTOverHTTP2(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{}))
	var two http.Protocols
	two.SetUnencryptedHTTP2(true)
	for want, transport := range map[int]*http.Transport{2: {Protocols: &two}, 1: {}} {
		client := &http.Client{Transport: transport, Timeout: time.Minute}
		resp, err := client.Post("http://"+l.rest+"/score", "", strings.NewReader(oneRow))
		if err != nil {
			t.Fatal(err)
		}
		if body := text(resp.Body); resp.ProtoMajor != want || !strings.Contains(body, `"label":[1]`) || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("HTTP/%d: %s %s", want, resp.Proto, body)
		}
		resp.Body.Close()
		transport.CloseIdleConnections()
	}
}

func TestServeEndsWhenAListenerFails(t *testing.T) {
	t.Parallel()
	var lns [2]net.Listener
	for i := range lns {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		lns[i] = ln
	}
	srv := newServer(t, iris(), Options{})
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(t.Context(), lns[0], lns[1]) }()
	client := pb.NewGRPCInferenceServiceClient(dial(t, lns[1].Addr().String()))
	if _, err := client.ServerLive(t.Context(), &pb.ServerLiveRequest{}); err != nil {
		t.Fatal(err)
	}
	_ = lns[1].Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) || srv.Ready() {
		t.Errorf("ready %v, %v", srv.Ready(), err)
	}
}

func TestAStreamWithoutRequestsEnds(t *testing.T) {
	t.Parallel()
	l := serve(t, newServer(t, iris(), Options{}))
	overBoth(t, l, func(t *testing.T, conn *grpc.ClientConn) {
		stream, err := pb.NewGRPCInferenceServiceClient(conn).ModelStreamInfer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}
