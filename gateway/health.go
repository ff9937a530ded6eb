package gateway

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// healthService is grpc.health.v1. Its Check is a stream of one answer, which is the same on the wire:
// so its message is read only when it is known who asks. Without a key nothing is read, and the answer
// is that of the gateway as a whole.
func (g *Gateway) healthService() *grpc.ServiceDesc {
	generated := &healthpb.Health_ServiceDesc
	return &grpc.ServiceDesc{
		ServiceName: generated.ServiceName, Metadata: generated.Metadata,
		Streams: []grpc.StreamDesc{
			{StreamName: "Check", Handler: func(_ any, stream grpc.ServerStream) error { return g.checkHealth(stream) }},
			{StreamName: "Watch", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error { return g.watchHealth(stream) }},
		},
	}
}

func (g *Gateway) health() healthpb.HealthCheckResponse_ServingStatus {
	if g.ready() {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}

// service is the one that a call asks about, and whether it is there.
func (g *Gateway) service(stream grpc.ServerStream) (name string, known bool, err error) {
	var in healthpb.HealthCheckRequest
	if g.admits(stream.Context()) {
		err = stream.RecvMsg(&in)
	}
	name = in.GetService()
	return name, name == "" || name == inferencepb.GRPCInferenceService_ServiceDesc.ServiceName, err
}

// checkHealth answers whether the gateway has routes and goes on; NOT_FOUND for services that it has not.
func (g *Gateway) checkHealth(stream grpc.ServerStream) error {
	name, known, err := g.service(stream)
	switch {
	case err != nil:
		return err
	case !known:
		return status.Errorf(codes.NotFound, "no such service: %.100q", name)
	}
	return stream.SendMsg(&healthpb.HealthCheckResponse{Status: g.health()})
}

// watchHealth tells every change until the gateway stops, with UNAVAILABLE as its last word.
func (g *Gateway) watchHealth(stream grpc.ServerStream) error {
	_, known, err := g.service(stream)
	if err != nil {
		return err
	}
	now, routed := healthpb.HealthCheckResponse_SERVICE_UNKNOWN, (chan struct{})(nil)
	if known {
		now, routed = g.health(), g.routed
	}
	for {
		if err := stream.SendMsg(&healthpb.HealthCheckResponse{Status: now}); err != nil {
			return err
		}
		if now == healthpb.HealthCheckResponse_SERVING {
			routed = nil
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-g.stopping:
			return status.Error(codes.Unavailable, "the gateway stops")
		case <-routed:
			now, routed = g.health(), nil
		}
	}
}
