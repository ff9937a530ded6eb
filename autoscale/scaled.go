package autoscale

import (
	"context"
	"reflect"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// scaled is one deployment that is scaled, or that others may have to give way to.
type scaled struct {
	key
	spec     zarpa.DeploymentSpec // defaults filled in
	priority int
	policy   Policy
	state    State
	window   *Window
	record   zarpa.Scaling
	dirty    bool // the record is to be stored
	gone     bool // the record is to be deleted

	// of the last load
	waiting  bool
	waited   time.Duration // by those that wait, on average
	requests int64
	// of the target
	ready, starting, present int
	there                    int           // with those that drain
	first                    zarpa.Replica // that was ready first, of those that are
	startTime                time.Duration
	sample                   Sample
	cold                     *coldStart
}

// begin takes a deployment up: with what the store knows of it, or with what runs, or with what its spec
// begins with.
func (s *Scaler) begin(k key, spec zarpa.DeploymentSpec, replicas []zarpa.Replica, now time.Time) *scaled {
	p := NewPolicy(spec, now)
	d := &scaled{
		key: k, window: NewWindow(p.Window),
		record: zarpa.Scaling{Endpoint: k.endpoint, Deployment: k.deployment, Decisions: []zarpa.ScaleDecision{}},
	}
	ready := zarpa.DeploymentStatus{Replicas: replicas}.Ready("")
	wanted := p.Initial(spec.Replicas)
	r, known := s.records[k]
	if known {
		d.record, wanted = r, r.Wanted
		delete(s.records, k)
	}
	// What was decided last may not be stored, and it may have run with more before it was scaled: a
	// replica that is there counts.
	wanted = max(wanted, ready)
	d.state, d.dirty = Begin(min(wanted, p.Max), now), !known || wanted != r.Wanted
	return d
}

// fixed is a deployment that is not scaled.
func fixed(k key, spec zarpa.DeploymentSpec, priority int, replicas []zarpa.Replica) *scaled {
	status := zarpa.DeploymentStatus{Replicas: replicas}
	return &scaled{
		key: k, spec: spec, priority: priority, state: State{Wanted: spec.Replicas},
		there: len(replicas), present: len(replicas) - status.Count(zarpa.ReplicaDraining),
	}
}

// observed are the replicas of a deployment that are on its target.
func observed(seen []zarpa.Observed, k key, target string) []zarpa.Replica {
	for _, o := range seen {
		if o.Endpoint == k.endpoint && o.Deployment == k.deployment && o.Target == target {
			return o.Status.Replicas
		}
	}
	return nil
}

// update takes over what is wanted and what was observed. A replica that starts again after it died
// before it was ready is not on its way: more of it would not help.
func (d *scaled) update(spec zarpa.DeploymentSpec, priority int, replicas []zarpa.Replica, now time.Time) {
	changed := d.spec.Name != "" && !reflect.DeepEqual(running(d.spec), running(spec))
	d.spec, d.priority, d.policy = spec, priority, NewPolicy(spec, now)
	if changed && d.state.Wanted == 0 {
		d.state.Wanted, d.state.Raised = 1, now
		d.decided(zarpa.ScaleDecision{At: now.UTC(), To: 1, Reason: "it was changed: one replica shows that it can be loaded"}, now)
	}
	d.window.Resize(d.policy.Window)
	d.ready, d.starting, d.present, d.there, d.first = 0, 0, 0, len(replicas), zarpa.Replica{}
	slowest := time.Duration(0)
	for _, r := range replicas {
		if r.Phase != zarpa.ReplicaDraining {
			d.present++
		}
		switch {
		case r.Phase == zarpa.ReplicaReady:
			d.ready++
			slowest = max(slowest, time.Duration(r.Loaded))
			if d.first.ID == "" || r.Started.Add(time.Duration(r.Loaded)).Before(d.first.Started.Add(time.Duration(d.first.Loaded))) {
				d.first = r
			}
		case (r.Phase == zarpa.ReplicaStarting || r.Phase == zarpa.ReplicaLoading) && (r.Last == nil || r.Last.Ready):
			d.starting++
		}
	}
	if slowest > 0 {
		d.startTime = slowest
	}
}

// running is the part of a spec that says what runs, and not how many or for whom.
func running(d zarpa.DeploymentSpec) zarpa.DeploymentSpec {
	d.Scale, d.Replicas, d.Weight, d.SlowStart = nil, 0, nil, 0
	return d
}

// decide decides for one deployment and takes what it wants from the room that there is.
func (s *Scaler) decide(ctx context.Context, d *scaled, room *rooms) {
	now := s.o.Now()
	x := d.window.Sample(d.policy, now)
	x.Waiting, x.Ready, x.Starting, x.Capacity, x.StartTime = d.waiting, d.ready, d.starting, room.capacity(ctx, d), d.startTime
	if x.Service == 0 {
		x.Service = d.sample.Service // of the last time that it was known
	}
	d.sample = x
	decision, state := Decide(d.policy, d.state, x, now)
	fresh := decision.From != decision.To || state.Missing > 0 && d.state.Missing == 0
	d.state = state
	if fresh {
		s.o.Metrics.count(d.key, decision)
		d.decided(decision, now)
	}
	if d.cold == nil && decision.From == 0 && decision.To > 0 && (d.waiting || x.Busy.After(state.Idled)) {
		d.cold = &coldStart{arrived: now.Add(-d.waited), decided: now, before: d.requests}
	}
	if d.cold != nil {
		s.measureCold(d, now)
	}
	room.take(d)
}

// decided keeps a decision.
func (d *scaled) decided(decision zarpa.ScaleDecision, now time.Time) {
	d.record.Decisions = prepend(d.record.Decisions, decision)
	d.record.Updated, d.dirty = now.UTC(), true
}

// prepend puts a record at the head of a list of at most zarpa.MaxDecisions.
func prepend[T any](list []T, v T) []T {
	return append([]T{v}, list[:min(len(list), zarpa.MaxDecisions-1)]...)
}

// coldStart is a start from zero under way.
type coldStart struct {
	arrived, decided time.Time
	before           int64 // requests that had ended before there was a replica
}

// coldPatience is how long a new replica is watched for its first answer: when there is none, the one who
// asked has left, and the start is not counted.
const coldPatience = 5 * time.Second

// measureCold looks how far a start from zero is, and keeps its parts when it is over.
func (s *Scaler) measureCold(d *scaled, now time.Time) {
	c := d.cold
	if d.ready == 0 {
		c.before = d.requests
		if d.state.Wanted == 0 || now.Sub(c.decided) > time.Duration(d.spec.StartTimeout) {
			d.cold = nil
		}
		return
	}
	ready := d.first.Started.Add(time.Duration(d.first.Loaded))
	switch {
	case d.requests > c.before:
		start := zarpa.ColdStart{
			At: c.arrived.UTC(), Decide: part(c.arrived, c.decided), Start: part(c.decided, d.first.Started),
			Load: d.first.Loaded, FirstByte: part(ready, now),
		}
		s.o.Metrics.coldStart(d.key, start)
		d.record.ColdStarts = prepend(d.record.ColdStarts, start)
		d.cold, d.dirty = nil, true
	case now.Sub(ready) > coldPatience:
		d.cold = nil
	}
}

// part is the time between two moments; those of two processes may be a little out of order.
func part(from, to time.Time) zarpa.Duration { return zarpa.Duration(max(0, to.Sub(from))) }
