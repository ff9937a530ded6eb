// Package score is one replica: it answers prediction requests for the models that it holds in
// memory, as decode → limit → batch → run → encode, each one function in a file of its name.
//
// A request comes as POST /score with {"data": …}, as MLflow's POST /invocations, or as the Open
// Inference Protocol v2 over REST or gRPC. What the bodies mean is the matter of a codec; limit,
// batch and run know none. How a model gets into memory is a function that it is given; probes are
// answered before. Callers are authenticated by the gateway, not here.
package score

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// ModelOptions describe one model that a [Server] answers for.
type ModelOptions struct {
	// Name and Version are what the inference protocol calls the model; the version is empty or a
	// number as text. Aliases are other names that it answers to, such as the endpoint's.
	Name    string
	Version string
	Aliases []string
	// Platform is the protocol's word for the model's format; "onnx_onnxv1" when empty.
	Platform string
	// Load brings the model into memory. It is called at the start and again after an unload,
	// never twice at a time.
	Load func(ctx context.Context) (zarpa.Session, error)
}

// Options are the settings of a [Server]. Models is needed; the rest has defaults.
type Options struct {
	// Models are those that the server answers for. The first one answers /score and /invocations.
	Models []ModelOptions
	// ModelControl says whether clients may load and unload; empty is none.
	ModelControl zarpa.ModelControl
	// MaxBatchRows and MaxBatchDelay are those of [zarpa.DeploymentSpec]. BatchRuns is how many
	// batches of one model run at a time; 0 is 1.
	MaxBatchRows  int
	MaxBatchDelay time.Duration
	BatchRuns     int
	// MaxConcurrency is how many requests run or gather in batches at a time, QueueLimit how many
	// more wait; the next gets 503. Zeros are zarpa.DefaultMaxConcurrency, or two full batches of
	// single rows where that is more, and 128.
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
	if o.BatchRuns <= 0 {
		o.BatchRuns = 1
	}
	if o.MaxConcurrency <= 0 {
		o.MaxConcurrency = max(zarpa.DefaultMaxConcurrency, 2*o.MaxBatchRows)
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

// Server answers for its models. Its methods may be called from many goroutines.
type Server struct {
	opts    Options
	entries []*entry // never changes; the first one is that of /score
	self    []byte
	version []string // the value of x-ms-server-version
	metrics *metrics
	prom    http.Handler
	limit   *limiter
	// unbatched bounds the runs of models whose requests share none, where MaxConcurrency is for
	// batches; nil where it is for runs.
	unbatched *limiter
	calls     sync.Pool
	requests  requests
	grpc      *grpc.Server  // of the calls that come over the listener of REST
	started   atomic.Bool   // every model was loaded once
	ready     chan struct{} // closed then
	draining  atomic.Bool
	stopping  chan struct{} // closed when a drain begins
	onReady   sync.Once
	onDrain   sync.Once
}

// New makes a server whose models are not loaded: it is live but not ready, and refuses
// predictions with 503 until [Server.LoadAll]. Errors: invalid for no model, one without a name or
// two of one name, a Self that is no JSON, or a registry that has the metrics of another server.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	entries, err := newEntries(o.Models)
	if err != nil {
		return nil, err
	}
	self, err := json.Marshal(o.Self)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "self: %w", err)
	}
	s := &Server{
		opts: o, entries: entries, self: self, version: []string{o.ServerVersion},
		limit: newLimiter(o.MaxConcurrency, o.QueueLimit),
		prom:  promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{}),
		ready: make(chan struct{}), stopping: make(chan struct{}),
	}
	s.grpc = s.newGRPC()
	if o.MaxBatchRows > 1 {
		s.unbatched = newLimiter(min(o.MaxConcurrency, zarpa.DefaultMaxConcurrency), o.MaxConcurrency)
	}
	s.calls.New = func() any { return new(call) }
	if s.metrics, err = newMetrics(o.Registry, s.limit); err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "metrics: %w", err)
	}
	if o.MaxBatchRows > 1 {
		if s.metrics.batch, err = newBatchVectors(o.Registry, entries); err != nil {
			return nil, zarpa.Errorf(zarpa.Invalid, "metrics: %w", err)
		}
	}
	for _, e := range entries {
		s.metrics.loaded.WithLabelValues(e.Name).Set(0)
	}
	return s, nil
}

func newEntries(models []ModelOptions) ([]*entry, error) {
	if len(models) == 0 {
		return nil, zarpa.Errorf(zarpa.Invalid, "models: none")
	}
	seen := map[string]bool{}
	entries := make([]*entry, len(models))
	for i, m := range models {
		entries[i] = newEntry(m)
		for _, name := range entries[i].names {
			if name == "" {
				return nil, zarpa.Errorf(zarpa.Invalid, "models[%d]: name: empty", i)
			}
			if seen[name] {
				return nil, zarpa.Errorf(zarpa.Invalid, "models[%d]: name %q: another model has it", i, name)
			}
			seen[name] = true
		}
	}
	return entries, nil
}

// Ready reports whether predictions are taken: the models were loaded, and no drain has begun.
func (s *Server) Ready() bool { return s.started.Load() && !s.draining.Load() }

// Serve answers on ln until ctx ends, and closes it: HTTP/1.1, HTTP/2 in cleartext and gRPC, told
// apart by what a client begins with. On each of grpcOnly it answers gRPC alone, with less work.
// At the end the server is not ready at once, takes no new connections, and lets running requests
// end within DrainTimeout; what still runs is canceled and gets 503. It returns nil when nothing
// had to be cut off. When one listener fails, the others end, too.
func (s *Server) Serve(ctx context.Context, ln net.Listener, grpcOnly ...net.Listener) error {
	// the listeners see the end when the server has, so that no request is told of another reason
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	end := func() { s.drain(); cancel() }
	defer end()
	defer context.AfterFunc(ctx, end)()
	ended := make(chan error, 1+len(grpcOnly))
	go func() {
		ended <- httpx.Serve(serving, ln, httpx.ServerOptions{
			Handler: s.Handler(),
			// what is late by more than this is a client that does not send its body
			ReadTimeout:  s.opts.RequestTimeout + readMargin,
			DrainTimeout: s.opts.DrainTimeout,
			Streams:      maxStreams,
			Log:          s.opts.Log,
		})
	}()
	for _, g := range grpcOnly {
		go func() { ended <- s.serveGRPC(serving, g) }()
	}
	var errs []error
	for range cap(ended) {
		err := <-ended
		if err != nil {
			end()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// drain makes the server not ready and ends what waits for the next message of a stream.
func (s *Server) drain() {
	s.draining.Store(true)
	s.onDrain.Do(func() { close(s.stopping) })
}

// readMargin keeps the connection's time limit behind the request's own, which has an answer.
const readMargin = 5 * time.Second
