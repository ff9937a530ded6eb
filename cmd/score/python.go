package scorecmd

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/python"
	"github.com/zarpa-dev/zarpa/score"
)

// replicaPython are the flags of score for scripts and models that run in Python.
type replicaPython struct {
	code, entry, models string
	python, work, cache string
	workers             int
	preload             string
	workerMaxRequests   int
	workerMaxMemory     zarpa.Bytes
	grace               time.Duration
}

func (f *replicaPython) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.code, "code", "", "folder of a scoring script, in place of --bundle")
	fl.StringVar(&f.entry, "entry", zarpa.DefaultEntry, "the script's path in --code")
	fl.StringVar(&f.models, "models", "", "what AZUREML_MODEL_DIR names, with --code")
	fl.StringVar(&f.python, "python", "python3", "interpreter of the environment that scripts and Python models run in")
	fl.StringVar(&f.work, "work", "", "folder for what the replica writes; a temporary one by default")
	fl.StringVar(&f.cache, "cache", "", "folder for what replicas share: the worker program; --work by default")
	fl.IntVar(&f.workers, "workers", 0, "Python processes; 0 is one per processor")
	fl.StringVar(&f.preload, "preload", string(zarpa.PreloadAuto), "fork workers after init(): auto, always or never")
	fl.IntVar(&f.workerMaxRequests, "worker-max-requests", 0, "requests after which a worker is replaced; 0 is never")
	fl.TextVar(&f.workerMaxMemory, "worker-max-memory", zarpa.Bytes(0), "resident memory at which a worker is replaced; 0 is never")
	fl.DurationVar(&f.grace, "worker-grace", python.DefaultGrace, "from the end of a request's time to the end of the worker that does not give it up")
}

// validate wants one source of what is served.
func (f replicaPython) validate(bundle string) error {
	switch {
	case f.code == "" && bundle == "":
		return zarpa.Errorf(zarpa.Invalid, "--bundle: not given").WithHint("name the directory of an unpacked bundle, or of a scoring script with --code")
	case f.code != "" && bundle != "":
		return zarpa.Errorf(zarpa.Invalid, "--bundle and --code: both are given").WithHint("give one of them")
	}
	return nil
}

// pythonEngine makes the engine of one replica; done removes what it wrote in a temporary folder.
func (r replica) pythonEngine(p parts) (engine *python.Engine, done func(), err error) {
	f := r.f
	done = func() {}
	dir := f.work
	if f.cache != "" {
		dir = f.cache
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "zarpa-score-"); err != nil {
			return nil, nil, zarpa.Errorf(zarpa.Unavailable, "--work: %w", err).WithHint("name a folder that this user can write into")
		}
		done = func() { _ = os.RemoveAll(dir) } // what is left in a temporary folder goes with it
	}
	workers, threads := f.share()
	engine, err = python.New(python.Options{
		Python: f.python, Dir: dir, Workers: workers, Threads: threads, MaxRequests: f.workerMaxRequests, MaxMemory: f.workerMaxMemory,
		Preload: zarpa.Preload(f.preload), Grace: f.grace, MaxBatch: f.maxBatchRows, MaxBatchDelay: f.maxBatchDelay,
		Env: r.scriptEnvironment(), Log: p.log, Registry: p.registry,
	})
	if err != nil {
		done()
		return nil, nil, err
	}
	remove := done
	return engine, func() { _ = engine.Close(); remove() }, nil
}

// share is how many workers the replica has, and how many threads each of them: together no more
// than the processors that it may use, --threads or all.
func (f Flags) share() (workers, threads int) {
	processors := f.threads
	if processors == 0 {
		processors = runtime.NumCPU()
	}
	if workers = f.workers; workers == 0 {
		workers = min(processors, python.MaxDefaultWorkers)
	}
	return workers, max(1, processors/workers)
}

// scriptEnvironment is the process's own, with the names that the original service gave.
func (r replica) scriptEnvironment() []string {
	f, env := r.f, os.Environ()
	if f.endpoint != "" && r.Getenv("SERVICE_NAME") == "" {
		env = append(env, "SERVICE_NAME="+f.endpoint)
	}
	return env
}

// scriptPlace is where a script and its models are.
type scriptPlace = python.Script

// script serves a scoring script as the only model.
func (r replica) script(p parts, place scriptPlace) ([]score.ModelOptions, func(), error) {
	engine, done, err := r.pythonEngine(p)
	if err != nil {
		return nil, nil, err
	}
	name := r.f.endpoint
	if name == "" {
		name = "script"
	}
	return []score.ModelOptions{{
		Name: name, Platform: EnginePython,
		Load: func(ctx context.Context) (zarpa.Session, error) {
			session, err := engine.Script(ctx, place)
			watch(session, p.dead)
			return session, err
		},
	}}, done, nil
}

// mortal is an engine whose sessions may come to an end by themselves, which it tells.
type mortal struct {
	*python.Engine

	dead chan<- error
}

func (m mortal) Load(ctx context.Context, dir string, opts zarpa.LoadOptions) (zarpa.Session, error) {
	session, err := m.Engine.Load(ctx, dir, opts)
	watch(session, m.dead)
	return session, err
}

// watch tells the end of a session that comes by itself. It waits as long as the session lives.
func watch(session zarpa.Session, dead chan<- error) {
	m, ok := session.(python.Mortal)
	if !ok {
		return
	}
	go func() {
		<-m.Done()
		if err := m.Err(); err != nil {
			select {
			case dead <- err:
			default: // the replica ends already
			}
		}
	}()
}

// bundledScript serves the script of a bundle.
func (r replica) bundledScript(b zarpa.Bundle, p parts) ([]score.ModelOptions, func(), error) {
	place := scriptPlace{Code: filepath.Join(r.f.bundle, "code"), Entry: b.Code.Entry}
	if len(b.Models) > 0 { // of one model, the script sees its own folder: the worker knows the layout
		place.Models = filepath.Join(r.f.bundle, "models")
	}
	return r.copiedScript(p, place)
}

// copiedScript serves a script from a copy in --work, where that is given: it may write beside itself, and
// a bundle is shared, an image read-only.
func (r replica) copiedScript(p parts, place scriptPlace) ([]score.ModelOptions, func(), error) {
	if work := r.f.work; work != "" {
		own := filepath.Join(work, "code")
		if err := os.RemoveAll(own); err != nil {
			return nil, nil, zarpa.Errorf(zarpa.Unavailable, "--work: %w", err)
		}
		if err := os.MkdirAll(work, 0o700); err != nil {
			return nil, nil, zarpa.Errorf(zarpa.Unavailable, "--work: %w", err)
		}
		if err := os.CopyFS(own, os.DirFS(place.Code)); err != nil {
			return nil, nil, zarpa.Errorf(zarpa.Unavailable, "--work: %w", err).WithHint("the disk may be full, or --code is not a folder")
		}
		place.Code = own
	}
	return r.script(p, place)
}
