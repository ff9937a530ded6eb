// Package gateway brings prediction requests to replicas: it authenticates, picks a deployment and
// its least loaded replica, waits for a free one, and hands the request over.
//
// It holds all that it needs in memory, as one snapshot of routes that a [zarpa.Router]'s caller
// gives it, and asks nobody while a request is under way: predictions go on while the control plane
// is down. It knows no model, no tensor and no store; it is imported by cmd alone.
package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// Options configure a [Gateway]. All may be zero.
type Options struct {
	// Log gets one line per failure that is the gateway's or a replica's, and one per request at
	// the debug level; nil discards.
	Log *slog.Logger
	// Registry gets the metrics, and /metrics of the control socket shows it; nil makes one.
	Registry *prometheus.Registry
	// Version is what GET /v2 and the control socket answer.
	Version string
	// RoutesFile is where SetRoutes keeps the routes in use, for [Gateway.Restore] after a restart
	// while the control plane is down; empty keeps nothing.
	RoutesFile string
	// Self is answered as JSON by GET /-/self of the control socket: what the gateway says of
	// itself to a control plane that wants to adopt it.
	Self any
	// DialTimeout bounds the connecting to a replica; 0 is [DefaultDialTimeout].
	DialTimeout time.Duration
}

// The limits that are not an endpoint's own.
const (
	// DefaultDialTimeout bounds the connecting to a replica; on one machine it takes microseconds.
	DefaultDialTimeout = 2 * time.Second
	// SmallBody is how much of a request body is read before a replica is taken: a slow client
	// then costs one connection and no replica. Larger bodies are streamed behind it.
	SmallBody = 64 << 10
	// MaxHead is the longest head of a replica's answer.
	MaxHead = 16 << 10
	// MaxIdle is how many unused connections to one replica are kept.
	MaxIdle = 256
	// IdleTimeout is how long an unused connection is kept.
	IdleTimeout = 90 * time.Second
	// benchTime is how long a replica that refused a connection gets no requests. It is short
	// because the control plane, when it is up, takes a dead replica off the routes sooner.
	benchTime = 100 * time.Millisecond
)

// Gateway is one gateway. All methods may be called from many goroutines.
type Gateway struct {
	log        *slog.Logger
	metrics    *metrics
	registry   *prometheus.Registry
	version    string
	self       any
	routesFile string
	dial       dialer
	debug      bool
	workspaces workspaces
	readers    readers
	draining   atomic.Bool

	current atomic.Pointer[snapshot]

	mu sync.Mutex // held by SetRoutes alone, over the change of the snapshot and of the file
}

var _ zarpa.Router = (*Gateway)(nil)

// snapshot is all that requests read. It never changes once it is in use; what counts (pools) is
// shared by the snapshots that have the endpoint.
type snapshot struct {
	routes zarpa.Routes
	rules  map[string]*rule
}

// rule is one endpoint in a snapshot.
type rule struct {
	name    string
	open    bool // no key needed
	keys    [][32]byte
	timeout time.Duration
	wait    time.Duration
	maxBody int64
	pool    *pool
}

// New returns a gateway without routes.
func New(o Options) *Gateway {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = DefaultDialTimeout
	}
	g := &Gateway{
		log: o.Log, registry: o.Registry, version: o.Version, self: o.Self, routesFile: o.RoutesFile,
		dial:  dialer{timeout: o.DialTimeout},
		debug: o.Log.Enabled(context.Background(), slog.LevelDebug),
	}
	g.current.Store(&snapshot{rules: map[string]*rule{}})
	g.metrics = newMetrics(o.Registry, g.pools)
	return g
}

// SetRoutes brings routes into use. Requests that are under way end as they began; waiting ones
// get the new replicas at once. Routes that are older than those in use are ignored without an
// error; invalid names the first field that is wrong, and then nothing is changed.
func (g *Gateway) SetRoutes(ctx context.Context, r zarpa.Routes) error {
	if err := validateRoutes(r); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return zarpa.AsError(err)
	}
	if r.Revision < g.current.Load().routes.Revision {
		return nil
	}
	g.swap(r)
	if g.routesFile == "" {
		return nil
	}
	if err := SaveRoutes(g.routesFile, r); err != nil {
		// The routes are in use, which is what was asked for: a full disk must not stop traffic.
		g.log.LogAttrs(ctx, slog.LevelWarn, "routes are in use but could not be kept for a restart", slog.Any("error", err))
	}
	return nil
}

