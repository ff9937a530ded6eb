// Package target makes targets match what is wanted. Its Reconciler reads the wanted state of
// endpoints from the store, lets drivers take one step at a time, writes what was observed and
// what each step brought into the running operation, and tells the gateway which replicas may
// get requests. It is the only writer of observed state and of routes.
package target

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Options are the parts that a Reconciler works with.
type Options struct {
	Store zarpa.Store
	// Drivers holds the driver of each target, by the target's name; [Reconciler.SetDriver] brings others.
	Drivers map[string]zarpa.Driver
	// Bundle packages a deployment and returns the bundle's digest. It is called again for the same
	// package and must then be cheap.
	Bundle func(ctx context.Context, p Package) (string, error)
	// Environment builds the Python environment that a package needs, which may take minutes, and
	// gives the lines of its log to progress; nil for a package that needs none. It may be nil itself:
	// then none does.
	Environment func(ctx context.Context, p Package, progress func(line string)) (*zarpa.BundleEnvironment, error)
	// Present reports whether an environment that was built is still there, by its ID; nil is always.
	Present func(id string) bool
	// KeyDigests returns what the gateway keeps of an endpoint's keys; not_found for no keys.
	KeyDigests func(ctx context.Context, endpoint string) ([][]byte, error)
	// VerifyKeys returns the keys that make scoring tokens valid; nil for none. Who changes them calls
	// [Reconciler.Republish].
	VerifyKeys func() []zarpa.VerifyKey
	Router     zarpa.Router
	// Wanted is how many replicas a deployment with Scale should have now, its defaults filled in; nil
	// takes its Replicas. [Reconciler.Wake] tells of another number.
	Wanted func(endpoint string, d zarpa.DeploymentSpec) int
	Log    *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

const (
	// resync is how often every endpoint is looked at without a reason: it heals what a lost
	// notification missed.
	resync = 5 * time.Second
	// retryPublish is how soon routes are sent again to a gateway that could not be reached.
	retryPublish = 200 * time.Millisecond
	// retryStep is how soon a step that failed is tried again.
	retryStep = time.Second
	// parallel is how many endpoints are stepped at a time.
	parallel = 8
	// keepOperations is how many ended operations each endpoint keeps.
	keepOperations = 20
)

// Reconciler makes targets match deployments: see the package comment. Its methods may be called
// from many goroutines.
type Reconciler struct {
	o       Options
	routes  *routeTable
	builds  builds
	drivers drivers

	history history

	mu      sync.Mutex
	pending map[string]bool   // endpoints to step
	busy    map[string]bool   // endpoints being stepped
	told    map[string]string // what was logged last of each endpoint's way
	wake    chan struct{}     // holds one token when pending grew
	changed chan struct{}     // closed and replaced when an operation changed
}

// New makes a Reconciler that does nothing until Run.
func New(o Options) *Reconciler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Environment == nil {
		o.Environment = func(context.Context, Package, func(string)) (*zarpa.BundleEnvironment, error) { return nil, nil } //nolint:nilnil // none is needed
	}
	if o.Present == nil {
		o.Present = func(string) bool { return true }
	}
	if o.Wanted == nil {
		o.Wanted = func(_ string, d zarpa.DeploymentSpec) int { return d.Replicas }
	}
	r := &Reconciler{
		o: o, routes: newRouteTable(o.Router, o.Now), history: history{of: map[string]*remembered{}},
		builds:  builds{all: map[wish]*build{}, used: map[string]string{}},
		pending: map[string]bool{}, busy: map[string]bool{}, told: map[string]string{},
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	if o.VerifyKeys != nil {
		r.routes.verifyKeys = o.VerifyKeys
	}
	for name, d := range o.Drivers {
		r.drivers.set(name, d, r.notified)
	}
	return r
}

// Wake asks for a step of an endpoint, soon. It never blocks.
func (r *Reconciler) Wake(endpoint string) {
	r.mu.Lock()
	r.pending[endpoint] = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Changed returns a channel that is closed at the next change of any operation.
func (r *Reconciler) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *Reconciler) announce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Run reconciles until ctx ends and waits for the steps and builds under way. At first it looks at all that
// runs and tells the gateway, so that a restart takes no replica off the routes.
func (r *Reconciler) Run(ctx context.Context) error {
	if err := r.adopt(ctx); err != nil {
		return err
	}
	var running sync.WaitGroup
	defer r.builds.runs.Wait()
	defer running.Wait()
	slots := make(chan struct{}, parallel)
	tick := time.NewTicker(resync)
	defer tick.Stop()
	r.wakeAll(ctx)
	for {
		for _, name := range r.take() {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			running.Go(func() {
				defer func() { <-slots }()
				r.run(ctx, name)
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-tick.C:
			r.wakeAll(ctx)
		}
	}
}

// take moves the endpoints that may be stepped now from pending to busy.
func (r *Reconciler) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name := range r.pending {
		if !r.busy[name] {
			delete(r.pending, name)
			r.busy[name] = true
			names = append(names, name)
		}
	}
	return names
}

// run steps one endpoint and gives it free again; what was asked for meanwhile is done next.
func (r *Reconciler) run(ctx context.Context, name string) {
	again, err := r.Step(ctx, name)
	r.tell(ctx, name, err)
	if err != nil {
		again = retryStep
	}
	r.mu.Lock()
	delete(r.busy, name)
	more := r.pending[name]
	r.mu.Unlock()
	switch {
	case more:
		r.Wake(name)
	case again > 0:
		time.AfterFunc(again, func() { r.Wake(name) })
	}
}

// tell logs what is in an endpoint's way once, and not at every try.
func (r *Reconciler) tell(ctx context.Context, name string, err error) {
	text := ""
	if err != nil && ctx.Err() == nil {
		text = cause(err).Error()
	}
	r.mu.Lock()
	told := r.told[name]
	if text == "" {
		delete(r.told, name)
	} else {
		r.told[name] = text
	}
	r.mu.Unlock()
	if text != "" && text != told {
		r.o.Log.Error("reconcile", "endpoint", name, "error", text)
	}
}

func (r *Reconciler) wakeAll(ctx context.Context) {
	endpoints, err := r.o.Store.Nouns().Endpoints.List(ctx)
	if err != nil && ctx.Err() == nil {
		r.o.Log.Error("list endpoints", "error", cause(err))
	}
	for _, e := range endpoints {
		r.Wake(e.Name)
	}
}

// adopt fills the route table with all that runs, before anything is changed.
func (r *Reconciler) adopt(ctx context.Context) error {
	nouns := r.o.Store.Nouns()
	endpoints, err := nouns.Endpoints.List(ctx)
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if err := e.Spec.Validate(); err != nil { // of an earlier release: it serves on, and cannot be changed as it is
			r.o.Log.Warn("an endpoint is not as it must be now", "endpoint", e.Name, "error", err)
		}
		seen, err := nouns.Deployments.List(ctx, e.Name)
		if err != nil {
			return err
		}
		for i := range seen {
			if d, ok := r.drivers.get(seen[i].Target); ok {
				if s, err := d.Observe(ctx, seen[i].Handle); err == nil {
					seen[i].Status = s
				}
			}
		}
		if err := r.route(ctx, e, seen); err != nil {
			return err
		}
	}
	if err := r.routes.publish(ctx); err != nil {
		r.o.Log.Warn("the gateway has not taken the routes yet", "error", cause(err))
	}
	return nil
}

// Refresh brings an endpoint's keys to the gateway and returns when they are in use. When the
// gateway is away it says unavailable: it will be given them when it is back.
func (r *Reconciler) Refresh(ctx context.Context, endpoint string) error {
	if err := r.readKeys(ctx, endpoint); err != nil {
		return err
	}
	return r.routes.publish(ctx)
}

// readKeys brings an endpoint's keys into the table.
func (r *Reconciler) readKeys(ctx context.Context, endpoint string) error {
	r.routes.keying.Lock()
	defer r.routes.keying.Unlock()
	digests, err := r.o.KeyDigests(ctx, endpoint)
	if err != nil {
		return err
	}
	r.routes.setKeys(endpoint, digests)
	return nil
}

// Republish sends the routes to a gateway that is new.
func (r *Reconciler) Republish(ctx context.Context) error { return r.routes.publish(ctx) }

// cause is an error with what its user-facing text leaves out.
func cause(err error) error {
	var e *zarpa.Error
	if errors.As(err, &e) && e.Err != nil {
		return errors.Join(err, e.Err)
	}
	return err
}
