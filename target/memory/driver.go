// Package memory is a driver whose replicas live in this process: for tests and development. It
// shows what the process driver shows (draining, restarts, logs, notices) but nothing outlives
// it, and no limits are enforced.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// Options configure a driver. Start is needed.
type Options struct {
	// Start starts one run of a replica. Its error is how the run ended; wrap [ErrLoad] for a
	// model that cannot be loaded.
	Start       func(ctx context.Context, r Replica) (Running, error)
	MaxReplicas int
	Probes      replica.Probes
	Backoff     replica.Backoff
	Log         *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Replica says what to start.
type Replica struct {
	ID         string
	Deployment zarpa.Deployment
	// Log takes what the replica prints.
	Log io.Writer
}

// Running is a replica that was started. It answers the health paths of the Open Inference
// Protocol at its address.
type Running struct {
	Address string // as in [zarpa.Replica]
	// Done yields why the run ended, nil for an end by itself or by Shutdown, and is then closed.
	Done <-chan error
	// Shutdown takes no new requests and returns when those under way have ended, or at the end
	// of ctx, which ends them, too.
	Shutdown func(ctx context.Context) error
}

// ErrLoad marks a run that ended because its model cannot be loaded.
var ErrLoad = errors.New("the model could not be loaded")

// Driver runs replicas in this process. All its methods may be called from many goroutines.
type Driver struct{ *replica.Set }

var (
	_ zarpa.Driver   = (*Driver)(nil)
	_ zarpa.Logger   = (*Driver)(nil)
	_ zarpa.Notifier = (*Driver)(nil)
	_ zarpa.Checker  = (*Driver)(nil)
	_ zarpa.Replacer = (*Driver)(nil)
)

// New makes a driver. StopAll ends its replicas; Close alone leaves them running, watched by
// nobody.
func New(ctx context.Context, o Options) (*Driver, error) {
	set, err := replica.Open(ctx, replica.Options{
		Runner: &runner{start: o.Start, logs: map[string]*logs{}},
		Log:    o.Log, Probes: o.Probes, Backoff: o.Backoff, MaxReplicas: o.MaxReplicas, Now: o.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("memory driver: %w", err)
	}
	return &Driver{Set: set}, nil
}

type runner struct {
	start func(ctx context.Context, r Replica) (Running, error)

	mu   sync.Mutex
	logs map[string]*logs // by replica ID
}

// logs are those of the newest run, which has ended when done is closed, and of the one before.
type logs struct {
	current, previous *memoryLog
	done              chan struct{}
}

// ended is the log of the newest run that has ended, nil when there is none.
func (l *logs) ended() *memoryLog {
	select {
	case <-l.done:
		return l.current
	default:
		return l.previous
	}
}

func (r *runner) Start(ctx context.Context, s replica.Start) (replica.Run, error) {
	log, done := newMemoryLog(), make(chan struct{})
	r.mu.Lock()
	old := r.logs[s.ID]
	r.logs[s.ID] = &logs{current: log, done: done}
	if old != nil {
		r.logs[s.ID].previous = old.current
		old.current.end()
	}
	r.mu.Unlock()
	started := time.Now()
	running, err := r.start(ctx, Replica{ID: s.ID, Deployment: s.Deployment, Log: log})
	if err != nil && !errors.Is(err, ErrLoad) {
		close(done)
		return nil, err
	}
	x := &run{running: running, log: log, started: started, enforced: unenforced(s.Deployment.Spec), done: done, released: make(chan struct{})}
	if err != nil {
		x.finish(err)
		return x, nil
	}
	x.watching.Go(func() {
		select {
		case err := <-running.Done:
			x.finish(err)
		case <-x.released:
		}
	})
	return x, nil
}

func unenforced(s zarpa.DeploymentSpec) []string {
	var out []string
	if s.CPU > 0 {
		out = append(out, "cpu "+s.CPU.String()+": not enforced: the replica runs in the control plane's process")
	}
	if s.Memory > 0 {
		out = append(out, "memory "+s.Memory.String()+": not enforced: the replica runs in the control plane's process")
	}
	return out
}

func (r *runner) Find(context.Context, replica.Start) (replica.Run, error) {
	return nil, fs.ErrNotExist
}

func (r *runner) Forget(s replica.Start) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.logs[s.ID]; l != nil {
		l.current.end()
		delete(r.logs, s.ID)
	}
}

func (r *runner) Lines(ctx context.Context, s replica.Start, q replica.LogRead, emit func(string) error) error {
	for follow := (*memoryLog)(nil); ; {
		r.mu.Lock()
		l := r.logs[s.ID]
		r.mu.Unlock()
		var log *memoryLog
		switch {
		case l == nil:
			return nil
		case q.Previous:
			log = l.ended()
		default:
			log = l.current
		}
		if log == nil || log == follow {
			return nil
		}
		if err := log.lines(ctx, q, emit); err != nil || !q.Follow {
			return err
		}
		follow, q.Tail = log, 0 // a new run began: go on with all of it
	}
}

// run is one life of a replica.
type run struct {
	running  Running
	log      *memoryLog
	started  time.Time
	enforced []string

	done     chan struct{}
	released chan struct{}
	once     sync.Once
	watching sync.WaitGroup
	exit     zarpa.Exit // complete once done is closed
}

var _ replica.Run = (*run)(nil)

func (x *run) finish(err error) {
	x.exit = zarpa.Exit{At: time.Now(), Log: x.log.tail(20)}
	switch {
	case err == nil:
		x.exit.Reason = "it ended by itself"
	case errors.Is(err, ErrLoad):
		x.exit.Code, x.exit.Reason = zarpa.ExitLoadFailed, err.Error()
	default:
		x.exit.Code, x.exit.Reason = 1, "it ended: "+err.Error()
	}
	close(x.done)
}

func (x *run) Info() replica.Info {
	return replica.Info{Address: x.running.Address, PID: os.Getpid(), Started: x.started, Enforced: x.enforced}
}
func (x *run) Done() <-chan struct{} { return x.done }
func (x *run) Exit() zarpa.Exit      { return x.exit }

func (x *run) Stop(ctx context.Context, grace time.Duration) error {
	select {
	case <-x.done:
		return nil
	default:
	}
	drain, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	_ = x.running.Shutdown(drain) // ended by force: all the same to the driver
	select {
	case <-x.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *run) Release() {
	x.once.Do(func() { close(x.released) })
	x.watching.Wait()
}

// memoryLog keeps the last lines of a run.
type memoryLog struct {
	mu      sync.Mutex
	kept    []string
	dropped int // lines before kept
	partial []byte
	ended   bool
	changed chan struct{} // closed and made anew with every change
}

const (
	maxKept = 10_000
	maxLine = 64 << 10
)

func newMemoryLog() *memoryLog { return &memoryLog{changed: make(chan struct{})} }

func (l *memoryLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		l.partial = append(l.partial, line...)
		if ended || len(l.partial) > maxLine {
			l.kept = append(l.kept, string(l.partial))
			l.partial = l.partial[:0]
		}
		p = rest
	}
	if over := len(l.kept) - maxKept; over > 0 {
		l.kept = slices.Delete(l.kept, 0, over)
		l.dropped += over
	}
	l.wake()
	return n, nil
}

func (l *memoryLog) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *memoryLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.kept, l.partial = append(l.kept, string(l.partial)), nil
	}
	l.ended = true
	l.wake()
}

func (l *memoryLog) tail(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.kept[max(0, len(l.kept)-n):])
}

func (l *memoryLog) lines(ctx context.Context, q replica.LogRead, emit func(string) error) error {
	next := -1
	for {
		l.mu.Lock()
		if next < 0 {
			next = l.dropped + max(0, len(l.kept)-cmp.Or(q.Tail, maxKept))
		}
		lines := slices.Clone(l.kept[min(max(0, next-l.dropped), len(l.kept)):])
		next = l.dropped + len(l.kept)
		ended, changed := l.ended, l.changed
		l.mu.Unlock()
		for _, line := range lines {
			if err := emit(line); err != nil {
				return err
			}
		}
		if !q.Follow || ended {
			return nil
		}
		select {
		case <-changed:
		case <-q.Gone:
			q.Follow = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
