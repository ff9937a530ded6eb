package autoscale_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/autoscale"
	"github.com/zarpa-dev/zarpa/store/sqlite"
)

// bench is a Scaler over a real store, with a gateway and a clock in the test's hands.
type bench struct {
	t        *testing.T
	store    *sqlite.Store
	scaler   *autoscale.Scaler
	registry *prometheus.Registry
	asked    chan struct{} // the scaler asks for a load: it has done all that followed from the last
	answers  chan answer
	load     zarpa.Load
	stop     func()

	mu       sync.Mutex
	now      time.Time
	woken    []string
	capacity zarpa.CapacityReport
}

type answer struct {
	load zarpa.Load
	err  error
}

// Load is the gateway's.
func (b *bench) Load(ctx context.Context, _ int64, _ time.Duration) (zarpa.Load, error) {
	select {
	case b.asked <- struct{}{}:
	case <-ctx.Done():
		return zarpa.Load{}, ctx.Err()
	}
	select {
	case a := <-b.answers:
		return a.load, a.err
	case <-ctx.Done():
		return zarpa.Load{}, ctx.Err()
	}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "zarpa.db"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: store, now: start(), load: zarpa.Load{Run: "one", At: start()}}
	t.Cleanup(func() {
		b.stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	b.restart()
	return b
}

// restart ends the scaler, as a crash would but for what runs, and starts another one.
func (b *bench) restart() {
	b.t.Helper()
	if b.stop != nil {
		b.stop()
	}
	b.asked, b.answers, b.registry = make(chan struct{}), make(chan answer), prometheus.NewRegistry()
	var err error
	b.scaler, err = autoscale.Open(b.t.Context(), autoscale.Options{
		Store: b.store, Loader: b, Metrics: autoscale.NewMetrics(b.registry), Log: slog.New(slog.DiscardHandler), Now: b.clock,
		Capacity: func(context.Context, string) (zarpa.CapacityReport, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.capacity, nil
		},
		Wake: func(endpoint string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.woken = append(b.woken, endpoint)
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = b.scaler.Run(ctx) })
	b.stop = func() { cancel(); running.Wait() }
	<-b.asked
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// deploy stores an endpoint with one deployment.
func (b *bench) deploy(name string, priority int, d zarpa.DeploymentSpec) {
	b.t.Helper()
	e := zarpa.Endpoint{Name: name, Generation: 1, Spec: zarpa.EndpointSpec{Priority: priority, Deployments: []zarpa.DeploymentSpec{d}}}
	if was, err := b.store.Nouns().Endpoints.Get(b.t.Context(), name); err == nil {
		e.Generation = was.Generation + 1
	}
	if err := b.store.Nouns().Endpoints.Put(b.t.Context(), e); err != nil {
		b.t.Fatal(err)
	}
}

// observe stores that so many replicas of an endpoint's deployment are ready.
func (b *bench) observe(endpoint string, ready int) {
	b.t.Helper()
	o := zarpa.Observed{Endpoint: endpoint, Deployment: "blue", Target: "local", Status: zarpa.DeploymentStatus{Replicas: []zarpa.Replica{}}}
	for i := range ready {
		o.Status.Replicas = append(o.Status.Replicas, zarpa.Replica{
			ID: string(rune('a' + i)), Phase: zarpa.ReplicaReady, Started: b.clock().Add(-2 * time.Second), Loaded: zarpa.Duration(1500 * time.Millisecond),
		})
	}
	if err := b.store.Nouns().Deployments.Put(b.t.Context(), o); err != nil {
		b.t.Fatal(err)
	}
}

// second lets a second pass in which an endpoint had so many requests at a time, each of which takes
// 100 ms, and returns when the scaler has decided.
func (b *bench) second(loads map[string]float64) {
	b.t.Helper()
	b.pass(time.Second)
	b.load.At = b.load.At.Add(time.Second)
	deployments := []zarpa.DeploymentLoad{}
	for _, l := range b.load.Deployments {
		l.InFlight, l.Queued = 0, 0
		deployments = append(deployments, l)
	}
	for name, load := range loads {
		i := -1
		for j := range deployments {
			if deployments[j].Endpoint == name {
				i = j
			}
		}
		if i < 0 {
			deployments = append(deployments, zarpa.DeploymentLoad{Endpoint: name, Deployment: "blue"})
			i = len(deployments) - 1
		}
		deployments[i].BusySeconds += load
		deployments[i].Requests += int64(10 * load)
	}
	b.load.Deployments = deployments
	b.answer(nil)
}

// answer gives the scaler its load and waits until it has done what follows.
func (b *bench) answer(err error) {
	b.t.Helper()
	b.answers <- answer{b.load, err}
	<-b.asked
}

func (b *bench) wanted(endpoint string) int {
	b.t.Helper()
	e, err := b.store.Nouns().Endpoints.Get(b.t.Context(), endpoint)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.scaler.Wanted(endpoint, e.Spec.WithDefaults().Deployments[0])
}

func (b *bench) expect(endpoint string, want int) {
	b.t.Helper()
	if got := b.wanted(endpoint); got != want {
		b.t.Fatalf("%d replicas of %s wanted, expected %d: %+v", got, endpoint, want, b.record(endpoint).Decisions)
	}
}

func (b *bench) record(endpoint string) zarpa.Scaling {
	b.t.Helper()
	list, err := b.store.Nouns().Scalings.List(b.t.Context(), endpoint)
	if err != nil || len(list) != 1 {
		b.t.Fatalf("%d records, %v", len(list), err)
	}
	return list[0]
}

// series is how many series a metric has.
func (b *bench) series(name string) int {
	b.t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return len(f.GetMetric())
		}
	}
	return 0
}

// scaledSpec takes one request at a time, and should have 0.7.
func scaledSpec(least int) zarpa.DeploymentSpec {
	return zarpa.DeploymentSpec{
		Name: "blue", Model: "iris:1", MaxConcurrency: 1,
		Scale: &zarpa.ScaleSpec{Min: &least, Max: 10, Idle: zarpa.Duration(10 * time.Second)},
	}
}

func TestScalerFollowsTheLoad(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("iris", 0, scaledSpec(1))
	b.expect("iris", 1)
	b.observe("iris", 1)
	b.second(map[string]float64{"iris": 0}) // the first load is where measuring begins
	b.second(map[string]float64{"iris": 2.8})
	b.expect("iris", 4)
	b.observe("iris", 4)
	if !strings.Contains(strings.Join(b.woken, " "), "iris") {
		t.Error("nobody was woken")
	}
	d := b.record("iris").Decisions[0]
	if d.From != 1 || d.To != 4 || !strings.HasPrefix(d.Reason, "2.8 requests at a time in the last 1s, 0.7 wanted of each replica: 4") {
		t.Errorf("%+v", d)
	}
	if d.Inputs.Recent != 2.8 || d.Inputs.Target != 0.7 || d.Inputs.Ready != 1 || d.Inputs.Capacity != -1 || time.Duration(d.Inputs.StartTime) != 1500*time.Millisecond {
		t.Errorf("%+v", d.Inputs)
	}
	for range 60 {
		b.second(map[string]float64{"iris": 0.5})
		b.expect("iris", 4)
	}
	b.second(map[string]float64{"iris": 0.5})
	b.expect("iris", 2) // by half
	b.observe("iris", 2)
	b.second(map[string]float64{"iris": 0.5})
	b.expect("iris", 1)
	if n := b.series("zarpa_scale_decisions_total"); n != 2 { // up and down
		t.Errorf("%d kinds of decisions are counted", n)
	}
}

func TestScalerGoesToZeroAndBackAtTheFirstRequest(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("iris", 0, scaledSpec(0))
	b.expect("iris", 1) // a deploy shows that the model loads
	b.second(nil)
	b.observe("iris", 1)
	for range 10 {
		b.second(map[string]float64{"iris": 0})
		b.expect("iris", 1)
	}
	b.second(map[string]float64{"iris": 0})
	b.expect("iris", 0)
	b.observe("iris", 0)
	b.second(map[string]float64{"iris": 0})

	// A request has waited for 40 ms; the gateway says so at once.
	b.pass(300 * time.Millisecond)
	b.load.At = b.load.At.Add(300 * time.Millisecond)
	b.load.Wake++
	b.load.Deployments[0].Queued, b.load.Deployments[0].QueuedSeconds = 1, 0.04
	arrived := b.clock().Add(-40 * time.Millisecond)
	b.answer(nil)
	b.expect("iris", 1)

	// It is started 20 ms later, ready 100 ms after that, and the answer goes out 30 ms later.
	b.pass(150 * time.Millisecond)
	b.load.At = b.load.At.Add(150 * time.Millisecond)
	b.load.Deployments[0].Queued, b.load.Deployments[0].QueuedSeconds, b.load.Deployments[0].Requests = 0, 0.19, 1
	o := zarpa.Observed{Endpoint: "iris", Deployment: "blue", Target: "local", Status: zarpa.DeploymentStatus{Replicas: []zarpa.Replica{{
		ID: "a", Phase: zarpa.ReplicaReady, Started: arrived.Add(60 * time.Millisecond), Loaded: zarpa.Duration(100 * time.Millisecond),
	}}}}
	b.load.Deployments[0].Requests = 0
	b.answer(nil)
	if err := b.store.Nouns().Deployments.Put(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b.load.Deployments[0].Requests = 1
	b.load.At = b.load.At.Add(time.Millisecond)
	b.answer(nil)
	cold := b.record("iris").ColdStarts
	if len(cold) != 1 {
		t.Fatalf("%d cold starts", len(cold))
	}
	want := zarpa.ColdStart{
		At: arrived, Decide: zarpa.Duration(40 * time.Millisecond), Start: zarpa.Duration(20 * time.Millisecond),
		Load: zarpa.Duration(100 * time.Millisecond), FirstByte: zarpa.Duration(30 * time.Millisecond),
	}
	if cold[0] != want {
		t.Errorf("%+v, expected %+v", cold[0], want)
	}
	if n := b.series("zarpa_scale_cold_start_seconds"); n != 4 {
		t.Errorf("%d parts are counted", n)
	}
}

func TestScalerTakesNothingAwayWithoutAGateway(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("iris", 0, scaledSpec(1))
	b.observe("iris", 1)
	b.second(map[string]float64{"iris": 0})
	b.second(map[string]float64{"iris": 2.8})
	b.expect("iris", 4)
	b.observe("iris", 4)
	for range 5 {
		b.pass(time.Minute)
		b.answer(zarpa.Errorf(zarpa.Unavailable, "the gateway is away"))
		b.expect("iris", 4)
	}
	// It is back as another run: where it begins is no data either.
	b.load.Run, b.load.Deployments = "two", nil
	b.second(nil)
	b.expect("iris", 4)
	b.second(map[string]float64{"iris": 0.1})
	b.expect("iris", 2)
}

func TestScalerGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("iris", 0, scaledSpec(1))
	b.observe("iris", 1)
	b.second(map[string]float64{"iris": 0})
	b.second(map[string]float64{"iris": 2.8})
	b.expect("iris", 4)
	b.observe("iris", 4)
	b.restart()
	b.expect("iris", 4) // before the first look
	b.second(map[string]float64{"iris": 0})
	for range 59 {
		b.second(map[string]float64{"iris": 0.1})
		b.expect("iris", 4)
	}
	b.second(map[string]float64{"iris": 0.1})
	b.second(map[string]float64{"iris": 0.1})
	b.expect("iris", 2)
	if r := b.record("iris"); len(r.Decisions) != 2 || r.Decisions[1].To != 4 {
		t.Errorf("%+v", r.Decisions)
	}
}

func TestScalerForgetsWhatIsGone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("iris", 0, scaledSpec(1))
	b.deploy("rose", 0, scaledSpec(2))
	b.second(nil)
	b.expect("rose", 2)
	fixed := scaledSpec(1)
	fixed.Scale = nil
	b.deploy("rose", 0, fixed)
	b.expect("rose", 1)
	if err := b.store.Nouns().Endpoints.Delete(t.Context(), "iris"); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.second(nil)
	list, err := b.store.Nouns().Scalings.List(t.Context(), "")
	if err != nil || len(list) != 0 {
		t.Errorf("%d records are left, %v", len(list), err)
	}
}

