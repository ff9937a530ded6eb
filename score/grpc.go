package score

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/tap"

	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

const (
	// maxStreams is how many requests a connection may have under way; further ones wait at the
	// client.
	maxStreams = 1000
	// maxMetadata bounds the metadata of a call, as the header of an HTTP request is bounded.
	maxMetadata = 64 << 10
	// handshakeTimeout ends connections that do not begin to speak; idleTimeout those without calls.
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 150 * time.Second
	// pingInterval is how often a client may ask whether the connection is alive.
	pingInterval = 10 * time.Second
)

// newGRPC makes a gRPC server of the inference protocol, health and reflection.
func (s *Server) newGRPC() *grpc.Server {
	srv := grpc.NewServer(
		grpc.ForceServerCodecV2(inferCodec{}),
		grpc.MaxRecvMsgSize(int(min(s.opts.MaxBody, 1<<31-1))),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxMetadata), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingInterval, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.unaryChain), grpc.StreamInterceptor(s.streamChain),
		grpc.InTapHandle(s.arrive), grpc.WaitForHandlers(true),
	)
	srv.RegisterService(s.inferenceService(), nil)
	healthpb.RegisterHealthServer(srv, &health{s: s})
	reflection.Register(srv)
	return srv
}

// arrive gives a call the time limit of a request, so that a message that comes only in part does
// not stay for ever.
func (s *Server) arrive(ctx context.Context, info *tap.Info) (context.Context, error) {
	ctx = context.WithValue(ctx, arrival{}, time.Now())
	if untimed(info.FullMethodName) {
		return ctx, nil
	}
	limited, cancel := context.WithTimeout(ctx, s.opts.RequestTimeout)
	_ = cancel // the call's own end does that: gRPC cancels ctx
	return limited, nil
}

// untimed reports whether a call has no time limit as a whole: streams have one for each request, and
// loads take their time.
func untimed(method string) bool {
	switch method {
	case inferencepb.GRPCInferenceService_ModelStreamInfer_FullMethodName,
		inferencepb.GRPCInferenceService_RepositoryModelLoad_FullMethodName,
		inferencepb.GRPCInferenceService_RepositoryModelUnload_FullMethodName,
		healthpb.Health_Watch_FullMethodName:
		return true
	}
	return strings.HasPrefix(method, "/grpc.reflection.")
}

// arrival is the key of the time at which a call's header was there.
type arrival struct{}

func arrivedAt(ctx context.Context) time.Time {
	if at, ok := ctx.Value(arrival{}).(time.Time); ok {
		return at
	}
	return time.Now()
}

// isGRPC tells gRPC from all else that comes over HTTP.
func isGRPC(r *http.Request) bool {
	if r.ProtoMajor != 2 {
		return false
	}
	kind := r.Header["Content-Type"]
	return len(kind) == 1 && (kind[0] == "application/grpc" || strings.HasPrefix(kind[0], "application/grpc+") || strings.HasPrefix(kind[0], "application/grpc;"))
}

// carried answers a gRPC call that came over the listener of REST. The call sees the end of the
// HTTP request by its own context: see [Server.enterGRPC].
func (s *Server) carried(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	late := now.Add(s.opts.RequestTimeout)
	if untimed(r.URL.Path) {
		late = time.Time{} // a message of a stream that comes late is no failure
	}
	_ = http.NewResponseController(w).SetReadDeadline(late) // HTTP/2 has one
	ctx := context.WithValue(context.WithoutCancel(r.Context()), transport{}, r.Context())
	ctx = context.WithValue(ctx, arrival{}, now)
	s.grpc.ServeHTTP(w, r.WithContext(ctx))
}

// serveGRPC answers gRPC alone on ln until ctx ends, with the drain of [Server.Serve].
func (s *Server) serveGRPC(ctx context.Context, ln net.Listener) error {
	srv := s.newGRPC()
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		srv.Stop()
		return err
	case <-ctx.Done():
	}
	drained := make(chan struct{})
	go func() { defer close(drained); srv.GracefulStop() }()
	timer := time.NewTimer(s.opts.DrainTimeout)
	defer timer.Stop()
	select {
	case <-drained:
		return <-failed
	case <-timer.C:
	}
	srv.Stop() // ends the calls' contexts and waits for them
	<-drained
	return errors.Join(context.DeadlineExceeded, <-failed)
}
