package target

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
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
	if e.Code == zarpa.Invalid || e.Code == zarpa.NotFound || e.Code == zarpa.ModelError {
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
	alive, ready := 0, status.Ready(revision)
	var dead *zarpa.Replica
	for i, rep := range status.Replicas {
		if rep.Revision != revision {
			continue
		}
		if rep.Phase == zarpa.ReplicaLoading || rep.Phase == zarpa.ReplicaReady || rep.Phase == zarpa.ReplicaUnready {
			alive++
		}
		if rep.Last != nil && !rep.Last.Ready && rep.Phase != zarpa.ReplicaReady && !rep.Last.At.Before(rec.op.Created) {
			dead = &status.Replicas[i]
		}
	}
	of := fmt.Sprintf("%d of %d replicas", ready, d.Spec.Replicas)
	if alive > 0 {
		rec.begin(name, "load")
	}
	if alive >= d.Spec.Replicas {
		rec.end(name, "start", fmt.Sprintf("%d started", alive))
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
	if rep.Last.Code != zarpa.ExitLoadFailed && rec.r.deaths.count(rec.op.ID, rep) < attempts {
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

// expire fails an operation whose time is over, and returns when that will be.
func (rec *recorder) expire(spec zarpa.EndpointSpec) time.Duration {
	if rec == nil || rec.op.State != zarpa.OperationRunning || rec.op.Kind == "delete" {
		return 0
	}
	limit := zarpa.Duration(0)
	for _, d := range spec.Deployments {
		limit = max(limit, d.StartTimeout)
	}
	left := rec.op.Created.Add(time.Duration(limit) + grace).Sub(rec.r.o.Now())
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
	rec.fail(deployment, name, zarpa.Errorf(zarpa.Timeout, "deployment %q: %s after %v", deployment, message, time.Duration(limit)+grace).
		WithHint("raise start_timeout if the model needs longer; zarpa explain %s tells more", rec.op.Endpoint))
	return 0
}

// deaths counts how often replicas died during an operation. A new control plane counts anew.
type deaths struct {
	mu   sync.Mutex
	seen map[string]map[string]bool // by operation: "REPLICA@TIME"
}

// count notes a replica's last death and returns how many of its deaths the operation has seen.
func (d *deaths) count(operation string, rep zarpa.Replica) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen[operation] == nil {
		d.seen[operation] = map[string]bool{}
	}
	d.seen[operation][fmt.Sprintf("%s@%d", rep.ID, rep.Last.At.UnixNano())] = true
	n := 0
	for key := range d.seen[operation] {
		if strings.HasPrefix(key, rep.ID+"@") {
			n++
		}
	}
	return n
}

func (d *deaths) forget(operation string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.seen, operation)
}

// save stores the operation when it changed, and tells those who wait.
func (rec *recorder) save(ctx context.Context) error {
	if rec == nil || reflect.DeepEqual(rec.op, rec.stored) {
		return nil
	}
	if err := rec.saveTo(ctx, rec.r.o.Store.Nouns().Operations); err != nil {
		return fmt.Errorf("record operation %s: %w", rec.op.ID, err)
	}
	rec.saved()
	if rec.op.State != zarpa.OperationRunning {
		rec.r.deaths.forget(rec.op.ID)
		return rec.r.o.Store.Nouns().Operations.Prune(ctx, keepOperations)
	}
	return nil
}

func (rec *recorder) saveTo(ctx context.Context, ops zarpa.Operations) error {
	if rec == nil {
		return nil
	}
	err := ops.Update(ctx, rec.op)
	if errors.Is(err, zarpa.ErrNotFound) {
		return nil
	}
	return err
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
