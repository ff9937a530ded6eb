// Package python is the engine of scoring scripts and of models that only their Python framework
// runs. It supervises Python processes running a small worker program, which is part of the binary,
// and asks them over Unix sockets; it executes no Python itself and knows neither the contract of
// scoring scripts nor any framework: those are the worker program's.
//
// A session has one root process, which forks all others on the engine's word. A worker that leaves
// nothing a fork would break becomes the zygote: what is forked from it shares its memory.
package python

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
)

// Options are the settings of an engine. The zero value of each field but Python is a default.
type Options struct {
	// Python is the interpreter, a path or a name in the search path.
	Python string
	// Dir is where the worker program is written, in a folder named by its content; empty is a
	// temporary folder, which Close removes.
	Dir string
	// Workers is how many processes a session has; 0 is one per processor, at most [MaxDefaultWorkers].
	Workers int
	// Threads is how many threads the numerical libraries of one worker use; 0 divides the processors
	// among the workers. A variable in Env, such as OMP_NUM_THREADS, goes before.
	Threads int
	// MaxRequests and MaxMemory replace a worker that answered so many requests, or that holds so much
	// resident memory after one, what it shares with others included; 0 is never. Memory is known on
	// Linux alone.
	MaxRequests int
	MaxMemory   zarpa.Bytes
	// Preload says whether workers are forked from one that has loaded; empty is auto.
	Preload zarpa.Preload
	// Grace is from the end of a request's time, when its worker is interrupted, to the worker's
	// death; and the time each step of a worker's regular end may take. 0 is [DefaultGrace].
	Grace time.Duration
	// StartTimeout bounds the start of every worker after the first, which Load's context bounds; 0 is
	// [zarpa.DefaultStartTimeout].
	StartTimeout time.Duration
	// MaxBatch is how many requests that wait are given to a worker at once, if its script can take
	// several; up to 1 is one. MaxBatchDelay is how long a free worker waits for more; 0 never waits.
	MaxBatch      int
	MaxBatchDelay time.Duration
	// MaxBatchBytes is how much the bodies of such requests have together; a request that does not fit
	// begins another batch. 0 is [DefaultMaxBatchBytes].
	MaxBatchBytes zarpa.Bytes
	// QueueLimit is how many requests wait for a worker; more are refused as overloaded. 0 is
	// [DefaultQueueLimit].
	QueueLimit int
	// MaxAnswer bounds what a worker answers, or one part of a streamed answer; 0 is
	// [DefaultMaxAnswer].
	MaxAnswer zarpa.Bytes
	// Env is the whole environment of the workers, as NAME=VALUE.
	Env []string
	// Log gets what workers print and what happens to them; nil discards it.
	Log *slog.Logger
	// Registry gets the metrics; nil keeps them unread.
	Registry prometheus.Registerer
}

// The defaults of [Options].
const (
	MaxDefaultWorkers = 8 // every worker that cannot be forked holds a model of its own
	DefaultGrace      = 2 * time.Second
	DefaultQueueLimit = 1000
	DefaultMaxAnswer  = zarpa.Bytes(1 << 30)
	// DefaultMaxBatchBytes keeps a batch far below what a frame holds, 4 GiB.
	DefaultMaxBatchBytes = zarpa.Bytes(64 << 20)
)

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = min(runtime.GOMAXPROCS(0), MaxDefaultWorkers)
	}
	if o.Preload == "" {
		o.Preload = zarpa.PreloadAuto
	}
	if o.Grace <= 0 {
		o.Grace = DefaultGrace
	}
	if o.StartTimeout <= 0 {
		o.StartTimeout = time.Duration(zarpa.DefaultStartTimeout)
	}
	if o.QueueLimit <= 0 {
		o.QueueLimit = DefaultQueueLimit
	}
	if o.MaxAnswer <= 0 {
		o.MaxAnswer = DefaultMaxAnswer
	}
	if o.MaxBatchBytes <= 0 {
		o.MaxBatchBytes = DefaultMaxBatchBytes
	}
	if o.MaxBatch < 1 {
		o.MaxBatch = 1
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Engine starts the sessions of one interpreter. Its methods may be called from many goroutines.
type Engine struct {
	opts    Options
	python  string // the interpreter's path
	program string // the folder that holds the worker's package
	metrics *metrics
	remove  func() error
	closing sync.Once
}

var _ zarpa.Engine = (*Engine)(nil)

// New writes the worker program and finds the interpreter. Errors: unavailable when there is no such
// interpreter, internal when the program cannot be written or the metrics are registered already.
func New(opts Options) (*Engine, error) {
	opts = opts.withDefaults()
	python, err := exec.LookPath(opts.Python)
	if err == nil {
		python, err = filepath.Abs(python) // workers run in the folder of the code
	}
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Unavailable, "python %q: no such interpreter", opts.Python).Because(err).
			WithHint("install Python, or name the interpreter of an environment")
	}
	e := &Engine{opts: opts, python: python, remove: func() error { return nil }}
	if e.metrics, err = newMetrics(opts.Registry); err != nil {
		return nil, zarpa.Errorf(zarpa.Internal, "python: register metrics: %w", err)
	}
	dir := opts.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "zarpa-python-"); err != nil {
			return nil, zarpa.Errorf(zarpa.Internal, "python: make a folder for the worker program: %w", err)
		}
		e.remove = func() error { return os.RemoveAll(dir) }
	}
	if dir, err = filepath.Abs(dir); err == nil {
		e.program, err = writeProgram(dir)
	}
	if err != nil {
		_ = e.remove() // the first error counts
		return nil, zarpa.Errorf(zarpa.Internal, "python: write the worker program: %w", err)
	}
	return e, nil
}

