package oip

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"

	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func grpcChecks() []check {
	of := func(id string, l Level, says string) Check {
		return Check{ID: id, Group: GRPC, Level: l, Says: says, Section: "gRPC: Health, Metadata"}
	}
	model := func(id string, l Level, says string) Check {
		c := of(id, l, says)
		c.PerModel = true
		return c
	}
	unknown := of("grpc.model.ready-unknown", Should, "ModelReady of a model that does not exist is not ready, or NOT_FOUND")
	unknown.Choices = "ready: false, or NOT_FOUND"
	healthOK := of("grpc.health", Should, "grpc.health.v1 Check of the server says SERVING")
	healthUnknown := of("grpc.health.unknown", Should, "grpc.health.v1 Check of an unknown service is NOT_FOUND")
	for _, c := range []*Check{&healthOK, &healthUnknown} {
		c.Section = "gRPC Health Checking Protocol"
	}
	reflect := of("grpc.reflection", Should, "server reflection lists inference.GRPCInferenceService")
	reflect.Section, reflect.Choices = "gRPC Server Reflection", "there, or UNIMPLEMENTED"
	return []check{
		{Check: of("grpc.live", Must, "ServerLive says live"), needs: needGRPC, ask: grpcLive},
		{Check: of("grpc.ready", Must, "ServerReady says ready when all models are"), needs: needGRPC, ask: grpcReady},
		{Check: of("grpc.server.metadata", Should, "ServerMetadata says the same as GET /v2: both ask one server"), needs: needGRPC, ask: grpcServer},
		{Check: model("grpc.model.ready", Must, "ModelReady says ready for a model that is"), needs: needGRPC | needModel, ask: grpcModelReady},
		{Check: model("grpc.model.ready-version", Must, "ModelReady with a version says ready"), needs: needGRPC | needModel, ask: grpcModelReadyVersion},
		{Check: unknown, needs: needGRPC, ask: grpcReadyUnknown},
		{Check: model("grpc.model.metadata", Must, "ModelMetadata says the same as GET /v2/models/NAME"), needs: needGRPC | needModel, ask: grpcModelMetadata},
		{Check: healthOK, needs: needGRPC, ask: grpcHealth},
		{Check: healthUnknown, needs: needGRPC, ask: grpcHealthUnknown},
		{Check: reflect, needs: needGRPC, ask: grpcReflection},
		{Check: of("grpc.unknown-method", Must, "a method that does not exist is UNIMPLEMENTED"), needs: needGRPC, ask: grpcUnknownMethod},
	}
}

func grpcLive(ctx context.Context, p *probe) (string, error) {
	r, err := call(ctx, p.run.rpc, p.run.rpc.client.ServerLive, &pb.ServerLiveRequest{})
	if err == nil && !r.GetLive() {
		err = differs("live: true", "false")
	}
	return "live", err
}

func grpcReady(ctx context.Context, p *probe) (string, error) {
	r, err := call(ctx, p.run.rpc, p.run.rpc.client.ServerReady, &pb.ServerReadyRequest{})
	if err == nil && !r.GetReady() {
		err = differs("ready: true", "false")
	}
	return "ready", err
}

func grpcServer(ctx context.Context, p *probe) (string, error) {
	r, err := call(ctx, p.run.rpc, p.run.rpc.client.ServerMetadata, &pb.ServerMetadataRequest{})
	if err != nil {
		return "", err
	}
	rest := p.run.server
	return want("the name, version and extensions of REST:", fmt.Sprint(rest.Name, " ", rest.Version, " ", rest.Extensions),
		fmt.Sprint(r.GetName(), " ", r.GetVersion(), " ", r.GetExtensions()))
}

func grpcModelReady(ctx context.Context, p *probe) (string, error) {
	return p.readyByGRPC(ctx, &pb.ModelReadyRequest{Name: p.name})
}

func (p *probe) readyByGRPC(ctx context.Context, q *pb.ModelReadyRequest) (string, error) {
	r, err := call(ctx, p.run.rpc, p.run.rpc.client.ModelReady, q)
	if err == nil && !r.GetReady() {
		err = differs("ready: true", "false")
	}
	return "ready", err
}

