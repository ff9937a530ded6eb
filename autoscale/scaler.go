package autoscale

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Options are the parts that a Scaler works with.
type Options struct {
	Store zarpa.Store
	// Loader tells the load of the gateway.
	Loader zarpa.Loader
	// Capacity tells how much a target can run, by its name; nil, or an error, is unknown.
	Capacity func(ctx context.Context, target string) (zarpa.CapacityReport, error)
	// Wake is called with an endpoint whose deployments want another number of replicas. It must not
	// block.
	Wake func(endpoint string)
	// Metrics count what is decided; nil counts nothing.
	Metrics *Metrics
	Log     *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

const (
	// poll is how often the load is read. A rise must fill a part of the last second before it counts,
	// so that it is seen at the second look at the latest. A request for a deployment without replicas is
	// seen at once.
	poll = 500 * time.Millisecond
	// coldPoll is how often it is while a first replica is on its way: the parts of a cold start are told
	// from that. No two looks are closer to each other.
	coldPoll = 20 * time.Millisecond
	// retry is how soon a gateway that could not be reached is asked again.
	retry = time.Second
)

// Scaler decides how many replicas the deployments with Scale should have: see the package comment.
type Scaler struct {
	o Options

	mu     sync.Mutex
	wanted map[key]int // what Wanted answers; written by Run

	// What follows belongs to Run.
	scaled   map[key]*scaled
	records  map[key]zarpa.Scaling // stored ones of deployments that were not seen yet
	wake     int64                 // of the last load
	run      string                // the gateway's, of the last load
	at       time.Time             // that load's time by the gateway's clock
	counters map[key]zarpa.DeploymentLoad
	failing  bool // the gateway's absence was told
}

// key names a deployment.
type key struct{ endpoint, deployment string }

// Open makes a Scaler that goes on with what the store has of an earlier one. It does nothing until Run.
func Open(ctx context.Context, o Options) (*Scaler, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Capacity == nil {
		o.Capacity = func(context.Context, string) (zarpa.CapacityReport, error) { return zarpa.CapacityReport{}, nil }
	}
	s := &Scaler{o: o, wanted: map[key]int{}, scaled: map[key]*scaled{}, records: map[key]zarpa.Scaling{}, counters: map[key]zarpa.DeploymentLoad{}}
	list, err := o.Store.Nouns().Scalings.List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		k := key{r.Endpoint, r.Deployment}
		s.records[k], s.wanted[k] = r, r.Wanted
	}
	return s, nil
}

// Wanted is how many replicas a deployment should have, whose defaults are filled in. Without Scale it is
// Replicas, and so it is, within the bounds, before the first decision. It may be called from many
// goroutines, and before Run.
func (s *Scaler) Wanted(endpoint string, d zarpa.DeploymentSpec) int {
	if d.Scale == nil {
		return d.Replicas
	}
	p := NewPolicy(d, s.o.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.wanted[key{endpoint, d.Name}]; ok {
		return p.Clamp(n)
	}
	return p.Initial(d.Replicas)
}

// Run decides until ctx ends. The gateway being away changes nothing but that no replica is taken away.
func (s *Scaler) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-time.After(s.look(ctx)):
		case <-ctx.Done():
		}
	}
	return nil
}

// look waits for the next load, decides, and says how long to pause.
func (s *Scaler) look(ctx context.Context) (pause time.Duration) {
	began := s.o.Now()
	load, err := s.o.Loader.Load(ctx, s.wake, s.wait())
	if ctx.Err() != nil {
		return 0
	}
	now := s.o.Now()
	pause = coldPoll
	if err != nil {
		pause, s.wake = retry, 0 // the next gateway counts its calls anew
	} else {
		s.wake = load.Wake
		s.measure(load, now)
	}
	s.tell(err)
	if err := s.tick(ctx, now); err != nil && ctx.Err() == nil {
		s.o.Log.Error("scale", "error", err)
	}
	return began.Add(pause).Sub(now)
}

// wait is how long a gateway without news may keep its answer back.
func (s *Scaler) wait() time.Duration {
	for _, d := range s.scaled {
		if d.cold != nil {
			return coldPoll
		}
	}
	return poll
}

// tell logs the absence of the gateway once, and its return.
func (s *Scaler) tell(err error) {
	switch {
	case err != nil && !s.failing:
		s.o.Log.Warn("no data of the load: nothing is scaled down", "error", err)
	case err == nil && s.failing:
		s.o.Log.Info("the load is measured again")
	}
	s.failing = err != nil
}

