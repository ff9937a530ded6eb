package gateway

import (
	"bufio"
	"context"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// The connections to replicas. They are read and written by the goroutine of the request itself:
// a transport with a reading and a writing goroutine for each connection costs two more wake-ups
// per request, which is most of a hop's time on one machine.

// conn is one connection to a replica. One request uses it at a time.
type conn struct {
	net.Conn
	unix   bool
	reused bool // it served a request before
	since  time.Time

	raw     syscall.RawConn
	probe   func(fd uintptr) bool // made once: it would be allocated for each look
	healthy bool
	one     [1]byte
}

// alive looks, without waiting, whether the peer has closed an idle connection or has sent what
// nobody asked for.
func (c *conn) alive() bool {
	c.healthy = false
	return c.raw.Read(c.probe) == nil && c.healthy
}

// connPool keeps the unused connections to one replica, the last used first.
type connPool struct {
	network, address string

	mu     sync.Mutex
	idle   []*conn
	closed bool
}

func (p *connPool) open() {
	p.mu.Lock()
	p.closed = false
	p.mu.Unlock()
}

// get returns a live unused connection, or nil.
func (p *connPool) get() *conn {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if c.alive() {
			return c
		}
		_ = c.Close()
	}
}

// put keeps a connection whose answer was read to its end.
func (p *connPool) put(c *conn, now time.Time) {
	c.reused, c.since = true, now
	p.mu.Lock()
	keep := !p.closed && len(p.idle) < MaxIdle
	if keep {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		_ = c.Close()
	}
}

func (p *connPool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}

// sweep closes what is unused for too long: the front of the list.
func (p *connPool) sweep(now time.Time) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) > IdleTimeout {
		n++
	}
	old := append([]*conn(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}

// dialer makes connections.
type dialer struct {
	timeout time.Duration
}

func (d dialer) dial(ctx context.Context, p *connPool, deadline time.Time) (*conn, error) {
	nd := net.Dialer{Timeout: d.timeout, Deadline: deadline}
	nc, err := nd.DialContext(ctx, p.network, p.address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, unix: p.network == "unix"}
	c.raw, err = nc.(syscall.Conn).SyscallConn()
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	c.probe = func(fd uintptr) bool {
		_, err := syscall.Read(int(fd), c.one[:])
		c.healthy = err == syscall.EAGAIN
		return true
	}
	return c, nil
}

// splitAddress reads a replica's address: "unix:/path" or "http://host:port".
func splitAddress(address string) (network, where string, err error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok && path != "" {
		return "unix", path, nil
	}
	if host, ok := strings.CutPrefix(address, "http://"); ok {
		if _, _, err := net.SplitHostPort(host); err == nil {
			return "tcp", host, nil
		}
	}
	return "", "", zarpa.Errorf(zarpa.Invalid, "replica address %q: not known", address).
		WithHint("write unix:/path or http://host:port")
}

// readers keeps the buffers that answers are read through, so that only working connections
// have one.
type readers struct{ pool sync.Pool }

func (p *readers) get(c *conn) *bufio.Reader {
	if br, ok := p.pool.Get().(*bufio.Reader); ok {
		br.Reset(c)
		return br
	}
	return bufio.NewReaderSize(c, MaxHead)
}

func (p *readers) put(br *bufio.Reader) {
	br.Reset(nil)
	p.pool.Put(br)
}
