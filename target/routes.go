package target

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// routeTable holds the route of every endpoint and publishes them as one snapshot.
type routeTable struct {
	router     zarpa.Router
	verifyKeys func() []zarpa.VerifyKey
	now        func() time.Time

	// keying is held from the reading of an endpoint's keys until they are in the table, over a read of
	// the store: a reading never replaces a newer one, which would bring a key back that was replaced.
	// It is taken before the others.
	keying sync.Mutex

	sending sync.Mutex // held while a snapshot is on its way: snapshots arrive in order
	mu      sync.Mutex // guards what follows; never held over I/O; taken after sending
	routes  map[string]zarpa.Route
	dirty   bool
	last    int64
}

func newRouteTable(router zarpa.Router, now func() time.Time) *routeTable {
	return &routeTable{router: router, verifyKeys: noKeys, now: now, routes: map[string]zarpa.Route{}, dirty: true}
}

func noKeys() []zarpa.VerifyKey { return nil }

func (t *routeTable) set(route zarpa.Route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.routes[route.Endpoint]; !ok || !reflect.DeepEqual(old, route) {
		t.routes[route.Endpoint] = route
		t.dirty = true
	}
}

func (t *routeTable) remove(endpoint string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.routes[endpoint]; ok {
		delete(t.routes, endpoint)
		t.dirty = true
	}
}

func (t *routeTable) setKeys(endpoint string, keys [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if route, ok := t.routes[endpoint]; ok && route.Auth == zarpa.AuthKey { // no key opens the others
		route.Keys = keys
		t.routes[endpoint] = route
		t.dirty = true
	}
}

// flush publishes when something changed since the last snapshot that arrived; one that is on its way
// is waited for.
func (t *routeTable) flush(ctx context.Context) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	if !t.stale() {
		return nil
	}
	return t.send(ctx)
}

// publish sends the snapshot and returns when the gateway uses it.
func (t *routeTable) publish(ctx context.Context) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	return t.send(ctx)
}

// send is publish with the turn to send taken.
func (t *routeTable) send(ctx context.Context) error {
	keys := t.verifyKeys() // read with the turn taken: a snapshot that is sent later has no older ones
	t.mu.Lock()
	// Revisions follow the clock so that they grow over restarts of the control plane.
	t.last = max(t.last+1, t.now().UnixMicro())
	snapshot := zarpa.Routes{Revision: t.last, VerifyKeys: keys, Endpoints: slices.SortedFunc(maps.Values(t.routes),
		func(a, b zarpa.Route) int { return cmp.Compare(a.Endpoint, b.Endpoint) })}
	t.dirty = false
	t.mu.Unlock()
	if err := t.router.SetRoutes(ctx, snapshot); err != nil {
		t.mu.Lock()
		t.dirty = true
		t.mu.Unlock()
		return err
	}
	return nil
}

// route computes an endpoint's route from what was observed and puts it into the table.
func (r *Reconciler) route(ctx context.Context, e zarpa.Endpoint, seen []zarpa.Observed) error {
	if e.Deleting {
		r.routes.remove(e.Name)
		return nil
	}
	var keys [][]byte
	spec := e.Spec.WithDefaults()
	r.routes.keying.Lock()
	defer r.routes.keying.Unlock()
	if spec.Auth == zarpa.AuthKey {
		var err error
		if keys, err = r.o.KeyDigests(ctx, e.Name); err != nil {
			return err
		}
	}
	route := Route(e.Name, spec, keys, seen)
	weights := settle(spec, seen)
	var names []string
	for name, share := range weights {
		if share > 0 && !slices.ContainsFunc(spec.Deployments, func(d zarpa.DeploymentSpec) bool { return d.Name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	leaving, err := r.past(ctx, e.Name, names)
	if err != nil {
		return err
	}
	for _, d := range leaving {
		route.Deployments = append(route.Deployments, routeDeployment(d, weights[d.Name], seen))
	}
	r.routes.set(route)
	return nil
}

// Route is the route of an endpoint whose spec has its defaults filled in, with the weights that are
// to be in use.
func Route(name string, spec zarpa.EndpointSpec, keys [][]byte, seen []zarpa.Observed) zarpa.Route {
	route := zarpa.Route{
		Endpoint: name, Auth: spec.Auth, Hostname: spec.Hostname, Keys: keys, RequestTimeout: spec.RequestTimeout,
		MaxQueue: spec.MaxQueue, QueueWait: spec.QueueWait, MaxBody: spec.MaxBody,
		StatusCodes: spec.StatusCodes, CORSOrigins: spec.CORSOrigins,
		Mirror: spec.Mirror, Sticky: spec.Sticky, Limits: spec.Limits, RetryBudget: *spec.RetryBudget, Ejection: spec.Ejection,
		Deployments: []zarpa.RouteDeployment{},
	}
	weights := settle(spec, seen)
	for _, d := range spec.Deployments {
		route.Deployments = append(route.Deployments, routeDeployment(d, weights[d.Name], seen))
	}
	if m := route.Mirror; m != nil && weights[m.Deployment] > 0 {
		route.Mirror = nil // it still has live traffic
	}
	return route
}

// routeDeployment is the part of a deployment whose defaults are filled in.
func routeDeployment(d zarpa.DeploymentSpec, weight int, seen []zarpa.Observed) zarpa.RouteDeployment {
	rd := zarpa.RouteDeployment{
		Name: d.Name, Weight: weight, MaxConcurrency: d.MaxConcurrency, SlowStart: d.SlowStart, ModelControl: d.ModelControl,
		Replicas: []zarpa.RouteReplica{},
	}
	if d.Scale.MayIdle() {
		rd.Hold = d.Scale.Hold
	}
	for _, o := range seen {
		if o.Deployment != d.Name {
			continue
		}
		for _, rep := range o.Status.Replicas {
			if rep.Phase == zarpa.ReplicaReady {
				rd.Replicas = append(rd.Replicas, zarpa.RouteReplica{ID: rep.ID, Address: rep.Address})
			}
		}
	}
	return rd
}

// stale reports whether the gateway does not have the last routes yet.
func (t *routeTable) stale() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dirty
}
