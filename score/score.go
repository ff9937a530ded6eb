// Package score is one replica: it answers prediction requests for one model in memory, as
// decode → limit → run → encode, each one function in a file of its name.
//
// A request comes as POST /score with {"data": …} or as the Open Inference Protocol v2 over
// REST/JSON. What the bodies mean is the matter of a codec; limit and run know none. The package
// loads no model: it is given a [zarpa.Session] when there is one, and answers probes before.
// Callers are authenticated by the gateway, not here.
package score

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// Options are the settings of a [Server]. ModelName is needed; the rest has defaults.
type Options struct {
	// ModelName and ModelVersion are what the inference protocol calls the model; the version is
	// empty or a number as text. Aliases are other names that it answers to, such as the
	// endpoint's.
	ModelName    string
	ModelVersion string
	Aliases      []string
	// Platform is the protocol's word for the model's format; "onnx_onnxv1" when empty.
	Platform string
	// MaxConcurrency is how many runs go on at a time, QueueLimit how many more wait; the next
	// gets 503. Zeros are zarpa.DefaultMaxConcurrency and 128.
	MaxConcurrency int
	QueueLimit     int
	// MaxBody bounds a request's body, both as sent and decompressed; 0 is zarpa.DefaultMaxBody.
	MaxBody zarpa.Bytes
	// RequestTimeout bounds a request from the end of its header to the end of the run; 0 is
	// zarpa.DefaultRequestTimeout. DrainTimeout is how long running requests may go on when
	// [Server.Serve] is told to end; 0 is zarpa.DefaultDrainTimeout.
	RequestTimeout time.Duration
	DrainTimeout   time.Duration
	// ServerVersion is shown in x-ms-server-version and in the protocol's metadata.
	ServerVersion string
	// Self is what GET /-/self answers, as JSON: what a supervisor knows the replica by.
	Self any
	// Log gets the causes of failures; nil drops them.
	Log *slog.Logger
	// Registry holds the metrics that GET /metrics shows; nil is a new one.
	Registry *prometheus.Registry
}

const defaultQueue = 128

func (o Options) withDefaults() Options {
	if o.Platform == "" {
		o.Platform = "onnx_onnxv1"
	}
	if o.MaxConcurrency <= 0 {
		o.MaxConcurrency = zarpa.DefaultMaxConcurrency
	}
	if o.QueueLimit <= 0 {
		o.QueueLimit = defaultQueue
	}
	if o.MaxBody <= 0 {
		o.MaxBody = zarpa.DefaultMaxBody
	}
	if o.RequestTimeout <= 0 {
		o.RequestTimeout = time.Duration(zarpa.DefaultRequestTimeout)
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = time.Duration(zarpa.DefaultDrainTimeout)
	}
	if o.ServerVersion == "" {
		o.ServerVersion = "zarpa"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	return o
}

// Server answers for one model. Its methods may be called from many goroutines.
type Server struct {
	opts     Options
	names    []string // the model's name and its aliases
	self     []byte
	version  []string // the value of x-ms-server-version
	metrics  *metrics
	prom     http.Handler
	limit    *limiter
	calls    sync.Pool
	model    atomic.Pointer[model] // nil until SetReady
	draining atomic.Bool
}

// New makes a server without a model: it is live but not ready, and refuses predictions with 503
// until [Server.SetReady]. Errors: invalid for an empty name, a Self that is no JSON, or a
// registry that has the metrics of another server.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	if o.ModelName == "" {
		return nil, zarpa.Errorf(zarpa.Invalid, "model name: empty")
	}
	self, err := json.Marshal(o.Self)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "self: %w", err)
	}
	s := &Server{
		opts: o, names: append([]string{o.ModelName}, o.Aliases...), self: self, version: []string{o.ServerVersion},
		limit: newLimiter(o.MaxConcurrency, o.QueueLimit),
		prom:  promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{}),
	}
	s.calls.New = func() any { return new(call) }
	if s.metrics, err = newMetrics(o.Registry, s.limit); err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "metrics: %w", err)
	}
	return s, nil
}

// SetReady gives the server its model, which took so long to load, and makes it ready. It does
// not own the session: the caller closes it after [Server.Serve] has returned.
func (s *Server) SetReady(session zarpa.Session, took time.Duration) {
	s.model.Store(s.describe(session))
	s.metrics.loaded.Set(took.Seconds())
}

// Ready reports whether predictions are taken: there is a model, and no drain has begun.
func (s *Server) Ready() bool { return s.model.Load() != nil && !s.draining.Load() }

// Serve answers on ln until ctx ends, and closes it. Then the server is not ready at once, takes
// no new connections, and lets running requests end within DrainTimeout; what still runs is
// canceled and gets 503. It returns nil when nothing had to be cut off.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { s.draining.Store(true) })
	defer stop()
	return httpx.Serve(ctx, ln, httpx.ServerOptions{
		Handler: s.Handler(),
		// what is late by more than this is a client that does not send its body
		ReadTimeout:  s.opts.RequestTimeout + readMargin,
		DrainTimeout: s.opts.DrainTimeout,
		Log:          s.opts.Log,
	})
}

// readMargin keeps the connection's time limit behind the request's own, which has an answer.
const readMargin = 5 * time.Second
