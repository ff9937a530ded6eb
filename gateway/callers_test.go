package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// rarely is a limit that is reached at the second request, and stays so.
func rarely() *zarpa.KeyLimits { return &zarpa.KeyLimits{Rate: 0.02, Burst: 2} }

func TestEachCallerHasItsOwnRate(t *testing.T) {
	t.Parallel()
	for _, codes := range []zarpa.StatusCodes{"", zarpa.StatusStandard, zarpa.StatusV1, zarpa.StatusV2} {
		r := route(replica(t, fine))
		r.Limits, r.StatusCodes = rarely(), codes
		g := start(t)
		g.setKeys([]string{"k1"}, r)
		tokens := []string{token(t, "k1", "iris", time.Hour), token(t, "k1", "iris", 2*time.Hour)} // of one subject
		for _, caller := range [][]string{{key, key, key}, {"second-key", "second-key", "second-key"}, {tokens[0], tokens[1], tokens[0]}} {
			for i, want := range []int{200, 200, 429} {
				got := g.do(t.Context(), call{key: authorized(caller[i]), body: "x"})
				if got.status != want {
					t.Errorf("%s: request %d: %+v", codes, i, got)
				}
				if seconds, _ := strconv.Atoi(got.header.Get("Retry-After")); want == 429 && (seconds < 40 || seconds > 50 || !strings.Contains(got.body, "limits.rate")) {
					t.Errorf("%s: %+v", codes, got)
				}
			}
		}
		g.metric(t, `zarpa_gateway_rejected_total{endpoint="iris",reason="key_limit"} 3`)
	}
}

func TestCallersOfOpenEndpointsAreTheirAddresses(t *testing.T) {
	t.Parallel()
	r := route(replica(t, fine))
	r.Limits, r.Auth = rarely(), zarpa.AuthNone
	g := start(t, r)
	for i, want := range []int{200, 200, 429} { // whatever they send
		if got := g.do(t.Context(), call{key: fmt.Sprint("Bearer ", i), body: "x", header: http.Header{"X-Forwarded-For": {fmt.Sprint("10.0.0.", i)}}}); got.status != want {
			t.Errorf("request %d: %+v", i, got)
		}
	}
}

func TestRequestsOfOneCallerAtATime(t *testing.T) {
	t.Parallel()
	h := newHeld()
	r := route(replica(t, h.serve))
	r.Deployments[0].MaxConcurrency = 1
	r.Limits = &zarpa.KeyLimits{Concurrent: 2}
	g := start(t, r)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(h.letGo)
	for range 2 {
		wg.Go(func() { g.do(context.Background(), call{body: "x"}) })
	}
	<-h.arrived
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 1`) // which counts, too
	if got := g.do(t.Context(), call{body: "x"}); got.status != 429 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "limits.concurrent") {
		t.Errorf("%+v", got)
	}
	wg.Go(func() { g.do(context.Background(), call{key: "Bearer second-key", body: "x"}) })
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 2`)
	h.letGo <- struct{}{}
	<-h.arrived
	eventually(t, "a request that ended makes room", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return g.do(ctx, call{body: "x"}).status != 429
	})
}

