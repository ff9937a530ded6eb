package httpx

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The time limits of every server. Bodies and handlers have limits of their own, which differ.
const (
	// headerTimeout ends connections that send their header a byte at a time.
	headerTimeout = 10 * time.Second
	// idleTimeout is longer than the two minutes after which usual clients drop an idle
	// connection, so that it is the client that closes and no request meets a closing server.
	idleTimeout = 150 * time.Second
	maxHeader   = 64 << 10
	// lastGrace is the time for requests to answer after they were told to stop.
	lastGrace = 2 * time.Second
)

// ServerOptions are the settings of [Serve].
type ServerOptions struct {
	Handler http.Handler
	// ReadTimeout bounds the arrival of one request, body included; 0 is no limit. It must be
	// longer than a handler may take: when it passes, the request is canceled.
	ReadTimeout time.Duration
	// DrainTimeout is how long running requests may go on after ctx has ended.
	DrainTimeout time.Duration
	// Streams is how many requests an HTTP/2 connection may have under way. Clients that know it
	// beforehand speak HTTP/2 in cleartext then, beside HTTP/1.1; 0 is HTTP/1.1 alone.
	Streams int
	// Log gets what goes wrong with connections; nil logs nothing.
	Log *slog.Logger
}

// NewServer is an http.Server with the house's limits. [Serve] is the usual way to run one.
func NewServer(o ServerOptions) *http.Server {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	srv := &http.Server{
		Handler:           o.Handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       o.ReadTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if o.Streams > 0 {
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
		srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: o.Streams}
	}
	return srv
}

// Serve answers requests on ln until ctx ends, and closes it. Then it takes no new connections,
// closes idle ones, answers those in use with Connection: close, and waits DrainTimeout for
// running requests; those that still run are canceled and cut off. It returns nil after an end
// by ctx in which no request was cut off.
func Serve(ctx context.Context, ln net.Listener, o ServerOptions) error {
	srv := NewServer(o)
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv.BaseContext = func(net.Listener) context.Context { return running }
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		cancel()
		return errors.Join(err, srv.Close())
	case <-ctx.Done():
	}
	err := shutdown(running, srv, o.DrainTimeout)
	if err != nil {
		cancel()
		if shutdown(context.WithoutCancel(ctx), srv, lastGrace) != nil {
			err = errors.Join(err, srv.Close())
		}
	}
	<-failed //nolint:errcheck // http.ErrServerClosed
	return err
}

func shutdown(ctx context.Context, srv *http.Server, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return srv.Shutdown(ctx)
}
