// Package environment builds the Python environments that scoring scripts and models run in, from
// requirements.txt, pyproject.toml or conda.yml, and keeps them in a directory. Equal descriptions
// share one environment, whoever asks: it is built once, also by several processes at a time.
// Nothing of ours is installed into it.
//
//	DIR/ID/environment.json   what was built or why it was not; written last
//	DIR/ID/build.log          what the tools said
//	DIR/ID/venv/              the environment itself; it cannot be moved, so it is built in its place
//	DIR/ID/files, DIR/ID/tmp  the description and the tools' temporary files, during a build only
//	DIR/locks/ID.lock         locked by who builds or removes ID
//
// It knows neither models nor deployments: who needs an environment, and for how long, is told to it.
// Package cmd may import it, and whoever is handed a [Cache] calls it by an interface of his own.
package environment

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// The defaults of [Options].
const (
	// DefaultBuildTimeout suffices for the largest frameworks on a slow line.
	DefaultBuildTimeout = 30 * time.Minute
	// DefaultRetryAfter keeps a reconciler from building what just failed again and again.
	DefaultRetryAfter = time.Minute
	// DefaultLogLimit bounds a build log, in bytes.
	DefaultLogLimit = 16 << 20
)

// None stands in [Options] for the path of a tool that is to be left out.
const None = "none"

