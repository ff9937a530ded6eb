// Package gateway brings prediction requests to replicas: it authenticates, picks a deployment and
// its least loaded replica, waits for a free one, and hands the request over.
//
// It holds all that it needs in memory, as one snapshot of routes that a [zarpa.Router]'s caller
// gives it, and asks nobody while a request is under way: predictions go on while the control plane
// is down. It knows no model, no tensor and no store; it is imported by cmd alone.
package gateway

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/scoringtoken"
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
	// AccessLog gets one line of JSON for every request while [Gateway.Serve] runs, in batches from one
	// goroutine; nil writes none. docs/operations.md has the fields. A slow writer delays no request:
	// lines that find the buffer full are dropped, and counted.
	AccessLog io.Writer
	// MaxRequests is how many requests the gateway has at a time before it refuses those of endpoints
	// with more than their share; 0 is [DefaultMaxRequests].
	MaxRequests int
	// MaxConnections is how many clients may be connected at a time; a further one is closed at once. 0
	// is [DefaultMaxConnections].
	MaxConnections int
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
	methods    map[string]method
	run        string // names this process's counters
	wakes      *wakes
	rpc        *rpcServers                // of the public address
	ownRPC     atomic.Pointer[rpcServers] // of the GRPC listener; nil for none
	routed     chan struct{}              // closed by the first routes
	tunnels    *tunnels
	mirrors    *mirrors
	access     *accessLog // nil for none
	crowd      crowd
	doorkeeper doorkeeper
	stopping   chan struct{} // closed by stop
	stop       func()        // may be called again

	current atomic.Pointer[snapshot]

	mu sync.Mutex // held by SetRoutes alone, over the change of the snapshot and of the file
}

var _ zarpa.Router = (*Gateway)(nil)

// snapshot is all that requests read. It never changes once it is in use; what counts (pools) is
// shared by the snapshots that have the endpoint.
type snapshot struct {
	routes zarpa.Routes
	rules  map[string]*rule
	hosts  hosts
	open   bool              // an endpoint needs no key
	keys   map[[32]byte]bool // the digests of all keys
	tokens *tokens
}

// rule is one endpoint in a snapshot.
type rule struct {
	name string
	open bool // no key needed
	keys [][32]byte
	// tokenOnly endpoints have no keys; tokens are the snapshot's.
	tokenOnly bool
	tokens    *tokens
	timeout   time.Duration
	wait      time.Duration
	maxBody   int64
	// statuses and cors are for HTTP; cors is nil for none.
	statuses zarpa.StatusCodes
	cors     *cors
	sticky   sticky
	mirror   mirror
	// limits are those of one caller; nil for none. retryBudget is in per cent.
	limits      *zarpa.KeyLimits
	retryBudget int
	pool        *pool
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
	if o.MaxConnections <= 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.MaxRequests <= 0 {
		o.MaxRequests = DefaultMaxRequests
	}
	g := &Gateway{
		log: o.Log, registry: o.Registry, version: o.Version, self: o.Self, routesFile: o.RoutesFile,
		dial:    dialer{timeout: o.DialTimeout},
		debug:   o.Log.Enabled(context.Background(), slog.LevelDebug),
		methods: methods(), run: rand.Text(), wakes: newWakes(), tunnels: newTunnels(), mirrors: newMirrors(), routed: make(chan struct{}), stopping: make(chan struct{}),
	}
	g.crowd.max = int64(o.MaxRequests)
	g.doorkeeper.max = int64(o.MaxConnections)
	g.stop = sync.OnceFunc(func() {
		close(g.stopping)
		g.mirrors.cut()
	})
	g.current.Store(&snapshot{rules: map[string]*rule{}, tokens: newTokens(nil, nil)})
	g.metrics = newMetrics(o.Registry, g.pools)
	g.access = newAccessLog(o.AccessLog, o.Log, g.metrics.unlogged)
	g.doorkeeper.refused = g.metrics.connections
	g.rpc = newRPCServers(smallMessage, func(limit int) *grpc.Server { return g.newGRPC(limit) })
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
	next := &snapshot{routes: r, rules: make(map[string]*rule, len(r.Endpoints)), hosts: newHosts(r.Endpoints), keys: make(map[[32]byte]bool, 2*len(r.Endpoints))}
	next.tokens = newTokens(r.VerifyKeys, old.tokens)
	largest := int64(0)
	for _, route := range r.Endpoints {
		ru := newRule(route)
		ru.tokens = next.tokens
		largest = max(largest, ru.maxBody)
		if before := old.rules[route.Endpoint]; before != nil {
			ru.pool = before.pool
		} else {
			ru.pool = newPool(route.Endpoint, g.metrics, g.wakes)
			ru.pool.log = g.log
		}
		ru.pool.update(route)
		next.rules[route.Endpoint] = ru
		next.open = next.open || ru.open
		for _, k := range ru.keys {
			next.keys[k] = true
		}
	}
	for _, s := range []*rpcServers{g.rpc, g.ownRPC.Load()} {
		if s != nil {
			s.grow(messageLimit(largest))
		}
	}
	g.current.Store(next)
	for name, ru := range old.rules {
		if next.rules[name] == nil {
			ru.pool.close()
			g.metrics.forget(name, "")
		}
	}
	g.metrics.revision.Set(float64(r.Revision))
	if r.Revision > 0 && old.routes.Revision == 0 {
		close(g.routed)
	}
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
		name: route.Endpoint, open: route.Auth == zarpa.AuthNone, tokenOnly: route.Auth == zarpa.AuthToken,
		timeout: time.Duration(route.RequestTimeout), wait: time.Duration(route.QueueWait),
		maxBody: int64(route.MaxBody), statuses: route.StatusCodes, cors: newCORS(route.CORSOrigins),
		sticky: newSticky(route.Sticky), mirror: newMirror(route.Mirror),
		retryBudget: route.RetryBudget,
	}
	if l := route.Limits; l != nil && (l.Rate > 0 || l.Concurrent > 0) {
		ru.limits = l
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
	if !ru.tokenOnly {
		for _, k := range route.Keys {
			ru.keys = append(ru.keys, [32]byte(k))
		}
	}
	return ru
}