func TestLimitsOfCalls(t *testing.T) {
	t.Parallel()
	a, _ := (&speaker{}).address(t)
	r := route(a)
	r.Limits = rarely()
	g := serve(t, r)
	c := dial(t, g.native)
	in := &inferencepb.ModelInferRequest{ModelName: "iris"}
	for i := range 6 {
		pairs := []string{}
		if i%2 == 1 {
			pairs = []string{"zarpa-endpoint", "iris"}
		}
		var trailer metadata.MD
		_, err := c.ModelInfer(with(t.Context(), pairs...), in, grpc.Trailer(&trailer))
		if i < 2 {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wantCode(t, err, codes.ResourceExhausted, "limits.rate")
		details := status.Convert(err).Details()
		if len(details) != 1 || details[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration() < 40*time.Second {
			t.Errorf("details %v", details)
		}
		if len(trailer["retry-after"]) != 1 || len(trailer["grpc-retry-pushback-ms"]) != 1 {
			t.Errorf("trailer %v", trailer)
		}
	}
}

// counting counts what is read of a body.
type counting struct {
	io.Reader
	mu   sync.Mutex
	read int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.mu.Lock()
	c.read += n
	c.mu.Unlock()
	return n, err
}

func TestAFullQueueRefusesBeforeTheBody(t *testing.T) {
	t.Parallel()
	h := newHeld()
	r := route(replica(t, h.serve))
	r.Deployments[0].MaxConcurrency, r.MaxQueue, r.MaxBody = 1, 1, 1<<30
	g := start(t, r)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(h.letGo)
	for range 2 {
		wg.Go(func() { g.do(context.Background(), call{body: "x"}) })
	}
	<-h.arrived
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 1`)
	body := &counting{Reader: bytes.NewReader(make([]byte, 64<<20))}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/endpoints/iris/score", body)
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Expect", "100-continue")
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body.mu.Lock()
	defer body.mu.Unlock()
	if seconds, _ := strconv.Atoi(res.Header.Get("Retry-After")); res.StatusCode != http.StatusServiceUnavailable || seconds < 1 || seconds > 60 || body.read != 0 {
		t.Errorf("%d, Retry-After %q, %d bytes read", res.StatusCode, res.Header.Get("Retry-After"), body.read)
	}
	g.metric(t, `zarpa_gateway_rejected_total{endpoint="iris",reason="queue_full"} 1`)
}

// resetSecond answers the first request of a connection, and resets it within the second.
func resetSecond(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 16)
	if readRequest(in) {
		_, _ = io.WriteString(conn, okHead)
		_, _ = in.Peek(1)
	}
}

func TestTheRetryBudgetBoundsTries(t *testing.T) {
	t.Parallel()
	for _, budget := range []int{0, 5} {
		// Every second request on a connection is not read: the connection is reset.
		r := route(rawReplica(t, resetSecond))
		r.RetryBudget = budget
		g := start(t, r)
		statuses := map[int]int{}
		for range 200 {
			statuses[g.do(context.Background(), call{body: "x"}).status]++
		}
		tries := 10 // a second, for ten seconds
		if budget == 0 {
			tries = 0
		}
		if statuses[502] == 0 || statuses[200]+statuses[502] != 200 {
			t.Errorf("%d per cent: %v", budget, statuses)
		}
		g.metric(t, fmt.Sprintf(`zarpa_gateway_retries_total{deployment="blue",endpoint="iris"} %d`, tries))
		g.metric(t, fmt.Sprintf(`zarpa_gateway_retry_budget_exhausted_total{deployment="blue",endpoint="iris"} %d`, statuses[502]))
	}
}

// A replica that cannot be reached is tried again while the request may wait, but seldom.
func TestUnreachableReplicasAreNotTriedInALoop(t *testing.T) {
	t.Parallel()
	r := route("unix:" + socketDir(t) + "/nobody")
	r.QueueWait = zarpa.Duration(time.Second)
	g := start(t, r)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got := g.do(context.Background(), call{body: "x"}); got.status != 503 {
				t.Errorf("%+v", got)
			}
		})
	}
	wg.Wait()
	if tries := g.sample(t, `zarpa_gateway_retries_total{deployment="blue",endpoint="iris"} `); tries < 4 || tries > 4*11 {
		t.Errorf("%v tries in a second of four requests", tries)
	}
}

// sample is a value of the gateway's metrics.
func (g *running) sample(t testing.TB, name string) float64 {
	t.Helper()
	rec := newRecorder()
	g.ControlHandler().ServeHTTP(rec, mustRequest("GET", "/metrics"))
	_, rest, ok := strings.Cut(rec.body.String(), "\n"+name)
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(value, 64)
	if !ok || err != nil {
		t.Fatalf("no %q in\n%s", name, rec.body.String())
	}
	return n
}

func TestAFullGatewayIsFair(t *testing.T) {
	t.Parallel()
	greedy, modest := newHeld(), newHeld()
	a, b := route(replica(t, greedy.serve)), route(replica(t, modest.serve))
	b.Endpoint = "rank"
	g := started(t, gateway.Options{MaxRequests: 8}, a, b)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(greedy.letGo)
	defer close(modest.letGo)
	send := func(path string) { wg.Go(func() { g.do(context.Background(), call{path: path, body: "x"}) }) }
	for range 8 { // while nobody else asks, one may have all
		send("/endpoints/iris/score")
		<-greedy.arrived
	}
	refused := g.do(t.Context(), call{body: "x"})
	if refused.status != 503 || refused.header.Get("Retry-After") == "" || !strings.Contains(refused.body, "its share") {
		t.Errorf("%+v", refused)
	}
	for range 4 { // the other one gets its half nevertheless
		send("/endpoints/rank/score")
		<-modest.arrived
	}
	for _, path := range []string{"/endpoints/iris/score", "/endpoints/rank/score"} {
		if got := g.do(t.Context(), call{path: path, body: "x"}); got.status != 503 {
			t.Errorf("%+v", got)
		}
	}
	g.metric(t, `zarpa_gateway_rejected_total{endpoint="iris",reason="gateway_full"} 2`)
	if l, err := g.Load(t.Context(), 0, 0); err != nil || l.Deployments[0].Rejected != 2 || l.Deployments[1].Rejected != 1 {
		t.Errorf("%+v %v", l.Deployments, err)
	}
	g.metric(t, `zarpa_gateway_rejected_total{endpoint="rank",reason="gateway_full"} 1`)
	greedy.letGo <- struct{}{}
	modest.letGo <- struct{}{}
	eventually(t, "what ended makes room", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return g.do(ctx, call{path: "/endpoints/rank/score", body: "x"}).status != 503
	})
}
