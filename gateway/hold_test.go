package gateway_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// sleeping is an endpoint whose deployment has no replica until a request comes.
func sleeping(hold time.Duration) zarpa.Route {
	r := route()
	r.QueueWait, r.Deployments[0].Hold = zarpa.Duration(time.Millisecond), zarpa.Duration(hold)
	return r
}

func (g *running) wake(after int64, d time.Duration) int64 {
	g.t.Helper()
	l, err := g.Load(context.Background(), after, d)
	if err != nil {
		g.t.Fatal(err)
	}
	return l.Wake
}

func TestFirstRequestWakesAndIsHeld(t *testing.T) {
	t.Parallel()
	g := start(t, sleeping(10*time.Second))
	var wg sync.WaitGroup
	wg.Go(func() { g.want(call{body: "x"}, 200, "POST /score") })
	if n := g.wake(0, 10*time.Second); n != 1 {
		t.Fatalf("%d wakes", n)
	}
	for range 9 {
		wg.Go(func() { g.want(call{body: "x"}, 200, "POST /score") })
	}
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 10`)
	if n := g.wake(0, 0); n != 1 { // one call is enough
		t.Errorf("%d wakes", n)
	}
	g.set(sleeping(10 * time.Second)) // a change of something else leaves them where they are
	woken := sleeping(10 * time.Second)
	woken.Deployments[0].Replicas = route(replica(t, echoPath)).Deployments[0].Replicas
	g.set(woken)
	wg.Wait()
	g.metric(t, `zarpa_gateway_held_total{deployment="blue",endpoint="iris"} 10`)
	g.metric(t, `zarpa_gateway_wakes_total{deployment="blue",endpoint="iris"} 1`)
	g.set(sleeping(10 * time.Second))
	ctx, leave := context.WithCancel(context.Background())
	wg.Go(func() { g.do(ctx, call{body: "x"}) })
	if n := g.wake(1, 10*time.Second); n != 2 {
		t.Errorf("%d wakes after the replica went", n)
	}
	leave()
	wg.Wait()
}

func TestHoldingEndsWithAReason(t *testing.T) {
	t.Parallel()
	cold := sleeping(30 * time.Millisecond)
	short := sleeping(time.Minute)
	short.Endpoint, short.RequestTimeout = "short", zarpa.Duration(30*time.Millisecond)
	full := sleeping(10 * time.Second)
	full.Endpoint, full.MaxQueue = "full", 1
	spare := sleeping(20 * time.Millisecond) // only by name
	spare.Endpoint, spare.Deployments[0].Weight = "spare", 0
	g := start(t, cold, short, full, spare)
	for _, endpoint := range []string{"iris", "short"} {
		r := g.want(call{path: "/endpoints/" + endpoint + "/score", body: "x"}, 503, "Deployment blue of endpoint "+endpoint+" is starting")
		if r.header.Get("Retry-After") == "" {
			t.Errorf("%v", r.header)
		}
	}
	g.metric(t, `zarpa_gateway_rejected_total{endpoint="iris",reason="starting"} 1`)
	before := g.wake(0, 0)
	g.want(call{path: "/endpoints/spare/score", body: "x"}, 404, "no deployment with traffic")
	g.want(call{path: "/endpoints/spare/score", body: "x", header: http.Header{"Zarpa-Deployment": {"blue"}}}, 503, "is starting")
	if n := g.wake(0, 0); n != before+1 {
		t.Errorf("%d wakes, %d before", n, before)
	}
	ctx, leave := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.do(ctx, call{path: "/endpoints/full/score", body: "x"}) })
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="full"} 1`)
	g.want(call{path: "/endpoints/full/score", body: "x"}, 503, "overloaded")
	leave()
	wg.Wait()
}

