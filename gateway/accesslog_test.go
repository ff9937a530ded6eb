package gateway_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa/gateway"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// pages is a writer that is read while it is written.
type pages struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (p *pages) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Write(b)
}

func (p *pages) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.String()
}

// line is one of the access log, as its readers see it.
type line struct {
	Time                                time.Time
	RequestID                           string `json:"request_id"`
	Endpoint, Deployment, Replica       string
	Method, Path, Protocol, Client, Key string
	Status                              int
	Code                                string
	In                                  int64   `json:"bytes_in"`
	Out                                 int64   `json:"bytes_out"`
	Auth                                float64 `json:"auth_ms"`
	Read                                float64 `json:"read_ms"`
	Queue                               float64 `json:"queue_ms"`
	Upstream                            float64 `json:"upstream_ms"`
	Total                               float64 `json:"total_ms"`
	Retries                             int
	Mirrored                            bool
}

// lines are those of the log by request id, after the gateway has ended.
func (s *served) lines(t *testing.T, p *pages) map[string]line {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	out := map[string]line{}
	for text := range strings.Lines(p.String()) {
		var l line
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if _, twice := out[l.RequestID]; twice {
			t.Errorf("%s stands there twice", l.RequestID)
		}
		if l.Total < l.Auth+l.Read+l.Queue+l.Upstream-.01 || l.Total <= 0 || time.Since(l.Time) > time.Minute || l.Client != "127.0.0.1" {
			t.Errorf("%+v", l)
		}
		out[l.RequestID] = l
	}
	return out
}

func TestEveryRequestHasALine(t *testing.T) {
	t.Parallel()
	var log pages
	live := replica(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(make([]byte, 100_000))
	})
	r := mirrored(100, live, replica(t, echoPath))
	r.Deployments[0].Replicas[0].ID = "blue-0"
	g := serveWith(t, gateway.Options{AccessLog: &log}, r)
	id := func(s string) http.Header { return http.Header{"X-Request-Id": {s}} }
	g.want(call{body: "twelve bytes", header: id("one"), path: "/endpoints/iris/score?secret=x"}, 200, "")
	g.want(call{key: "Bearer second-key", header: http.Header{"X-Request-Id": {`two "`}, "Zarpa-Deployment": {"blue"}}, body: strings.Repeat("x", 200<<10)}, 200, "")
	g.want(call{key: "Bearer wrong", header: id("three"), body: "x"}, 401, "")
	g.want(call{method: "GET", path: "/v2/health/live", header: id("four")}, 200, "live")
	g.want(call{path: "/endpoints/rose/score", header: id("five"), body: "x"}, 404, "")
	got := g.lines(t, &log)
	for id, want := range map[string]line{
		"one":   {Endpoint: "iris", Deployment: "blue", Replica: "blue-0", Method: "POST", Path: "/endpoints/iris/score", Key: "primary", Status: 200, In: 12, Out: 100_000, Mirrored: true},
		`two "`: {Endpoint: "iris", Deployment: "blue", Replica: "blue-0", Method: "POST", Path: "/endpoints/iris/score", Key: "secondary", Status: 200, In: 200 << 10, Out: 100_000},
		"three": {Endpoint: "iris", Method: "POST", Path: "/endpoints/iris/score", Status: 401, Out: got["three"].Out},
		"four":  {Method: "GET", Path: "/v2/health/live", Status: 200, Out: 13},
		"five":  {Endpoint: "rose", Method: "POST", Path: "/endpoints/rose/score", Status: 404, Out: got["five"].Out},
	} {
		l, ok := got[id]
		if worked := want.Deployment != ""; ok && (worked != (l.Upstream > 0) || worked != (l.Auth > 0)) {
			t.Errorf("%+v: phases", l)
		}
		want.RequestID, want.Protocol, want.Time, want.Client = id, "HTTP/2.0", l.Time, l.Client
		want.Auth, want.Read, want.Queue, want.Upstream, want.Total = l.Auth, l.Read, l.Queue, l.Upstream, l.Total
		if l != want {
			t.Errorf("%s:\n%+v, want\n%+v", id, l, want)
		}
	}
	if len(got) != 5 || strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "second-key") {
		t.Errorf("%s", log.String())
	}
}

