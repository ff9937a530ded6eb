package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
}

var _ replica.Runner = (*runner)(nil)

const runIDLen = 10 // 50 random bits

func socketName(run string) string { return fmt.Sprintf("%-*s.sock", runIDLen, run) }

// ScoreArgs are the arguments of `zarpa score` for a replica. An unlimited cpu leaves the number
// of threads to the engine.
func ScoreArgs(s ReplicaStart) []string {
	spec := s.Deployment.Spec
	args := []string{
		"score", "--bundle", s.Bundle, "--listen", s.Listen, "--label", s.Label,
		"--endpoint", s.Deployment.Endpoint, "--deployment", spec.Name,
	}
	option := func(set bool, name, value string) {
		if set {
			args = append(args, name, value)
		}
	}
	option(spec.MaxConcurrency > 0, "--max-concurrency", strconv.Itoa(spec.MaxConcurrency))
	option(spec.CPU > 0, "--threads", strconv.Itoa(int(math.Ceil(float64(spec.CPU)))))
	option(s.Deployment.Request.Timeout > 0, "--request-timeout", s.Deployment.Request.Timeout.String())
	option(s.Deployment.Request.MaxBody > 0, "--max-body", s.Deployment.Request.MaxBody.String())
	option(spec.DrainTimeout > 0, "--drain-timeout", spec.DrainTimeout.String())
	return args
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
	log := r.log(s, false)
	if err := log.Keep(r.log(s, true).Path); err != nil {
		return nil, failure(err)
	}
	run := strings.ToLower(rand.Text()[:runIDLen])
	start := ReplicaStart{ID: s.ID, Deployment: s.Deployment, Label: s.ID + "." + run, Bundle: bundle}
	socket := filepath.Join(r.sockets, socketName(run))
	start.Listen = "unix:" + socket
	c, err := child.Start(ctx, child.Spec{
		Label: start.Label, Path: r.o.Executable, Args: r.o.Args(start),
		Env: environment(r.o.Environ, s.Deployment.Spec.Env), Dir: s.Dir, Log: log, Socket: socket,
		Limits: child.Limits{CPU: s.Deployment.Spec.CPU, Memory: s.Deployment.Spec.Memory}, Cgroups: r.groups,
	})
	if err != nil {
		return nil, failure(err)
	}
	return process{c}, nil
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
	return process{c}, nil
}

// Forget has nothing to do: the socket went with its process, the rest with the directory.
func (r *runner) Forget(replica.Start) {}

func (r *runner) Lines(ctx context.Context, s replica.Start, q replica.LogRead, emit func(string) error) error {
	return r.log(s, q.Previous).Lines(ctx, child.LogRead{Tail: q.Tail, Follow: q.Follow, Gone: q.Gone}, emit)
}

// process is one run. Stop, Done, Exit and Release are the child's.
type process struct{ *child.Child }

func (p process) Info() replica.Info {
	return replica.Info{Address: "unix:" + p.Socket(), PID: p.PID(), Started: p.Started(), Enforced: p.Enforced()}
}
