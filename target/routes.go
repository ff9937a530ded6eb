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
	router zarpa.Router
	now    func() time.Time

	sending sync.Mutex // held while a snapshot is on its way: snapshots arrive in order
	mu      sync.Mutex // guards what follows; never held over I/O; taken after sending
	routes  map[string]zarpa.Route
	dirty   bool
	last    int64
}

func newRouteTable(router zarpa.Router, now func() time.Time) *routeTable {
	return &routeTable{router: router, now: now, routes: map[string]zarpa.Route{}, dirty: true}
}

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
	if route, ok := t.routes[endpoint]; ok {
		route.Keys = keys
		t.routes[endpoint] = route
		t.dirty = true
	}
}

// flush publishes when something changed since the last snapshot that arrived.
func (t *routeTable) flush(ctx context.Context) error {
	t.mu.Lock()
	dirty := t.dirty
	t.mu.Unlock()
	if !dirty {
		return nil
	}
	return t.publish(ctx)
}

// publish sends the snapshot and returns when the gateway uses it.
func (t *routeTable) publish(ctx context.Context) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	t.mu.Lock()
	// Revisions follow the clock so that they grow over restarts of the control plane.
	t.last = max(t.last+1, t.now().UnixMicro())
	snapshot := zarpa.Routes{Revision: t.last, Endpoints: slices.SortedFunc(maps.Values(t.routes),
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
	if spec.Auth == zarpa.AuthKey {
		var err error
		if keys, err = r.o.KeyDigests(ctx, e.Name); err != nil {
			return err
		}
	}
	r.routes.set(Route(e.Name, spec, keys, seen))
	return nil
}

// Route is the route of an endpoint whose spec has its defaults filled in. Weights that nobody
// set go to the first deployment: a further deployment gets traffic only when told.
func Route(name string, spec zarpa.EndpointSpec, keys [][]byte, seen []zarpa.Observed) zarpa.Route {
	route := zarpa.Route{
		Endpoint: name, Auth: spec.Auth, Keys: keys, RequestTimeout: spec.RequestTimeout,
		MaxQueue: spec.MaxQueue, QueueWait: spec.QueueWait, MaxBody: spec.MaxBody,
		Deployments: []zarpa.RouteDeployment{},
	}
	weighted := slices.ContainsFunc(spec.Deployments, func(d zarpa.DeploymentSpec) bool { return d.Weight != nil })
	for i, d := range spec.Deployments {
		rd := zarpa.RouteDeployment{Name: d.Name, MaxConcurrency: d.MaxConcurrency, Replicas: []zarpa.RouteReplica{}}
		switch {
		case d.Weight != nil:
			rd.Weight = *d.Weight
		case !weighted && i == 0:
			rd.Weight = 100
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
		route.Deployments = append(route.Deployments, rd)
	}
	return route
}

// stale reports whether the gateway does not have the last routes yet.
func (t *routeTable) stale() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dirty
}
