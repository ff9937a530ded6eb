package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa/internal/grpcx"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// The limits of gRPC's server that are no endpoint's.
const (
	// maxMetadata is the longest metadata of a call.
	maxMetadata = 64 << 10
	// connectTimeout bounds the beginning of a connection, TLS included.
	connectTimeout = 10 * time.Second
	// connectionIdle is how long a connection without calls is kept; as over HTTP/1.1.
	connectionIdle = 150 * time.Second
	// pingEvery is how often a client may ask whether the connection lives.
	pingEvery = 5 * time.Second
)

// method is one of the protocol's.
type method struct {
	// name is the number of the request's field with the model's name; 0 for none.
	name protowire.Number
	// deliver brings the call to where it is answered, once it is known whose it is.
	deliver func(*call) error
	// own answers what the gateway knows itself; where there is deliver, too, only calls whose
	// metadata name no endpoint. As it needs no key, it leaves the message alone, which may be as
	// large as some endpoint allows.
	own func(*call) error
}

// methods are the protocol's, by their short names. Those without a field that names a model need
// [metaEndpoint].
func methods() map[string]method {
	model, load := method{name: 1, deliver: (*call).forward}, method{name: 2, deliver: (*call).everywhere}
	nothing := method{deliver: (*call).forward, own: (*call).nothing}
	unsupported := method{deliver: (*call).forward, own: (*call).unsupported}
	return map[string]method{
		"ServerLive":      {own: (*call).serverLive},
		"ServerReady":     {own: (*call).serverReady},
		"ServerMetadata":  {own: (*call).serverMetadata},
		"RepositoryIndex": {own: (*call).repositoryIndex, deliver: (*call).forward},

		"ModelReady": model, "ModelMetadata": model, "ModelInfer": model, "ModelConfig": model, "ModelStatistics": model,
		"ModelStreamInfer":    {name: 1, deliver: (*call).forwardStream},
		"RepositoryModelLoad": load, "RepositoryModelUnload": load,
		"TraceSetting": {name: 2, deliver: (*call).forward}, "LogSettings": {deliver: (*call).forward, own: (*call).logSettings},
		"SystemSharedMemoryStatus": nothing, "SystemSharedMemoryRegister": unsupported, "SystemSharedMemoryUnregister": nothing,
		"CudaSharedMemoryStatus": nothing, "CudaSharedMemoryRegister": unsupported, "CudaSharedMemoryUnregister": nothing,
	}
}

// newGRPC is a server of the inference protocol, health and reflection, which reads messages of up to
// limit bytes. They are read only from callers whose key opens an endpoint, and that endpoint's
// max_body is what counts then.
func (g *Gateway) newGRPC(limit int, o ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(o,
		grpc.ForceServerCodecV2(grpcx.Codec{}),
		grpc.UnknownServiceHandler(g.serveRPC),
		grpc.MaxRecvMsgSize(limit),
		grpc.MaxHeaderListSize(maxMetadata),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: connectionIdle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingEvery, PermitWithoutStream: true}),
	)...)
	s.RegisterService(g.healthService(), nil)
	known := reflection.ServerOptions{Services: services{s}}
	s.RegisterService(g.withKey(reflectionpb.ServerReflection_ServiceDesc), reflection.NewServerV1(known))
	s.RegisterService(g.withKey(reflectionalpha.ServerReflection_ServiceDesc), reflection.NewServer(known))
	return s
}

// withKey is a service of streams that are refused to callers without a key, before anything is read.
func (g *Gateway) withKey(d grpc.ServiceDesc) *grpc.ServiceDesc {
	d.Streams = slices.Clone(d.Streams)
	for i, s := range d.Streams {
		d.Streams[i].Handler = func(server any, stream grpc.ServerStream) error {
			if !g.admits(stream.Context()) {
				return grpcx.Status(noKey())
			}
			return s.Handler(server, stream)
		}
	}
	return &d
}

// admits reports whether a call's caller may use any endpoint.
func (g *Gateway) admits(ctx context.Context) bool {
	return g.current.Load().admits(metadata.ValueFromIncomingContext(ctx, metaKey), time.Now())
}

// services tells reflection what is served: the protocol is not registered, because calls of it
// are handed on as they are.
type services struct{ *grpc.Server }

func (s services) GetServiceInfo() map[string]grpc.ServiceInfo {
	all := s.Server.GetServiceInfo()
	all[inferencepb.GRPCInferenceService_ServiceDesc.ServiceName] = grpc.ServiceInfo{}
	return all
}

// isRPC tells gRPC's requests from all others on the public address; gRPC-Web is another protocol.
func isRPC(r *http.Request) bool {
	if r.ProtoMajor != 2 {
		return false
	}
	rest, ok := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// serveRPC answers one call: the steps are those of REST, in the same order.
func (g *Gateway) serveRPC(_ any, stream grpc.ServerStream) (err error) {
	c := &call{g: g, stream: stream, start: time.Now()}
	defer func() {
		if p := recover(); p != nil {
			g.log.LogAttrs(context.WithoutCancel(stream.Context()), slog.LevelError, "panic", slog.String("request_id", c.ids.request),
				slog.String("method", c.path), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = c.finish(status.Error(codes.Internal, "an internal error happened (see the server's log for the request id)"))
		}
	}()
	return c.finish(c.serve())
}

func (c *call) serverLive() error {
	return c.stream.SendMsg(&inferencepb.ServerLiveResponse{Live: true})
}

func (c *call) serverReady() error {
	return c.stream.SendMsg(&inferencepb.ServerReadyResponse{Ready: c.g.ready()})
}

func (c *call) serverMetadata() error {
	return c.stream.SendMsg(&inferencepb.ServerMetadataResponse{Name: "zarpa", Version: c.g.version, Extensions: extensions()})
}

// nothing answers what asks for something of which the gateway has none: regions of shared memory.
func (c *call) nothing() error {
	return c.stream.SendMsg(grpcx.NewFrame(nil)) // the empty message of every type
}

// logSettings answers that the gateway has none, and does not support to change them.
func (c *call) logSettings() error {
	told, err := c.told()
	switch {
	case err != nil:
		return err
	case told && c.first.Len() > 0:
		return c.unsupported()
	}
	return c.nothing()
}

func (c *call) unsupported() error {
	return status.Errorf(codes.Unimplemented, "%s: not supported", c.name)
}
