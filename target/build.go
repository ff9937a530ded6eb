package target

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
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
	// buildLook is how long a step waits for an environment: one that is there answers within it.
	buildLook = 100 * time.Millisecond
	// buildShow is how often the progress of a build is written into the operation.
	buildShow = 500 * time.Millisecond
	// buildRetry is how soon a build that failed is tried again for a deployment that still wants it.
	buildRetry = 5 * time.Minute
	// buildLog is how many lines of a build an operation keeps.
	buildLog = 20
)

// builds are the environments that are being built or were, by the deployments that want them, as
// ENDPOINT/DEPLOYMENT. A build goes on while its endpoint is stepped for other reasons; that equal
// environments are built once is the matter of [Options.Environment]. mu guards all and used.
type builds struct {
	mu   sync.Mutex
	all  map[string]*build
	used map[string]string // environments by ENDPOINT/DEPLOYMENT
	runs sync.WaitGroup
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

// environment is the deployment's environment, or nil with no error while it is being built: the
// endpoint is woken when that has ended.
func (s *step) environment(ctx context.Context, p Package) (*build, error) {
	b := s.build(ctx, p)
	look := time.NewTimer(buildLook)
	defer look.Stop()
	select {
	case <-b.done:
	case <-look.C:
		s.op.building(p.Spec.Name, b.log())
		return nil, nil //nolint:nilnil // the comment says what it means
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if b.err != nil {
		s.op.building(p.Spec.Name, b.log())
		if !errors.Is(b.err, context.Canceled) {
			s.op.fail(p.Spec.Name, "environment", b.err) // the operation; it is tried again all the same
		}
		return nil, b.err
	}
	if b.env != nil {
		s.op.begin(p.Spec.Name, "environment")
		s.op.end(p.Spec.Name, "environment", "Python "+b.env.Python+", "+b.env.ID)
	}
	return b, nil
}

// build finds the build of what p needs, or begins it.
func (s *step) build(ctx context.Context, p Package) *build {
	var refs []string
	for _, m := range p.Models {
		refs = append(refs, m.Ref().String())
	}
	text, _ := json.Marshal([]any{p.Spec.Environment, p.Spec.Code, refs}) // plain values: cannot fail
	key, r, generation := s.endpoint.Name+"/"+p.Spec.Name, s.r, s.endpoint.Generation
	r.builds.mu.Lock()
	was := r.builds.all[key]
	r.builds.mu.Unlock()
	if was != nil { // no other step of the endpoint runs meanwhile: the look at the disk needs no lock
		if was.from == string(text) && r.holds(was, generation) {
			return was
		}
		was.cancel()
	}
	r.builds.mu.Lock()
	defer r.builds.mu.Unlock()
	b := &build{from: string(text), done: make(chan struct{}), tried: generation}
	ctx, b.cancel = context.WithCancel(ctx)
	r.builds.all[key] = b
	r.builds.runs.Go(func() {
		defer b.cancel()
		b.env, b.err = r.o.Environment(ctx, p, b.progress)
		b.ended = r.o.Now()
		close(b.done)
		r.Wake(s.endpoint.Name)
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
	case b.err != nil:
		return r.o.Now().Sub(b.ended) <= buildRetry
	}
	return b.env == nil || r.o.Present(b.env.ID)
}

// building notes how far a build is.
func (rec *recorder) building(deployment string, log []string) {
	if rec == nil || rec.op.State != zarpa.OperationRunning {
		return
	}
	rec.begin(deployment, "environment")
	p := rec.find(deployment, "environment")
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
	for key, b := range r.builds.all {
		name, ours := strings.CutPrefix(key, endpoint+"/")
		if ours && !slices.ContainsFunc(keep, func(d zarpa.DeploymentSpec) bool { return d.Name == name }) {
			b.cancel()
			delete(r.builds.all, key)
			delete(r.builds.used, key)
		}
	}
}
