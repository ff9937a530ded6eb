package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// runner starts and finds the processes of replicas.
type runner struct {
	o       Options
	sockets string
	groups  *child.Cgroups

	// mu keeps a log in its place while it is opened, and guards newest. It is held over renaming and
	// opening, not over reading.
	mu sync.Mutex
	// newest is the newest run of each replica, by ID; nil while one is being started.
	newest map[string]*child.Child
}

var _ replica.Runner = (*runner)(nil)

const runIDLen = 10 // 50 random bits

func socketName(run string) string { return fmt.Sprintf("%-*s.sock", runIDLen, run) }

// ScoreArgs are the arguments of `zarpa score` for a replica.
func ScoreArgs(s ReplicaStart) []string {
	return append([]string{"score", "--bundle", s.Bundle, "--listen", s.Listen}, replica.ScoreArgs(s.Deployment, s.Label, s.Work)...)
}

// inherited are the variables that a replica gets from the control plane: what programs need to
// find themselves. Secrets of the control plane are not among them.
func inherited() []string {
	return []string{"PATH", "HOME", "LANG", "TMPDIR", "TZ", "ZARPA_ONNXRUNTIME", "LD_LIBRARY_PATH"}
}

// environment is the inherited variables and those of the deployment, which win.
func environment(environ []string, extra map[string]string) []string {
	var out []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if _, replaced := extra[name]; !replaced && slices.Contains(inherited(), name) {
			out = append(out, v)
		}
	}
	for name, value := range extra {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

func (r *runner) log(s replica.Start, previous bool) child.Log {
	name := "current.log"
	if previous {
		name = "previous.log"
	}
	return child.Log{Path: filepath.Join(s.Dir, name), Limit: r.o.LogLimit}
}

func (r *runner) Start(ctx context.Context, s replica.Start) (replica.Run, error) {
	bundle, err := r.o.Bundles(ctx, s.Deployment.Bundle)
	if err != nil {
		return nil, fmt.Errorf("the bundle cannot be had: %w", err)
	}
	env, err := r.environ(ctx, s)
	if err != nil {
		return nil, err
	}
	log := r.log(s, false)
	if err := r.keep(s); err != nil {
		return nil, failure(err)
	}
	run := strings.ToLower(rand.Text()[:runIDLen])
	start := ReplicaStart{ID: s.ID, Deployment: s.Deployment, Label: s.ID + "." + run, Bundle: bundle, Work: filepath.Join(s.Dir, "work")}
	socket := filepath.Join(r.sockets, socketName(run))
	start.Listen = "unix:" + socket
	c, err := child.Start(ctx, child.Spec{
		Label: start.Label, Path: r.o.Executable, Args: r.o.Args(start),
		Env: env, Dir: s.Dir, Log: log, Socket: socket,
		Limits: child.Limits{CPU: s.Deployment.Spec.CPU, Memory: s.Deployment.Spec.Memory}, Cgroups: r.groups,
	})
	if err != nil {
		return nil, failure(err)
	}
	r.began(s, c)
	return process{c}, nil
}

// keep moves the log of the run that has ended out of the way of the next.
func (r *runner) keep(s replica.Start) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.log(s, false).Keep(r.log(s, true).Path); err != nil {
		return err
	}
	r.newest[s.ID] = nil
	return nil
}

func (r *runner) began(s replica.Start, c *child.Child) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest[s.ID] = c
}

// open opens the log of the newest run or, with previous, of the newest that has ended.
func (r *runner) open(s replica.Start, previous bool) (*child.LogReader, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log(s, previous && !r.newestEnded(s)).Open()
}

// newestEnded reports whether the log in the place of the newest run's is that of a run that has
// ended. It needs mu.
func (r *runner) newestEnded(s replica.Start) bool {
	c, known := r.newest[s.ID]
	switch {
	case !known: // an earlier process ran it, and it was gone when this one came
		_, err := os.Stat(r.log(s, false).Path)
		return err == nil
	case c == nil:
		return false
	}
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// failure says why no process could be started and what to do.
func failure(err error) error {
	e := zarpa.Errorf(zarpa.Unavailable, "the replica's process cannot be started: %w", err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return e.WithHint("the disk of the data directory is full: free some space")
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return e.WithHint("a limit on processes, files or memory of this user is reached")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return e.WithHint("see that the zarpa program is in its place and the data directory is writable")
	}
	return e
}

func (r *runner) Find(ctx context.Context, s replica.Start) (replica.Run, error) {
	c, err := child.Adopt(ctx, s.Dir, r.groups)
	if err != nil {
		return nil, err
	}
	r.began(s, c)
	return process{c}, nil
}

// Forget has little to do: the socket went with its process, the rest with the directory.
func (r *runner) Forget(s replica.Start) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.newest, s.ID)
}

func (r *runner) Lines(ctx context.Context, s replica.Start, q replica.LogRead, emit func(string) error) error {
	log, err := r.open(s, q.Previous)
	if err != nil {
		return err
	}
	return log.Lines(ctx, child.LogRead{Tail: q.Tail, Follow: q.Follow, Gone: q.Gone}, emit)
}

// process is one run. Stop, Done, Exit and Release are the child's.
type process struct{ *child.Child }

func (p process) Info() replica.Info {
	return replica.Info{Address: "unix:" + p.Socket(), PID: p.PID(), Started: p.Started(), Enforced: p.Enforced()}
}