// TestScalerGivesWayToWhatIsNotScaled: an endpoint of a higher priority gets its room however it is sized.
func TestScalerGivesWayToWhatIsNotScaled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.capacity = zarpa.CapacityReport{MaxReplicas: 4, Replicas: 4}
	low := scaledSpec(0)
	low.Replicas, low.Scale.Idle = 3, zarpa.Duration(time.Hour)
	b.deploy("low", 0, low)
	b.deploy("equal", 0, zarpa.DeploymentSpec{Name: "blue", Model: "iris:1", Replicas: 9})
	b.deploy("high", 10, zarpa.DeploymentSpec{Name: "blue", Model: "iris:1", Replicas: 2})
	b.observe("low", 3)
	b.observe("high", 1)
	for range 3 { // while the first is on its way out, no further one is taken
		b.second(map[string]float64{"low": 0.6})
	}
	b.expect("low", 2)
	if d := b.record("low").Decisions[0]; !strings.Contains(d.Reason, "endpoint high, of priority 10, has no room on local for 1 more") {
		t.Error(d.Reason)
	}
	b.observe("low", 2)
	b.observe("high", 2)
	for range 3 {
		b.second(map[string]float64{"low": 0.6})
	}
	b.expect("low", 2)
	list, err := b.store.Nouns().Scalings.List(t.Context(), "high")
	if err != nil || len(list) != 0 {
		t.Errorf("what is not scaled has %d records, %v", len(list), err)
	}
}

