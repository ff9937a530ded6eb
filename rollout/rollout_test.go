package rollout

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/store/sqlite"
)

// ground is a store with the endpoint iris, a gateway's counters and a clock, which outlive controllers.
type ground struct {
	t     *testing.T
	store *sqlite.Store
	now   time.Time
	load  zarpa.Load
	away  bool
	// refuse is what changes of the weights get.
	refuse error
	asked  []Weights
	// generation of the endpoint
	generation int64
	*Controller
}

func (g *ground) Load(context.Context, int64, time.Duration) (zarpa.Load, error) {
	if g.away {
		return zarpa.Load{}, zarpa.Errorf(zarpa.Unavailable, "the gateway cannot be reached")
	}
	l := g.load
	l.At = g.now
	l.Deployments = append([]zarpa.DeploymentLoad(nil), g.load.Deployments...)
	return l, nil
}

func newGround(t *testing.T) *ground {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "zarpa.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	g := &ground{t: t, store: store, now: time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC), load: zarpa.Load{Run: "1"}}
	g.restart()
	g.want(map[string]int{"blue": 100, "green": 0}, "blue", "green")
	for _, name := range []string{"blue", "green"} {
		g.observe(name, 0, zarpa.ReplicaReady)
	}
	g.use()
	return g
}

// restart makes another controller, as a restart of the server does.
func (g *ground) restart() {
	g.Controller = New(Options{
		Store: g.store, Loader: g, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return g.now },
		SetWeights: func(_ context.Context, w Weights) error {
			g.asked = append(g.asked, w)
			if g.refuse != nil {
				return g.refuse
			}
			g.want(w.Shares, "blue", "green")
			return nil
		},
	})
}

// want stores the endpoint's wanted weights.
func (g *ground) want(weights map[string]int, names ...string) {
	g.t.Helper()
	g.generation++
	e := zarpa.Endpoint{Name: "iris", Generation: g.generation}
	for _, name := range names {
		share := weights[name]
		e.Spec.Deployments = append(e.Spec.Deployments, zarpa.DeploymentSpec{Name: name, Weight: &share})
	}
	if err := g.store.Nouns().Endpoints.Put(g.t.Context(), e); err != nil {
		g.t.Fatal(err)
	}
}