func TestRetriesAndWaitsAreInTheLine(t *testing.T) {
	t.Parallel()
	var log pages
	h := newHeld()
	r := route(replica(t, h.serve))
	r.Deployments[0].MaxConcurrency = 1
	retried := route("unix:/nowhere", replica(t, echoPath))
	retried.Endpoint = "again"
	g := serveWith(t, gateway.Options{AccessLog: &log}, r, retried)
	var wg sync.WaitGroup
	wg.Go(func() { g.want(call{body: "x"}, 200, "") })
	<-h.arrived
	wg.Go(func() { g.want(call{body: "x", header: http.Header{"X-Request-Id": {"waits"}}}, 200, "") })
	g.metric(t, `zarpa_gateway_queue_length{deployment="blue",endpoint="iris"} 1`)
	h.letGo <- struct{}{}
	h.letGo <- struct{}{}
	wg.Wait()
	for range 10 {
		g.want(call{path: "/endpoints/again/score", body: "x"}, 200, "")
	}
	got, retries := g.lines(t, &log), 0
	if got["waits"].Queue <= 0 {
		t.Errorf("%+v", got["waits"])
	}
	for _, l := range got {
		retries += l.Retries
	}
	if retries == 0 || len(got) != 12 {
		t.Errorf("%d retries in %d lines", retries, len(got))
	}
}

func TestCallsHaveLines(t *testing.T) {
	t.Parallel()
	for name, address := range addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log pages
			a, _ := (&speaker{}).address(t)
			g := serveWith(t, gateway.Options{AccessLog: &log}, route(a))
			c := dial(t, address(g))
			if _, err := c.ModelInfer(with(t.Context(), "x-request-id", "one"), &pb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{make([]byte, 500)}}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.ModelInfer(with(t.Context(), "x-request-id", "two"), &pb.ModelInferRequest{ModelName: "rose"}); err == nil {
				t.Fatal("an endpoint that is not there answered")
			}
			_ = c.conn.Close()
			got := g.lines(t, &log)
			one, two := got["one"], got["two"]
			if one.Endpoint != "iris" || one.Deployment != "blue" || one.Replica != "r0" || one.Code != "OK" || one.Key != "primary" || one.Protocol != "grpc" ||
				one.In < 500 || one.Out < 500 || one.Upstream <= 0 || one.Path != pb.GRPCInferenceService_ModelInfer_FullMethodName || one.Status != 0 {
				t.Errorf("%+v", one)
			}
			if two.Code != "NOT_FOUND" || two.Endpoint != "" || len(got) != 2 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// blocked is a writer that takes nothing until it is let go, and then fails.
type blocked chan struct{}

func (b blocked) Write([]byte) (int, error) {
	<-b
	return 0, errors.New("the disk is full")
}

func TestSlowAccessLogDelaysNothing(t *testing.T) {
	t.Parallel()
	stuck := make(blocked)
	g := serveWith(t, gateway.Options{AccessLog: stuck}, route(replica(t, echoPath)))
	lost := func() bool {
		rec := newRecorder()
		g.ControlHandler().ServeHTTP(rec, mustRequest("GET", "/metrics"))
		return !strings.Contains(rec.body.String(), "zarpa_gateway_access_log_dropped_total 0\n")
	}
	long := call{path: "/" + strings.Repeat("y", 4000), method: "GET"} // no such path, and a long line
	for i := 0; !lost(); i++ {
		if i > 5000 {
			t.Fatal("nothing is dropped though nothing is written")
		}
		g.want(long, 404, "")
	}
	g.want(call{body: "x"}, 200, "")
	close(stuck)
	if err := g.stop(); err != nil {
		t.Error(err)
	}
}