// TestScalerCountsWhatTheTargetCounts: replicas that started since the last observation take no room from
// their own deployment.
func TestScalerCountsWhatTheTargetCounts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.capacity = zarpa.CapacityReport{MaxReplicas: 3, Replicas: 3, Of: map[string]int{zarpa.ReplicasOf("low", "blue"): 3}}
	low := scaledSpec(1)
	low.Replicas = 3
	b.deploy("low", 0, low)
	b.observe("low", 2)
	b.second(map[string]float64{"low": 0})
	b.second(map[string]float64{"low": 0})
	b.expect("low", 3)
}

func TestScalerLetsALowerPriorityGiveWay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.capacity = zarpa.CapacityReport{MaxReplicas: 4}
	room := func(used int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.capacity.Replicas = used
	}
	low := scaledSpec(0)
	low.Replicas, low.Scale.Idle = 3, zarpa.Duration(time.Hour)
	b.deploy("low", 0, low)
	b.deploy("high", 10, scaledSpec(1))
	b.observe("low", 3)
	b.observe("high", 1)
	room(4)
	quiet := map[string]float64{"low": 0, "high": 0}
	b.second(quiet)
	b.second(quiet)
	b.expect("low", 3)
	b.second(map[string]float64{"low": 0.6, "high": 1.4})
	b.expect("high", 1) // no room yet
	b.expect("low", 2)  // one is missing, and one is given
	if d := b.record("low").Decisions[0]; !strings.Contains(d.Reason, "endpoint high, of priority 10, has no room on local for 1 more") {
		t.Error(d.Reason)
	}
	if d := b.record("high").Decisions[0]; !strings.Contains(d.Reason, "2; the target has room for 1") {
		t.Error(d.Reason)
	}
	if n := b.record("high").Missing; n != 1 {
		t.Errorf("%d are said to have no room, want 1", n)
	}
	if n := b.series("zarpa_scale_missing_replicas"); n != 2 {
		t.Errorf("%d deployments tell how many have no room, want 2", n)
	}
	b.second(map[string]float64{"low": 0.2, "high": 1.4})
	b.expect("low", 2) // the one that was given is still on its way out: no further one is asked for
	// Its replica has stopped: the room is the one's who asked.
	b.observe("low", 2)
	room(3)
	b.second(map[string]float64{"low": 0.6, "high": 1.4})
	b.expect("high", 2)
	if n := b.record("high").Missing; n != 0 {
		t.Errorf("%d are said to have no room, want none", n)
	}
	b.observe("high", 2)
	room(4)
	b.second(map[string]float64{"low": 0.6, "high": 20})
	b.expect("low", 1) // what its load needs stays
	b.second(map[string]float64{"low": 5, "high": 20})
	b.expect("low", 1) // and it gets no room while the other one misses some
}
