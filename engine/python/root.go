package python

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/zarpa-dev/zarpa"
)

// root is the tree of processes of one session: it starts workers, from the root process or from the
// zygote where there is one.
type root struct {
	opts     *Options
	settings settings
	log      *slog.Logger
	cmd      *exec.Cmd
	out      *output
	orphans  func(*worker)
	*nursery
	listening sync.WaitGroup

	gate   chan struct{} // holds a token while a worker loads that may become the zygote
	zygote *nursery      // belongs to who holds the gate
	unsafe bool          // a worker said that it must not be forked; belongs to who holds the gate
	last   int           // the number of the last worker; belongs to who holds the gate
}

// threadVariables are what the numerical libraries read the size of their pools from.
var threadVariables = []string{
	"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
	"NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
}

// environment adds to the workers' environment how many threads each may use: pools of one size per
// machine in every worker would fight for it, and only a process of one thread can be forked.
func environment(o *Options) []string {
	threads := o.Threads
	if threads <= 0 {
		threads = max(1, runtime.GOMAXPROCS(0)/o.Workers)
	}
	set := map[string]bool{}
	env := make([]string, 0, len(o.Env)+len(threadVariables))
	for _, v := range o.Env {
		name, _, _ := strings.Cut(v, "=")
		set[name] = true
		env = append(env, v)
	}
	for _, name := range threadVariables {
		if !set[name] {
			env = append(env, name+"="+strconv.Itoa(threads))
		}
	}
	return env
}

// startRoot starts the root process in a group of its own, so that all that it leads to can be ended.
func startRoot(python, program string, opts *Options, what settings) (*root, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer closeAll([]*os.File{theirs})
	out, pipes, err := newOutput(opts.Log.With("worker", 0))
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	defer closeAll(pipes)
	cmd := exec.Command(python, filepath.Join(program, "__main__.py")) //nolint:noctx // it lives as long as the session, not its start
	cmd.Stdout, cmd.Stderr = pipes[0], pipes[1]
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = environment(opts)
	cmd.Dir = what.Code
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		out.close()
		return nil, err
	}
	r := &root{
		opts: opts, settings: what, log: opts.Log, cmd: cmd, out: out, nursery: newNursery(conn),
		gate: make(chan struct{}, 1),
	}
	r.listening.Go(r.listen)
	return r, nil
}

// start makes one more worker and waits until it has loaded. Errors: those of the load, model_error
// when the process died meanwhile, and ctx's.
func (r *root) start(ctx context.Context) (*worker, error) {
	select {
	case r.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, zarpa.AsError(ctx.Err())
	}
	w, err := r.fork(ctx)
	<-r.gate
	if err != nil {
		return nil, err
	}
	if err := w.greet(ctx); err != nil {
		w.kill(reasonClosed)
		r.listening.Go(w.end)
		return nil, err
	}
	return w, nil
}

// fork asks for a worker; the caller holds the gate. Where the zygote is not made yet it is made, or
// turns out to be impossible, before fork returns: then the next one knows.
func (r *root) fork(ctx context.Context) (*worker, error) {
	conn, data, err := socketPair()
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Internal, "python: make a worker's socket: %w", err)
	}
	r.last++
	log := r.log.With("worker", r.last)
	out, pipes, err := newOutput(log)
	if err != nil {
		_, _ = conn.Close(), data.Close()
		return nil, zarpa.Errorf(zarpa.Internal, "python: make a worker's pipes: %w", err)
	}
	w := &worker{
		id: r.last, limits: r.opts, conn: conn, in: bufio.NewReaderSize(conn, 64<<10), out: out, onOrphaned: r.orphans,
		exited: make(chan struct{}), done: make(chan struct{}),
	}
	files := append([]*os.File{data}, pipes...)
	err = r.forkFrom(ctx, w, files)
	if err != nil {
		w.lost(reasonClosed)
		_ = conn.Close()
		out.close()
	}
	return w, err
}

func (r *root) forkFrom(ctx context.Context, w *worker, files []*os.File) error {
	defer func() { closeAll(files) }()
	if z := r.zygote; z != nil {
		w.parent.Store(z)
		if z.start(w, order{}, files) == nil {
			return nil
		}
		r.zygote = nil // it died; another is made
	}
	w.parent.Store(r.nursery)
	o := order{Settings: &r.settings, Preload: r.opts.Preload}
	if r.opts.Preload == zarpa.PreloadNever || r.unsafe {
		return lostRoot(r.nursery.start(w, o, files))
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return zarpa.Errorf(zarpa.Internal, "python: make a worker's socket: %w", err)
	}
	files = append(files, theirs)
	z := newNursery(conn)
	z.loading, z.from = w, r.nursery
	if err := r.nursery.start(w, o, files); err != nil {
		_ = conn.Close()
		return lostRoot(err)
	}
	closeAll(files)
	files = nil
	r.listening.Go(z.listen)
	return r.settle(ctx, w, z)
}

// settle waits for what a worker that loads says of itself.
func (r *root) settle(ctx context.Context, w *worker, z *nursery) error {
	var said event
	select {
	case said = <-z.verdict:
	case <-z.lost: // it could not load, or its verdict was the last word
		select {
		case said = <-z.verdict:
		default:
		}
	case <-ctx.Done():
		w.kill(reasonClosed)
		return zarpa.AsError(ctx.Err())
	}
	switch said.Event {
	case "zygote":
		r.zygote = z
		r.log.Info("workers are forked from one that has loaded, and share its memory")
	case "unsafe":
		r.unsafe = true
		r.log.Info("every worker loads for itself: it cannot be forked after it has loaded", "reason", said.Why)
	}
	return nil
}

func lostRoot(err error) error {
	if err == nil {
		return nil
	}
	return zarpa.Errorf(zarpa.Unavailable, "the Python process that starts workers has ended").Because(err)
}

// explain is the error of a start; where the root itself has ended, the interpreter is why.
func (r *root) explain(err error) error {
	select {
	case <-r.lost:
	default:
		return err
	}
	r.out.close() // reads what is left
	return zarpa.Errorf(zarpa.Unavailable, "the interpreter %s ended by itself: %s", r.cmd.Path, bounded(r.out.last())).
		Because(err).WithHint("name an interpreter of Python 3.8 or newer")
}

// close ends every process of the session: the root kills its group when its socket ends, and what it
// may have left is killed by the group's number, which stays taken while the root is not waited for.
func (r *root) close() {
	_ = r.conn.Close() // what it says does not count any more
	if r.zygote != nil {
		_ = r.zygote.conn.Close()
	}
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	err := r.cmd.Wait() // killed, by itself or by us
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		r.log.Error("wait for the Python process", "error", err)
	}
	r.listening.Wait()
	r.out.close()
}
