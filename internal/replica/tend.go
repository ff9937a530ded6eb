package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// hangGrace is what a replica that hangs gets between SIGTERM and SIGKILL.
const hangGrace = 2 * time.Second

// tend watches over one run until it dies, the replica shall end, or the set is closed. It
// returns how the run ended and how long it had been ready.
func (l *slot) tend(ctx context.Context, run Run) (zarpa.Exit, time.Duration, verdict) {
	alive, release := until(ctx, l.halted)
	defer release()
	watching, release := until(alive, run.Done())
	defer release()
	p := newProber(run.Info().Address, l.set.o.Probes.Timeout)
	defer p.close()
	t := tender{slot: l, run: run, probe: p, probes: l.set.o.Probes}
	l.set.mu.Lock()
	if l.note.Ready { // taken over
		t.readySince = run.Info().Started.Add(time.Duration(l.note.Loaded))
	}
	l.set.mu.Unlock()
	why := ""
	if t.readySince.IsZero() {
		why = t.load(watching)
	}
	if why == "" {
		why = t.guard(watching)
	}
	v := t.verdict(ctx)
	if why != "" && v == died {
		if err := run.Stop(ctx, hangGrace); err != nil {
			return zarpa.Exit{}, 0, closed
		}
	}
	var ready time.Duration
	if !t.readySince.IsZero() {
		ready = l.set.o.Now().Sub(t.readySince)
	}
	if v != died {
		return zarpa.Exit{}, ready, v
	}
	exit := run.Exit()
	if why != "" {
		exit.Reason = why
	}
	return exit, ready, died
}

// tender watches over one run.
type tender struct {
	slot       *slot
	run        Run
	probe      *prober
	probes     Probes
	readySince time.Time // zero until it was ready
}

// verdict tells what ended the watch; a run that the probes condemned counts as dead.
func (t *tender) verdict(ctx context.Context) verdict {
	select {
	case <-t.run.Done():
		select {
		case <-t.slot.halted:
			return halted
		default:
			return died
		}
	default:
	}
	if ctx.Err() != nil {
		return closed
	}
	select {
	case <-t.slot.halted:
		return halted
	default:
		return died
	}
}

// load looks until the replica is ready. It returns why the run must be killed, or "" when it is
// ready or ctx has ended.
func (t *tender) load(ctx context.Context) string {
	limit := time.Duration(t.slot.wanted().StartTimeout)
	deadline := t.run.Info().Started.Add(limit)
	for pause := t.probes.First; ; pause = min(pause*3/2, t.probes.Slowest) {
		err := t.probe.ready(ctx)
		if ctx.Err() != nil {
			return ""
		}
		now := t.slot.set.o.Now()
		if err == nil {
			t.readySince = now
			t.slot.change(true, func() {
				t.slot.phase, t.slot.message = zarpa.ReplicaReady, ""
				t.slot.note.Ready = true
				t.slot.note.Loaded = zarpa.Duration(now.Sub(t.run.Info().Started).Round(time.Microsecond))
			})
			return ""
		}
		if limit > 0 && now.After(deadline) && !t.away() {
			return fmt.Sprintf("it was not ready within its start_timeout of %v: %v", zarpa.Duration(limit), err)
		}
		if !pauseFor(ctx, pause) {
			return ""
		}
	}
}

// guard looks after a replica that has been ready once. It returns why the run must be killed, or ""
// when ctx has ended.
func (t *tender) guard(ctx context.Context) string {
	every, deaf, listened := t.probes.Every, 0, t.slot.set.o.Now()
	t.slot.set.mu.Lock()
	if t.slot.phase != zarpa.ReplicaReady {
		every = t.probes.Return
	}
	t.slot.set.mu.Unlock()
	for pauseFor(ctx, every) {
		err := t.probe.ready(ctx)
		if ctx.Err() != nil {
			return ""
		}
		t.mark(err)
		if err == nil {
			every, deaf = t.probes.Every, 0
			continue
		}
		every = min(t.probes.Return, t.probes.Every)
		if now := t.slot.set.o.Now(); now.Sub(listened) >= t.probes.Every {
			listened = now
			deaf++
			if live := t.probe.live(ctx); live == nil || t.away() {
				deaf = 0
			} else if deaf >= t.probes.Deaf && ctx.Err() == nil {
				return fmt.Sprintf("it failed %d liveness probes in a row: %v", deaf, live)
			}
		}
	}
	return ""
}

// away tells whether what runs it cannot be asked now.
func (t *tender) away() bool {
	r, ok := t.run.(Remote)
	return ok && r.Away()
}

// mark sets the phase by an answer to the readiness probe.
func (t *tender) mark(err error) {
	phase, message := zarpa.ReplicaReady, ""
	if err != nil {
		phase, message = zarpa.ReplicaUnready, err.Error()
	}
	t.slot.set.mu.Lock()
	same := t.slot.phase == phase && t.slot.message == message
	t.slot.set.mu.Unlock()
	if !same {
		t.slot.change(false, func() { t.slot.phase, t.slot.message = phase, message })
	}
}

// until derives a context that ends when ch is closed, too. The returned function must be called.
func until(ctx context.Context, ch <-chan struct{}) (context.Context, func()) {
	derived, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ch:
			cancel()
		case <-derived.Done():
		}
	})
	return derived, func() {
		cancel()
		wg.Wait()
	}
}

// pauseFor returns false when ctx ended first.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
