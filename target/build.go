package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Package is what a deployment's bundle is made from.
type Package struct {
	// Models are the deployment's, the main one first; none for a script without models.
	Models []zarpa.Model
	// Spec is the deployment, with the defaults filled in.
	Spec zarpa.DeploymentSpec
	// Environment is what [Options.Environment] returned.
	Environment *zarpa.BundleEnvironment
}

const (
	// buildLook is how long a step waits for a build: one that is there answers within it.
	buildLook = 100 * time.Millisecond
	// buildShow is how often the progress of a build is written into the operation.
	buildShow = 500 * time.Millisecond
	// buildRetry is how soon a build that failed is tried again for a deployment that still wants it.
	buildRetry = 5 * time.Minute
	// buildLog is how many lines of a build an operation keeps.
	buildLog = 20
)

// The phases that are builds: what they make may take minutes, beside the steps.
const (
	phaseEnvironment = "environment"
	phaseImage       = "image"
)

// builds are the environments and images that are being built or were, by who wants them. A build goes on
// while its endpoint is stepped for other reasons; that equal ones are built once is the matter of
// [Options.Environment] and of drivers. mu guards all and used.
type builds struct {
	mu   sync.Mutex
	all  map[wish]*build
	used map[string]string // environments by ENDPOINT/DEPLOYMENT
	runs sync.WaitGroup
}

// wish names what a deployment wants to be built.
type wish struct{ endpoint, deployment, phase string }

// job is how it is built.
type job struct {
	wish
	from string // what it is built from: something else is another build
	run  func(ctx context.Context, b *build) error
}

// build is one of them.
type build struct {
	from   string             // what it is built from
	cancel context.CancelFunc // ends it when nobody wants it any more
	done   chan struct{}      // closed when env or err is there

	mu    sync.Mutex
	lines []string // the newest of its log

	env   *zarpa.BundleEnvironment
	err   error
	ended time.Time
	soon  bool // what is unavailable is tried again at the next resync: that costs little
	// tried is the generation of the endpoint that last asked for it: a change asks again at once.
	tried int64
}

func (b *build) progress(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	if len(b.lines) > buildLog {
		b.lines = slices.Delete(b.lines, 0, len(b.lines)-buildLog)
	}
}

func (b *build) log() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.lines)
}

// environment is the deployment's environment, or nil with no error while it is being built.
func (s *step) environment(ctx context.Context, p Package) (*build, error) {
	var refs []string
	for _, m := range p.Models {
		refs = append(refs, m.Ref().String())
	}
	from, _ := json.Marshal([]any{p.Spec.Environment, p.Spec.Code, refs}) // plain values: cannot fail
	b, err := s.await(ctx, job{wish{s.endpoint.Name, p.Spec.Name, phaseEnvironment}, string(from), func(ctx context.Context, b *build) (err error) {
		b.env, err = s.r.o.Environment(ctx, p, b.progress)
		return err
	}})
	if b == nil || err != nil {
		if err != nil && !errors.Is(err, context.Canceled) {
			s.op.fail(p.Spec.Name, phaseEnvironment, err) // the operation; it is tried again all the same
		}
		return nil, err
	}
	if b.env != nil {
		s.op.begin(p.Spec.Name, phaseEnvironment)
		s.op.end(p.Spec.Name, phaseEnvironment, "Python "+b.env.Python+", "+b.env.ID)
	}
	return b, nil
}

// prepare lets a driver that has the power bring what the deployment runs from to its target, and reports
// whether that is done.
func (s *step) prepare(ctx context.Context, driver zarpa.Driver, d zarpa.Deployment) (bool, error) {
	p, ok := driver.(zarpa.Preparer)
	if !ok {
		return true, nil
	}
	name := d.Spec.Name
	b, err := s.await(ctx, job{wish{d.Endpoint, name, phaseImage}, d.Spec.Target + " " + d.Bundle, func(ctx context.Context, b *build) error {
		return p.Prepare(ctx, d, b.progress)
	}})
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			s.op.blocked(name, phaseImage, err)
		}
		return false, fmt.Errorf("prepare %s: %w", d.Key(), err)
	}
	if b == nil {
		s.building = true
		return false, nil
	}
	if lines := b.log(); len(lines) > 0 {
		s.op.begin(name, phaseImage)
		s.op.end(name, phaseImage, lines[len(lines)-1])
	}
	return true, nil
}

