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

	"google.golang.org/grpc/metadata"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// mirrored is an endpoint with a live deployment blue and a mirror green.
func mirrored(percent int, live, copies string) zarpa.Route {
	r := route(live)
	r.Mirror = &zarpa.MirrorSpec{Deployment: "green", Percent: percent}
	r.Deployments = append(r.Deployments, zarpa.RouteDeployment{
		Name: "green", MaxConcurrency: 8, Replicas: []zarpa.RouteReplica{{ID: "g", Address: copies}},
	})
	return r
}

func TestShareOfTheRequestsIsCopied(t *testing.T) {
	t.Parallel()
	var copies atomic.Int64
	live := replica(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "live %s %s", b, r.Header.Get("Zarpa-Mirror"))
	})
	g := serve(t, mirrored(25, live, replica(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if !strings.HasPrefix(string(b), "body ") || r.RequestURI != "/score?a=b" || r.Header.Get("Zarpa-Mirror") != "true" ||
			r.Header.Get("X-Request-Id") == "" || r.Header.Get("X-Mine") != "x" || r.Header.Get("Authorization") != "" {
			t.Errorf("the copy is %s %q %v", r.RequestURI, b, r.Header)
		}
		if copies.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write(make([]byte, 100<<10)) // a large answer is thrown away like a small one
	})))
	for i := range 400 {
		body := fmt.Sprint("body ", i)
		c := call{path: "/endpoints/iris/score?a=b", body: body, header: http.Header{"X-Mine": {"x"}, "Zarpa-Mirror": {"mine"}}}
		if r := g.want(c, 200, ""); r.body != "live "+body+" " {
			t.Fatalf("%q", r.body)
		}
	}
	l := g.settled("green", func(l zarpa.DeploymentLoad) bool { return l.Requests == 100 })
	if copies.Load() != 100 || l.Mirrored != 100 || l.Failures != 50 || sum(l.Latency) != 100 || l.Rejected != 0 {
		t.Errorf("%d copies, %+v", copies.Load(), l)
	}
	if l := g.load("blue"); l.Requests != 400 || l.Failures != 0 || l.Mirrored != 0 {
		t.Errorf("%+v", l)
	}
	g.metric(t, `zarpa_gateway_mirrored_total{deployment="green",endpoint="iris",result="sent"} 100`)
}

func TestWhatIsNotCopied(t *testing.T) {
	t.Parallel()
	g := start(t, mirrored(100, replica(t, echoPath), replica(t, func(http.ResponseWriter, *http.Request) { t.Error("copied") })))
	for range 5 {
		g.want(call{body: "x", header: http.Header{"Zarpa-Deployment": {"blue"}}}, 200, "")
		g.want(call{method: "GET"}, 200, "")
		g.want(call{body: "x", path: "/v2/models/iris/generate_stream"}, 200, "")
		g.want(call{body: strings.Repeat("x", gateway.SmallBody+1)}, 200, "")
	}
	g.metric(t, `zarpa_gateway_mirrored_total{deployment="green",endpoint="iris",result="skipped"} 5`)
	r := g.Routes().Endpoints[0]
	r.Deployments[1].Weight = 1 // takes live traffic now
	r.Deployments[1].Replicas[0].Address = replica(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Zarpa-Mirror") != "" {
			t.Error("a copy came where live traffic is")
		}
		echoPath(w, r)
	})
	g.set(r)
	for range 50 {
		g.want(call{body: "x"}, 200, "")
	}
	g.metric(t, `zarpa_gateway_mirrored_total{deployment="green",endpoint="iris",result="refused"} 50`)
}

func TestMirrorThatHangsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	h := newHeld()
	r := mirrored(100, replica(t, echoPath), replica(t, h.serve))
	r.MaxQueue = 1 // copies do not count
	r.Deployments[1].MaxConcurrency = 2
	g := serve(t, r)
	const more = 50
	for range gateway.MaxMirrors + more {
		g.want(call{body: "x"}, 200, "POST /score")
	}
	g.metric(t, fmt.Sprintf(`zarpa_gateway_mirrored_total{deployment="green",endpoint="iris",result="dropped"} %d`, more))
	g.settled("green", func(l zarpa.DeploymentLoad) bool { return l.InFlight == 2 && l.Queued == gateway.MaxMirrors-2 })
	if l := g.load("blue"); l.Requests != gateway.MaxMirrors+more || l.Rejected != 0 {
		t.Errorf("%+v", l)
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	// They were ended, and did not fail at their request_timeout.
	if l := g.load("green"); l.InFlight != 0 || l.Queued != 0 || l.Failures != 0 {
		t.Errorf("%+v", l)
	}
}

