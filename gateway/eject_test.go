package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// ejecting is a route that sends replicas away for a minute.
func ejecting(addresses ...string) zarpa.Route {
	r := route(addresses...)
	r.Ejection = &zarpa.EjectionSpec{Failures: 5, Time: zarpa.Duration(time.Minute), MaxPercent: 50}
	return r
}

func fine(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") }

func TestReplicasThatFailAloneGetNoRequests(t *testing.T) {
	t.Parallel()
	answers := func(code int) func(*testing.T) string {
		return func(t *testing.T) string {
			return replica(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		}
	}
	for name, c := range map[string]struct {
		bad    func(*testing.T) string
		most   int // failures that a client sees
		status int
	}{
		"500":               {answers(500), 25, 500},
		"502":               {answers(502), 25, 502},
		"424":               {answers(424), 25, 424},
		"broken connection": {func(t *testing.T) string { return rawReplica(t, func(c net.Conn) { readRequest(bufio.NewReader(c)) }) }, 5, 502},
		"half an answer": {func(t *testing.T) string {
			return rawReplica(t, func(c net.Conn) {
				readRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, okHead[:len(okHead)-1])
			})
		}, 5, 502},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, ejecting(c.bad(t), replica(t, fine)))
			failures := 0
			for range 400 {
				switch r := g.do(context.Background(), call{body: "x"}); r.status {
				case 200:
				case c.status:
					failures++
				default:
					t.Fatalf("%+v", r)
				}
			}
			if failures < 5 || failures > c.most {
				t.Errorf("%d failures reached the client, want 5 to %d", failures, c.most)
			}
			g.metric(t, `zarpa_gateway_ejections_total{deployment="blue",endpoint="iris"} 1`)
			g.metric(t, `zarpa_gateway_ejected_replicas{deployment="blue",endpoint="iris"} 1`)
		})
	}
}

func TestBadRequestsEjectNobody(t *testing.T) {
	t.Parallel()
	picky := func(w http.ResponseWriter, r *http.Request) {
		if b, _ := io.ReadAll(r.Body); string(b) == "bad" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	g := start(t, ejecting(replica(t, picky), replica(t, picky), replica(t, picky)))
	for i := range 600 {
		body := "bad"
		if i >= 300 && i%4 == 0 { // at first all are bad, then most
			body = "good"
		}
		g.do(context.Background(), call{body: body})
	}
	g.metric(t, `zarpa_gateway_ejections_total{deployment="blue",endpoint="iris"} 0`)
}

// A replica that hangs keeps the requests that it has; when they have timed out, it gets no further ones.
func TestReplicasThatHangGetNoFurtherRequests(t *testing.T) {
	t.Parallel()
	var hung atomic.Int64
	r := ejecting(replica(t, func(_ http.ResponseWriter, r *http.Request) {
		hung.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}), replica(t, fine))
	r.RequestTimeout = zarpa.Duration(5 * time.Second) // the other one's answers come within it on a machine that has much else to do
	g := start(t, r)
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 40 {
				if r := g.do(context.Background(), call{body: "x"}); r.status != 200 && r.status != 504 {
					t.Errorf("%d %v", r.status, r.err)
				}
			}
		})
	}
	clients.Wait()
	if n := hung.Load(); n > 16 { // its places, and once more those that were free before the fifth had timed out
		t.Errorf("%d requests hung", n)
	}
	g.metric(t, `zarpa_gateway_ejections_total{deployment="blue",endpoint="iris"} 1`)
}

func TestSlowClientsEjectNobody(t *testing.T) {
	t.Parallel()
	reads := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	r := ejecting(replica(t, reads), replica(t, reads))
	r.RequestTimeout = zarpa.Duration(50 * time.Millisecond)
	g := start(t, r)
	var clients sync.WaitGroup
	for range 24 {
		clients.Go(func() {
			in, out := io.Pipe()
			defer out.Close()
			go func() { _, _ = out.Write(make([]byte, 100<<10)) }() // more than is read before a replica is taken, and no end
			req, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, g.url+"/endpoints/iris/score", in)
			req.Header.Set("Authorization", "Bearer "+key)
			if res, err := g.http.Do(req); err == nil {
				_ = res.Body.Close()
			}
		})
	}
	clients.Wait()
	g.metric(t, `zarpa_gateway_ejections_total{deployment="blue",endpoint="iris"} 0`)
}

func TestCallsThatFailAloneEject(t *testing.T) {
	t.Parallel()
	good, _ := (&speaker{}).address(t)
	bad, _ := (&speaker{infer: func(context.Context, *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, error) {
		return nil, status.Error(codes.Internal, "it is ill")
	}}).address(t)
	g := serve(t, ejecting(bad, good))
	c := dial(t, g.public)
	for range 100 {
		_, _ = c.ModelInfer(with(t.Context()), &inferencepb.ModelInferRequest{ModelName: "iris"})
	}
	for range 20 {
		if _, err := c.ModelInfer(with(t.Context()), &inferencepb.ModelInferRequest{ModelName: "iris"}); err != nil {
			t.Fatal(err)
		}
	}
}
