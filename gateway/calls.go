package gateway

import (
	"context"
	"math"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zarpa-dev/zarpa/internal/grpcx"
)

// callPool is gRPC's way to one replica, beside connPool, which is that of HTTP/1.1: one connection,
// made when the first call needs it and closed with the replica or after [IdleTimeout].
type callPool struct {
	network, address string

	mu     sync.Mutex
	client *grpc.ClientConn

	refused atomic.Bool  // the last connecting failed
	deaths  atomic.Int64 // connections that ended
}

// open begins a call. An error says that nothing of it has left the gateway.
func (p *callPool) open(ctx context.Context, desc *grpc.StreamDesc, method string) (grpc.ClientStream, error) {
	client, err := p.get()
	if err != nil {
		return nil, err
	}
	return client.NewStream(ctx, desc, method)
}

func (p *callPool) get() (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return p.client, nil
	}
	var err error
	p.client, err = grpc.NewClient("passthrough:///replica",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(p.dial),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(grpcx.Codec{}), grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		// The bench decides when a replica that refused is tried again; see [pool.bench].
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: benchTime / 4, Multiplier: 1, MaxDelay: benchTime / 2},
			MinConnectTimeout: DefaultDialTimeout,
		}),
		grpc.WithIdleTimeout(IdleTimeout),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // of what a replica may have begun; what it has not is still sent again
	)
	return p.client, err
}

func (p *callPool) dial(ctx context.Context, _ string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: DefaultDialTimeout}).DialContext(ctx, p.network, p.address)
	p.refused.Store(err != nil)
	if err != nil {
		return nil, err
	}
	return &mortal{Conn: c, deaths: &p.deaths}, nil
}

func (p *callPool) close() {
	p.mu.Lock()
	client := p.client
	p.client = nil
	p.mu.Unlock()
	if client != nil {
		_ = client.Close() // only ever says that it was closed before
	}
}

// mortal counts its end before gRPC hears of it, so that a status which gRPC makes up for the calls
// on a connection that died can be told from one that a replica sent.
type mortal struct {
	net.Conn
	deaths *atomic.Int64
	once   sync.Once
}

func (m *mortal) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if err != nil {
		m.once.Do(func() { m.deaths.Add(1) })
	}
	return n, err
}

// close ends all connections to a replica that has no request any more.
func (r *replica) close() {
	r.conns.close()
	r.calls.close()
}
