package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// held is a replica that holds its requests until they are let go, one by one.
type held struct {
	arrived chan string
	letGo   chan struct{}
	left    chan struct{}
	most    atomic.Int64
	now     atomic.Int64
}

func newHeld() *held {
	return &held{arrived: make(chan string, 1000), letGo: make(chan struct{}, 1000), left: make(chan struct{}, 1000)}
}

func (h *held) serve(w http.ResponseWriter, r *http.Request) {
	n := h.now.Add(1)
	defer h.now.Add(-1)
	for most := h.most.Load(); n > most && !h.most.CompareAndSwap(most, n); most = h.most.Load() {
	}
	b, _ := io.ReadAll(r.Body)
	h.arrived <- string(b)
	select {
	case <-h.letGo:
		_, _ = w.Write(b)
	case <-r.Context().Done():
		h.left <- struct{}{}
	}
}

// metric waits until a sample of the gateway's metrics is as wanted.
func (g *running) metric(t testing.TB, line string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		rec := newRecorder()
		g.ControlHandler().ServeHTTP(rec, mustRequest("GET", "/metrics"))
		if strings.Contains(rec.body.String(), line+"\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in\n%s", line, rec.body.String())
		}
	}
}

type recorder struct {
	header http.Header
	body   strings.Builder
}

func newRecorder() *recorder                    { return &recorder{header: http.Header{}} }
func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}
func mustRequest(method, path string) (r *http.Request) {
	r, _ = http.NewRequestWithContext(context.Background(), method, path, nil)
	return r
}

func TestRequestsGoToTheLeastLoadedReplica(t *testing.T) {
	t.Parallel()
	a, b := newHeld(), newHeld()
	g := start(t, route(replica(t, a.serve), replica(t, b.serve)))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { g.do(context.Background(), call{body: "x"}) })
		select { // one at a time, so that each choice sees the one before
		case <-a.arrived:
		case <-b.arrived:
		}
	}
	if na, nb := a.now.Load(), b.now.Load(); na != 4 || nb != 4 {
		t.Errorf("%d and %d, want 4 and 4", na, nb)
	}
	close(a.letGo)
	close(b.letGo)
	wg.Wait()
}

func TestConcurrencyIsNeverExceeded(t *testing.T) {
	t.Parallel()
	a, b := newHeld(), newHeld()
	close(a.letGo)
	close(b.letGo)
	r := route(replica(t, a.serve), replica(t, b.serve))
	r.Deployments[0].MaxConcurrency = 2
	r.MaxQueue = 1000
	g := start(t, r)
	both := r.Deployments[0].Replicas
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			for range 30 {
				if rep := g.do(context.Background(), call{body: "x"}); rep.status != 200 {
					t.Errorf("%+v", rep)
				}
			}
		})
	}
	for i := range 40 { // off and on the routes under load
		s := route()
		s.MaxQueue = 1000
		s.Deployments[0].MaxConcurrency = 2
		s.Deployments[0].Replicas = []zarpa.RouteReplica{both[i%2]}
		g.set(s)
		s.Deployments = []zarpa.RouteDeployment{s.Deployments[0]}
		s.Deployments[0].Replicas = both
		g.set(s)
	}
	wg.Wait()
	if a.most.Load() > 2 || b.most.Load() > 2 {
		t.Errorf("%d and %d at a time, 2 allowed", a.most.Load(), b.most.Load())
	}
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 0`)
}

func TestQueueIsFIFOAndBounded(t *testing.T) {
	t.Parallel()
	h := newHeld()
	r := route(replica(t, h.serve))
	r.Deployments[0].MaxConcurrency, r.MaxQueue = 1, 2
	g := start(t, r)
	var wg sync.WaitGroup
	for i, line := range []string{"in_flight", "queue_length", "queue_length"} {
		wg.Go(func() { g.do(context.Background(), call{body: strconv.Itoa(i)}) })
		g.metric(t, fmt.Sprintf(`zarpa_gateway_%s{deployment="blue",endpoint="iris"} %d`, line, max(1, i)))
	}
	full := g.want(call{body: "x"}, 503, "Too many requests for endpoint iris (overloaded)")
	if s := full.header.Get("Retry-After"); s != "1" && s != "2" {
		t.Errorf("%v", full.header)
	}
	g.want(call{body: "x", path: "/v2/models/iris/infer"}, 503, `{"error":"Too many requests`)
	for i := range 3 {
		if got := <-h.arrived; got != strconv.Itoa(i) {
			t.Errorf("request %s came as number %d", got, i)
		}
		h.letGo <- struct{}{}
	}
	wg.Wait()
	g.metric(t, `zarpa_gateway_rejected_total{endpoint="iris",reason="queue_full"} 2`)
}

