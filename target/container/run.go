package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

const (
	// againEvery is the time between two calls of an engine that does not answer.
	againEvery = time.Second
	// stopSlack is what an engine gets beyond the grace of a stop before it is asked to kill.
	stopSlack = 10 * time.Second
	// exitLines and exitTail are how much of a log is read for the reason of an end, and kept of it.
	exitLines = 500
	exitTail  = 20
)

// run is one container, from its start to its end.
type run struct {
	r     *runner
	start replica.Start
	note  note

	wake     chan struct{} // look at it now
	done     chan struct{} // closed when it has ended and exit is set
	released chan struct{}
	once     sync.Once
	exit     zarpa.Exit

	mu      sync.Mutex
	stopped bool // this driver told it to end
}

var (
	_ replica.Run    = (*run)(nil)
	_ replica.Remote = (*run)(nil)
)

// watch makes a run and watches over it until it ends or is released.
func (r *runner) watch(s replica.Start, n note) *run {
	w := &run{r: r, start: s, note: n, wake: make(chan struct{}, 1), done: make(chan struct{}), released: make(chan struct{})}
	r.mu.Lock()
	r.watched[n.Container] = w
	r.newest[s.ID] = n.Container
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	w.look()
	r.wait.Go(w.guard)
	return w
}

// look has the container looked at.
func (w *run) look() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// guard looks whenever it is woken. An engine that does not answer says nothing about the container: the next
// look is when it is back.
func (w *run) guard() {
	defer func() {
		w.r.mu.Lock()
		if w.r.watched[w.note.Container] == w {
			delete(w.r.watched, w.note.Container)
		}
		w.r.mu.Unlock()
	}()
	for {
		select {
		case <-w.wake:
			if exit, ended := w.ended(); ended {
				w.exit = exit
				close(w.done)
				return
			}
		case <-w.released:
			return
		case <-w.r.ctx.Done():
			return
		}
	}
}

// ended asks the engine whether the run is over, and how it ended.
func (w *run) ended() (zarpa.Exit, bool) {
	i, err := w.r.inspect(w.r.ctx, w.note.Container)
	switch {
	case gone(err):
		return zarpa.Exit{At: w.r.o.Now(), Code: -1, Unknown: true, Reason: "its container was removed from outside"}, true
	case err != nil:
		if !unreachable(err) {
			w.r.o.Log.Warn("a container cannot be looked at", "replica", w.start.ID, "container", w.note.Container, "error", err)
		}
		return zarpa.Exit{}, false
	case !w.note.Started.Equal(when(i.State.StartedAt)) && !i.State.Restarting:
		return zarpa.Exit{At: w.r.o.Now(), Code: -1, Unknown: true, Reason: "it ended, and the engine started it again"}, true
	case i.State.Running && !i.State.Restarting, i.State.Status == container.StatePaused:
		return zarpa.Exit{}, false
	case i.State.Status == container.StateRemoving:
		return zarpa.Exit{At: w.r.o.Now(), Code: -1, Unknown: true, Reason: "its container was removed from outside"}, true
	}
	return w.autopsy(i), true
}

