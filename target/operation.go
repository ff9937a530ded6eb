package target

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// attempts is how often a replica of the wanted revision may die before it was ever ready until
// the operation is called failed. Reconciling goes on behind it.
const attempts = 3

// grace is added to the start timeout before an operation is called failed for lack of time.
const grace = 30 * time.Second

// recorder writes what happens into the running operation. A nil recorder does nothing: no
// operation runs. It belongs to one step.
type recorder struct {
	r      *Reconciler
	op     zarpa.Operation
	stored zarpa.Operation
}

// recorder returns the recorder of the operation that runs for an endpoint, or nil.
func (r *Reconciler) recorder(ctx context.Context, e zarpa.Endpoint) (*recorder, error) {
	ops, err := r.o.Store.Nouns().Operations.List(ctx, e.Name, 1)
	if err != nil || len(ops) == 0 || ops[0].State != zarpa.OperationRunning || ops[0].Generation != e.Generation {
		return nil, err
	}
	rec := &recorder{r: r, op: ops[0], stored: ops[0]}
	rec.op.Phases = slices.Clone(rec.op.Phases)
	return rec, nil
}

// traffic reports whether the operation changes nothing but who gets the traffic.
func (rec *recorder) traffic() bool { return rec != nil && rec.op.Kind == zarpa.OperationTraffic }

func (rec *recorder) find(deployment, name string) *zarpa.Phase {
	for i := range rec.op.Phases {
		if p := &rec.op.Phases[i]; p.Deployment == deployment && p.Name == name {
			return p
		}
	}
	return nil
}

// begin opens a phase unless it is there, and reports whether it did.
func (rec *recorder) begin(deployment, name string) bool {
	if rec == nil || rec.find(deployment, name) != nil {
		return false
	}
	rec.op.Phases = append(rec.op.Phases, zarpa.Phase{
		Name: name, Deployment: deployment, State: zarpa.OperationRunning, Started: rec.r.o.Now().UTC(),
	})
	return true
}

// end closes a phase that runs.
func (rec *recorder) end(deployment, name, detail string) {
	if rec == nil {
		return
	}
	if p := rec.find(deployment, name); p != nil && p.State == zarpa.OperationRunning {
		p.State, p.Ended, p.Detail = zarpa.OperationSucceeded, rec.r.o.Now().UTC(), detail
		p.Cause, p.Hint, p.Log = "", "", nil
	}
}

// blocked notes what is in the way of a phase. Bad input ends the operation; all else is tried
// again until the time is over.
func (rec *recorder) blocked(deployment, name string, err error) {
	if rec == nil {
		return
	}
	e := zarpa.AsError(err)
	if e.Code == zarpa.Invalid || e.Code == zarpa.NotFound || e.Code == zarpa.TooLarge || e.Code == zarpa.ModelError {
		rec.fail(deployment, name, err)
		return
	}
	rec.begin(deployment, name)
	p := rec.find(deployment, name)
	p.Cause, p.Hint = e.Message, e.Hint
}

// fail ends the operation with an error in one of its phases.
func (rec *recorder) fail(deployment, name string, err error) {
	if rec == nil {
		return
	}
	rec.begin(deployment, name)
	now, e := rec.r.o.Now().UTC(), zarpa.AsError(err)
	p := rec.find(deployment, name)
	p.State, p.Ended, p.Cause, p.Hint = zarpa.OperationFailed, now, e.Message, e.Hint
	for i := range rec.op.Phases {
		if q := &rec.op.Phases[i]; q.State == zarpa.OperationRunning {
			q.State, q.Ended = zarpa.OperationFailed, now
		}
	}
	rec.op.State, rec.op.Ended = zarpa.OperationFailed, now
	rec.op.Error = &zarpa.Error{Code: e.Code, Message: e.Message, Hint: e.Hint}
}

// runs reports whether there is an operation that has not ended.
func (rec *recorder) runs() bool { return rec != nil && rec.op.State == zarpa.OperationRunning }

// waits reports whether a deployment's replicas are on their way in the operation.
func (rec *recorder) waits(deployment string) bool {
	for _, name := range []string{"start", "load"} {
		if p := rec.find(deployment, name); p != nil && p.State == zarpa.OperationRunning {
			return true
		}
	}
	return false
}

func (rec *recorder) succeed(now time.Time) {
	if rec == nil || rec.op.State != zarpa.OperationRunning {
		return
	}
	rec.op.State, rec.op.Ended = zarpa.OperationSucceeded, now.UTC()
}