// Restore brings the routes of the RoutesFile into use; that there are none yet is no error.
// It comes before the first SetRoutes, and removes what a kill within one left beside the file.
func (g *Gateway) Restore(ctx context.Context) error {
	if err := sweepRoutes(g.routesFile); err != nil {
		g.log.LogAttrs(ctx, slog.LevelWarn, "files of an interrupted write stay", slog.Any("error", err))
	}
	r, err := LoadRoutes(g.routesFile)
	if err != nil || ctx.Err() != nil {
		return err
	}
	if err := validateRoutes(r); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Revision >= g.current.Load().routes.Revision {
		g.swap(r)
	}
	return nil
}

// Routes are those in use.
func (g *Gateway) Routes() zarpa.Routes { return g.current.Load().routes }

func (g *Gateway) swap(r zarpa.Routes) {
	old := g.current.Load()
	next := &snapshot{routes: r, rules: make(map[string]*rule, len(r.Endpoints))}
	for _, route := range r.Endpoints {
		ru := newRule(route)
		if before := old.rules[route.Endpoint]; before != nil {
			ru.pool = before.pool
		} else {
			ru.pool = newPool(route.Endpoint, g.metrics)
		}
		ru.pool.update(route)
		next.rules[route.Endpoint] = ru
	}
	g.current.Store(next)
	for name, ru := range old.rules {
		if next.rules[name] == nil {
			ru.pool.close()
			g.metrics.forget(name, "")
		}
	}
	g.metrics.revision.Set(float64(r.Revision))
}

// pools are the pools in use, in the order of their endpoints' names.
func (g *Gateway) pools() []*pool {
	rules := g.current.Load().rules
	out := make([]*pool, 0, len(rules))
	for _, ru := range rules {
		out = append(out, ru.pool)
	}
	slices.SortFunc(out, func(a, b *pool) int {
		if a.endpoint < b.endpoint {
			return -1
		}
		return 1
	})
	return out
}

func newRule(route zarpa.Route) *rule {
	ru := &rule{
		name: route.Endpoint, open: route.Auth == zarpa.AuthNone,
		timeout: time.Duration(route.RequestTimeout), wait: time.Duration(route.QueueWait),
		maxBody: int64(route.MaxBody),
	}
	if ru.timeout <= 0 {
		ru.timeout = time.Duration(zarpa.DefaultRequestTimeout)
	}
	if ru.wait <= 0 {
		ru.wait = time.Duration(zarpa.DefaultQueueWait)
	}
	if ru.maxBody <= 0 {
		ru.maxBody = int64(zarpa.DefaultMaxBody)
	}
	for _, k := range route.Keys {
		ru.keys = append(ru.keys, [32]byte(k))
	}
	return ru
}

func validateRoutes(r zarpa.Routes) error {
	seen := map[string]bool{}
	for _, e := range r.Endpoints {
		if err := zarpa.ValidateName("endpoint", e.Endpoint); err != nil {
			return err
		}
		if seen[e.Endpoint] {
			return zarpa.Errorf(zarpa.Invalid, "endpoints: %q stands there twice", e.Endpoint)
		}
		seen[e.Endpoint] = true
		if e.Auth != "" && e.Auth != zarpa.AuthKey && e.Auth != zarpa.AuthNone {
			return zarpa.Errorf(zarpa.Invalid, "endpoint %q: auth: %q is not known", e.Endpoint, e.Auth).WithHint("use key or none")
		}
		for i, k := range e.Keys {
			if len(k) != 32 {
				return zarpa.Errorf(zarpa.Invalid, "endpoint %q: keys[%d]: %d bytes, a SHA-256 digest has 32", e.Endpoint, i, len(k))
			}
		}
		if err := validateDeployments(e); err != nil {
			return err
		}
	}
	return nil
}

func validateDeployments(e zarpa.Route) error {
	deployments, replicas := map[string]bool{}, map[string]bool{}
	for _, d := range e.Deployments {
		if err := zarpa.ValidateName("deployment", d.Name); err != nil {
			return err
		}
		if deployments[d.Name] {
			return zarpa.Errorf(zarpa.Invalid, "endpoint %q: deployments: %q stands there twice", e.Endpoint, d.Name)
		}
		deployments[d.Name] = true
		if d.Weight < 0 || d.MaxConcurrency < 0 {
			return zarpa.Errorf(zarpa.Invalid, "endpoint %q: deployment %q: weight and max_concurrency must not be negative", e.Endpoint, d.Name)
		}
		for _, rep := range d.Replicas {
			if _, _, err := splitAddress(rep.Address); err != nil {
				return err
			}
			key := rep.ID + " " + rep.Address
			if replicas[key] {
				return zarpa.Errorf(zarpa.Invalid, "endpoint %q: replica %q stands there twice", e.Endpoint, rep.ID)
			}
			replicas[key] = true
		}
	}
	return nil
}

// Handler serves prediction requests.
func (g *Gateway) Handler() http.Handler {
	return httpx.RequestID(httpx.Score, g.log, http.HandlerFunc(g.serve))
}