// autopsy says how a dead container ended.
func (w *run) autopsy(i container.InspectResponse) zarpa.Exit {
	exit := zarpa.Exit{At: when(i.State.FinishedAt), Code: i.State.ExitCode, OutOfMemory: i.State.OOMKilled}
	if exit.At.IsZero() {
		exit.At = w.r.o.Now()
	}
	if n := exit.Code - 128; n > 0 && n < 65 {
		if name := unix.SignalName(syscall.Signal(n)); name != "" {
			exit.Code, exit.Signal = -1, name
		}
	}
	ctx, cancel := context.WithTimeout(w.r.ctx, w.r.o.CallTimeout)
	defer cancel()
	var lines []string
	err := w.r.read(ctx, w.note.Container, reading{tail: exitLines}, func(line string) error {
		lines = append(lines, line)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		w.r.o.Log.Warn("the log of a dead container cannot be read", "replica", w.start.ID, "error", err)
	}
	exit.Log = slices.Clone(lines[max(0, len(lines)-exitTail):])
	for n, line := range exit.Log {
		exit.Log[n] = cut(line)
	}
	limit := zarpa.Bytes(i.HostConfig.Memory)
	killed := exit.Signal == "SIGKILL" && limit > 0 && !exit.OutOfMemory && !w.wasStopped()
	exit.OutOfMemory = exit.OutOfMemory || killed && w.r.known().podman()
	exit.Reason = child.Reason(exit, strings.Join(lines, "\n"), child.Limits{Memory: limit})
	switch {
	case killed && exit.OutOfMemory:
		exit.Reason = fmt.Sprintf("probably out of memory: exit 137 under a limit of %v", limit)
	case killed:
		exit.Reason = fmt.Sprintf("killed from outside, or out of memory, which the engine denies: exit 137 under a limit of %v", limit)
	case i.State.Error != "":
		exit.Reason = w.r.answered("run the container", fmt.Errorf("%s", i.State.Error)).Error()
	}
	return exit
}

// maxLogLine bounds a line of an exit.
const maxLogLine = 2 << 10

func cut(line string) string {
	if len(line) <= maxLogLine {
		return line
	}
	return strings.ToValidUTF8(line[:maxLogLine], "") + "…"
}

func (w *run) wasStopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped
}

// Info is [replica.Run].Info.
func (w *run) Info() replica.Info {
	return replica.Info{Address: w.note.Address, PID: w.note.PID, Container: w.note.Container, Started: w.note.Started, Enforced: w.note.Enforced}
}

// Away is [replica.Remote].Away.
func (w *run) Away() bool { return w.r.away() != nil }

// Done is [replica.Run].Done.
func (w *run) Done() <-chan struct{} { return w.done }

// Exit is [replica.Run].Exit.
func (w *run) Exit() zarpa.Exit { return w.exit }

// Stop is [replica.Run].Stop. While the engine is away it tries again every second.
func (w *run) Stop(ctx context.Context, grace time.Duration) error {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	kill := false
	for {
		err := w.ask(ctx, grace, kill)
		w.look()
		if err != nil && ctx.Err() == nil && !unreachable(err) && !gone(err) {
			w.r.o.Log.Warn("a container cannot be stopped yet", "replica", w.start.ID, "container", w.note.Container, "error", err)
		}
		late := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil // it took the call, or may have
		kill = kill || err == nil || late || !unreachable(err)
		timer := time.NewTimer(againEvery)
		select {
		case <-w.done:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// ask asks the engine to stop the container, or to kill it. It returns when the run has ended, at the latest.
func (w *run) ask(ctx context.Context, grace time.Duration, kill bool) error {
	ctx, cancel := context.WithTimeout(ctx, grace+w.r.slack)
	defer cancel()
	answered := make(chan error, 1)
	go func() { // ends with ctx
		var err error
		if kill {
			_, err = w.r.engine.ContainerKill(ctx, w.note.Container, client.ContainerKillOptions{Signal: "SIGKILL"})
		} else {
			seconds := int((grace + time.Second - 1) / time.Second)
			_, err = w.r.engine.ContainerStop(ctx, w.note.Container, client.ContainerStopOptions{Timeout: &seconds})
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		return err
	case <-w.done:
		return nil
	}
}

// Release is [replica.Run].Release. An end that was told is noted, so that it is not told again.
func (w *run) Release() {
	w.once.Do(func() { close(w.released) })
	select {
	case <-w.done:
		n := w.note
		n.Ended = true
		if readNote(w.start.Dir).Container != n.Container {
			return // another run is noted already
		}
		if err := n.save(w.start.Dir); err != nil {
			w.r.o.Log.Warn("the end of a run cannot be noted", "replica", w.start.ID, "error", err)
		}
	default:
	}
}
