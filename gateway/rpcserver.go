package gateway

import (
	"errors"
	"math"
	"math/bits"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// rpcServers are the gRPC servers of one address, one after the other. gRPC fixes the largest message
// when a server is made, while endpoints come and go: the limit is the largest max_body of them all,
// rounded up to a power of two, and only grows. So no caller costs more memory than some endpoint
// allows, and there are few servers.
type rpcServers struct {
	create func(limit int) *grpc.Server

	mu      sync.Mutex
	limit   int
	current *grpc.Server
	before  []*grpc.Server
	// listener and doors are set by serve; a server that net/http calls has none.
	listener net.Listener
	doors    chan net.Conn
	ended    chan struct{}
	end      func() // closes ended; may be called again
	retired  sync.WaitGroup
}

func newRPCServers(limit int, create func(limit int) *grpc.Server) *rpcServers {
	s := &rpcServers{create: create, limit: limit, current: create(limit), ended: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.ended) })
	return s
}

// smallMessage is the limit before there are endpoints.
const smallMessage = 4 << 20

// messageLimit is the limit for a largest max_body.
func messageLimit(maxBody int64) int {
	if maxBody >= math.MaxInt32/2 {
		return math.MaxInt32
	}
	return 1 << bits.Len64(uint64(max(maxBody, 1))) //nolint:gosec // positive
}

// get is the server for a new request or connection.
func (s *rpcServers) get() *grpc.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// grow makes room for larger messages. Where connections are the server's own, those that there are
// are told to end after their calls, and clients make new ones.
func (s *rpcServers) grow(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit <= s.limit {
		return
	}
	old := s.current
	s.limit, s.current = limit, s.create(limit)
	s.before = append(s.before, old)
	if s.doors != nil && !s.over() {
		s.open(s.current)
		s.retired.Go(old.GracefulStop)
	}
}

// over reports whether drain has begun.
func (s *rpcServers) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// serve takes connections until drain, or an error of ln.
func (s *rpcServers) serve(ln net.Listener) error {
	if !s.begin(ln) {
		return ln.Close()
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			if s.pause(err) {
				continue
			}
			if s.over() {
				return nil
			}
			return err
		}
		select {
		case s.doors <- c:
		case <-s.ended:
			return c.Close()
		}
	}
}

// begin makes ln the servers' listener; false when drain was first.
func (s *rpcServers) begin(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over() {
		return false
	}
	s.doors, s.listener = make(chan net.Conn), ln
	s.open(s.current)
	return true
}

// acceptPause is how long nothing is accepted after an error that passes: too many open files.
const acceptPause = 100 * time.Millisecond

// pause waits after an error of Accept, if another try makes sense.
func (s *rpcServers) pause(err error) bool {
	var passing interface{ Temporary() bool }
	if !errors.As(err, &passing) || !passing.Temporary() {
		return false
	}
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ended:
		return false
	}
}

// open lets a server take the connections that come. s.mu is held.
func (s *rpcServers) open(server *grpc.Server) {
	d := &door{conns: s.doors, address: s.listener.Addr(), closed: make(chan struct{})}
	d.shut = sync.OnceFunc(func() { close(d.closed) })
	s.retired.Go(func() { _ = server.Serve(d) }) // it ends when the server is stopped, with nothing to say
}

// drain takes no new connections and lets calls end within limit; it reports whether they did. A
// server without connections of its own cuts off what is left at once.
func (s *rpcServers) drain(limit time.Duration) (whole bool) {
	s.mu.Lock()
	s.end()
	all := append(slices.Clip(s.before), s.current)
	own := s.listener != nil
	if own {
		_ = s.listener.Close() // serve says what is wrong with it
	}
	s.mu.Unlock()
	stop := func() {
		for _, server := range all {
			server.Stop()
		}
	}
	if !own {
		stop()
		return true
	}
	cut := time.AfterFunc(limit, stop)
	for _, server := range all {
		server.GracefulStop() // returns after Stop, too
	}
	s.retired.Wait()
	return cut.Stop()
}

// door is the listener of one of the servers that share an address.
type door struct {
	conns   chan net.Conn
	address net.Addr
	closed  chan struct{}
	shut    func()
}

// Accept waits for a connection that no other server of the address took.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept; the address stays open for the next server.
func (d *door) Close() error {
	d.shut()
	return nil
}

// Addr is the address that is shared.
func (d *door) Addr() net.Addr { return d.address }