// measure turns the counters of two loads into what happened between them. Another run of the gateway
// counts anew, and its first load is no more than where that begins. The times are this machine's: the
// gateway's clock may differ, and its seconds do not.
func (s *Scaler) measure(load zarpa.Load, now time.Time) {
	known := load.Run == s.run && load.At.After(s.at)
	took := load.At.Sub(s.at)
	counters := make(map[key]zarpa.DeploymentLoad, len(load.Deployments))
	for _, d := range s.scaled {
		d.waiting, d.waited = false, 0
	}
	for _, l := range load.Deployments {
		k := key{l.Endpoint, l.Deployment}
		counters[k] = l
		d := s.scaled[k]
		if d == nil {
			continue
		}
		d.waiting, d.requests = l.Queued > 0, l.Requests
		if !known {
			continue
		}
		was := s.counters[k] // none is one that has counted nothing
		if l.Requests < was.Requests || l.BusySeconds < was.BusySeconds {
			was = zarpa.DeploymentLoad{} // it left the routes and came back
		}
		grown := zarpa.Duration((l.QueuedSeconds - was.QueuedSeconds) * float64(time.Second))
		d.waited = min(took, time.Duration(grown)/time.Duration(max(1, l.Queued)))
		answered := float64(l.Requests - was.Requests)
		d.window.Add(Stretch{
			From: now.Add(-took), To: now,
			Busy: l.BusySeconds - was.BusySeconds, Queued: max(0, l.QueuedSeconds-was.QueuedSeconds),
			Answered: answered, Arrived: max(0, answered+float64(l.Rejected-was.Rejected)+float64(l.InFlight-was.InFlight+l.Queued-was.Queued)),
		})
	}
	s.run, s.at, s.counters = load.Run, load.At, counters
}

// tick decides for every deployment with Scale, those of a higher priority first: they take the room. The
// others take theirs, and may have too little.
func (s *Scaler) tick(ctx context.Context, now time.Time) error {
	endpoints, err := s.o.Store.Nouns().Endpoints.List(ctx)
	if err != nil {
		return err
	}
	seen, err := s.o.Store.Nouns().Deployments.List(ctx, "")
	if err != nil {
		return err
	}
	all := s.follow(endpoints, seen, now)
	room := rooms{scaler: s, reports: map[string]zarpa.CapacityReport{}}
	room.count(ctx, all)
	for _, d := range all {
		if d.spec.Scale == nil {
			d.state.Missing = room.lacks(ctx, d)
			room.take(d)
			continue
		}
		s.decide(ctx, d, &room)
	}
	s.giveWay(all, now)
	return s.publish(ctx, now)
}

// follow brings the list of scaled deployments up to date and returns it with the others, the highest
// priority first.
func (s *Scaler) follow(endpoints []zarpa.Endpoint, seen []zarpa.Observed, now time.Time) []*scaled {
	present := map[key]bool{}
	var all []*scaled
	for _, e := range endpoints {
		if e.Deleting {
			continue
		}
		for _, spec := range e.Spec.WithDefaults().Deployments {
			k := key{e.Name, spec.Name}
			replicas := observed(seen, k, spec.Target)
			if spec.Scale == nil {
				all = append(all, fixed(k, spec, e.Spec.Priority, replicas))
				continue
			}
			present[k] = true
			d := s.scaled[k]
			if d == nil || d.gone {
				d = s.begin(k, spec, replicas, now)
				s.scaled[k] = d
			}
			d.update(spec, e.Spec.Priority, replicas, now)
			all = append(all, d)
		}
	}
	s.forget(present)
	slices.SortStableFunc(all, func(a, b *scaled) int { return cmp.Compare(b.priority, a.priority) })
	return all
}

// forget marks the records of deployments that are gone, or are scaled no more, to be deleted.
func (s *Scaler) forget(present map[key]bool) {
	for k, r := range s.records {
		if !present[k] && s.scaled[k] == nil {
			s.scaled[k] = &scaled{key: k, record: r, window: NewWindow(0)}
		}
		delete(s.records, k)
	}
	for k, d := range s.scaled {
		d.gone = !present[k]
	}
}

// publish makes what was decided known: to the reconciler first, because a request may wait for it, then
// to the store. What could not be stored is tried again at the next tick.
func (s *Scaler) publish(ctx context.Context, now time.Time) error {
	woken := map[string]bool{}
	s.mu.Lock()
	for k, d := range s.scaled {
		if d.gone {
			delete(s.wanted, k)
			continue
		}
		if n, ok := s.wanted[k]; !ok || n != d.state.Wanted {
			s.wanted[k], woken[k.endpoint] = d.state.Wanted, true
		}
	}
	s.mu.Unlock()
	for endpoint := range woken {
		s.o.Wake(endpoint)
	}
	var failed error
	for k, d := range s.scaled {
		if d.gone {
			if err := s.o.Store.Nouns().Scalings.Delete(ctx, k.endpoint, k.deployment); err != nil {
				failed = err
				continue
			}
			s.o.Metrics.forget(k)
			delete(s.scaled, k)
			continue
		}
		s.o.Metrics.show(d)
		if !d.dirty && d.record.Missing == d.state.Missing {
			continue
		}
		d.record.Wanted, d.record.Missing, d.record.Updated = d.state.Wanted, d.state.Missing, now.UTC()
		if err := s.o.Store.Nouns().Scalings.Put(ctx, d.record); err != nil {
			failed = err
			continue
		}
		d.dirty = false
	}
	return failed
}