func TestWaitingEndsWithAReason(t *testing.T) {
	t.Parallel()
	h := newHeld()
	busy := route(replica(t, h.serve))
	busy.Deployments[0].MaxConcurrency, busy.QueueWait = 1, zarpa.Duration(20*time.Millisecond)
	empty := route()
	empty.Endpoint, empty.QueueWait = "empty", busy.QueueWait
	bare := empty
	bare.Endpoint, bare.Deployments = "bare", nil
	off := route("unix:/nowhere")
	off.Endpoint = "off"
	off.Deployments[0].Weight = 0
	short := empty
	short.Endpoint, short.QueueWait, short.RequestTimeout = "short", zarpa.Duration(time.Minute), zarpa.Duration(30*time.Millisecond)
	dead := route("unix:/nowhere/at/all", "unix:/nor/here")
	dead.Endpoint, dead.QueueWait = "dead", zarpa.Duration(250*time.Millisecond)
	g := start(t, busy, empty, bare, off, short, dead)
	var wg sync.WaitGroup
	wg.Go(func() { g.do(context.Background(), call{}) })
	<-h.arrived
	for _, c := range []struct {
		endpoint string
		status   int
		text     string
	}{
		{"iris", 503, "Too many requests for endpoint iris (overloaded)"},
		{"empty", 503, "No ready replicas for endpoint empty"},
		{"bare", 503, "No ready replicas for endpoint bare"},
		{"dead", 503, "No ready replicas for endpoint dead"},
		{"off", 404, "no deployment with traffic"},
		{"short", 504, "Scoring timeout after 30 ms"},
	} {
		r := g.want(call{path: "/endpoints/" + c.endpoint + "/score", body: "x"}, c.status, c.text)
		if (r.header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%s: %v", c.endpoint, r.header)
		}
	}
	h.letGo <- struct{}{}
	wg.Wait()
}

func TestWaitersGetNewReplicasAtOnce(t *testing.T) {
	t.Parallel()
	bare := route()
	bare.Deployments = nil
	g := start(t, bare)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { g.want(call{body: "x"}, 200, "POST /score") })
	}
	g.metric(t, `zarpa_gateway_queue_length{deployment="",endpoint="iris"} 20`)
	g.set(route())
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 20`)
	two := route()
	two.Deployments[0].Weight = 50
	two.Deployments = append(two.Deployments, zarpa.RouteDeployment{
		Name: "green", Weight: 50, MaxConcurrency: 1,
		Replicas: []zarpa.RouteReplica{{ID: "g", Address: replica(t, echoPath)}},
	})
	g.set(two)
	wg.Wait()
	wg.Go(func() { g.want(call{header: http.Header{"Zarpa-Deployment": {"blue"}}}, 404, "does not exist") })
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 1`)
	g.set()
	wg.Wait()
}

func TestClientThatLeavesFreesItsPlace(t *testing.T) {
	t.Parallel()
	h := newHeld()
	r := route(replica(t, h.serve))
	r.Deployments[0].MaxConcurrency = 1
	g := start(t, r)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.do(ctx, call{body: "first"}) })
	<-h.arrived
	waiting, leave := context.WithCancel(context.Background())
	wg.Go(func() { g.do(waiting, call{body: "waits"}) })
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 1`)
	leave()
	g.metric(t, `zarpa_gateway_canceled_total{deployment="",endpoint="iris"} 1`)
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 0`)
	cancel()
	<-h.left // the work at the replica was canceled
	wg.Wait()
	h.letGo <- struct{}{}
	g.want(call{body: "next"}, 200, "next")
	if got := <-h.arrived; got != "next" {
		t.Errorf("%q was worked on", got)
	}
	g.metric(t, `zarpa_gateway_canceled_total{deployment="blue",endpoint="iris"} 1`)
	g.metric(t, `zarpa_gateway_requests_total{code="499",deployment="blue",endpoint="iris"} 1`)
}

func TestWeightsAndHeadersChooseTheDeployment(t *testing.T) {
	t.Parallel()
	name := func(n string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, n) }
	}
	r := route()
	r.Deployments = nil
	for n, weight := range map[string]int{"blue": 75, "green": 25, "grey": 0} {
		r.Deployments = append(r.Deployments, zarpa.RouteDeployment{
			Name: n, Weight: weight, MaxConcurrency: 4,
			Replicas: []zarpa.RouteReplica{{ID: n, Address: replica(t, name(n))}},
		})
	}
	r.Deployments = append(r.Deployments, zarpa.RouteDeployment{Name: "unborn", Weight: 100, MaxConcurrency: 4})
	g := start(t, r)
	count := map[string]int{}
	for range 400 {
		count[g.want(call{}, 200, "").body]++
	}
	if count["grey"] != 0 || count["green"] < 50 || count["green"] > 160 || count["blue"]+count["green"] != 400 {
		t.Errorf("%v, want about 300 blue and 100 green", count)
	}
	if a := g.want(call{header: http.Header{"Azureml-Model-Deployment": {"grey"}}}, 200, "grey"); a.header.Get("azureml-model-deployment") != "grey" {
		t.Errorf("the answer does not say which deployment it is of: %v", a.header)
	}
	g.want(call{header: http.Header{"Zarpa-Deployment": {"green"}}}, 200, "green")
	g.want(call{header: http.Header{"Zarpa-Deployment": {"pink"}}}, 404, `no deployment \"pink\"`)
}

func TestSwapsUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	a, b, c := replica(t, echoPath), replica(t, echoPath), replica(t, echoPath)
	g := start(t, route(a, b))
	stop := make(chan struct{})
	var served atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r := g.do(context.Background(), call{body: `{"data":[1]}`, key: "Bearer second-key"}); r.status != 200 {
					t.Errorf("%+v", r)
					return
				}
				served.Add(1)
			}
		})
	}
	sets := [][]string{{a, b}, {b, c}, {}, {c}, {a, b, c}}
	for i := 0; served.Load() < 1500 && !t.Failed(); i++ {
		r := route(sets[i%len(sets)]...)
		r.Keys = [][]byte{zarpa.KeyDigest(fmt.Sprint("new", i)), zarpa.KeyDigest("second-key")} // the other is rotated
		g.set(r)
	}
	close(stop)
	g.set(route(a)) // some may wait for a replica still
	wg.Wait()
}
