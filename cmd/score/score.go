// Package scorecmd is the verb score: the settings of one replica, and its run. It is apart from the
// command zarpa so that the program which images carry, zarpa-score, holds this verb and nothing else.
package scorecmd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/engine/onnx"
	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/score"
)

// Flags are the flags of score: the settings of one replica.
type Flags struct {
	bundle, listen, label string
	grpc                  string
	endpoint              string
	model                 string
	modelControl          string
	maxConcurrency        int
	maxBatchRows          int
	maxBatchDelay         time.Duration
	threads               int
	deployment            string
	timeout, drain        time.Duration
	maxBody               string
	queue                 int
	insecure              bool
	logLevel              string
	replicaPython
}

// The texts that help shows.
const (
	Use   = "--bundle DIR|--code DIR --listen ADDR"
	Short = "Run one replica by hand"
	Long  = `Serves the model of an unpacked bundle, without authentication, until it gets SIGTERM; then it
lets running requests end. It exits with 3 when the model cannot be loaded. zarpa up starts such
replicas by itself.

With --code it serves the scoring script in that folder, in the environment of --python; --models is
what AZUREML_MODEL_DIR names. Its environment is the command's own.`
)

// Add adds the flags to a set.
func (f *Flags) Add(fl *pflag.FlagSet) {
	fl.StringVar(&f.bundle, "bundle", "", "directory of an unpacked bundle")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:5001", "HOST:PORT, or unix:PATH")
	fl.StringVar(&f.grpc, "grpc", "", "HOST:PORT, or unix:PATH, for gRPC alone; --listen takes it, too")
	fl.StringVar(&f.model, "model", "", "the model that answers /score, by its name; needed when the bundle holds several")
	fl.StringVar(&f.modelControl, "model-control", string(zarpa.ModelControlNone), "none, or explicit: clients load and unload models")
	fl.IntVar(&f.maxBatchRows, "max-batch-rows", 0, "rows of several requests that the model runs at once; 0 and 1 do not batch")
	fl.DurationVar(&f.maxBatchDelay, "max-batch-delay", 0, "how long a request waits at most for others to share its run")
	fl.StringVar(&f.endpoint, "endpoint", "", "another name that the model answers to")
	fl.IntVar(&f.maxConcurrency, "max-concurrency", 0, "requests to work on at a time; 0 is 8, or twice --max-batch-rows")
	fl.IntVar(&f.queue, "queue", 0, "requests that may wait for that, then 503; 0 is 128")
	fl.IntVar(&f.threads, "threads", 0, "threads that one run of the model may use; 0 is one per processor")
	fl.StringVar(&f.deployment, "deployment", "", "the deployment it belongs to, for the log")
	fl.DurationVar(&f.timeout, "request-timeout", time.Duration(zarpa.DefaultRequestTimeout), "time limit of one request, then 504")
	fl.DurationVar(&f.drain, "drain-timeout", time.Duration(zarpa.DefaultDrainTimeout), "wait for running requests at the end")
	fl.StringVar(&f.maxBody, "max-body", zarpa.DefaultMaxBody.String(), "largest request body, then 413")
	fl.StringVar(&f.label, "label", "", "what GET /-/self answers")
	f.add(fl)
	fl.BoolVar(&f.insecure, "insecure", false, "allow an address that other machines reach: no key is asked for")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
}

// Process is what a run takes from the process around it.
type Process struct {
	Stderr  io.Writer
	Getenv  func(string) string
	Version string
}

// ExitError is a failure that was told already, with an exit code that is not its class's.
type ExitError struct {
	Code int
	Err  error
}

// Error is the text of the failure.
func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap is the failure.
func (e *ExitError) Unwrap() error { return e.Err }

// Logger writes text at a level, that of --log-level, and above it.
func Logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "--log-level: %q is not known", level).WithHint("use debug, info, warn or error")
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// replica is one run.
type replica struct {
	Process

	f Flags
}

// Run serves until ctx ends, and then lets running requests end. An [ExitError] was logged already, any
// other error is to be told.
func Run(ctx context.Context, p Process, f Flags) error { return replica{p, f}.run(ctx) }

