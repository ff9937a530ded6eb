package score

import (
	"context"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// health is grpc.health.v1: what /v2/health/ready says, for the server as a whole and for its
// service.
type health struct {
	healthpb.UnsafeHealthServer
	s *Server
}

var _ healthpb.HealthServer = (*health)(nil)

// known reports whether a service has a health: the whole, "", and the protocol's.
func known(service string) bool {
	return service == "" || service == inferencepb.GRPCInferenceService_ServiceDesc.ServiceName
}

func (h *health) now() *healthpb.HealthCheckResponse {
	if h.s.readiness() != nil {
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}
}

// Check answers for one service, or NOT_FOUND.
func (h *health) Check(_ context.Context, in *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if !known(in.GetService()) {
		return nil, zarpa.Errorf(zarpa.NotFound, "service %.100q: not found", in.GetService())
	}
	return h.now(), nil
}

// List answers for both.
func (h *health) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{
		"": h.now(), inferencepb.GRPCInferenceService_ServiceDesc.ServiceName: h.now(),
	}}, nil
}

// Watch tells the health now and whenever it changes: once ready, once stopping. An unknown service
// is SERVICE_UNKNOWN for as long as somebody watches, as the health protocol says.
func (h *health) Watch(in *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	told := healthpb.HealthCheckResponse_UNKNOWN
	for ready := h.s.ready; ; {
		state := healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		if known(in.GetService()) {
			state = h.now().GetStatus()
		}
		if state != told {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: state}); err != nil {
				return err
			}
			told = state
		}
		if h.s.draining.Load() {
			return h.s.readiness()
		}
		select {
		case <-ready:
			ready = nil // once is enough
		case <-h.s.stopping:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