// await is a build that has ended well, or nil with no error while it runs: the endpoint is woken when it
// has ended.
func (s *step) await(ctx context.Context, j job) (*build, error) {
	b := s.build(ctx, j)
	look := time.NewTimer(buildLook)
	defer look.Stop()
	select {
	case <-b.done:
	case <-look.C:
		s.op.building(j.wish, b.log())
		return nil, nil //nolint:nilnil // the comment says what it means
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if b.err != nil {
		s.op.building(j.wish, b.log())
		return nil, b.err
	}
	return b, nil
}

// build finds the build of a job, or begins it.
func (s *step) build(ctx context.Context, j job) *build {
	r, generation := s.r, s.endpoint.Generation
	r.builds.mu.Lock()
	was := r.builds.all[j.wish]
	r.builds.mu.Unlock()
	if was != nil { // no other step of the endpoint runs meanwhile: the look at the disk needs no lock
		if was.from == j.from && r.holds(was, generation) {
			return was
		}
		was.cancel()
	}
	r.builds.mu.Lock()
	defer r.builds.mu.Unlock()
	b := &build{from: j.from, done: make(chan struct{}), tried: generation, soon: j.phase == phaseImage}
	ctx, b.cancel = context.WithCancel(ctx)
	r.builds.all[j.wish] = b
	r.builds.runs.Go(func() {
		defer b.cancel()
		b.err = j.run(ctx, b)
		b.ended = r.o.Now()
		close(b.done)
		r.Wake(j.endpoint)
	})
	return b
}

// holds reports whether a build need not be done again: it runs, or it is what this generation of the
// endpoint got and is still there, or it failed not long ago. A change asks again; what is there is
// found in no time.
func (r *Reconciler) holds(b *build, generation int64) bool {
	select {
	case <-b.done:
	default:
		return true
	}
	switch {
	case generation != b.tried:
		return false
	case b.err != nil && b.soon && zarpa.AsError(b.err).Code == zarpa.Unavailable:
		return r.o.Now().Sub(b.ended) < resync
	case b.err != nil:
		return r.o.Now().Sub(b.ended) <= buildRetry
	}
	return b.env == nil || r.o.Present(b.env.ID)
}

// building notes how far a build is.
func (rec *recorder) building(w wish, log []string) {
	if rec == nil || rec.op.State != zarpa.OperationRunning {
		return
	}
	rec.begin(w.deployment, w.phase)
	p := rec.find(w.deployment, w.phase)
	p.Log = log
	if len(log) > 0 {
		p.Detail = log[len(log)-1]
	}
}

// Environments are the environments in use, by the key of the deployment, ENDPOINT/DEPLOYMENT, as
// far as this reconciler has stepped them.
func (r *Reconciler) Environments() map[string]string {
	r.builds.mu.Lock()
	defer r.builds.mu.Unlock()
	return maps.Clone(r.builds.used)
}

// use notes which environment a deployment has, if any.
func (r *Reconciler) use(deployment string, env *zarpa.BundleEnvironment) {
	r.builds.mu.Lock()
	defer r.builds.mu.Unlock()
	delete(r.builds.used, deployment)
	if env != nil {
		r.builds.used[deployment] = env.ID
	}
}

// forget ends the builds of an endpoint's deployments but those to keep.
func (r *Reconciler) forget(endpoint string, keep []zarpa.DeploymentSpec) {
	r.builds.mu.Lock()
	defer r.builds.mu.Unlock()
	for w, b := range r.builds.all {
		if w.endpoint == endpoint && !slices.ContainsFunc(keep, func(d zarpa.DeploymentSpec) bool { return d.Name == w.deployment }) {
			b.cancel()
			delete(r.builds.all, w)
			delete(r.builds.used, w.endpoint+"/"+w.deployment)
		}
	}
}
