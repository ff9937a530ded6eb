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

// step is one look at one endpoint: what is wanted, what was seen, and the operation that runs.
type step struct {
	r        *Reconciler
	endpoint zarpa.Endpoint
	spec     zarpa.EndpointSpec // defaults filled in; no deployments when the endpoint goes
	seen     []zarpa.Observed
	op       *recorder
	// satisfied holds the names of deployments that have all they want, with the routes aside.
	satisfied map[string]bool
	// follow asks for another step at once: replicas that began to drain are off the routes then,
	// and it stops them. Their end is told by the driver.
	follow bool
}

// Step brings one endpoint one step closer to what is wanted and says after how long another
// step is due by itself; 0 leaves it to notifications and the resync. A crash at any point of it
// heals with the next one.
func (r *Reconciler) Step(ctx context.Context, name string) (time.Duration, error) {
	s, err := r.read(ctx, name)
	if errors.Is(err, zarpa.ErrNotFound) {
		r.routes.remove(name)
		return 0, r.routes.flush(ctx)
	}
	if err != nil {
		return 0, err
	}
	var failed error
	for _, d := range s.spec.Deployments {
		if err := s.advance(ctx, d); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	again, err := s.settle(ctx)
	return again, errors.Join(failed, err, s.op.save(ctx))
}

func (r *Reconciler) read(ctx context.Context, name string) (*step, error) {
	nouns := r.o.Store.Nouns()
	e, err := nouns.Endpoints.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	seen, err := nouns.Deployments.List(ctx, name)
	if err != nil {
		return nil, err
	}
	op, err := r.recorder(ctx, e)
	if err != nil {
		return nil, err
	}
	s := &step{r: r, endpoint: e, spec: e.Spec.WithDefaults(), seen: seen, op: op, satisfied: map[string]bool{}}
	if e.Deleting {
		s.spec.Deployments = nil
	}
	return s, nil
}

// advance takes one step with one wanted deployment. What is in its way goes into the operation;
// an error is for the log.
func (s *step) advance(ctx context.Context, spec zarpa.DeploymentSpec) error {
	driver, ok := s.r.o.Drivers[spec.Target]
	if !ok {
		s.op.fail(spec.Name, "start", zarpa.Errorf(zarpa.NotFound, "deployment %q: target %q does not exist", spec.Name, spec.Target).
			WithHint("zarpa target list shows those that do"))
		return nil
	}
	digest, err := s.bundle(ctx, spec)
	if err != nil {
		return err
	}
	d := zarpa.Deployment{
		Endpoint: s.endpoint.Name, Spec: spec, Bundle: digest,
		Request: zarpa.RequestLimits{Timeout: s.spec.RequestTimeout, MaxBody: s.spec.MaxBody},
	}
	o, err := s.record(ctx, spec)
	if err != nil {
		return err
	}
	d.Handle = o.Handle
	if s.r.routes.stale() && len(draining(o.Status)) > 0 {
		s.follow = true // the gateway may still send to them
	} else {
		s.op.begin(spec.Name, "start")
		if o.Handle, err = driver.Apply(ctx, d); err != nil {
			s.op.blocked(spec.Name, "start", err)
			return fmt.Errorf("apply %s: %w", d.Key(), err)
		}
	}
	status, err := driver.Observe(ctx, o.Handle)
	if err != nil && !errors.Is(err, zarpa.ErrNotFound) {
		return fmt.Errorf("observe %s: %w", d.Key(), err)
	}
	before := draining(o.Status)
	for id := range draining(status) {
		s.follow = s.follow || !before[id]
	}
	o.Status = status
	if err := s.put(ctx, o); err != nil {
		return err
	}
	s.op.replicas(d, status)
	s.satisfied[spec.Name] = status.Ready(d.Revision()) >= spec.Replicas
	return nil
}

// bundle packages the deployment's model.
func (s *step) bundle(ctx context.Context, spec zarpa.DeploymentSpec) (string, error) {
	ref, err := zarpa.ParseModelRef(spec.Model)
	if err != nil {
		s.op.fail(spec.Name, "package", err)
		return "", err
	}
	if s.op.begin(spec.Name, "package") {
		if err := s.op.save(ctx); err != nil {
			return "", err
		}
	}
	m, err := s.r.o.Store.Nouns().Models.Get(ctx, ref)
	if err == nil {
		var digest string
		if digest, err = s.r.o.Bundle(ctx, m); err == nil {
			s.op.end(spec.Name, "package", fmt.Sprintf("%s as %.19s…", ref, digest))
			return digest, nil
		}
	}
	if ctx.Err() == nil {
		s.op.blocked(spec.Name, "package", err)
	}
	return "", fmt.Errorf("package %s: %w", ref, err)
}

// record finds the deployment's record or stores an empty one: from then on the deployment is
// known, so that what Apply makes is found even when the answer of Apply is lost.
func (s *step) record(ctx context.Context, spec zarpa.DeploymentSpec) (zarpa.Observed, error) {
	for _, o := range s.seen {
		if o.Deployment == spec.Name && o.Target == spec.Target {
			return o, nil
		}
	}
	o := zarpa.Observed{Endpoint: s.endpoint.Name, Deployment: spec.Name, Target: spec.Target}
	if err := s.r.o.Store.Nouns().Deployments.Put(ctx, o); err != nil {
		return o, err
	}
	s.seen = append(s.seen, o)
	return o, nil
}

// put stores a record when it differs from what is stored.
func (s *step) put(ctx context.Context, o zarpa.Observed) error {
	for i, old := range s.seen {
		if old.Deployment != o.Deployment || old.Target != o.Target {
			continue
		}
		s.seen[i] = o
		if reflect.DeepEqual(old, o) {
			return nil
		}
	}
	return s.r.o.Store.Nouns().Deployments.Put(ctx, o)
}

// settle publishes the routes, retires what nobody wants and ends the operation.
func (s *step) settle(ctx context.Context) (time.Duration, error) {
	keep, retire := s.divide()
	if err := s.r.route(ctx, s.endpoint, keep); err != nil {
		return 0, err
	}
	complete := len(s.satisfied) == len(s.spec.Deployments)
	for _, ok := range s.satisfied {
		complete = complete && ok
	}
	if complete {
		s.op.begin("", "route")
	}
	if err := s.r.routes.flush(ctx); err != nil {
		s.op.blocked("", "route", err)
		return retryPublish, nil
	}
	if complete {
		s.op.end("", "route", "")
	}
	var again time.Duration
	left, err := s.retire(ctx, retire)
	switch {
	case err != nil:
	case left > 0 || !complete:
		again = s.op.expire(s.spec)
	default:
		err = s.finish(ctx)
	}
	if s.follow {
		again = time.Millisecond
	}
	return again, err
}

// divide parts the records into those that are wanted and those to retire. A deployment that
// moves to another target keeps its old replicas until the new ones are ready.
func (s *step) divide() (keep, retire []zarpa.Observed) {
	for _, o := range s.seen {
		i := slices.IndexFunc(s.spec.Deployments, func(d zarpa.DeploymentSpec) bool { return d.Name == o.Deployment })
		moved := i >= 0 && s.spec.Deployments[i].Target != o.Target && s.satisfied[o.Deployment]
		if i < 0 || moved {
			retire = append(retire, o)
		} else {
			keep = append(keep, o)
		}
	}
	return keep, retire
}

// retire removes deployments that are off the routes and returns how many still run.
func (s *step) retire(ctx context.Context, gone []zarpa.Observed) (int, error) {
	left := 0
	for _, o := range gone {
		s.op.begin(o.Deployment, "remove")
		stopped, err := s.remove(ctx, o)
		if err != nil {
			s.op.blocked(o.Deployment, "remove", err)
			return len(gone), fmt.Errorf("remove %s/%s: %w", o.Endpoint, o.Deployment, err)
		}
		if !stopped {
			left++
			continue
		}
		if err := s.r.o.Store.Nouns().Deployments.Delete(ctx, o); err != nil {
			return len(gone), err
		}
		s.op.end(o.Deployment, "remove", "")
	}
	return left, nil
}

// remove takes one step of a removal and reports whether nothing is left.
func (s *step) remove(ctx context.Context, o zarpa.Observed) (bool, error) {
	driver, ok := s.r.o.Drivers[o.Target]
	if !ok {
		return false, zarpa.Errorf(zarpa.NotFound, "target %q does not exist", o.Target)
	}
	if o.Handle.IsZero() {
		// The answer of the first Apply was lost: asking for no replicas brings the handle back.
		spec := zarpa.DeploymentSpec{Name: o.Deployment, Target: o.Target}.WithDefaults()
		spec.Replicas = 0
		h, err := driver.Apply(ctx, zarpa.Deployment{Endpoint: o.Endpoint, Spec: spec})
		if err != nil {
			return false, err
		}
		o.Handle = h
		if err := s.put(ctx, o); err != nil {
			return false, err
		}
	}
	if err := driver.Remove(ctx, o.Handle); err != nil {
		return false, err
	}
	status, err := driver.Observe(ctx, o.Handle)
	if errors.Is(err, zarpa.ErrNotFound) {
		return true, nil
	}
	o.Status = status
	return false, errors.Join(err, s.put(ctx, o))
}

// finish ends the operation, and the endpoint itself when it was to go.
func (s *step) finish(ctx context.Context) error {
	s.op.succeed(s.r.o.Now())
	if !s.endpoint.Deleting {
		return nil
	}
	err := s.r.o.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		return errors.Join(
			n.Keys.Delete(ctx, s.endpoint.Name),
			n.Endpoints.Delete(ctx, s.endpoint.Name),
			s.op.saveTo(ctx, n.Operations),
		)
	})
	if err != nil {
		return err
	}
	s.op.saved()
	return nil
}

// draining is the set of replicas that drain, by ID.
func draining(s zarpa.DeploymentStatus) map[string]bool {
	ids := map[string]bool{}
	for _, r := range s.Replicas {
		if r.Phase == zarpa.ReplicaDraining {
			ids[r.ID] = true
		}
	}
	return ids
}