// replicas turns the observed replicas of the wanted revision into the phases start and load.
func (rec *recorder) replicas(d zarpa.Deployment, status zarpa.DeploymentStatus) {
	if rec == nil || rec.op.State != zarpa.OperationRunning {
		return
	}
	name, revision := d.Spec.Name, d.Revision()
	started, ready := 0, status.Ready(revision)
	rec.r.history.progress(rec.op, name, ready, rec.r.o.Now())
	var dead *zarpa.Replica
	for i, rep := range status.Replicas {
		if rep.Revision != revision {
			continue
		}
		lives := rep.Phase == zarpa.ReplicaLoading || rep.Phase == zarpa.ReplicaReady || rep.Phase == zarpa.ReplicaUnready
		early := rep.Last != nil && !rep.Last.Ready && rep.Phase != zarpa.ReplicaReady && !rep.Last.At.Before(rec.op.Created)
		if early {
			dead = &status.Replicas[i]
		}
		if lives || early && ran(*rep.Last) { // it may have come and gone between two looks
			started++
		}
	}
	of := fmt.Sprintf("%d of %d replicas", ready, d.Spec.Replicas)
	if started > 0 {
		rec.begin(name, "load")
	}
	if started >= d.Spec.Replicas {
		rec.end(name, "start", fmt.Sprintf("%d started", started))
	}
	if p := rec.find(name, "load"); p != nil && p.State == zarpa.OperationRunning {
		p.Detail = of
	}
	if ready >= d.Spec.Replicas {
		rec.end(name, "start", of)
		rec.end(name, "load", of+" ready")
		return
	}
	if dead != nil {
		rec.died(name, *dead)
	}
}

// ran reports whether there was a run that ended: what could not be started at all has neither an
// exit code nor a signal.
func ran(e zarpa.Exit) bool { return e.Code != -1 || e.Signal != "" || e.Unknown }

// died notes how a replica ended before it was ready, and ends the operation when starting it
// again will not help.
func (rec *recorder) died(name string, rep zarpa.Replica) {
	phase := "start"
	if p := rec.find(name, "load"); p != nil {
		phase = "load"
	}
	rec.begin(name, phase)
	p := rec.find(name, phase)
	p.State, p.Ended = zarpa.OperationRunning, time.Time{}
	p.Cause, p.Log = rep.Last.Reason, rep.Last.Log
	if rep.Last.Code != zarpa.ExitLoadFailed && rec.r.history.death(rec.op, rep) < attempts {
		return
	}
	err := zarpa.Errorf(zarpa.ModelError, "deployment %q: %s", name, rep.Last.Reason)
	if rep.Last.OutOfMemory {
		err = err.WithHint("give it more memory with --memory, or leave the limit out")
	} else {
		err = err.WithHint("zarpa explain %s and zarpa logs %s --previous tell more", rec.op.Endpoint, rec.op.Endpoint)
	}
	rec.fail(name, phase, err)
}

// expire fails an operation whose time is over, and returns when that will be. The time counts from the
// last replica that became ready.
func (rec *recorder) expire(spec zarpa.EndpointSpec) time.Duration {
	if rec == nil || rec.op.State != zarpa.OperationRunning || rec.op.Kind == "delete" {
		return 0
	}
	limit := zarpa.Duration(0)
	for _, d := range spec.Deployments {
		limit = max(limit, d.StartTimeout)
	}
	began := rec.op.Created
	for _, p := range rec.op.Phases {
		if p.Name != phaseEnvironment && p.Name != phaseImage {
			continue
		}
		if p.State == zarpa.OperationRunning && p.Cause == "" {
			return 0 // a build has a time limit of its own
		}
		if p.Ended.After(began) {
			began = p.Ended
		}
	}
	if moved := rec.r.history.moved(rec.op); moved.After(began) {
		began = moved // an update may go in many steps
	}
	left := began.Add(time.Duration(limit) + grace).Sub(rec.r.o.Now())
	if left > 0 {
		return left
	}
	deployment, name, message := "", "load", "not ready in time"
	for _, p := range rec.op.Phases {
		if p.State == zarpa.OperationRunning {
			deployment, name = p.Deployment, p.Name
			if p.Cause != "" {
				message = p.Cause
			}
		}
	}
	if deployment != "" {
		message = fmt.Sprintf("deployment %q: %s", deployment, message)
	}
	rec.fail(deployment, name, zarpa.Errorf(zarpa.Timeout, "%s after %v", message, rec.r.o.Now().Sub(began).Round(time.Second)).
		WithHint("raise start_timeout if the model needs longer; zarpa explain %s tells more", rec.op.Endpoint))
	return 0
}

// save stores the operation when it changed, and tells those who wait.
func (rec *recorder) save(ctx context.Context) error {
	if rec == nil || reflect.DeepEqual(rec.op, rec.stored) {
		return nil
	}
	err := rec.r.o.Store.Atomically(ctx, func(n zarpa.Nouns) error { return rec.saveTo(ctx, n.Operations) })
	if err != nil {
		return fmt.Errorf("record operation %s: %w", rec.op.ID, err)
	}
	rec.saved()
	if rec.op.State != zarpa.OperationRunning {
		rec.r.history.forget(rec.op.Endpoint)
		return rec.r.o.Store.Nouns().Operations.Prune(ctx, keepOperations)
	}
	return nil
}

// saveTo stores the operation as it is, unless it was ended by somebody else.
func (rec *recorder) saveTo(ctx context.Context, ops zarpa.Operations) error {
	if rec == nil {
		return nil
	}
	now, err := ops.Get(ctx, rec.op.ID)
	if errors.Is(err, zarpa.ErrNotFound) || err == nil && now.State != zarpa.OperationRunning {
		return nil // a later change took its place meanwhile
	}
	if err != nil {
		return err
	}
	return ops.Update(ctx, rec.op)
}

// saved notes that the operation is stored as it is, and tells those who wait.
func (rec *recorder) saved() {
	if rec == nil {
		return
	}
	rec.stored = rec.op
	rec.stored.Phases = slices.Clone(rec.op.Phases)
	rec.r.announce()
}
