package target_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/store/sqlite"
	"github.com/zarpa-dev/zarpa/target"
	"github.com/zarpa-dev/zarpa/target/memory"
)

// ground is a store and a driver that outlive reconcilers, as they do in a crash.
type ground struct {
	store  *sqlite.Store
	driver *memory.Driver
	router *router
	starts *flaky
	wanted func(string, zarpa.DeploymentSpec) int
}

// router keeps the last routes, and can be away.
type router struct {
	mu   sync.Mutex
	last zarpa.Routes
	away bool
}

func (r *router) SetRoutes(_ context.Context, routes zarpa.Routes) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		return zarpa.Errorf(zarpa.Unavailable, "the gateway cannot be reached")
	}
	r.last = routes
	return nil
}

func (r *router) setAway(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
}

// replicas counts those of an endpoint on the routes; -1 when there is no route.
func (r *router) replicas(endpoint string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.last.Endpoints {
		if e.Endpoint == endpoint {
			n := 0
			for _, d := range e.Deployments {
				n += len(d.Replicas)
			}
			return n
		}
	}
	return -1
}

func newGround(t *testing.T) *ground {
	t.Helper()
	ctx := t.Context()
	store, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "zarpa.db"))
	if err != nil {
		t.Fatal(err)
	}
	starts := &flaky{}
	driver, err := memory.New(ctx, memory.Options{Start: starts.start})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(driver.StopAll(context.WithoutCancel(ctx)), driver.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	g := &ground{store: store, driver: driver, router: &router{}, starts: starts}
	for _, name := range []string{"good", "other", "broken", "flaky", "dying"} {
		if _, err := store.Nouns().Models.Create(ctx, zarpa.Model{Name: name, Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// startReplica starts an HTTP server that is ready at once; the model "broken" cannot be loaded.
func startReplica(ctx context.Context, r memory.Replica) (memory.Running, error) {
	if strings.Contains(r.Deployment.Bundle, "broken") {
		return memory.Running{}, fmt.Errorf("%w: it is broken", memory.ErrLoad)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return memory.Running{}, err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	go func() {
		defer close(done)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			done <- err
		}
	}()
	return memory.Running{Address: "http://" + ln.Addr().String(), Done: done, Shutdown: srv.Shutdown}, nil
}

// flaky lets replicas of the model "flaky" die twice before they start, those of "dying" always.
type flaky struct {
	mu   sync.Mutex
	n    map[string]int
	gate chan struct{} // when set, replicas end after it is closed
}

func (f *flaky) start(ctx context.Context, r memory.Replica) (memory.Running, error) {
	f.mu.Lock()
	if f.n == nil {
		f.n = map[string]int{}
	}
	f.n[r.ID]++
	n := f.n[r.ID]
	f.mu.Unlock()
	dies := strings.Contains(r.Deployment.Bundle, "dying") || strings.Contains(r.Deployment.Bundle, "flaky") && n <= 2
	if dies {
		return memory.Running{}, errors.New("it died")
	}
	running, err := startReplica(ctx, r)
	end := running.Shutdown
	running.Shutdown = func(ctx context.Context) error {
		f.mu.Lock()
		gate := f.gate
		f.mu.Unlock()
		if gate != nil {
			<-gate
		}
		return end(ctx)
	}
	return running, err
}

// reconcile starts a reconciler over the ground and returns it with its end.
func (g *ground) reconcile(t *testing.T) (*target.Reconciler, func()) {
	t.Helper()
	r := target.New(g.options())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return r, stop
}

func (g *ground) options() target.Options {
	return target.Options{
		Store: g.store, Drivers: map[string]zarpa.Driver{"local": g.driver}, Router: g.router,
		Bundle: func(_ context.Context, p target.Package) (string, error) {
			names := []string{}
			for _, m := range p.Models {
				names = append(names, m.Name)
			}
			slices.Sort(names) // as a bundle does
			return "sha256:" + strings.Join(names, "+"), nil
		},
		KeyDigests: func(context.Context, string) ([][]byte, error) { return nil, nil },
		Log:        slog.New(slog.DiscardHandler), Wanted: g.wanted,
	}
}

// hold keeps replicas from ending until the returned function is called.
func (g *ground) hold(t *testing.T) (release func()) {
	t.Helper()
	gate := make(chan struct{})
	g.starts.mu.Lock()
	g.starts.gate = gate
	g.starts.mu.Unlock()
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	return release
}

// want stores an endpoint with an operation, as the API does.
func (g *ground) want(t *testing.T, e zarpa.Endpoint, kind string) zarpa.Operation {
	t.Helper()
	e.Created, e.Updated = time.Now().UTC(), time.Now().UTC()
	op := zarpa.Operation{
		ID: fmt.Sprintf("op-%s-%d", e.Name, e.Generation), Kind: kind, Endpoint: e.Name, Generation: e.Generation,
		State: zarpa.OperationRunning, Created: time.Now().UTC(),
	}
	if was, err := g.store.Nouns().Endpoints.Get(t.Context(), e.Name); err == nil {
		op.Before = &was.Spec
	}
	err := g.store.Atomically(t.Context(), func(n zarpa.Nouns) error {
		return errors.Join(n.Operations.Create(t.Context(), op), n.Endpoints.Put(t.Context(), e))
	})
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func endpoint(name, model string, replicas int) zarpa.Endpoint {
	return zarpa.Endpoint{Name: name, Generation: 1, Spec: zarpa.EndpointSpec{
		Auth: zarpa.AuthNone, Deployments: []zarpa.DeploymentSpec{{Name: "blue", Model: model, Target: "local", Replicas: replicas}},
	}}
}

// ends waits until an operation has ended.
func (g *ground) ends(t *testing.T, r *target.Reconciler, op zarpa.Operation) zarpa.Operation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		changed := r.Changed()
		got, err := g.store.Nouns().Operations.Get(ctx, op.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.State != zarpa.OperationRunning {
			return got
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the operation did not end: %+v", got)
		}
	}
}

func TestReconcileBringsReplicasOntoTheRoutes(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	op := g.want(t, endpoint("a", "good:1", 3), "deploy")
	r, _ := g.reconcile(t)
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	if n := g.router.replicas("a"); n != 3 {
		t.Errorf("%d replicas on the routes, want 3", n)
	}
}

func TestReconcileReplacesReplicasWhoseModelsOrBatchingChange(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	e := endpoint("a", "good:1", 2)
	op := g.want(t, e, "deploy")
	r, _ := g.reconcile(t)
	g.ends(t, r, op)
	for _, c := range []struct {
		name   string
		change func(*zarpa.DeploymentSpec)
	}{
		{"rows", func(d *zarpa.DeploymentSpec) { d.MaxBatchRows = 16 }},
		{"delay", func(d *zarpa.DeploymentSpec) { d.MaxBatchDelay = zarpa.Duration(time.Millisecond) }},
		{"control", func(d *zarpa.DeploymentSpec) { d.ModelControl = zarpa.ModelControlExplicit }},
		{"a further model", func(d *zarpa.DeploymentSpec) { d.Models = []string{"other:1"} }},
		{"another main model", func(d *zarpa.DeploymentSpec) { d.Model, d.Models = "other:1", []string{"good:1"} }},
	} {
		before := g.router.ids()
		e.Generation++
		c.change(&e.Spec.Deployments[0])
		op := g.want(t, e, "update")
		r.Wake("a")
		if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
			t.Fatalf("%s: %+v", c.name, got)
		}
		after := g.router.ids()
		if len(after) != 2 || slices.ContainsFunc(after, func(id string) bool { return slices.Contains(before, id) }) {
			t.Errorf("%s: %v on the routes after %v; want two new ones", c.name, after, before)
		}
	}
}

func TestReconcileKeepsTheOldReplicasWhenTheNewModelIsBroken(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	op := g.want(t, endpoint("a", "good:1", 1), "deploy")
	r, _ := g.reconcile(t)
	g.ends(t, r, op)
	e := endpoint("a", "broken:1", 1)
	e.Generation = 2
	op = g.want(t, e, "update")
	r.Wake("a")
	got := g.ends(t, r, op)
	if got.State != zarpa.OperationFailed || got.Error == nil || got.Error.Code != zarpa.ModelError ||
		!strings.Contains(got.Error.Message, "it is broken") {
		t.Errorf("%+v, error %v; want failed by a model_error with its cause", got, got.Error)
	}
	if n := g.router.replicas("a"); n != 1 {
		t.Errorf("%d replicas on the routes, want the old one", n)
	}
}

// told is a driver that says what it was told to.
type told struct{ status zarpa.DeploymentStatus }

func (d told) Apply(context.Context, zarpa.Deployment) (zarpa.Handle, error) {
	return zarpa.Handle{Version: 1}, nil
}

func (d told) Observe(_ context.Context, _ zarpa.Handle) (zarpa.DeploymentStatus, error) {
	return d.status, nil
}

func (d told) Remove(context.Context, zarpa.Handle) error { return nil }

func TestReconcileNamesThePhaseOfADeathThatNobodyWatched(t *testing.T) {
	t.Parallel()
	for phase, last := range map[string]zarpa.Exit{
		"load":  {Code: zarpa.ExitLoadFailed, Reason: "the model could not be loaded"},
		"start": {Code: -1, Reason: "the replica's process cannot be started"},
	} {
		g := newGround(t)
		op := g.want(t, endpoint("a", "good:1", 1), "deploy")
		revision := zarpa.Deployment{
			Bundle: "sha256:good", Spec: endpoint("a", "good:1", 1).Spec.WithDefaults().Deployments[0],
			Request: zarpa.RequestLimits{Timeout: zarpa.DefaultRequestTimeout, MaxBody: zarpa.DefaultMaxBody},
		}.Revision()
		last.At = time.Now().Add(time.Hour)
		o := g.options()
		o.Drivers = map[string]zarpa.Driver{"local": told{zarpa.DeploymentStatus{Revision: revision, Replicas: []zarpa.Replica{
			{ID: "blue-0", Revision: revision, Phase: zarpa.ReplicaBackoff, Last: &last},
		}}}}
		if _, err := target.New(o).Step(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		got, err := g.store.Nouns().Operations.Get(t.Context(), op.ID)
		if err != nil {
			t.Fatal(err)
		}
		if end := got.Phases[len(got.Phases)-1]; end.Name != phase || !strings.Contains(end.Cause, last.Reason) {
			t.Errorf("%+v: the phases are %+v; want %s to be last, with its cause", last, got.Phases, phase)
		}
	}
}

func TestReconcileForgivesTwoDeathsAtTheStartButNotThree(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	flaky := g.want(t, endpoint("a", "flaky:1", 1), "deploy")
	dying := g.want(t, endpoint("b", "dying:1", 1), "deploy")
	r, _ := g.reconcile(t)
	if got := g.ends(t, r, flaky); got.State != zarpa.OperationSucceeded {
		t.Errorf("two deaths: %+v", got)
	}
	got := g.ends(t, r, dying)
	if got.State != zarpa.OperationFailed || got.Error == nil || !strings.Contains(got.Error.Message, "it died") {
		t.Errorf("three deaths: %+v, %v", got, got.Error)
	}
}

func TestReconcileWaitsForTheGatewayBeforeItStopsAnything(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	op := g.want(t, endpoint("a", "good:1", 1), "deploy")
	r, _ := g.reconcile(t)
	g.ends(t, r, op)
	g.router.setAway(true)
	e := endpoint("a", "good:1", 1)
	e.Generation, e.Deleting = 2, true
	op = g.want(t, e, "delete")
	if _, err := r.Step(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	seen, err := g.store.Nouns().Deployments.List(t.Context(), "a")
	if err != nil || len(seen) != 1 || seen[0].Status.Ready("") != 1 {
		t.Errorf("while the gateway is away: %+v, %v; want the replica as it was", seen, err)
	}
	g.router.setAway(false)
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Errorf("%+v", got)
	}
	if n := g.router.replicas("a"); n != -1 {
		t.Errorf("the route of a deleted endpoint has %d replicas", n)
	}
}

func TestReconcileFindsWhatALostApplyMade(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	ctx := t.Context()
	// The control plane died between Apply and the storing of its handle, and then the endpoint
	// was deleted.
	spec := endpoint("a", "good:1", 2).Spec.WithDefaults().Deployments[0]
	if _, err := g.driver.Apply(ctx, zarpa.Deployment{Endpoint: "a", Spec: spec, Bundle: "sha256:good"}); err != nil {
		t.Fatal(err)
	}
	if err := g.store.Nouns().Deployments.Put(ctx, zarpa.Observed{Endpoint: "a", Deployment: "blue", Target: "local"}); err != nil {
		t.Fatal(err)
	}
	e := endpoint("a", "good:1", 2)
	e.Deleting = true
	op := g.want(t, e, "delete")
	r, _ := g.reconcile(t)
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	h, err := g.driver.Apply(ctx, zarpa.Deployment{Endpoint: "a", Spec: zarpa.DeploymentSpec{Name: "blue"}})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := g.driver.Observe(ctx, h); err == nil && len(s.Replicas) != 0 {
		t.Errorf("still there: %+v", s)
	}
}

func TestReconcileGoesOnWhereAnotherOneStopped(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	first := g.want(t, endpoint("a", "good:1", 1), "deploy")
	r, stop := g.reconcile(t)
	g.ends(t, r, first)
	stop()
	second := g.want(t, endpoint("b", "good:1", 1), "deploy")
	g.router.mu.Lock()
	g.router.last = zarpa.Routes{}
	g.router.mu.Unlock()
	r, _ = g.reconcile(t)
	if got := g.ends(t, r, second); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	if a, b := g.router.replicas("a"), g.router.replicas("b"); a != 1 || b != 1 {
		t.Errorf("replicas on the routes: a %d, b %d; want 1 each", a, b)
	}
}

func TestReconcileDoesNotSpinWhileAReplicaDrains(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	op := g.want(t, endpoint("a", "good:1", 2), "deploy")
	r, stop := g.reconcile(t)
	g.ends(t, r, op)
	stop()
	release := g.hold(t)
	e := endpoint("a", "good:1", 1)
	e.Generation = 2
	g.want(t, e, "update")
	r = target.New(g.options())
	// The first step marks one to drain and takes it off the routes, the second tells it to stop.
	for i, want := range []bool{true, false, false} {
		again, err := r.Step(t.Context(), "a")
		if err != nil || (again == time.Millisecond) != want {
			t.Errorf("step %d: again after %v, %v; want at once: %v", i+1, again, err, want)
		}
	}
	release()
}

func TestRouteGivesTheRestOfTheTrafficToTheFirstDeployment(t *testing.T) {
	t.Parallel()
	five := 5
	for _, c := range []struct {
		name        string
		blue, green *int
		want        [2]int
	}{
		{"nobody said", nil, nil, [2]int{100, 0}},
		{"green is told", nil, &five, [2]int{95, 5}},
	} {
		spec := zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{
			{Name: "blue", Weight: c.blue}, {Name: "green", Weight: c.green},
		}}.WithDefaults()
		got := target.Route("a", spec, nil, nil)
		if w := [2]int{got.Deployments[0].Weight, got.Deployments[1].Weight}; w != c.want {
			t.Errorf("%s: weights %v, want %v", c.name, w, c.want)
		}
	}
}
