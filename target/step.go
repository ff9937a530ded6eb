package target

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
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
	// weights are the shares of the traffic that are to be in use after the step, by deployment.
	weights map[string]int
	// follow asks for another step at once: replicas that began to drain are off the routes then,
	// and it stops them. Their end is told by the driver.
	follow bool
	// building tells that an environment or an image is on its way: a look now and then shows how far it is.
	building bool
}

// Step brings one endpoint one step closer to what is wanted and says after how long another
// step is due by itself; 0 leaves it to notifications and the resync. A crash at any point of it
// heals with the next one.
func (r *Reconciler) Step(ctx context.Context, name string) (time.Duration, error) {
	s, err := r.read(ctx, name)
	if errors.Is(err, zarpa.ErrNotFound) {
		r.routes.remove(name)
		r.forget(name, nil)
		r.history.forget(name)
		return 0, r.routes.flush(ctx)
	}
	if err != nil {
		return 0, err
	}
	r.forget(name, s.spec.Deployments)
	failed := s.work(ctx)
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

// work takes one step with every wanted deployment, and looks at those that serve though nobody wants
// them any more.
func (s *step) work(ctx context.Context) error {
	op := s.op
	if s.op.traffic() {
		s.op = nil // what becomes of the replicas is not its matter
	}
	var failed error
	for _, d := range s.spec.Deployments {
		failed = errors.Join(failed, s.advance(ctx, d))
	}
	s.op = op
	for _, o := range s.seen {
		driver, ok := s.r.drivers.get(o.Target)
		if s.endpoint.Deleting || s.wants(o.Deployment) || o.Weight == 0 || !ok {
			continue
		}
		failed = errors.Join(failed, s.look(ctx, driver, zarpa.DeploymentSpec{Name: o.Deployment, Target: o.Target}))
	}
	s.weights = map[string]int{}
	if !s.endpoint.Deleting {
		s.weights = settle(s.spec, s.seen)
	}
	return failed
}

// advance takes one step with one wanted deployment. What is in its way goes into the operation;
// an error is for the log.
func (s *step) advance(ctx context.Context, spec zarpa.DeploymentSpec) error {
	driver, ok := s.r.drivers.get(spec.Target)
	if !ok {
		s.op.blocked(spec.Name, "start", s.r.missing(ctx, spec.Target))
		return nil
	}
	digest, err := s.bundle(ctx, spec)
	if err != nil || digest == "" {
		return errors.Join(err, s.look(ctx, driver, spec))
	}
	d := zarpa.Deployment{
		Endpoint: s.endpoint.Name, Spec: spec, Bundle: digest,
		Request: zarpa.RequestLimits{Timeout: s.spec.RequestTimeout, MaxBody: s.spec.MaxBody},
	}
	if ready, err := s.prepare(ctx, driver, d); err != nil || !ready {
		return errors.Join(err, s.look(ctx, driver, spec))
	}
	o, err := s.record(ctx, spec)
	if err != nil {
		return err
	}
	d.Handle, d.Spec.Replicas = o.Handle, s.wanted(d, o.Status)
	var applied error
	if s.r.routes.stale() && len(draining(o.Status)) > 0 {
		s.follow = true // the gateway may still send to them
	} else {
		s.op.begin(spec.Name, "start")
		h, err := driver.Apply(ctx, d)
		if err != nil {
			s.op.blocked(spec.Name, "start", err)
			applied = fmt.Errorf("apply %s: %w", d.Key(), err)
		}
		if !h.IsZero() {
			o.Handle = h
		}
	}
	if o.Handle.IsZero() {
		return applied
	}
	// What runs is looked at whatever became of the step: the routes follow it.
	status, err := driver.Observe(ctx, o.Handle)
	if err != nil && !errors.Is(err, zarpa.ErrNotFound) {
		return errors.Join(applied, fmt.Errorf("observe %s: %w", d.Key(), err))
	}
	before := draining(o.Status)
	for id := range draining(status) {
		s.follow = s.follow || !before[id]
	}
	o.Status = status
	if err := s.put(ctx, o); err != nil {
		return errors.Join(applied, err)
	}
	s.op.replicas(d, status)
	s.satisfied[spec.Name] = applied == nil && status.Ready(d.Revision()) >= d.Spec.Replicas
	return applied
}

// wanted is how many replicas a deployment should have. A change of one that has none by itself starts
// one all the same, while its operation runs: it shows that what was deployed can be loaded.
func (s *step) wanted(d zarpa.Deployment, before zarpa.DeploymentStatus) int {
	if d.Spec.Scale == nil {
		return d.Spec.Replicas
	}
	n := s.r.o.Wanted(s.endpoint.Name, d.Spec)
	if n == 0 && s.op.runs() && (before.Revision != d.Revision() || s.op.waits(d.Spec.Name)) {
		return 1
	}
	return n
}

// look observes what runs of a deployment that cannot be changed now, so that the routes follow it.
func (s *step) look(ctx context.Context, driver zarpa.Driver, spec zarpa.DeploymentSpec) error {
	for _, o := range s.seen {
		if o.Deployment != spec.Name || o.Target != spec.Target || o.Handle.IsZero() {
			continue
		}
		status, err := driver.Observe(ctx, o.Handle)
		if err != nil && !errors.Is(err, zarpa.ErrNotFound) {
			return fmt.Errorf("observe %s/%s: %w", o.Endpoint, o.Deployment, err)
		}
		o.Status = status
		return s.put(ctx, o)
	}
	return nil
}

// bundle packages the deployment; no digest and no error while its environment is being built.
func (s *step) bundle(ctx context.Context, spec zarpa.DeploymentSpec) (string, error) {
	models, err := s.models(ctx, spec)
	if err != nil {
		return "", s.unpacked(ctx, spec, err)
	}
	p := Package{Models: models, Spec: spec}
	b, err := s.environment(ctx, p)
	if err != nil {
		return "", fmt.Errorf("environment of %s: %w", spec.Name, err)
	}
	if b == nil {
		s.building = true
		return "", nil
	}
	p.Environment = b.env
	s.r.use(s.endpoint.Name+"/"+spec.Name, b.env)
	if s.op.begin(spec.Name, "package") {
		if err := s.op.save(ctx); err != nil {
			return "", err
		}
	}
	digest, err := s.r.o.Bundle(ctx, p)
	if err != nil {
		return "", s.unpacked(ctx, spec, err)
	}
	s.op.end(spec.Name, "package", fmt.Sprintf("%s as %.19s…", contents(spec), digest))
	return digest, nil
}

// unpacked notes why a deployment could not be packaged.
func (s *step) unpacked(ctx context.Context, spec zarpa.DeploymentSpec, err error) error {
	if ctx.Err() == nil {
		s.op.blocked(spec.Name, "package", err)
	}
	return fmt.Errorf("package %s: %w", contents(spec), err)
}

// contents names what a deployment is made of.
func contents(spec zarpa.DeploymentSpec) string {
	names := spec.AllModels()
	if spec.Code != "" {
		names = append([]string{spec.Entry}, names...)
	}
	return strings.Join(names, ", ")
}

// models reads the deployment's models, the one that answers /score first.
func (s *step) models(ctx context.Context, spec zarpa.DeploymentSpec) ([]zarpa.Model, error) {
	var models []zarpa.Model
	for _, name := range spec.AllModels() {
		ref, err := zarpa.ParseModelRef(name)
		if err != nil {
			return nil, err
		}
		m, err := s.r.o.Store.Nouns().Models.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		models = append(models, m)
	}
	return models, nil
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
	keep, _ := s.divide()
	if err := s.r.route(ctx, s.endpoint, keep); err != nil {
		return 0, err
	}
	complete := s.complete()
	if complete || s.op.traffic() {
		s.op.begin("", "route")
	}
	if err := s.r.routes.flush(ctx); err != nil {
		s.op.blocked("", "route", err)
		return retryPublish, nil
	}
	if err := s.use(ctx); err != nil {
		return 0, err
	}
	_, retire := s.divide() // with the weights of now
	if s.op.traffic() && !complete {
		s.op.blocked("", "route", zarpa.Errorf(zarpa.Unavailable, "%s not ready: the traffic stays as it was", s.lacking()).
			WithHint("zarpa endpoint show %s shows the replicas", s.endpoint.Name))
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
	if s.building && (again == 0 || again > buildShow) {
		again = buildShow
	}
	if s.follow {
		again = time.Millisecond
	}
	return again, err
}

// complete reports whether all is as wanted, with the routes and what is to go aside. A change of the
// traffic alone does not wait for replicas that do not matter to it.
func (s *step) complete() bool {
	wanted := s.spec.Weights()
	for name, share := range s.weights {
		if share != wanted[name] {
			return false
		}
	}
	if s.op.traffic() {
		return true
	}
	ready := len(s.satisfied) == len(s.spec.Deployments)
	for _, ok := range s.satisfied {
		ready = ready && ok
	}
	return ready
}

// lacking names the deployments that shall get more traffic and cannot answer.
func (s *step) lacking() string {
	able, wanted := capable(s.spec, s.seen), s.spec.Weights()
	var names []string
	for _, d := range s.spec.Deployments {
		if wanted[d.Name] > s.weights[d.Name] && !able[d.Name] {
			names = append(names, d.Name)
		}
	}
	return "deployment " + strings.Join(names, ", ") + " is"
}

// divide parts the records into those that are wanted and those to retire. A deployment that
// moves to another target keeps its old replicas until the new ones are ready, and one that is to go
// stays as long as it has a share of the traffic.
func (s *step) divide() (keep, retire []zarpa.Observed) {
	for _, o := range s.seen {
		i := slices.IndexFunc(s.spec.Deployments, func(d zarpa.DeploymentSpec) bool { return d.Name == o.Deployment })
		moved := i >= 0 && s.spec.Deployments[i].Target != o.Target && s.satisfied[o.Deployment]
		if i < 0 && !s.leaving(o) || moved {
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
			s.waits(o)
			continue
		}
		if err := s.r.o.Store.Nouns().Deployments.Delete(ctx, o); err != nil {
			return len(gone), err
		}
		s.op.end(o.Deployment, "remove", "")
	}
	return left, nil
}

// waits notes what a removal waits for, where the driver tells.
func (s *step) waits(o zarpa.Observed) {
	i := slices.IndexFunc(s.seen, func(other zarpa.Observed) bool { return other.Deployment == o.Deployment && other.Target == o.Target })
	if i < 0 || s.seen[i].Status.Message == "" {
		return
	}
	s.op.blocked(o.Deployment, "remove", zarpa.Errorf(zarpa.Unavailable, "%s", s.seen[i].Status.Message).
		WithHint("it goes on when target %q is back; where it is gone for good, zarpa target delete %s --force forgets what is left there", o.Target, o.Target))
}

// remove takes one step of a removal and reports whether nothing is left.
func (s *step) remove(ctx context.Context, o zarpa.Observed) (bool, error) {
	driver, ok := s.r.drivers.get(o.Target)
	if !ok {
		err := s.r.missing(ctx, o.Target)
		if errors.Is(err, zarpa.ErrNotFound) { // what is forgotten has nothing left
			return true, nil
		}
		return false, err
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