func validateRoutes(r zarpa.Routes) error {
	if _, err := scoringtoken.NewVerifier(r.VerifyKeys); err != nil {
		return err
	}
	seen, hosts := map[string]bool{}, map[string]bool{}
	for _, e := range r.Endpoints {
		if err := zarpa.ValidateName("endpoint", e.Endpoint); err != nil {
			return err
		}
		if e.Hostname != "" && hosts[e.Hostname] {
			return zarpa.Errorf(zarpa.Invalid, "endpoint %q: hostname: %.260q is another one's, too", e.Endpoint, e.Hostname)
		}
		hosts[e.Hostname] = true
		if seen[e.Endpoint] {
			return zarpa.Errorf(zarpa.Invalid, "endpoints: %q stands there twice", e.Endpoint)
		}
		seen[e.Endpoint] = true
		if e.Auth != "" && e.Auth != zarpa.AuthKey && e.Auth != zarpa.AuthToken && e.Auth != zarpa.AuthNone {
			return zarpa.Errorf(zarpa.Invalid, "endpoint %q: auth: %q is not known", e.Endpoint, e.Auth).WithHint("use key, token or none")
		}
		for i, k := range e.Keys {
			if len(k) != 32 {
				return zarpa.Errorf(zarpa.Invalid, "endpoint %q: keys[%d]: %d bytes, a SHA-256 digest has 32", e.Endpoint, i, len(k))
			}
		}
		if err := validateTraffic(e); err != nil {
			return err
		}
		if err := validateDeployments(e); err != nil {
			return err
		}
	}
	return nil
}

func validateTraffic(e zarpa.Route) error {
	switch name, header := strings.CutPrefix(e.Sticky, zarpa.StickyHeader); {
	case e.Sticky == "", e.Sticky == zarpa.StickyKey, header && plainName(name):
	default:
		return zarpa.Errorf(zarpa.Invalid, "endpoint %q: sticky: %.80q is not known", e.Endpoint, e.Sticky).WithHint("use key, or header:NAME")
	}
	if m := e.Mirror; m != nil && (m.Percent < 0 || m.Percent > 100) {
		return zarpa.Errorf(zarpa.Invalid, "endpoint %q: mirror: percent: %d is not between 0 and 100", e.Endpoint, m.Percent)
	}
	if l := e.Limits; l != nil && (l.Rate < 0 || l.Burst < 0 || l.Concurrent < 0) {
		return zarpa.Errorf(zarpa.Invalid, "endpoint %q: limits: rate, burst and concurrent must not be negative", e.Endpoint)
	}
	if e.RetryBudget < 0 || e.RetryBudget > percent {
		return zarpa.Errorf(zarpa.Invalid, "endpoint %q: retry_budget: %d is not between 0 and 100", e.Endpoint, e.RetryBudget)
	}
	if x := e.Ejection; x != nil && (x.Time < 0 || x.MaxPercent < 0 || x.MaxPercent > percent) {
		return zarpa.Errorf(zarpa.Invalid, "endpoint %q: ejection: time must not be negative, max_percent be between 0 and 100", e.Endpoint)
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
		if d.Weight < 0 || d.MaxConcurrency < 0 || d.Hold < 0 || d.SlowStart < 0 {
			return zarpa.Errorf(zarpa.Invalid, "endpoint %q: deployment %q: weight, max_concurrency, hold and slow_start must not be negative", e.Endpoint, d.Name)
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

// Handler serves prediction requests, gRPC's among them where they come by HTTP/2.
func (g *Gateway) Handler() http.Handler {
	rest := httpx.RequestID(httpx.Score, g.log, http.HandlerFunc(g.serve))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isRPC(r) {
			g.rpc.get().ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// ready reports whether the gateway has routes and goes on.
func (g *Gateway) ready() bool {
	select {
	case <-g.stopping:
		return false
	default:
		return g.current.Load().routes.Revision > 0
	}
}

// extensions of the inference protocol that reach clients through the gateway: those of replicas.
func extensions() []string {
	return []string{
		"binary_tensor_data", "classification", "generate", "model_configuration", "model_repository",
		"model_repository(unload_dependents)", "parameters", "statistics",
	}
}
