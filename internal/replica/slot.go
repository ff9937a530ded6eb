package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// slot is one replica: a place that runs come and go in. Its goroutine (live) alone starts and ends
// runs and changes the note, but for the mark that it is to be replaced.
type slot struct {
	set      *Set
	dep      *deployment
	revision string
	halted   chan struct{} // closed when it shall end
	gone     chan struct{} // closed when it is forgotten
	hurry    chan struct{} // told that the next start is due now
	// noting is held from a change to the disk's knowing of it, so that notes arrive in order. It is taken
	// before Set.mu.
	noting sync.Mutex

	// guarded by Set.mu
	note     note
	phase    zarpa.ReplicaPhase
	info     Info
	message  string
	exposed  bool
	stopping bool
}

func newSlot(s *Set, dep *deployment, n note) *slot {
	return &slot{
		set: s, dep: dep, note: n, revision: n.Deployment.Revision(), phase: zarpa.ReplicaStarting,
		halted: make(chan struct{}), gone: make(chan struct{}), hurry: make(chan struct{}, 1),
	}
}

// adopt makes the deployments and slots that the notes tell of, finds their runs, all at once,
// and lets them live on.
func (s *Set) adopt(ctx context.Context) error {
	wishes, replicas, err := s.notes.load()
	if err != nil {
		return err
	}
	for _, w := range wishes {
		dep := s.deployment(w.Deployment.Key())
		dep.want, dep.removed = w.Deployment, w.Removed
	}
	var wg sync.WaitGroup
	slots, runs, errs := make([]*slot, len(replicas)), make([]Run, len(replicas)), make([]error, len(replicas))
	for i, n := range replicas {
		dep := s.deployment(n.Deployment.Key())
		if dep.want.Endpoint == "" { // a replica that nobody wishes for
			dep.want, dep.removed = n.Deployment, true
		}
		slots[i] = newSlot(s, dep, n)
		dep.slots = append(dep.slots, slots[i])
		wg.Go(func() { runs[i], errs[i] = slots[i].find(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, run := range runs {
			if run != nil {
				run.Release()
			}
		}
		return err
	}
	for i, l := range slots {
		if l.note.Stopping || l.dep.removed {
			l.stopping = true
			close(l.halted)
		}
		s.live(l, runs[i])
	}
	for _, dep := range s.deployments {
		if len(dep.slots) == 0 && dep.removed {
			delete(s.deployments, dep.key)
			if err := s.notes.forgetWish(dep.key); err != nil {
				return err
			}
		}
	}
	return nil
}

// find finds the run that an earlier process left in the slot, nil when there is none, and sets
// the phase: what was ready and lives is ready, unless it says that it is not.
func (l *slot) find(ctx context.Context) (Run, error) {
	run, err := l.set.o.Runner.Find(ctx, l.start())
	if errors.Is(err, fs.ErrNotExist) {
		if !l.note.Next.IsZero() {
			l.phase = zarpa.ReplicaBackoff
		}
		return nil, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("take over replica %s: %w", l.note.ID, ctx.Err())
	}
	if err != nil { // one strange replica must not keep the others from being taken over
		l.set.o.Log.Warn("a replica cannot be taken over", "replica", l.note.ID, "error", err)
		l.phase, l.message = zarpa.ReplicaBackoff, err.Error()
		return nil, nil
	}
	l.info, l.phase = run.Info(), zarpa.ReplicaLoading
	select {
	case <-run.Done():
		return run, nil
	default:
	}
	p := newProber(l.info.Address, l.set.o.Probes.Timeout)
	defer p.close()
	if err := p.ready(ctx); err == nil {
		l.phase, l.note.Ready = zarpa.ReplicaReady, true
	} else if l.note.Ready {
		l.phase, l.message = zarpa.ReplicaUnready, err.Error()
	}
	l.exposed = l.note.Ready // an earlier process may have made routes to it
	return run, nil
}

func (l *slot) start() Start {
	return Start{ID: l.note.ID, Deployment: l.note.Deployment, Dir: l.set.notes.replicaDir(l.note.ID)}
}

// halt begins the end of the replica. The caller holds the deployment's serial lock.
func (l *slot) halt() {
	l.set.mu.Lock()
	if l.stopping {
		l.set.mu.Unlock()
		return
	}
	l.stopping = true
	l.set.mu.Unlock()
	close(l.halted)
}

// observe is the replica as users see it. It needs mu.
func (l *slot) observe(leaving bool) zarpa.Replica {
	r := zarpa.Replica{
		ID: l.note.ID, Revision: l.revision, Phase: l.phase, Restarts: max(0, l.note.Runs-1), Last: l.note.Last, Message: l.message,
		Address: l.info.Address, PID: l.info.PID, Container: l.info.Container, Started: l.info.Started, Loaded: l.note.Loaded,
	}
	switch {
	case leaving:
		r.Phase = zarpa.ReplicaDraining
	case l.phase == zarpa.ReplicaBackoff:
		r.NextStart = l.note.Next
	}
	l.exposed = r.Phase == zarpa.ReplicaReady
	return r
}

// change changes the slot's state, notes it on disk when the note changed, and tells. A note
// that cannot be written is said in the log: the replica goes on.
func (l *slot) change(write bool, f func()) {
	if err := l.alter(write, f); err != nil {
		l.set.o.Log.Warn("the state of a replica cannot be noted", "replica", l.note.ID, "error", err)
	}
}

// alter is change with its error.
func (l *slot) alter(write bool, f func()) error {
	l.noting.Lock()
	defer l.noting.Unlock()
	l.set.mu.Lock()
	f()
	n := l.note
	l.set.mu.Unlock()
	l.set.tell(l.dep.key)
	if !write {
		return nil
	}
	return l.set.notes.save(n)
}

// wanted is the newest version of what the replica was made for: timeouts may have changed.
func (l *slot) wanted() zarpa.DeploymentSpec {
	l.set.mu.Lock()
	defer l.set.mu.Unlock()
	return l.dep.want.Spec
}

// verdict is why tending a run came to an end.
type verdict int

const (
	died   verdict = iota // the run is over
	halted                // the replica shall end
	closed                // the set is closed: leave it
)

// live is the replica's whole life: it returns when the replica is gone or the set is closed.
func (l *slot) live(ctx context.Context, run Run) {
	for {
		if run == nil {
			if v := l.rest(ctx); v == closed {
				return
			} else if v == halted {
				l.forget()
				return
			}
			var err error
			if run, err = l.begin(ctx); err != nil {
				l.mourn(zarpa.Exit{At: l.set.o.Now(), Code: -1, Reason: err.Error()}, 0)
				continue
			}
		}
		exit, ready, v := l.tend(ctx, run)
		switch v {
		case closed:
			run.Release()
			return
		case halted:
			l.retire(ctx, run)
			return
		case died:
			run.Release()
			l.mourn(exit, ready)
			run = nil
		}
	}
}

// rest waits until the next start is due (died), unless something else comes first.
func (l *slot) rest(ctx context.Context) verdict {
	select { // an end that is due comes before a start that is due
	case <-ctx.Done():
		return closed
	case <-l.halted:
		return halted
	default:
	}
	l.set.mu.Lock()
	wait := l.note.Next.Sub(l.set.o.Now())
	l.set.mu.Unlock()
	timer := time.NewTimer(max(0, wait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return died
	case <-l.hurry:
		return died
	case <-l.halted:
		return halted
	case <-ctx.Done():
		return closed
	}
}

// Hurry starts what waits for its next start at once: what was in the way is gone. The delays grow on from where
// they were.
func (s *Set) Hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.deployments {
		for _, l := range d.slots {
			if l.phase == zarpa.ReplicaBackoff {
				select {
				case l.hurry <- struct{}{}:
				default: // told already
				}
			}
		}
	}
}

// begin starts a run.
func (l *slot) begin(ctx context.Context) (Run, error) {
	select { // what was told before is done by this
	case <-l.hurry:
	default:
	}
	l.change(false, func() {
		l.phase, l.info = zarpa.ReplicaStarting, Info{}
		l.note.Runs++
		l.note.Next, l.note.Ready, l.note.Loaded = time.Time{}, false, 0
	})
	starting, release := until(ctx, l.halted)
	defer release()
	run, err := l.set.o.Runner.Start(starting, l.start())
	if err != nil {
		return nil, err
	}
	l.change(true, func() { l.phase, l.info = zarpa.ReplicaLoading, run.Info() })
	return run, nil
}

// mourn notes how a run ended and when the next begins. ready is how long it had been ready.
func (l *slot) mourn(exit zarpa.Exit, ready time.Duration) {
	l.change(true, func() {
		if ready >= l.set.o.Backoff.Reset {
			l.note.Deaths = 0
		}
		exit.Ready = l.note.Ready
		l.note.Deaths++
		l.note.Last, l.note.Ready, l.note.Loaded = &exit, false, 0
		l.note.Next = l.set.o.Now().Add(l.set.o.Backoff.delay(l.note.Deaths))
		l.phase, l.message = zarpa.ReplicaBackoff, exit.Reason
		l.info = Info{Enforced: l.info.Enforced}
	})
}

// stopSlack is what a run gets beyond its drain timeout to end by itself.
const stopSlack = time.Second

// lastCall is the pause between the decision to stop a replica and telling it. Its routes are
// gone, but a request that took them a moment before may not have reached it; a server that
// closes its socket then drops the connections it has not yet accepted.
const lastCall = 100 * time.Millisecond

// retire ends the run and the replica.
func (l *slot) retire(ctx context.Context, run Run) {
	served := false
	l.change(true, func() { l.note.Stopping, served = true, l.note.Ready })
	if served {
		alive, release := until(ctx, run.Done())
		pauseFor(alive, lastCall)
		release()
	}
	err := run.Stop(ctx, time.Duration(l.wanted().DrainTimeout)+stopSlack)
	run.Release()
	if err == nil {
		l.forget()
	}
}

// forget ends the replica.
func (l *slot) forget() {
	l.set.o.Runner.Forget(l.start())
	if err := l.set.notes.forget(l.note.ID); err != nil {
		l.set.o.Log.Warn("the directory of a replica stays", "replica", l.note.ID, "error", err)
	}
	l.dep.serial.Lock()
	defer l.dep.serial.Unlock()
	l.set.mu.Lock()
	for i, other := range l.dep.slots {
		if other == l {
			l.dep.slots = append(l.dep.slots[:i:i], l.dep.slots[i+1:]...)
			break
		}
	}
	l.set.mu.Unlock()
	close(l.gone)
	l.set.tell(l.dep.key)
	l.set.tidy(l.dep)
}