// Options are the settings of a [Cache]. Zero fields mean the defaults.
type Options struct {
	// Dir is where environments are kept. Moving it makes those in it be built again.
	Dir string
	// Python is the interpreter to prefer, a path or a name in Path; empty prefers python3 there.
	Python string
	// Uv and Conda are the tools to use, by their paths; empty looks in Path for uv and for
	// micromamba, mamba or conda, [None] does without.
	Uv, Conda string
	// Path holds the folders that programs are looked for in, in order.
	Path []string
	// Env is the environment of the build, as NAME=value: the user's pip configuration is in it.
	// What would install into another place (PIP_TARGET, PYTHONPATH and so on) is left out.
	Env []string
	// BuildTimeout bounds one build; waiting for a build of somebody else does not count.
	BuildTimeout time.Duration
	// RetryAfter is how long a failure is remembered: until then [Cache.Ensure] answers with it.
	RetryAfter time.Duration
	// LogLimit bounds what is kept of a build's output, in bytes; the rest is only counted.
	LogLimit int64
	// Log tells builds and removals; nil tells nobody.
	Log *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.BuildTimeout == 0 {
		o.BuildTimeout = DefaultBuildTimeout
	}
	if o.RetryAfter == 0 {
		o.RetryAfter = DefaultRetryAfter
	}
	if o.LogLimit == 0 {
		o.LogLimit = DefaultLogLimit
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Cache is a directory of environments. Its methods may be called from many goroutines, and several
// processes may share the directory. It holds nothing open and needs no closing.
type Cache struct {
	opts   Options
	redact redactor
	found  probes
}

// Request asks for an environment.
type Request struct {
	Spec zarpa.EnvironmentSpec
	// Files are the content that Spec.Content names: the description and, if any, wheels/. Nil is
	// an environment in which nothing is installed.
	Files fs.FS
	// Retry builds at once what failed a moment ago.
	Retry bool
}

// Open makes the directory where it is missing and removes what builds that were cut off left there.
// unavailable when the directory cannot be written, invalid when an option is wrong.
func Open(ctx context.Context, opts Options) (*Cache, error) {
	opts = opts.withDefaults()
	if opts.Dir == "" {
		return nil, zarpa.Errorf(zarpa.Invalid, "environments: dir: empty").WithHint("name the folder that environments are kept in")
	}
	if opts.BuildTimeout < 0 || opts.RetryAfter < 0 || opts.LogLimit < 0 {
		return nil, zarpa.Errorf(zarpa.Invalid, "environments: a time limit or size is negative")
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, diskError("find the environments in "+opts.Dir, err)
	}
	opts.Dir = dir
	if err := os.MkdirAll(filepath.Join(dir, "locks"), 0o755); err != nil {
		return nil, diskError("make "+dir, err)
	}
	c := &Cache{opts: opts, redact: newRedactor(opts.Env), found: probes{byPath: map[string]probe{}}}
	if _, err := c.sweep(ctx, func(_ string, r record, there bool) bool { return !there }); err != nil {
		return nil, err
	}
	return c, nil
}

// Resolve tells the identity of the environment that a request asks for, without building: it reads
// the description and finds the interpreter. Errors are those of [Cache.Ensure] up to there.
func (c *Cache) Resolve(ctx context.Context, req Request) (string, error) {
	p, err := c.plan(ctx, req)
	if err != nil {
		return "", err
	}
	return p.id, nil
}

// Ensure returns the environment that a request asks for, ready for use, and builds it where it is
// not there. While another caller or process builds it, Ensure waits. progress, if not nil, is given
// each line of the build's log, also while waiting, from one goroutine at a time and not after Ensure
// has returned; credentials are blacked out.
//
// A canceled ctx ends the build with all its processes; the next of those who wait begins anew. When
// a build fails, all who waited get its error; it is remembered for [Options.RetryAfter], and comes
// with the [zarpa.Environment] in phase failed.
//
// Errors: invalid when the description is wrong or asks for what does not exist, with the line and
// the package; unavailable when this machine lacks what is needed (an interpreter, a tool, a
// compiler, network, space); timeout after [Options.BuildTimeout]; canceled; internal.
func (c *Cache) Ensure(ctx context.Context, req Request, progress func(line string)) (zarpa.Environment, error) {
	if progress == nil {
		progress = func(string) {}
	}
	p, err := c.plan(ctx, req)
	if err != nil {
		return zarpa.Environment{}, err
	}
	came := c.opts.Now()
	if req.Retry {
		came = came.Add(c.opts.RetryAfter) // nothing before this moment counts
	}
	if r, done, err := c.settled(p.id, came); done {
		return r.Environment, err
	}
	unlock, err := c.lock(ctx, p.id, progress)
	if err != nil {
		return zarpa.Environment{}, err
	}
	defer unlock.release()
	// who held the lock may have built it
	if r, done, err := c.settled(p.id, came); done {
		return r.Environment, err
	}
	r, err := c.build(ctx, p, unlock, progress)
	return r.Environment, err
}

// settled looks for an environment that needs no build: a ready one, which it marks as used, or a
// failure not older than came less the time that failures are remembered.
func (c *Cache) settled(id string, came time.Time) (r record, done bool, err error) {
	r, err = c.read(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record{}, false, nil
	case err != nil:
		return record{}, true, diskError("read environment "+id, err)
	case r.Phase == zarpa.EnvironmentReady && c.complete(r):
		r.Used = c.opts.Now().UTC()
		if err := os.Chtimes(c.recordPath(id), r.Used, r.Used); err != nil {
			return record{}, true, diskError("mark environment "+id+" as used", err)
		}
		return r, true, nil
	case r.Phase == zarpa.EnvironmentFailed && r.Error != nil:
		left := r.Created.Add(c.opts.RetryAfter).Sub(came)
		if left <= 0 {
			return record{}, false, nil
		}
		failure := *r.Error
		failure.RetryAfter = left
		return r, true, &failure
	}
	return record{}, false, nil
}

// Log opens the log of an environment's build, the last one if there were several; the caller closes
// it. not_found when there is none. During a build it ends with what has been written so far.
func (c *Cache) Log(ctx context.Context, id string) (io.ReadCloser, error) {
	if err := c.check(ctx, id); err != nil {
		return nil, err
	}
	f, err := os.Open(c.logPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(id)
	}
	if err != nil {
		return nil, diskError("open the log of environment "+id, err)
	}
	return f, nil
}

// probes remembers interpreters that were looked at.
type probes struct {
	mu     sync.Mutex
	byPath map[string]probe
}