func grpcModelReadyVersion(ctx context.Context, p *probe) (string, error) {
	if len(p.versions) == 0 {
		return "", skip("the metadata names no versions")
	}
	return p.readyByGRPC(ctx, &pb.ModelReadyRequest{Name: p.name, Version: p.versions[len(p.versions)-1]})
}

func grpcReadyUnknown(ctx context.Context, p *probe) (string, error) {
	ctx, cancel := p.run.rpc.limit(ctx)
	defer cancel()
	r, err := p.run.rpc.client.ModelReady(ctx, &pb.ModelReadyRequest{Name: unknownName})
	switch {
	case err == nil && !r.GetReady():
		return "ready: false", nil
	case code(err) == codes.NotFound:
		return "NOT_FOUND", nil
	case err == nil:
		return "", differs("ready: false, or NOT_FOUND", "ready: true")
	}
	return "", differs("ready: false, or NOT_FOUND", "%s", failed(err))
}

func grpcModelMetadata(ctx context.Context, p *probe) (string, error) {
	r, err := call(ctx, p.run.rpc, p.run.rpc.client.ModelMetadata, &pb.ModelMetadataRequest{Name: p.name})
	if err != nil {
		return "", err
	}
	text := func(list []declared) string {
		var out []*pb.ModelMetadataResponse_TensorMetadata
		for _, d := range list {
			out = append(out, &pb.ModelMetadataResponse_TensorMetadata{Name: d.Name, Datatype: d.Datatype, Shape: d.Shape})
		}
		return declaredText(out)
	}
	if _, err := want("name", p.name, r.GetName()); err != nil {
		return "", err
	}
	return want("the inputs and outputs of REST:", text(p.inputs)+"; "+text(p.outputs), declaredText(r.GetInputs())+"; "+declaredText(r.GetOutputs()))
}

func grpcHealth(ctx context.Context, p *probe) (string, error) {
	r, err := call(ctx, p.run.rpc, health.NewHealthClient(p.run.rpc.conn).Check, &health.HealthCheckRequest{})
	if err != nil {
		return "", err
	}
	return want("status", "SERVING", r.GetStatus().String())
}

func grpcHealthUnknown(ctx context.Context, p *probe) (string, error) {
	ctx, cancel := p.run.rpc.limit(ctx)
	defer cancel()
	r, err := health.NewHealthClient(p.run.rpc.conn).Check(ctx, &health.HealthCheckRequest{Service: unknownName})
	if err == nil {
		return "", differs("NOT_FOUND", "%v", r.GetStatus())
	}
	if code(err) == codes.Unimplemented {
		return "", skip("there is no health service")
	}
	return want("code", codes.NotFound.String(), code(err).String())
}

func grpcReflection(ctx context.Context, p *probe) (string, error) {
	ctx, cancel := p.run.rpc.limit(ctx)
	defer cancel()
	stream, err := reflection.NewServerReflectionClient(p.run.rpc.conn).ServerReflectionInfo(ctx)
	if err != nil {
		return "", differs("a stream", "%s", failed(err))
	}
	q := &reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}
	_ = stream.Send(q) // Recv tells what is wrong
	r, err := stream.Recv()
	if code(err) == codes.Unimplemented {
		return "UNIMPLEMENTED", nil
	}
	if err != nil {
		return "", differs("a list of services, or UNIMPLEMENTED", "%s", failed(err))
	}
	var names []string
	for _, s := range r.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	if !slices.Contains(names, pb.GRPCInferenceService_ServiceDesc.ServiceName) {
		return "", differs(pb.GRPCInferenceService_ServiceDesc.ServiceName, "%s", strings.Join(names, ", "))
	}
	return strings.Join(names, ", "), nil
}

func grpcUnknownMethod(ctx context.Context, p *probe) (string, error) {
	ctx, cancel := p.run.rpc.limit(ctx)
	defer cancel()
	err := p.run.rpc.conn.Invoke(ctx, "/"+pb.GRPCInferenceService_ServiceDesc.ServiceName+"/NoSuchMethod", &pb.ServerLiveRequest{}, &pb.ServerLiveResponse{})
	return want("code", codes.Unimplemented.String(), code(err).String())
}
