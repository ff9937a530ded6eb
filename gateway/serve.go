package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/zarpa-dev/zarpa/internal/certs"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// Listeners are where a gateway serves. [Gateway.Serve] closes them.
type Listeners struct {
	// Public take prediction requests, HTTP/1.1 and HTTP/2 on the same address.
	Public []net.Listener
	// GRPC takes gRPC alone, with gRPC's own server, which is faster than what shares Public with
	// REST; nil for none.
	GRPC net.Listener
	// Control takes the control plane's; nil for none. It should be a Unix socket of mode 0600.
	Control net.Listener
	// TLS makes the listeners for requests speak it; its GetCertificate decides anew for each connection.
	// With nil HTTP/2 comes as cleartext, from clients that know it beforehand.
	TLS *tls.Config
	// CertificateExpires is when the certificate in use ends, for the metrics; nil for none.
	CertificateExpires func() time.Time
	// Drain is how long running requests may go on at the end; 0 is [DefaultDrain].
	Drain time.Duration
}

// The times of the server's side.
const (
	// DefaultDrain is how long running requests may go on when the gateway stops.
	DefaultDrain = 30 * time.Second
	sweepEvery   = 30 * time.Second
	// maxStreams is how many requests one HTTP/2 connection may have under way; a client keeps
	// further ones back.
	maxStreams = 1000
	http2Only  = "h2"
)

// Serve serves until ctx ends; then it takes no new connections, lets running requests end within
// the drain time, and returns nil. An error of a listener ends it, too.
func (g *Gateway) Serve(ctx context.Context, l Listeners) error {
	if l.Drain <= 0 {
		l.Drain = DefaultDrain
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if l.CertificateExpires != nil {
		g.registry.MustRegister(certs.Metric(l.CertificateExpires))
	}
	public, control := g.publicServer(), httpx.NewServer(httpx.ServerOptions{Handler: g.ControlHandler(), Log: g.log})
	var wg sync.WaitGroup
	if l.TLS != nil {
		public.TLSConfig = l.TLS.Clone()
	}
	run := func(serve func() error) {
		wg.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				cancel(err)
			}
		})
	}
	for _, ln := range l.Public {
		ln = g.doorkeeper.guard(ln)
		run(func() error {
			if l.TLS != nil {
				return public.ServeTLS(ln, "", "")
			}
			return public.Serve(ln)
		})
	}
	if l.GRPC != nil {
		native := g.nativeGRPC(l)
		run(func() error { return native.serve(g.doorkeeper.guard(l.GRPC)) })
	}
	if l.Control != nil {
		run(func() error { return control.Serve(l.Control) })
	}
	wg.Go(func() { g.sweep(ctx) })
	endLog := g.startAccessLog(ctx)
	<-ctx.Done()
	g.stop()
	var drained sync.WaitGroup
	drained.Go(func() { g.drainGRPC(ctx, l.Drain) })
	until := time.Now().Add(l.Drain)
	g.drain(ctx, l.Drain, public)
	g.tunnels.drain(time.Until(until))
	drained.Wait()
	g.mirrors.wg.Wait() // stop has ended them
	endLog()
	// Last: the control plane can read the metrics of the draining.
	g.drain(ctx, time.Second, control)
	wg.Wait()
	g.rpc.drain(0)
	for _, p := range g.pools() {
		p.hangUp()
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// startAccessLog writes the access log until end is called, which waits for the last lines; of a writer
// that hangs it waits no longer than accessEnd: the process ends, and the goroutine with it.
func (g *Gateway) startAccessLog(ctx context.Context) (end func()) {
	if g.access == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	written := make(chan struct{})
	go func() {
		defer close(written)
		g.access.run(ctx)
	}()
	return func() {
		cancel()
		timer := time.NewTimer(accessEnd)
		defer timer.Stop()
		select {
		case <-written:
		case <-timer.C:
		}
	}
}

// publicServer tells HTTP/1.1 and HTTP/2, encrypted or not, apart by what a client begins with.
func (g *Gateway) publicServer() *http.Server {
	s := httpx.NewServer(httpx.ServerOptions{Handler: g.Handler(), Log: g.log})
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
	return s
}

func (g *Gateway) drain(ctx context.Context, limit time.Duration, s *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		g.log.LogAttrs(ctx, slog.LevelWarn, "requests were cut off at the end of the drain time", slog.Duration("drain", limit))
		_ = s.Close()
	}
}

// nativeGRPC makes the servers of the GRPC listener, with the certificate of the public ones.
func (g *Gateway) nativeGRPC(l Listeners) *rpcServers {
	var options []grpc.ServerOption
	if l.TLS != nil {
		c := l.TLS.Clone()
		c.NextProtos = []string{http2Only} // no other protocol is spoken there, an authority's least
		options = append(options, grpc.Creds(credentials.NewTLS(c)))
	}
	g.mu.Lock() // no routes come between the limit and its use
	defer g.mu.Unlock()
	s := newRPCServers(g.rpc.limit, func(limit int) *grpc.Server { return g.newGRPC(limit, options...) })
	g.ownRPC.Store(s)
	return s
}

// drainGRPC lets calls end that are under way; connections are told to make no new ones.
func (g *Gateway) drainGRPC(ctx context.Context, limit time.Duration) {
	if s := g.ownRPC.Load(); s != nil && !s.drain(limit) {
		g.log.LogAttrs(ctx, slog.LevelWarn, "gRPC calls were cut off at the end of the drain time", slog.Duration("drain", limit))
	}
}

// sweep closes connections to replicas that nobody uses.
func (g *Gateway) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, p := range g.pools() {
				p.sweep(time.Now().Add(2 * IdleTimeout))
			}
			return
		case now := <-t.C:
			for _, p := range g.pools() {
				p.sweep(now)
			}
		}
	}
}