// Close removes the worker program if New made a temporary folder for it. Sessions are closed by
// their owners, before.
func (e *Engine) Close() (err error) {
	e.closing.Do(func() {
		if failure := e.remove(); failure != nil {
			err = zarpa.Errorf(zarpa.Internal, "python: remove the worker program: %w", failure)
		}
	})
	return err
}

// Load opens a model without code, of the format in opts, as [zarpa.Engine] says. What the model's
// process says of a file it cannot read is invalid; a process that dies is a model_error.
func (e *Engine) Load(ctx context.Context, dir string, opts zarpa.LoadOptions) (zarpa.Session, error) {
	if opts.Format == "" {
		return nil, zarpa.Errorf(zarpa.Invalid, "model format: empty").WithHint("name the model's format")
	}
	if opts.File != "" {
		if err := zarpa.ValidatePath(opts.File); err != nil {
			return nil, err
		}
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, zarpa.Errorf(zarpa.Invalid, "the model's folder cannot be read").Because(err)
	}
	o := e.opts
	if opts.Threads > 0 {
		o.Threads = opts.Threads
	}
	return e.open(ctx, o, settings{Format: opts.Format, Directory: dir, File: opts.File})
}

// Script is a scoring script on this machine.
type Script struct {
	// Code is the folder of the script and what it imports, and Entry the script's path in it.
	Code, Entry string
	// Models is the folder of the models, NAME/VERSION/…; it may be empty.
	Models string
}

// Script loads a scoring script. The session is also a [zarpa.Scorer] and has no signature; and it is
// a [Mortal]. Errors: invalid for a script that cannot be imported or breaks the contract, model_error
// for one whose init() failed; the cause has the traceback.
func (e *Engine) Script(ctx context.Context, s Script) (zarpa.Session, error) {
	if err := zarpa.ValidatePath(s.Entry); err != nil {
		return nil, err
	}
	if info, err := os.Stat(s.Code); err != nil || !info.IsDir() {
		return nil, zarpa.Errorf(zarpa.Invalid, "the script's folder cannot be read").Because(err)
	}
	return e.open(ctx, e.opts, settings{Code: s.Code, Entry: s.Entry, Models: s.Models})
}

// Mortal is what a session of this engine is beside: one that can come to an end by itself, when its
// workers cannot be started any more.
type Mortal interface {
	// Done is closed when the session gave up: every request is unavailable, and the replica should
	// end, so that its supervisor starts it again. It is closed by Close, too.
	Done() <-chan struct{}
	// Err is why the session gave up; nil before, and for one that was closed.
	Err() error
}

func (e *Engine) open(ctx context.Context, o Options, what settings) (zarpa.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, zarpa.AsError(err)
	}
	for _, path := range []*string{&what.Code, &what.Models, &what.Directory} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path) // workers run in the folder of the code
		if err != nil {
			return nil, zarpa.Errorf(zarpa.Unavailable, "python: the working directory is gone").Because(err)
		}
		*path = absolute
	}
	s, err := newSession(ctx, e, o, what)
	if err != nil {
		return nil, err
	}
	if what.Code != "" {
		return newScriptSession(s), nil
	}
	return newModelSession(s), nil
}
