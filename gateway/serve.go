package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// Listeners are where a gateway serves. [Gateway.Serve] closes them.
type Listeners struct {
	// Public take prediction requests.
	Public []net.Listener
	// Control takes the control plane's; nil for none. It should be a Unix socket of mode 0600.
	Control net.Listener
	// CertFile and KeyFile, both or none, make the public listeners speak TLS (HTTP/1.1 and 2).
	CertFile, KeyFile string
	// Drain is how long running requests may go on at the end; 0 is [DefaultDrain].
	Drain time.Duration
}

// The times of the server's side.
const (
	// DefaultDrain is how long running requests may go on when the gateway stops.
	DefaultDrain = 30 * time.Second
	sweepEvery   = 30 * time.Second
)

// Serve serves until ctx ends; then it takes no new connections, lets running requests end within
// the drain time, and returns nil. An error of a listener or of the certificate ends it, too.
func (g *Gateway) Serve(ctx context.Context, l Listeners) error {
	if l.Drain <= 0 {
		l.Drain = DefaultDrain
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	public, control := httpx.NewServer(httpx.ServerOptions{Handler: g.Handler(), Log: g.log}),
		httpx.NewServer(httpx.ServerOptions{Handler: g.ControlHandler(), Log: g.log})
	var wg sync.WaitGroup
	run := func(serve func() error) {
		wg.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				cancel(err)
			}
		})
	}
	for _, ln := range l.Public {
		run(func() error {
			if l.CertFile != "" {
				return public.ServeTLS(ln, l.CertFile, l.KeyFile)
			}
			return public.Serve(ln)
		})
	}
	if l.Control != nil {
		run(func() error { return control.Serve(l.Control) })
	}
	wg.Go(func() { g.sweep(ctx) })
	<-ctx.Done()
	g.draining.Store(true)
	g.drain(ctx, l.Drain, public)
	// Last: the control plane can read the metrics of the draining.
	g.drain(ctx, time.Second, control)
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (g *Gateway) drain(ctx context.Context, limit time.Duration, s *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		g.log.LogAttrs(ctx, slog.LevelWarn, "requests were cut off at the end of the drain time", slog.Duration("drain", limit))
		_ = s.Close()
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
