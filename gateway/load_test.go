package gateway_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// load is the part of one deployment in a snapshot.
func (g *running) load(name string) zarpa.DeploymentLoad {
	g.t.Helper()
	l, err := g.Load(context.Background(), 0, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, d := range l.Deployments {
		if d.Deployment == name {
			return d
		}
	}
	g.t.Fatalf("no %q in %+v", name, l)
	return zarpa.DeploymentLoad{}
}

// settled waits until a snapshot is as wanted.
func (g *running) settled(name string, ok func(zarpa.DeploymentLoad) bool) zarpa.DeploymentLoad {
	g.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		l := g.load(name)
		if ok(l) {
			return l
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%+v", l)
		}
	}
}

func sum(h []int64) (n int64) {
	for _, v := range h {
		n += v
	}
	return n
}

func TestEveryRequestCountsOnce(t *testing.T) {
	t.Parallel()
	statuses := map[string]int{"ok": 200, "bad": 422, "model": 424, "script": 500, "slow": 0}
	h := newHeld()
	r := route("unix:/nowhere", replica(t, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		if s := statuses[string(b)]; s != 0 {
			w.WriteHeader(s)
			return
		}
		<-req.Context().Done()
	}))
	r.RequestTimeout = zarpa.Duration(200 * time.Millisecond)
	full := route(replica(t, h.serve))
	full.Endpoint, full.MaxQueue, full.Deployments[0].MaxConcurrency, full.Deployments[0].Name = "full", 1, 1, "one"
	g := start(t, r, full)
	for body, status := range statuses {
		if status == 0 {
			status = 504
		}
		g.want(call{body: body}, status, "")
	}
	l := g.settled("blue", func(l zarpa.DeploymentLoad) bool { return l.Requests == 5 })
	if l.Failures != 3 || l.Rejected != 0 || sum(l.Latency) != 5 || l.InFlight != 0 || l.Queued != 0 || l.Replicas != 2 {
		t.Errorf("%+v, want 5 requests, 3 of them failures", l)
	}
	if p := zarpa.LatencyQuantile(l.Latency, 1); p < 200*time.Millisecond || l.BusySeconds < .2 || l.BusySeconds > 20 {
		t.Errorf("the slowest took %v, busy for %v s", p, l.BusySeconds)
	}
	tried := l.Requests
	for ; g.load("blue").Retries == 0 && tried < 200; tried++ { // the replica that is not there is chosen by chance
		g.want(call{body: "ok"}, 200, "")
	}
	g.settled("blue", func(l zarpa.DeploymentLoad) bool { return l.Requests == tried && l.Retries > 0 })

	path := "/endpoints/full/score"
	ctx, leave := context.WithCancel(context.Background())
	waiting, give := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.do(ctx, call{path: path, body: "x"}) })
	<-h.arrived
	wg.Go(func() { g.do(waiting, call{path: path, body: "x"}) })
	g.settled("one", func(l zarpa.DeploymentLoad) bool { return l.Queued == 1 && l.InFlight == 1 })
	g.want(call{path: path, body: "x"}, 503, "overloaded")
	give()
	g.settled("one", func(l zarpa.DeploymentLoad) bool { return l.Queued == 0 && l.Requests == 1 })
	leave()
	wg.Wait()
	l = g.settled("one", func(l zarpa.DeploymentLoad) bool { return l.Requests == 2 })
	if l.Failures != 0 || l.Rejected != 1 || len(l.Latency) != 0 || l.BusySeconds <= 0 || l.QueuedSeconds <= 0 || l.BusySeconds < l.QueuedSeconds {
		t.Errorf("%+v, want 2 requests that left and 1 rejected", l)
	}
	g.set(route())
	if l := g.load("blue"); l.Replicas != 0 || l.Requests != tried {
		t.Errorf("%+v", l)
	}
	g.set()
	if l, _ := g.Load(context.Background(), 0, 0); len(l.Deployments) != 0 {
		t.Errorf("%+v", l)
	}
}

func TestEveryCallCountsOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		in := &pb.ModelInferRequest{ModelName: "iris"}
		if _, err := c.ModelInfer(with(t.Context()), in); err != nil {
			t.Fatal(err)
		}
		_, err := c.ModelReady(with(t.Context()), &pb.ModelReadyRequest{Name: "iris"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ModelConfig(with(t.Context()), &pb.ModelConfigRequest{Name: "iris"}); err == nil {
			t.Fatal("a method that the replica has not was answered")
		}
		g.settled("blue", func(l zarpa.DeploymentLoad) bool { return l.Requests == 3 && l.Failures == 0 && sum(l.Latency) == 3 })
		r := g.Routes().Endpoints[0]
		r.Deployments[0].Replicas = []zarpa.RouteReplica{{ID: "dies", Address: rawReplica(t, func(conn net.Conn) { _ = conn.Close() })}}
		g.set(r)
		if _, err := c.ModelInfer(with(t.Context()), in); err == nil {
			t.Fatal("a replica that is not there answered")
		}
		g.settled("blue", func(l zarpa.DeploymentLoad) bool { return l.Requests == 4 && l.Failures == 1 })
	}, speaks(&speaker{}))
}

func TestLoadComesOverTheControlSocket(t *testing.T) {
	t.Parallel()
	r := route()
	r.Deployments[0].Hold = zarpa.Duration(10 * time.Second)
	g := serve(t, r)
	c := g.control
	first, err := c.Load(t.Context(), 0, 0)
	if err != nil || first.Run == "" || first.Wake != 0 || len(first.Deployments) != 1 || first.At.IsZero() {
		t.Fatalf("%+v %v", first, err)
	}
	woken := make(chan zarpa.Load, 1)
	go func() {
		l, err := c.Load(t.Context(), first.Wake, time.Minute)
		if err != nil {
			t.Error(err)
		}
		woken <- l
	}()
	var wg sync.WaitGroup
	wg.Go(func() { g.want(call{body: "x"}, 200, "POST /score") })
	l := <-woken
	if l.Wake != 1 || l.Run != first.Run || l.Deployments[0].Queued != 1 {
		t.Errorf("%+v", l)
	}
	if again, err := c.Load(t.Context(), l.Wake, time.Millisecond); err != nil || again.Wake != 1 {
		t.Errorf("%+v %v", again, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Load(ctx, l.Wake, time.Minute); zarpa.AsError(err).Code != zarpa.Canceled {
		t.Error(err)
	}
	ready := route(replica(t, echoPath))
	ready.Deployments[0].Hold = r.Deployments[0].Hold
	g.set(ready)
	wg.Wait()
	for query, field := range map[string]string{"wake=x": "wake", "wait=soon": "wait"} {
		rec := newRecorder()
		g.ControlHandler().ServeHTTP(rec, mustRequest("GET", "/-/load?"+query))
		if got := rec.body.String(); !strings.Contains(got, field+": ") {
			t.Errorf("%s: %s", query, got)
		}
	}
	if _, err := gateway.NewControlClient("/nowhere").Load(t.Context(), 0, 0); zarpa.AsError(err).Code != zarpa.Unavailable {
		t.Error(err)
	}
}
