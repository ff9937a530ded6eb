// Package child starts and supervises processes that outlive their parent: replicas and the
// gateway go on while the control plane is away, and a new control plane adopts them.
//
// A child has a session of its own, standard input from /dev/null, and standard output and
// error straight in a file, so that nothing ties it to its parent. What runs is known by three
// things, strongest first: the label that the process itself tells over its Unix socket, the
// lock that every run holds on its log file, and a record of pid, start time and boot. A bare
// pid is never believed.
//
// Linux is the home of the package: deaths arrive by pidfd, limits are cgroups (v1 or v2). Elsewhere deaths
// are polled for every 100 ms and limits are not enforced, which [Child.Enforced] says.
package child

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Spec says what to start.
type Spec struct {
	// Label names this run among all runs of this user on the machine. It should be an argument
	// of the process too; it is put in its environment as ZARPA_CHILD_LABEL.
	Label string
	// Path is the executable; Args are its arguments, without its own name.
	Path string
	Args []string
	// Env is the whole environment, as NAME=value. Nothing is inherited.
	Env []string
	// Dir is a directory of this run's own, made by the caller; the record is kept in it.
	Dir string
	// WorkDir is where the process runs; empty is Dir.
	WorkDir string
	Log     Log
	// Socket is the Unix socket where the process tells its label (GET /-/self). A socket that an
	// earlier run left at the path is removed. Empty: the process has none.
	Socket string
	Limits Limits
	// Cgroups enforces Limits; nil enforces none.
	Cgroups *Cgroups
}

// Child is one process that runs, or has run. All methods may be called from many goroutines.
type Child struct {
	dir     string
	record  record
	adopted bool
	proc    *process
	groups  *Cgroups

	done     chan struct{} // closed when the process is dead and exit is set
	released chan struct{}
	once     sync.Once
	watching sync.WaitGroup

	mu   sync.Mutex
	exit zarpa.Exit
}

// labelVariable carries the label in the environment of a child.
const labelVariable = "ZARPA_CHILD_LABEL"

// logCheck is how often a log is measured against its limit: at 100 MB/s, far more than a server
// prints, a log grows half a gigabyte in between.
const logCheck = 5 * time.Second

// ErrRunning is the error of [Start] when another process holds the log file: the run before has
// not ended.
var ErrRunning = errors.New("a process of an earlier run still holds the log")

// Start starts a process and returns as soon as it runs. What it is about to do is on disk
// before it does it, so that [Adopt] finds the process whenever the caller dies.
// ctx bounds the start alone, not the life of the process.
func Start(ctx context.Context, s Spec) (*Child, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	log, err := s.Log.open()
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the child keeps its own
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close() //nolint:errcheck // was not written to
	group := s.Cgroups.create(s.Label, s.Limits)
	r := record{
		Version: recordVersion, Label: s.Label, Boot: bootID(), Socket: s.Socket,
		Log: s.Log, Limits: s.Limits, Cgroups: group.dirs, Enforced: group.enforced, Started: time.Now(),
	}
	c := &Child{dir: s.Dir, record: r, groups: s.Cgroups, done: make(chan struct{}), released: make(chan struct{})}
	if err := c.launch(s, []*os.File{null, log, log}, group); err != nil {
		removeCgroups(group.dirs, ctx.Done())
		return nil, errors.Join(err, removeRecord(s.Dir))
	}
	c.watch()
	return c, nil
}

