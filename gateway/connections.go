package gateway

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultMaxConnections is how many clients may be connected at a time. An idle one costs about 20 KiB.
const DefaultMaxConnections = 32768

// doorkeeper bounds the connections of all listeners for requests together. One that is too many is
// accepted and closed at once: left in the kernel's queue, its client would wait for an answer
// until its own time limit, behind others that do nothing.
type doorkeeper struct {
	max     int64
	open    atomic.Int64
	refused prometheus.Counter
}

// guard is ln with the doorkeeper before it.
func (k *doorkeeper) guard(ln net.Listener) net.Listener { return &guarded{ln, k} }

type guarded struct {
	net.Listener
	keeper *doorkeeper
}

// Accept waits for a connection that there is room for.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g.keeper.open.Add(1) <= g.keeper.max {
			return &guest{Conn: c, keeper: g.keeper}, nil
		}
		g.keeper.open.Add(-1)
		g.keeper.refused.Inc()
		_ = c.Close()
	}
}

// guest is a connection that makes room when it closes.
type guest struct {
	net.Conn
	keeper *doorkeeper
	left   sync.Once
}

// Close closes the connection; a further call does nothing more than that of the connection itself.
func (g *guest) Close() error {
	g.left.Do(func() { g.keeper.open.Add(-1) })
	return g.Conn.Close()
}
