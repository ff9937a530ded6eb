package container

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/moby/moby/client"
)

// lookEvery is the time between two looks at all runs, should an event have been lost.
const lookEvery = 15 * time.Second

// watchEvents wakes the runs that the engine tells of, until ctx ends. When the stream breaks, the engine may be
// away: it is called again every second, and every run is looked at when it is back.
func (r *runner) watchEvents(ctx context.Context) {
	for ctx.Err() == nil {
		_, err := r.ask(ctx)
		if err == nil {
			err = r.follow(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		r.setAway(err)
		r.engine.Close() //nolint:errcheck // idle connections of an engine that is gone
		timer := time.NewTimer(againEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// follow reads events until the stream ends.
func (r *runner) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := r.engine.Events(ctx, client.EventsListOptions{Filters: r.own().Add("type", "container")})
	r.setAway(nil)
	r.lookAtAll()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-stream.Messages:
			r.mu.Lock()
			w := r.watched[e.Actor.ID]
			r.mu.Unlock()
			if w != nil {
				w.look()
			}
		case err := <-stream.Err:
			if err == nil {
				err = errors.New("the stream of events ended")
			}
			return r.failure("tell what happens", err)
		case <-tick.C:
			if err := r.lookForDead(ctx); err != nil {
				return err
			}
		}
	}
}

func (r *runner) lookAtAll() {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.watched))
	r.mu.Unlock()
	for _, w := range all {
		w.look()
	}
}

// lookForDead looks at those that one call does not tell to be running.
func (r *runner) lookForDead(ctx context.Context) error {
	all, err := r.list(ctx, "")
	if err != nil {
		return err
	}
	running := map[string]bool{}
	for _, c := range all {
		running[c.ID] = c.State == "running"
	}
	r.mu.Lock()
	var dead []*run
	for id, w := range r.watched {
		if !running[id] {
			dead = append(dead, w)
		}
	}
	r.mu.Unlock()
	for _, w := range dead {
		w.look()
	}
	return nil
}

// away says why the engine cannot be reached, nil when it can.
func (r *runner) away() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

func (r *runner) setAway(err error) {
	r.mu.Lock()
	before := r.lost
	r.lost = err
	r.mu.Unlock()
	switch {
	case err != nil && before == nil:
		r.o.Log.Warn("the container engine is away; what runs is left to its probes", "host", r.host.String(), "error", err)
	case err == nil && before != nil:
		select {
		case r.back <- struct{}{}:
		default: // told already
		}
		r.o.Log.Info("the container engine is back", "host", r.host.String())
	}
}
