package score

import (
	"context"

	"google.golang.org/grpc"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// inferenceService is the protocol's service with this server's methods. It is a table of its own,
// not the generated one, because ModelInfer and ModelStreamInfer read their messages themselves.
func (s *Server) inferenceService() *grpc.ServiceDesc {
	generated := &pb.GRPCInferenceService_ServiceDesc
	return &grpc.ServiceDesc{
		ServiceName: generated.ServiceName, Metadata: generated.Metadata,
		Methods: []grpc.MethodDesc{
			{MethodName: "ModelInfer", Handler: func(_ any, ctx context.Context, read func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
				return s.unaryInfer(ctx, read, chain)
			}},
			method("ServerLive", s.serverLive),
			method("ServerReady", s.serverReady),
			method("ServerMetadata", s.serverMetadata),
			method("ModelReady", s.grpcModelReady),
			method("ModelMetadata", s.grpcModelMetadata),
			method("ModelConfig", s.grpcModelConfig),
			method("ModelStatistics", s.grpcStatistics),
			method("RepositoryIndex", s.grpcIndex),
			method("RepositoryModelLoad", s.grpcLoad),
			method("RepositoryModelUnload", s.grpcUnload),
			method("SystemSharedMemoryStatus", s.systemMemoryStatus),
			method("SystemSharedMemoryRegister", s.systemMemoryRegister),
			method("SystemSharedMemoryUnregister", s.systemMemoryUnregister),
			method("CudaSharedMemoryStatus", s.cudaMemoryStatus),
			method("CudaSharedMemoryRegister", s.cudaMemoryRegister),
			method("CudaSharedMemoryUnregister", s.cudaMemoryUnregister),
			method("TraceSetting", s.traceSetting),
			method("LogSettings", s.logSettings),
		},
		Streams: []grpc.StreamDesc{{
			StreamName: "ModelStreamInfer", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.streamInfer(stream) },
		}},
	}
}

// method is a method of one request and one answer, which are protobuf messages.
func method[In, Out any](name string, answer func(ctx context.Context, in *In) (*Out, error)) grpc.MethodDesc {
	full := "/" + pb.GRPCInferenceService_ServiceDesc.ServiceName + "/" + name
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, read func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
		in := new(In)
		if err := read(in); err != nil {
			return nil, err
		}
		return chain(ctx, in, &grpc.UnaryServerInfo{FullMethod: full}, func(ctx context.Context, _ any) (any, error) {
			return answer(ctx, in)
		})
	}}
}

func (s *Server) serverLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

func (s *Server) serverReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: s.readiness() == nil}, nil
}

func (s *Server) serverMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: serverName, Version: s.opts.ServerVersion, Extensions: extensions()}, nil
}

// grpcModelReady says no for a model that is unknown, as the protocol's other servers do.
func (s *Server) grpcModelReady(_ context.Context, in *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	_, err := s.loaded(in)
	return &pb.ModelReadyResponse{Ready: err == nil && !s.draining.Load()}, nil
}

// named is a request that names a model.
type named interface {
	GetName() string
	GetVersion() string
}

// entryOf is the entry that a request names.
func (s *Server) entryOf(in named) (*entry, error) {
	e, err := s.find(in.GetName())
	if err != nil {
		return nil, err
	}
	return e, e.version(in.GetName(), in.GetVersion())
}

// loaded is the model that a request names, when it is in memory.
func (s *Server) loaded(in named) (*model, error) {
	e, err := s.entryOf(in)
	if err != nil {
		return nil, err
	}
	return e.ready()
}

func (s *Server) grpcModelMetadata(_ context.Context, in *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m, err := s.loaded(in)
	if err != nil {
		return nil, err
	}
	return &pb.ModelMetadataResponse{
		Name: in.GetName(), Versions: m.entry.versions(), Platform: m.entry.Platform,
		Inputs: tensorMetadata(m.sig.Inputs), Outputs: tensorMetadata(m.sig.Outputs),
	}, nil
}

func tensorMetadata(values []zarpa.ValueInfo) []*pb.ModelMetadataResponse_TensorMetadata {
	var out []*pb.ModelMetadataResponse_TensorMetadata
	for _, v := range describeAll(values) {
		out = append(out, &pb.ModelMetadataResponse_TensorMetadata{Name: v.Name, Datatype: v.Datatype.String(), Shape: v.Shape})
	}
	return out
}

func (s *Server) grpcModelConfig(_ context.Context, in *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	m, err := s.loaded(in)
	if err != nil {
		return nil, err
	}
	return &pb.ModelConfigResponse{Config: s.config(m, in.GetName())}, nil
}

func (s *Server) grpcStatistics(_ context.Context, in *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	if in.GetName() == "" {
		return s.allStatistics(), nil
	}
	e, err := s.entryOf(in)
	if err != nil {
		return nil, err
	}
	return &pb.ModelStatisticsResponse{ModelStats: []*pb.ModelStatistics{e.statistics(in.GetName())}}, nil
}