// launch writes the intent, starts the process and writes what it became.
func (c *Child) launch(s Spec, files []*os.File, group cgroup) error {
	if err := c.record.write(s.Dir); err != nil {
		return err
	}
	if s.Socket != "" {
		if err := os.Remove(s.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the socket of an earlier run: %w", err)
		}
	}
	workDir := s.WorkDir
	if workDir == "" {
		workDir = s.Dir
	}
	p, err := os.StartProcess(s.Path, append([]string{s.Path}, s.Args...), &os.ProcAttr{
		Dir:   workDir,
		Env:   append(slices.Clone(s.Env), labelVariable+"="+s.Label),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(s.Path), err)
	}
	pid := p.Pid
	group.add(pid)
	c.record.Enforced = group.enforced
	_ = p.Release() // waited for through its pidfd, as adopted processes are
	c.record.PID = pid
	c.record.StartTicks, _ = processStart(pid) // an immediate death leaves 0, which matches nothing
	if c.proc, err = openProcess(pid); err == nil {
		err = c.record.write(s.Dir)
	}
	if err != nil {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		reapNow(pid)
		return err
	}
	return nil
}

// reapNow collects a child of this process that was killed a moment ago.
func reapNow(pid int) {
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// watch sees the death of the process and keeps its log within bounds until then.
func (c *Child) watch() {
	c.watching.Go(func() {
		tick := time.NewTicker(logCheck)
		defer tick.Stop()
		for {
			select {
			case <-c.done:
				return
			case <-c.released:
				return
			case <-tick.C:
				_ = c.record.Log.Trim() // a full disk: tried again at the next tick
			}
		}
	})
	c.watching.Go(func() {
		if !c.proc.wait() {
			return // released
		}
		c.finish(c.proc.reap())
	})
}

// finish notes how the process ended and cleans up what it left.
func (c *Child) finish(status syscall.WaitStatus, known bool) {
	exit := exitOf(status, known)
	exit.At = time.Now()
	exit.OutOfMemory = outOfMemory(c.record.Cgroups) && (!known || status.Signaled())
	exit.Log = c.record.Log.Tail(tailLines)
	exit.Reason = reason(exit, crashLine(c.record.Log.end(crashBytes)), c.record.Limits)
	if c.record.Socket != "" {
		_ = os.Remove(c.record.Socket) // a new run has a path of its own or removes it itself
	}
	c.proc.close()
	_ = removeRecord(c.dir) // left behind, it would tell of this death a second time
	c.mu.Lock()
	c.exit = exit
	c.mu.Unlock()
	close(c.done)
	removeCgroups(c.record.Cgroups, c.released) // may have to wait for the last of the group to be gone
	c.groups.prune()
}

// Label is the label of the run.
func (c *Child) Label() string { return c.record.Label }

// PID is the process id; 0 when an adopted run had never come so far.
func (c *Child) PID() int { return c.record.PID }

// Started is when the process was started, by the clock of the machine.
func (c *Child) Started() time.Time { return c.record.Started }

// Socket is the path of the process's Unix socket.
func (c *Child) Socket() string { return c.record.Socket }

// Adopted tells that an earlier process of the product started it.
func (c *Child) Adopted() bool { return c.adopted }

// Enforced says in words which limits hold and which do not.
func (c *Child) Enforced() []string { return slices.Clone(c.record.Enforced) }

// Done is closed when the process is dead.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit tells how the process ended; it is complete once Done is closed. Its Ready field is not
// set: the package knows nothing of readiness.
func (c *Child) Exit() zarpa.Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exit
}

// Stop asks the process and its group to end (SIGTERM), and after grace ends them (SIGKILL). It
// returns when the process is dead; when ctx ends first, it returns ctx's error and the process
// is left as it is.
func (c *Child) Stop(ctx context.Context, grace time.Duration) error {
	c.signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	c.signal(syscall.SIGKILL)
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// signal reaches the process and its group, unless it is dead: then the pid may be another's.
func (c *Child) signal(sig syscall.Signal) {
	select {
	case <-c.done:
	default:
		c.proc.signal(sig)
	}
}

// Release stops watching and leaves the process running. The Child is of no use afterwards.
func (c *Child) Release() {
	c.once.Do(func() {
		close(c.released)
		if c.proc != nil {
			c.proc.close()
		}
	})
	c.watching.Wait()
}