func (r replica) run(ctx context.Context) error {
	f := r.f
	log, err := Logger(r.Stderr, f.logLevel)
	if err != nil {
		return err
	}
	for _, a := range []struct{ flag, addr string }{{"--listen", f.listen}, {"--grpc", f.grpc}} {
		if a.addr == "" || strings.HasPrefix(a.addr, "unix:") {
			continue
		}
		if err := CheckExposure(a.flag, a.addr, f.insecure); err != nil {
			return err
		}
	}
	var maxBody zarpa.Bytes
	if err := maxBody.UnmarshalText([]byte(f.maxBody)); err != nil {
		e := *zarpa.AsError(err)
		e.Message = "--max-body: " + e.Message
		return &e
	}
	if f.deployment != "" {
		log = log.With("endpoint", f.endpoint, "deployment", f.deployment)
	}
	if err := f.validate(); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	shared := parts{log, registry, make(chan error, 1)}
	models, done, err := r.served(shared)
	if err != nil {
		return notLoaded(log, err)
	}
	defer done()
	server, err := score.New(score.Options{
		Registry: registry,
		Models:   models, ModelControl: zarpa.ModelControl(f.modelControl),
		MaxBatchRows: f.maxBatchRows, MaxBatchDelay: f.maxBatchDelay, BatchRuns: f.batchRuns(),
		MaxConcurrency: f.maxConcurrency, QueueLimit: f.queue, MaxBody: maxBody,
		RequestTimeout: f.timeout, DrainTimeout: f.drain, ServerVersion: "zarpa/" + r.Version,
		Self: child.Self{Label: f.label, PID: os.Getpid(), Started: time.Now()}, Log: log,
	})
	if err != nil {
		return err
	}
	lns, err := f.listeners(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with ctx
		select {
		case err := <-shared.dead:
			log.Error("the replica ends: its model cannot be run any more", "error", err)
			cancel(err)
		case <-ctx.Done():
		}
	}()
	err = r.serveModels(ctx, server, lns, log)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// listeners are the one of --listen and, where it is given, the one of --grpc.
func (f Flags) listeners(ctx context.Context) ([]net.Listener, error) {
	ln, err := Listen(ctx, f.listen)
	if err != nil || f.grpc == "" {
		return []net.Listener{ln}, err
	}
	grpc, err := Listen(ctx, f.grpc)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return []net.Listener{ln, grpc}, nil
}

// validate checks the flags that describe a deployment by the rules of deployments.
func (f Flags) validate() error {
	switch {
	case f.queue < 0:
		return zarpa.Errorf(zarpa.Invalid, "--queue: %d is negative", f.queue)
	case f.threads < 0:
		return zarpa.Errorf(zarpa.Invalid, "--threads: %d is negative", f.threads)
	}
	if err := f.replicaPython.validate(f.bundle); err != nil {
		return err
	}
	return zarpa.DeploymentSpec{
		Name: f.deployment, Model: "model", Workers: f.workers, Preload: zarpa.Preload(f.preload), WorkerMaxRequests: f.workerMaxRequests,
		ModelControl: zarpa.ModelControl(f.modelControl), MaxConcurrency: f.maxConcurrency,
		MaxBatchRows: f.maxBatchRows, MaxBatchDelay: zarpa.Duration(f.maxBatchDelay),
	}.Validate()
}

// batchRuns is how many batches run at a time: as many as have processors for their threads, of
// which a model without a number takes all.
func (f Flags) batchRuns() int {
	if f.threads == 0 {
		return 1
	}
	return max(1, runtime.NumCPU()/f.threads)
}

// parts are what the engines and the server of one replica share.
type parts struct {
	log      *slog.Logger
	registry *prometheus.Registry
	dead     chan error // why a model came to its end by itself; holds one
}

// served are the models that the flags name, the main one first, each with what loads it, and what
// to call at the end.
func (r replica) served(p parts) ([]score.ModelOptions, func(), error) {
	f := r.f
	if f.code != "" {
		return r.copiedScript(p, scriptPlace{Code: f.code, Entry: f.entry, Models: f.models})
	}
	b, err := bundle.Read(f.bundle)
	switch {
	case err != nil:
		return nil, nil, err
	case b.Code != nil:
		return r.bundledScript(b, p)
	case b.Engine == EnginePython:
		engine, done, err := r.pythonEngine(p)
		if err != nil {
			return nil, nil, err
		}
		models, err := models(b, f, mortal{engine, p.dead})
		return models, done, err
	case b.Engine == EngineONNX:
		models, err := models(b, f, onnx.New(onnx.Options{Library: r.Getenv("ZARPA_ONNXRUNTIME"), Log: p.log}))
		return models, func() {}, err
	}
	return nil, nil, zarpa.Errorf(zarpa.Invalid, "the bundle needs the engine %q, which this zarpa does not have", b.Engine).
		WithHint("use a newer zarpa")
}

// models are those of a bundle, the main one first, loaded by an engine.
func models(b zarpa.Bundle, f Flags, engine zarpa.Engine) ([]score.ModelOptions, error) {
	sorted, err := mainFirst(b.Models, f.model)
	if err != nil {
		return nil, err
	}
	var models []score.ModelOptions
	for _, m := range sorted {
		dir := filepath.Join(f.bundle, "models", m.Name, strconv.Itoa(m.Version))
		models = append(models, score.ModelOptions{
			Name: m.Name, Version: strconv.Itoa(m.Version), Platform: platform(m.Format),
			Load: func(ctx context.Context) (zarpa.Session, error) {
				return engine.Load(ctx, dir, zarpa.LoadOptions{File: m.File, Format: m.Format, Threads: f.threads})
			},
		})
	}
	taken := slices.ContainsFunc(models, func(m score.ModelOptions) bool { return m.Name == f.endpoint })
	if f.endpoint != "" && !taken {
		models[0].Aliases = []string{f.endpoint}
	}
	return models, nil
}

// platform is the inference protocol's word for a format: that of ONNX is the protocol's own, the
// others are called as they are.
func platform(format string) string {
	if EngineOf(format) == EngineONNX {
		return ""
	}
	return format
}

// mainFirst puts the model that answers /score first: the one of that name, or the only one.
func mainFirst(models []zarpa.BundleModel, name string) ([]zarpa.BundleModel, error) {
	var names []string
	for i, m := range models {
		if m.Name == name || name == "" && len(models) == 1 {
			rest := slices.Delete(slices.Clone(models), i, i+1)
			return append([]zarpa.BundleModel{m}, rest...), nil
		}
		names = append(names, m.Name)
	}
	if name == "" {
		return nil, zarpa.Errorf(zarpa.Invalid, "--model: not given, and the bundle holds several: %s", strings.Join(names, ", "))
	}
	return nil, zarpa.Errorf(zarpa.Invalid, "--model: %q is not in the bundle, which holds %s", name, strings.Join(names, ", "))
}

// notLoaded says why in the log, where the supervisor and zarpa logs find it, and ends the
// process with the exit code that stands for it.
func notLoaded(log *slog.Logger, err error) error {
	attrs := []any{"error", err}
	var e *zarpa.Error
	if errors.As(err, &e) && e.Err != nil {
		attrs = append(attrs, "message", e.Message, "traceback", e.Err.Error()) // as of an exception in a request
	}
	log.Error("the model could not be loaded", attrs...)
	return &ExitError{zarpa.ExitLoadFailed, err}
}

// heapFloor is memory that is reserved and never touched, so that it costs none: it counts as live,
// and the collector, which runs when the heap has doubled, runs a third as often on the small heap
// of a replica. It does not grow with the heap, as GOGC would.
const heapFloor = 8 << 20

// serveModels answers probes at once, loads the models, and then answers predictions.
func (r replica) serveModels(ctx context.Context, server *score.Server, lns []net.Listener, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.Getenv("GOMAXPROCS") == "" {
		// Calls into the model hold Go's processors while they run: as many again for the requests.
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
	ballast := make([]byte, heapFloor)
	defer runtime.KeepAlive(ballast)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, lns[0], lns[1:]...) }()
	began := time.Now()
	if err := server.LoadAll(ctx); err != nil {
		cancel()
		<-served //nolint:errcheck // the load's failure is the one to tell
		if ctx.Err() != nil && zarpa.AsError(err).Code == zarpa.Canceled {
			return nil
		}
		return notLoaded(log, err)
	}
	ready := []any{"took", time.Since(began), "listen", lns[0].Addr().String()}
	if len(lns) > 1 {
		ready = append(ready, "grpc", lns[1].Addr().String())
	}
	log.Info("ready", ready...)
	return errors.Join(<-served, server.Close())
}

// The engines, by the names that bundles call them.
const (
	EngineONNX   = "onnx"
	EnginePython = "python"
)

// EngineOf is the engine that runs models of a format without code.
func EngineOf(format string) string {
	if format == zarpa.FormatONNX || format == "" {
		return EngineONNX
	}
	return EnginePython
}