func TestCopiesWaitNoLongerThanTheyMay(t *testing.T) {
	t.Parallel()
	h := newHeld()
	r := mirrored(100, replica(t, echoPath), replica(t, h.serve))
	r.QueueWait, r.RequestTimeout = zarpa.Duration(20*time.Millisecond), zarpa.Duration(300*time.Millisecond)
	r.Deployments[1].MaxConcurrency = 1
	g := start(t, r)
	for range 3 {
		g.want(call{body: "x"}, 200, "")
	}
	g.metric(t, `zarpa_gateway_mirrored_total{deployment="green",endpoint="iris",result="refused"} 2`)
	g.settled("green", func(l zarpa.DeploymentLoad) bool { return l.Requests == 1 && l.Failures == 1 && l.InFlight == 0 })
	none := mirrored(100, replica(t, echoPath), "unix:/nowhere")
	none.QueueWait, none.Deployments[1].Replicas, none.Deployments[1].Hold = r.QueueWait, nil, zarpa.Duration(time.Minute)
	g.set(none)
	var wg sync.WaitGroup
	wg.Go(func() { g.want(call{body: "x"}, 200, "") })
	if n := g.wake(0, 10*time.Second); n != 1 { // so that a mirror that was scaled to zero measures anything
		t.Errorf("%d wakes", n)
	}
	wg.Wait()
	g.metric(t, `zarpa_gateway_mirrored_total{deployment="green",endpoint="iris",result="refused"} 3`)
}

func TestCallsAreCopied(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		for i := range 40 {
			in := &pb.ModelInferRequest{ModelName: "iris", Id: strconv.Itoa(i), RawInputContents: [][]byte{make([]byte, 100)}}
			out, err := c.ModelInfer(with(t.Context(), "zarpa-mirror", "mine"), in)
			if err != nil || out.GetModelVersion() != "blue" || out.GetId() != in.GetId() {
				t.Fatalf("%v %v", out, err)
			}
			if _, err := c.ModelInfer(with(t.Context(), "zarpa-deployment", "blue"), in); err != nil {
				t.Fatal(err)
			}
		}
		large := &pb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{make([]byte, gateway.SmallBody)}}
		for range 2 {
			if _, err := c.ModelInfer(with(t.Context()), large); err != nil {
				t.Fatal(err)
			}
		}
		g.settled("green", func(l zarpa.DeploymentLoad) bool { return l.Mirrored == 20 && l.Requests == 20 && l.Failures == 0 })
		g.metric(t, `zarpa_gateway_mirrored_total{deployment="green",endpoint="iris",result="skipped"} 1`)
	}, func(t *testing.T) []zarpa.Route {
		blue, _ := (&speaker{name: "blue"}).address(t)
		green, _ := (&speaker{infer: func(ctx context.Context, in *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
			if v := metadata.ValueFromIncomingContext(ctx, "zarpa-mirror"); len(v) != 1 || v[0] != "true" || len(in.GetRawInputContents()[0]) != 100 {
				t.Errorf("the copy is marked %v", v)
			}
			return &pb.ModelInferResponse{ModelName: "iris"}, nil
		}}).address(t)
		return []zarpa.Route{mirrored(50, blue, green)}
	})
}

// As over HTTP, a copy goes to another replica where no connection can be made, and is no failure.
func TestCopiesOfCallsGoRoundReplicasThatAreGone(t *testing.T) {
	t.Parallel()
	live, _ := (&speaker{}).address(t)
	copies, _ := (&speaker{}).address(t)
	r := mirrored(100, live, copies)
	green := &r.Deployments[1]
	green.Replicas = append(green.Replicas, zarpa.RouteReplica{ID: "gone", Address: "unix:" + socketDir(t) + "/nobody"})
	g := serve(t, r)
	c := dial(t, g.native)
	const calls = 20
	for range calls {
		if _, err := c.ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"}); err != nil {
			t.Fatal(err)
		}
	}
	l := g.settled("green", func(l zarpa.DeploymentLoad) bool { return l.Requests == calls })
	if l.Failures != 0 || l.Mirrored != calls || l.Retries == 0 {
		t.Errorf("%+v", l)
	}
}
