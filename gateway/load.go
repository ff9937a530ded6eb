package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// MaxLoadWait is the longest that GET /-/load waits for a wake.
const MaxLoadWait = time.Minute

var _ zarpa.Loader = (*Gateway)(nil)

// started is where micros begins; only differences of its values have a meaning.
var started = time.Now()

// micros is a clock that costs half of what [time.Now] does: it is read under a pool's mu.
func micros() int64 { return time.Since(started).Microseconds() }

// integral is the integral of a number over time, by one addition for each change of the number: the
// moments of its falls less those of its rises.
type integral struct{ sum int64 }

func (i *integral) rise() { i.sum -= micros() }
func (i *integral) fall() { i.sum += micros() }

// seconds is the integral until now, of a number that is n.
func (i *integral) seconds(n int, now int64) float64 {
	return float64(i.sum+int64(n)*now) / float64(time.Second/time.Microsecond)
}

// counts are what a deployment did; they only grow.
type counts struct {
	untimed  atomic.Int64 // requests without a time to an answer: whose client left, and conversations
	failures atomic.Int64
	rejected atomic.Int64
	mirrored atomic.Int64
	retries  atomic.Int64
	latency  [zarpa.LatencyBuckets]atomic.Int64 // of the answered requests
}

func (t *counts) answered(took time.Duration) { t.latency[zarpa.LatencyBucket(took)].Add(1) }

// report fills in what was counted.
func (t *counts) report(l *zarpa.DeploymentLoad) {
	l.Requests = t.untimed.Load()
	last := 0
	for i := range t.latency {
		n := t.latency[i].Load()
		l.Requests += n
		l.Latency = append(l.Latency, n)
		if n > 0 {
			last = i + 1
		}
	}
	l.Latency = l.Latency[:last:last]
	l.Failures, l.Rejected = t.failures.Load(), t.rejected.Load()
	l.Mirrored, l.Retries = t.mirrored.Load(), t.retries.Load()
}

// load is the pool's part of a snapshot, in the order of the deployments' names.
func (p *pool) load() []zarpa.DeploymentLoad {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := micros()
	out := make([]zarpa.DeploymentLoad, 0, len(p.deployments))
	for _, d := range p.deployments {
		l := zarpa.DeploymentLoad{
			Endpoint: p.endpoint, Deployment: d.name,
			InFlight: d.inFlight, Queued: d.queue.length, Replicas: d.onRoutes(), Ejected: d.out,
			BusySeconds: d.busy.seconds(d.inFlight, now), QueuedSeconds: d.queue.waited.seconds(d.queue.length, now),
		}
		d.counts.report(&l)
		out = append(out, l)
	}
	return out
}

// wakes counts the calls for replicas where there are none. Its mu is taken under pools' mu, never the
// other way round.
type wakes struct {
	mu      sync.Mutex
	n       int64
	changed chan struct{} // closed by the next call
}

func newWakes() *wakes { return &wakes{changed: make(chan struct{})} }

func (w *wakes) call() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *wakes) state() (n int64, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n, w.changed
}

// rouse tells those who scale that requests wait for a deployment that has no usable replica: once,
// until it has one or nobody waits. p.mu is held.
func (p *pool) rouse(d *deployment) {
	if d.usable > 0 || d.queue.length == 0 {
		d.roused = false
		return
	}
	if d.roused || d == p.limbo {
		return
	}
	d.roused = true
	d.series.wakes.Inc()
	p.wakes.call()
}

// Load is a snapshot of what the gateway counts: at once when more than wake calls for replicas have
// come, else when one comes, when wait has passed, or when the gateway stops. Waiting ends with ctx,
// with its error.
func (g *Gateway) Load(ctx context.Context, wake int64, wait time.Duration) (zarpa.Load, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for waiting := wait > 0; waiting; {
		n, changed := g.wakes.state()
		if n > wake {
			break
		}
		select {
		case <-changed:
		case <-timer.C:
			waiting = false
		case <-g.stopping:
			waiting = false
		case <-ctx.Done():
			return zarpa.Load{}, zarpa.AsError(ctx.Err())
		}
	}
	n, _ := g.wakes.state() // before the rest, so that nothing of a wake is missing in what comes after it
	out := zarpa.Load{Run: g.run, At: time.Now(), Wake: n, Deployments: []zarpa.DeploymentLoad{}}
	for _, p := range g.pools() {
		out.Deployments = append(out.Deployments, p.load()...)
	}
	return out, nil
}
