package target_test

import (
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target"
)

// wants is what an autoscaler would say; the test says it.
type wants struct {
	mu sync.Mutex
	n  int
}

func (w *wants) say(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n = n
}

func (w *wants) wanted(string, zarpa.DeploymentSpec) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// scaledGround is a ground whose deployments have as many replicas as the test says.
func scaledGround(t *testing.T) (*ground, *wants, zarpa.Endpoint) {
	t.Helper()
	g, w := newGround(t), &wants{n: 1}
	g.wanted = w.wanted
	e := endpoint("a", "good:1", 1)
	e.Spec.Deployments[0].Scale = &zarpa.ScaleSpec{Min: new(0), Max: 5, Hold: zarpa.Duration(7 * time.Second)}
	return g, w, e
}

// ids are the replicas on the routes.
func (r *router) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for _, e := range r.last.Endpoints {
		for _, d := range e.Deployments {
			for _, rep := range d.Replicas {
				ids = append(ids, rep.ID)
			}
		}
	}
	return ids
}

// reaches waits until an endpoint has so many replicas on the routes.
func (g *ground) reaches(t *testing.T, r *target.Reconciler, want int) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for r.Wake("a"); g.router.replicas("a") != want; {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%d replicas on the routes, want %d", g.router.replicas("a"), want)
		}
	}
}

func TestReplicasFollowWhatTheAutoscalerWants(t *testing.T) {
	t.Parallel()
	g, w, e := scaledGround(t)
	w.say(2)
	op := g.want(t, e, "deploy")
	r, _ := g.reconcile(t)
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	if n := g.router.replicas("a"); n != 2 { // not one, as the spec begins with
		t.Errorf("%d replicas on the routes, want 2", n)
	}
	for _, n := range []int{4, 1, 0, 3} {
		w.say(n)
		g.reaches(t, r, n)
	}
	g.router.mu.Lock()
	defer g.router.mu.Unlock()
	d := g.router.last.Endpoints[0].Deployments[0]
	if time.Duration(d.Hold) != 7*time.Second || d.SlowStart != zarpa.DefaultSlowStart {
		t.Errorf("hold %v, slow start %v", d.Hold, d.SlowStart)
	}
}

func TestHoldIsOfDeploymentsThatMayHaveNoReplica(t *testing.T) {
	t.Parallel()
	hold := zarpa.Duration(time.Second)
	for name, c := range map[string]struct {
		scale *zarpa.ScaleSpec
		want  zarpa.Duration
	}{
		"no scale":            {nil, 0},
		"min 1":               {&zarpa.ScaleSpec{Hold: hold}, 0},
		"min 0":               {&zarpa.ScaleSpec{Min: new(0), Hold: hold}, hold},
		"min 0 by a schedule": {&zarpa.ScaleSpec{Hold: hold, Schedules: []zarpa.ScaleSchedule{{Cron: "0 18 * * *", Min: new(0)}}}, hold},
		"max by a schedule":   {&zarpa.ScaleSpec{Hold: hold, Schedules: []zarpa.ScaleSchedule{{Cron: "0 18 * * *", Max: new(2)}}}, 0},
	} {
		spec := zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{{Name: "blue", Model: "m", Scale: c.scale}}}
		if got := target.Route("a", spec.WithDefaults(), nil, nil).Deployments[0].Hold; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestAChangeOfAnIdleDeploymentIsShownToLoad: an update of what has no replica is no success before one
// of the new revision was ready.
func TestAChangeOfAnIdleDeploymentIsShownToLoad(t *testing.T) {
	t.Parallel()
	g, w, e := scaledGround(t)
	op := g.want(t, e, "deploy")
	r, _ := g.reconcile(t)
	g.ends(t, r, op)
	w.say(0)
	g.reaches(t, r, 0)

	e.Generation++
	e.Spec.Deployments[0].Model = "broken:1"
	op = g.want(t, e, "update")
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationFailed || got.Error.Code != zarpa.ModelError {
		t.Fatalf("what cannot be loaded was a success: %+v", got)
	}
	e.Generation++
	e.Spec.Deployments[0].Model = "other:1"
	op = g.want(t, e, "update")
	r.Wake("a")
	got := g.ends(t, r, op)
	if got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	loaded := false
	for _, p := range got.Phases {
		loaded = loaded || p.Name == "load" && p.Detail == "1 of 1 replicas ready"
	}
	if !loaded {
		t.Errorf("nothing was loaded: %+v", got.Phases)
	}
	g.reaches(t, r, 0)

	e.Generation++
	e.Spec.Deployments[0].SlowStart = zarpa.Duration(time.Second) // nothing to load anew
	op = g.want(t, e, "update")
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded || g.router.replicas("a") != 0 {
		t.Errorf("%d replicas; %+v", g.router.replicas("a"), got)
	}
}

func TestCapacityIsTheDrivers(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	r := target.New(g.options())
	report, err := r.Capacity(t.Context(), "local")
	if err != nil || report.MaxReplicas == 0 || report.Replicas != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := r.Capacity(t.Context(), "nowhere"); err == nil || zarpa.AsError(err).Code != zarpa.Unavailable {
		t.Errorf("of a target that does not exist: %v", err)
	}
}