func (g *ground) observe(name string, weight int, phase zarpa.ReplicaPhase) {
	g.t.Helper()
	err := g.store.Nouns().Deployments.Put(g.t.Context(), zarpa.Observed{
		Endpoint: "iris", Deployment: name, Target: "local", Weight: weight,
		Status: zarpa.DeploymentStatus{Replicas: []zarpa.Replica{{ID: name, Phase: phase}}},
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// use lets the weights that are wanted be in use, as the reconciler does.
func (g *ground) use() {
	g.t.Helper()
	e, err := g.store.Nouns().Endpoints.Get(g.t.Context(), "iris")
	if err != nil {
		g.t.Fatal(err)
	}
	seen, err := g.store.Nouns().Deployments.List(g.t.Context(), "iris")
	if err != nil {
		g.t.Fatal(err)
	}
	for _, o := range seen {
		g.observe(o.Deployment, e.Spec.Weights()[o.Deployment], o.Status.Replicas[0].Phase)
	}
}

// begin stores a rollout to green.
func (g *ground) begin(spec zarpa.RolloutSpec) {
	g.t.Helper()
	spec.To = "green"
	r := zarpa.Rollout{
		ID: "ro-1", Endpoint: "iris", Spec: spec.WithDefaults(), State: zarpa.RolloutRunning, Step: -1,
		Before: map[string]int{"blue": 100, "green": 0}, Created: g.now, Judgements: []zarpa.Judgement{},
	}
	if err := g.store.Nouns().Rollouts.Create(g.t.Context(), r); err != nil {
		g.t.Fatal(err)
	}
	g.Wake("iris")
}

func (g *ground) stored() zarpa.Rollout {
	g.t.Helper()
	list, err := g.store.Nouns().Rollouts.List(g.t.Context(), "iris", 1)
	if err != nil || len(list) == 0 {
		g.t.Fatalf("%v, %v", list, err)
	}
	return list[0]
}

// tick lets a second pass, in which green answers so many requests, so many of them wrongly, and blue fifty.
func (g *ground) tick(green, wrong int64) {
	g.t.Helper()
	g.now = g.now.Add(time.Second)
	g.count("green", green, wrong)
	g.count("blue", 50, 0)
	if err := g.round(g.t.Context(), false); err != nil {
		g.t.Fatal(err)
	}
}

func (g *ground) count(name string, requests, failures int64) {
	for i := range g.load.Deployments {
		if d := &g.load.Deployments[i]; d.Deployment == name {
			d.Requests += requests
			d.Failures += failures
			return
		}
	}
	g.load.Deployments = append(g.load.Deployments, zarpa.DeploymentLoad{Endpoint: "iris", Deployment: name, Requests: requests, Failures: failures})
}

// until ticks with the weights in use until the rollout is as wanted.
func (g *ground) until(wrong int64, want func(zarpa.Rollout) bool) zarpa.Rollout {
	g.t.Helper()
	for range 300 {
		g.tick(50, wrong)
		g.use()
		if r := g.stored(); want(r) {
			return r
		}
	}
	g.t.Fatalf("it did not come about: %+v", g.stored())
	return zarpa.Rollout{}
}

func isOver(r zarpa.Rollout) bool { return r.State.Over() }

func quick() zarpa.RolloutSpec {
	return zarpa.RolloutSpec{Steps: []int{10, 50, 100}, Interval: zarpa.Duration(5 * time.Second)}
}

func TestAGoodDeploymentGetsAllStepByStep(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.begin(quick())
	r := g.until(0, isOver)
	if r.State != zarpa.RolloutSucceeded || len(r.Judgements) != 3 || r.Ended.IsZero() {
		t.Fatalf("%+v", r)
	}
	for i, want := range []map[string]int{{"blue": 90, "green": 10}, {"blue": 50, "green": 50}, {"blue": 0, "green": 100}} {
		if !maps.Equal(g.asked[i].Shares, want) || g.asked[i].Who != "rollout ro-1" || g.asked[i].Urgent {
			t.Errorf("step %d: asked for %+v, want %v", i, g.asked[i], want)
		}
		if j := r.Judgements[i]; !j.Passed || j.Percent != want["green"] || j.To.Requests < 250 {
			t.Errorf("step %d: %+v", i, j)
		}
	}
	if n := g.Judged()[Verdicts{"iris", true}]; n != 3 || g.Rollouts()["iris"].State != zarpa.RolloutSucceeded {
		t.Errorf("counted %d, last %+v", n, g.Rollouts())
	}
}

func TestABadDeploymentIsTakenBackBeforeItsStepEnds(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	spec := quick()
	spec.Interval = zarpa.Duration(time.Hour)
	g.begin(spec)
	r := g.until(10, isOver)
	if r.State != zarpa.RolloutRolledBack || !strings.Contains(r.Reason, "step 1 of 3, 10 %") || !strings.Contains(r.Reason, "requests failed") {
		t.Fatalf("%+v", r)
	}
	last := g.asked[len(g.asked)-1]
	if !last.Urgent || !maps.Equal(last.Shares, r.Before) || g.now.Sub(r.Created) > time.Minute {
		t.Errorf("%+v after %v", last, g.now.Sub(r.Created))
	}
	if n := g.Judged()[Verdicts{"iris", false}]; n != 1 {
		t.Errorf("counted %d", n)
	}
}

func TestSharesGoBackInTheRoundThatSawTheFailure(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.begin(quick())
	g.until(0, func(r zarpa.Rollout) bool { return !r.StepStarted.IsZero() })
	for range 60 {
		g.tick(50, 50)
		if r := g.stored(); r.State == zarpa.RolloutRollingBack {
			if last := g.asked[len(g.asked)-1]; !last.Urgent || !maps.Equal(last.Shares, r.Before) {
				t.Errorf("the round ended with %+v asked for", last)
			}
			return
		}
	}
	t.Fatalf("it did not fail: %+v", g.stored())
}

func TestARolloutSurvivesRestartsOfTheServerAndOfTheGateway(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.begin(quick())
	for i := 0; !g.stored().State.Over(); i++ {
		if i == 200 {
			t.Fatalf("it comes to no end: %+v", g.stored())
		}
		if i%7 == 6 {
			g.restart()
			g.Wake("iris")
		}
		if i%11 == 10 {
			g.load = zarpa.Load{Run: g.load.Run + "1"} // counters begin anew
		}
		g.away = i%13 == 12
		g.tick(50, 0)
		g.use()
	}
	if r := g.stored(); r.State != zarpa.RolloutSucceeded || len(r.Judgements) != 3 {
		t.Errorf("%+v", r)
	}
	if got := len(g.asked); got != 3 {
		t.Errorf("the weights were moved %d times", got)
	}
}

func TestNothingIsMeasuredTwiceNorWhileItIsPaused(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	spec := quick()
	spec.Interval = zarpa.Duration(time.Hour)
	g.begin(spec)
	g.until(0, func(r zarpa.Rollout) bool { return !r.StepStarted.IsZero() })
	for range 10 {
		g.tick(50, 0)
	}
	pause := g.stored()
	pause.State = zarpa.RolloutPaused
	if err := g.store.Nouns().Rollouts.Update(t.Context(), pause); err != nil {
		t.Fatal(err)
	}
	g.Wake("iris")
	for range 10 {
		g.tick(50, 50)
	}
	r := g.stored()
	if r.State != zarpa.RolloutPaused || r.To.Requests != pause.To.Requests || r.Measured != pause.Measured {
		t.Errorf("while it is paused: %+v, was %+v", r, pause)
	}
	r.State = zarpa.RolloutRunning
	if err := g.store.Nouns().Rollouts.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	g.Wake("iris")
	for range 10 {
		g.tick(50, 0)
	}
	after := g.Rollouts()["iris"]
	if after.To.Requests != r.To.Requests+9*50 || after.To.Failures != 0 { // the first look sets the mark
		t.Errorf("after it went on: %d requests, %d failures, was %d", after.To.Requests, after.To.Failures, r.To.Requests)
	}
}

func TestARolloutEndsWhenOthersDecide(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do     func(g *ground)
		reason string
	}{
		"the traffic is changed": {func(g *ground) { g.want(map[string]int{"blue": 30, "green": 70}, "blue", "green") }, "somebody else changed the traffic: blue=30 green=70"},
		"the deployment goes":    {func(g *ground) { g.want(map[string]int{"blue": 100}, "blue") }, `"green" was removed`},
		"another has its name": {func(g *ground) {
			e := zarpa.Endpoint{Name: "iris", Generation: 1, Created: g.now.Add(time.Second)}
			for name, share := range map[string]int{"blue": 90, "green": 10} {
				e.Spec.Deployments = append(e.Spec.Deployments, zarpa.DeploymentSpec{Name: name, Weight: &share})
			}
			endpoints := g.store.Nouns().Endpoints
			if err := errors.Join(endpoints.Delete(g.t.Context(), "iris"), endpoints.Put(g.t.Context(), e)); err != nil {
				g.t.Fatal(err)
			}
		}, "the endpoint was deleted"},
		"the endpoint goes": {func(g *ground) { _ = g.store.Nouns().Endpoints.Delete(g.t.Context(), "iris") }, "the endpoint was deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGround(t)
			g.begin(quick())
			g.until(0, func(r zarpa.Rollout) bool { return !r.StepStarted.IsZero() })
			before := len(g.asked)
			c.do(g)
			g.tick(50, 0)
			r := g.stored()
			if r.State != zarpa.RolloutAborted || !strings.Contains(r.Reason, c.reason) || r.Ended.IsZero() || len(g.asked) != before {
				t.Errorf("%s: %+v, asked for %v", name, r, g.asked[before:])
			}
		})
	}
	// A further deployment without traffic is nobody's matter.
	g := newGround(t)
	g.begin(quick())
	g.until(0, func(r zarpa.Rollout) bool { return !r.StepStarted.IsZero() })
	g.want(map[string]int{"blue": 90, "green": 10}, "blue", "green", "red")
	g.tick(50, 0)
	if r := g.stored(); r.State != zarpa.RolloutRunning {
		t.Errorf("%+v", r)
	}
}

// TestAStepBeginsAnewWhenItsDeploymentIsUpdated: what was measured of one revision says nothing of the next.
func TestAStepBeginsAnewWhenItsDeploymentIsUpdated(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	run := func(wanted string, revisions ...string) {
		t.Helper()
		o := zarpa.Observed{Endpoint: "iris", Deployment: "green", Target: "local", Weight: 10, Status: zarpa.DeploymentStatus{Revision: wanted}}
		for _, revision := range revisions {
			o.Status.Replicas = append(o.Status.Replicas, zarpa.Replica{ID: revision, Revision: revision, Phase: zarpa.ReplicaReady})
		}
		if err := g.store.Nouns().Deployments.Put(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	g.begin(quick())
	measured := func(r zarpa.Rollout) bool { return !r.StepStarted.IsZero() && r.To.Requests > 0 }
	g.until(0, func(r zarpa.Rollout) bool { return !r.StepStarted.IsZero() })
	g.until(0, measured)
	run("two", "one", "two")
	for range 3 { // as long as both answer
		g.tick(50, 0)
		if r := g.stored(); !r.StepStarted.IsZero() || r.To.Requests != 0 || !strings.Contains(r.Reason, "begins anew: green is updated") {
			t.Fatalf("%+v", r)
		}
	}
	g.until(0, measured)
	run("two", "two")
	g.tick(50, 0)
	g.until(0, measured)
	run("two", "two")
	g.tick(50, 0)
	run("three", "three") // between two looks
	g.tick(50, 0)
	if r := g.stored(); !r.StepStarted.IsZero() || r.To.Requests != 0 || r.State != zarpa.RolloutRunning {
		t.Errorf("%+v", r)
	}
	g.until(0, measured)
}

func TestAnAbortBringsTheWeightsOfBeforeBack(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.begin(quick())
	r := g.until(0, func(r zarpa.Rollout) bool { return r.Step == 1 && !r.StepStarted.IsZero() })
	r.State, r.Reason = zarpa.RolloutRollingBack, "aborted by ana"
	if err := g.store.Nouns().Rollouts.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	g.Wake("iris")
	g.tick(50, 0)
	if r := g.stored(); r.State != zarpa.RolloutRollingBack { // they are wanted, and not in use yet
		t.Errorf("%+v", r)
	}
	if r := g.until(0, isOver); r.State != zarpa.RolloutAborted || r.Reason != "aborted by ana" {
		t.Errorf("%+v", r)
	}
}

func TestARolloutWaitsForWhatIsInItsWay(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.observe("green", 0, zarpa.ReplicaLoading)
	g.begin(quick())
	for range 3 {
		g.tick(0, 0)
	}
	if r := g.stored(); r.Reason != "waits until green is ready" || len(g.asked) != 0 {
		t.Errorf("not ready: %+v, asked for %v", r, g.asked)
	}
	g.observe("green", 0, zarpa.ReplicaReady)
	g.refuse = zarpa.Errorf(zarpa.Conflict, "another operation runs")
	for range 3 {
		g.tick(0, 0)
	}
	if r := g.stored(); r.Reason != "waits: another operation runs" || r.State != zarpa.RolloutRunning {
		t.Errorf("in the way: %+v", r)
	}
	g.refuse = nil
	g.tick(0, 0)
	g.tick(0, 0)
	if r := g.stored(); !strings.Contains(r.Reason, "waits until the gateway has it") {
		t.Errorf("not in use yet: %+v", r)
	}
	g.use()
	g.tick(0, 0)
	g.observe("green", 10, zarpa.ReplicaBackoff)
	for range 15 {
		g.tick(0, 0)
	}
	if r := g.stored(); r.State != zarpa.RolloutRollingBack || !strings.Contains(r.Reason, "no ready replica for 10s") {
		t.Errorf("nobody answers: %+v", r)
	}
}

func TestARolloutThatIsNotClearPauses(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	spec := quick()
	spec.Patience = zarpa.Duration(20 * time.Second)
	g.begin(spec)
	for range 40 {
		g.tick(1, 0)
		g.use()
	}
	if r := g.stored(); r.State != zarpa.RolloutPaused || !strings.Contains(r.Reason, "of 100 requests in 20s, which is too few") {
		t.Errorf("%+v", r)
	}
	g = newGround(t)
	g.refuse = zarpa.Errorf(zarpa.Invalid, "mirror.deployment: it has a share")
	g.begin(quick())
	for range 4 {
		g.tick(1, 0)
	}
	if r := g.stored(); r.State != zarpa.RolloutPaused || !strings.Contains(r.Reason, "mirror.deployment") {
		t.Errorf("what can never be: %+v", r)
	}
}

func TestSharesOfAStepKeepTheProportionOfTheOthers(t *testing.T) {
	t.Parallel()
	r := zarpa.Rollout{Spec: zarpa.RolloutSpec{To: "green", Steps: []int{10, 33, 100}}, Before: map[string]int{"blue": 70, "red": 25, "green": 5, "grey": 0}}
	for step, want := range []map[string]int{
		{"blue": 67, "red": 23, "green": 10, "grey": 0}, {"blue": 50, "red": 17, "green": 33, "grey": 0}, {"blue": 0, "red": 0, "green": 100, "grey": 0},
	} {
		if got := shares(r, step); !maps.Equal(got, want) {
			t.Errorf("step %d: %v, want %v", step, got, want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