// A request that began to wait for a place goes on waiting when the last replica is taken away: it is
// what starts the next one.
func TestWaitingGoesOnWhenTheLastReplicaGoes(t *testing.T) {
	t.Parallel()
	h := newHeld()
	r := route(replica(t, h.serve))
	r.QueueWait = zarpa.Duration(100 * time.Millisecond)
	r.Deployments[0].Hold, r.Deployments[0].MaxConcurrency = zarpa.Duration(10*time.Second), 1
	g := start(t, r)
	var wg sync.WaitGroup
	wg.Go(func() { g.want(call{body: "first"}, 200, "first") })
	<-h.arrived
	wg.Go(func() { g.want(call{body: "second"}, 200, "POST /score") })
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 1`)
	gone := r
	gone.Deployments = []zarpa.RouteDeployment{r.Deployments[0]}
	gone.Deployments[0].Replicas = nil
	g.set(gone)
	if n := g.wake(0, 10*time.Second); n != 1 {
		t.Errorf("%d wakes", n)
	}
	if n := g.wake(1, 200*time.Millisecond); n != 1 { // longer than queue_wait
		t.Errorf("%d wakes", n)
	}
	h.letGo <- struct{}{}
	back := r
	back.Deployments = route(replica(t, echoPath)).Deployments
	g.set(back)
	wg.Wait()
}

func TestCallsAreHeld(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"}); err != nil {
				t.Error(err)
			}
		})
		g.wake(0, 10*time.Second)
		r := g.Routes().Endpoints[0]
		a, _ := (&speaker{}).address(t)
		r.Deployments = []zarpa.RouteDeployment{r.Deployments[0]}
		r.Deployments[0].Replicas = route(a).Deployments[0].Replicas
		g.set(r)
		wg.Wait()
	}, func(*testing.T) []zarpa.Route { return []zarpa.Route{sleeping(10 * time.Second)} })
}

// colours is an endpoint whose deployments answer with their names.
func colours(t testing.TB, weights map[string]int) zarpa.Route {
	r := route()
	r.Deployments = nil
	for n, weight := range weights {
		r.Deployments = append(r.Deployments, zarpa.RouteDeployment{
			Name: n, Weight: weight, MaxConcurrency: 64,
			Replicas: []zarpa.RouteReplica{{ID: n, Address: replica(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, n) })}},
		})
	}
	return r
}

func TestCallersStayWithTheirDeployment(t *testing.T) {
	t.Parallel()
	r := colours(t, map[string]int{"blue": 60, "green": 40})
	r.Sticky = "header:X-User"
	g := start(t, r)
	ask := func(user int) string {
		return g.want(call{header: http.Header{"X-User": {fmt.Sprint("user-", user)}}}, 200, "").body
	}
	const users = 300
	before, green := make([]string, users), 0
	for i := range users {
		before[i] = ask(i)
		if before[i] == "green" {
			green++
		}
		if again := ask(i); again != before[i] {
			t.Errorf("user %d: %s, then %s", i, before[i], again)
		}
	}
	if math.Abs(float64(green)/users-.4) > .1 {
		t.Errorf("%d of %d are green, want about 40 %%", green, users)
	}
	for i := range r.Deployments {
		r.Deployments[i].Weight = map[string]int{"blue": 50, "green": 50}[r.Deployments[i].Name]
	}
	g.set(r)
	moved := 0
	for i := range users {
		now := ask(i)
		if now != before[i] {
			moved++
		}
		if before[i] == "green" && now != "green" {
			t.Errorf("user %d left the deployment whose share grew", i)
		}
	}
	if moved == 0 || moved > users/4 {
		t.Errorf("%d of %d moved, want about a tenth", moved, users)
	}
	seen := map[string]bool{}
	for range 100 {
		seen[g.want(call{}, 200, "").body] = true // without the header
	}
	if len(seen) != 2 {
		t.Errorf("%v", seen)
	}
	r.Sticky = zarpa.StickyKey
	g.set(r)
	seen = map[string]bool{}
	for range 50 {
		seen[g.want(call{}, 200, "").body] = true
	}
	if len(seen) != 1 {
		t.Errorf("one key came to %v", seen)
	}
	for i := range r.Deployments { // whose own is away goes elsewhere
		if seen[r.Deployments[i].Name] {
			r.Deployments[i].Replicas = nil
		}
	}
	g.set(r)
	if other := g.want(call{}, 200, "").body; seen[other] {
		t.Error(other)
	}
}

func TestCallersOfGRPCStayWithTheirDeployment(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, _ *served, c client) {
		for user := range 20 {
			seen := map[string]bool{}
			for range 8 {
				out, err := c.ModelInfer(with(t.Context(), "x-user", strconv.Itoa(user)), &pb.ModelInferRequest{ModelName: "iris"})
				if err != nil {
					t.Fatal(err)
				}
				seen[out.GetModelVersion()] = true
			}
			if len(seen) != 1 {
				t.Errorf("user %d came to %v", user, seen)
			}
		}
	}, func(t *testing.T) []zarpa.Route {
		blue, _ := (&speaker{name: "blue"}).address(t)
		green, _ := (&speaker{name: "green"}).address(t)
		r := route(blue)
		r.Sticky, r.Deployments[0].Weight = "header:X-User", 50
		r.Deployments = append(r.Deployments, zarpa.RouteDeployment{Name: "green", Weight: 50, Replicas: []zarpa.RouteReplica{{ID: "g", Address: green}}})
		return []zarpa.Route{r}
	})
}
