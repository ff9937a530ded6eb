package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

const key = "first-key"

// socketDir is short: a Unix socket's path has room for 107 bytes.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// replica serves h on a Unix socket and returns its address.
func replica(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(socketDir(t), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return "unix:" + path
}

// rawReplica hands every connection to serve, which closes it by returning.
func rawReplica(t testing.TB, serve func(c net.Conn)) string {
	t.Helper()
	path := filepath.Join(socketDir(t), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return "unix:" + path
}

// route is an endpoint "iris" with one deployment.
func route(addresses ...string) zarpa.Route {
	d := zarpa.RouteDeployment{Name: "blue", Weight: 100, MaxConcurrency: 8}
	for i, a := range addresses {
		d.Replicas = append(d.Replicas, zarpa.RouteReplica{ID: fmt.Sprintf("r%d", i), Address: a})
	}
	return zarpa.Route{
		Endpoint: "iris", Auth: zarpa.AuthKey, Keys: [][]byte{zarpa.KeyDigest(key), zarpa.KeyDigest("second-key")},
		RequestTimeout: zarpa.Duration(20 * time.Second), MaxQueue: 64, QueueWait: zarpa.Duration(10 * time.Second),
		MaxBody: 1 << 20, RetryBudget: zarpa.DefaultRetryBudget, Deployments: []zarpa.RouteDeployment{d},
	}
}

type running struct {
	*gateway.Gateway
	t        testing.TB
	url      string
	http     *http.Client
	revision atomic.Int64
}

func start(t testing.TB, routes ...zarpa.Route) *running {
	t.Helper()
	return started(t, gateway.Options{Version: "test"}, routes...)
}

func started(t testing.TB, o gateway.Options, routes ...zarpa.Route) *running {
	t.Helper()
	g := &running{Gateway: gateway.New(o), t: t}
	g.set(routes...)
	s := httptest.NewServer(g.Handler())
	g.url = s.URL
	g.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(func() {
		g.http.CloseIdleConnections()
		s.CloseClientConnections()
		s.Close()
	})
	return g
}

func (g *running) set(routes ...zarpa.Route) {
	g.t.Helper()
	if err := g.SetRoutes(context.Background(), zarpa.Routes{Revision: g.revision.Add(1), Endpoints: routes}); err != nil {
		g.t.Fatal(err)
	}
}

type call struct {
	method, path, body string
	header             http.Header
	key                string // "-" sends none
}

type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

func (g *running) do(ctx context.Context, c call) reply {
	if c.method == "" {
		c.method = http.MethodPost
	}
	if c.path == "" {
		c.path = "/endpoints/iris/score"
	}
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, g.url+c.path, body)
	if err != nil {
		return reply{err: err}
	}
	maps.Copy(req.Header, c.header)
	switch c.key {
	case "":
		req.Header.Set("Authorization", "Bearer "+key)
	case "-":
	default:
		req.Header.Set("Authorization", c.key)
	}
	res, err := g.http.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(b), err}
}

func (g *running) want(c call, status int, contains string) reply {
	g.t.Helper()
	r := g.do(context.Background(), c)
	if r.err != nil || r.status != status || !strings.Contains(r.body, contains) {
		g.t.Fatalf("%+v: %d %q %v, want %d with %q", c, r.status, r.body, r.err, status, contains)
	}
	return r
}

func echoPath(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "%s %s", r.Method, r.RequestURI)
}

func TestEveryRouteReachesItsPlace(t *testing.T) {
	t.Parallel()
	open := route(replica(t, echoPath))
	open.Endpoint, open.Auth = "open", zarpa.AuthNone
	g := start(t, route(replica(t, echoPath)), open)
	for _, c := range []wanted{
		{"POST", "/endpoints/iris/score", 200, "POST /score"},
		{"GET", "/endpoints/iris/score?a=b%20c", 200, "GET /score?a=b%20c"},
		{"OPTIONS", "/endpoints/iris/score", 200, "OPTIONS /score"},
		{"GET", "/endpoints/iris", 200, "GET /"},
		{"GET", "/endpoints/iris/", 200, "GET /"},
		{"GET", "/endpoints/iris/swagger.json?version=3", 200, "GET /swagger.json?version=3"},
		{"GET", "/endpoints/iris/v2", 200, "GET /v2"},
		{"GET", "/endpoints/iris/v2/health/ready", 200, "GET /v2/health/ready"},
		{"POST", "/endpoints/iris/v2/models/iris/versions/1/infer", 200, "POST /v2/models/iris/versions/1/infer"},
		{"POST", "/v2/models/iris/infer", 200, "POST /v2/models/iris/infer"},
		{"GET", "/v2/models/iris", 200, "GET /v2/models/iris"},
		{"GET", "/v2/models/%69ris/ready", 200, "GET /v2/models/%69ris/ready"},
		{"POST", "/endpoints/%69ris/score", 200, "POST /score"},
		{"POST", "/api/v1/service/iris/score", 200, "POST /score"},
		{"GET", "/api/v1/service/iris/swagger.json", 200, "GET /swagger.json"},
		{"GET", "/api/v1/service/iris/", 200, "GET /"},
		{"GET", "/api/v1/service/iris", 200, "GET /"},
		{"POST", "/endpoints/open/score", 200, "POST /score"},
		{"GET", "/", 200, "Healthy"},
		{"GET", "/v2", 200, `"name":"zarpa"`},
		{"GET", "/v2/", 200, `"version":"test"`},
		{"GET", "/v2/models/stats", 404, "/v2/models/NAME/stats"},
		{"GET", "/v2/health/live", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", 200, `{"ready":true}`},
		{"POST", "/endpoints/none/score", 404, `{"message":"endpoint \"none\" does not exist (`},
		{"POST", "/endpoints/none/v2/models/x/infer", 404, `{"error":"Request for unknown model: 'none'`},
		{"POST", "/v2/models/none/infer", 404, `{"error":"Request for unknown model: 'none' is not found"}`},
		{"POST", "/v2/models/a%2Fb/infer", 404, `{"error":"Request for unknown model`},
		{"POST", "/api/v1/service/none/score", 404, `{"message":`},
		{"GET", "/endpoints/iris/metrics", 404, `{"message":"no such path`},
		{"GET", "/endpoints/iris/v2/../metrics", 404, `{"error":"no such path`},
		{"GET", "/endpoints/iris/v2/%2e%2e/metrics", 404, `{"error":"no such path`},
		{"GET", "/endpoints/iris/v2/x%2f..%2f..%2fmetrics", 404, `{"error":"no such path`},
		{"GET", "/api/v1/service/iris/v2", 404, `{"message":"no such path`},
		{"GET", "/endpoints/", 404, `{"message":`},
		{"GET", "/endpoints/%zz", 400, ""},
		{"GET", "/v2/repository/index", 200, `[{"name":"iris","version":"","state":"READY","reason":""},{"name":"open",`},
		{"GET", "/v2/repository/other", 404, `{"error":"no such path`},
		{"DELETE", "/v2/repository/index", 405, `{"error":`},
		{"GET", "/v2/models/stats", 404, `{"error":"Request for unknown model: 'stats'`},
		{"GET", "/v2/models/iris/stats", 200, "GET /v2/models/iris/stats"},
		{"GET", "/v2/models/iris/versions/1/config", 200, "GET /v2/models/iris/versions/1/config"},
		{"POST", "/v2/models/iris/generate_stream", 200, "POST /v2/models/iris/generate_stream"},
		{"POST", "/v2/models/iris/trace/setting", 200, "POST /v2/models/iris/trace/setting"},
		{"OPTIONS", "/v2/models/iris/infer", 200, "OPTIONS /v2/models/iris/infer"},
		{"POST", "/endpoints/iris/v2/models/a/b/infer", 200, "POST /v2/models/a/b/infer"},
		{"GET", "/v2/repository/models/iris/load", 200, "GET /v2/repository/models/iris/load"},
		{"POST", "/v2/repository/models/iris/load", 400, `{"error":"endpoint iris: its models`},
		{"POST", "/endpoints/iris/v2/repository/models/m/unload", 400, `model_control`},
		{"POST", "/endpoints/iris/v2/repository/models/m/unload/", 400, `model_control`},
		{"POST", "/endpoints/iris/v2/repository/models/m/%75nload", 400, `model_control`},
		{"POST", "/endpoints/iris/v2/repository%2Fmodels/m/load", 400, `model_control`},
		{"POST", "/v2/repository/models/iris/load/", 400, `model_control`},
		{"POST", "/v2/repository/models/../iris/load", 404, `{"error":"Request for unknown model`},
		{"POST", "/endpoints/iris/invocations", 200, "POST /invocations"},
		{"OPTIONS", "/endpoints/iris/invocations", 200, "OPTIONS /invocations"},
		{"GET", "/endpoints/iris/ping", 200, "GET /ping"},
		{"GET", "/endpoints/iris/health", 200, "GET /health"},
		{"GET", "/endpoints/iris/version", 200, "GET /version"},
		{"POST", "/api/v1/service/iris/invocations", 404, `{"message":"no such path`},
		{"GET", "/elsewhere", 404, `use /endpoints/NAME/score`},
		{"TRACE", "/endpoints/iris/score", 405, `method`},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			t.Parallel()
			g.answers(t, c)
		})
	}
}

// wanted is a request as it is sent, and what its answer is to be.
type wanted struct {
	method, path string
	status       int
	body         string // a part of it
}

func (g *running) answers(t *testing.T, w wanted) {
	t.Helper()
	status, body := g.raw(t, w.method+" "+w.path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: bearer "+key+"\r\n\r\n")
	if status != w.status || !strings.Contains(body, w.body) {
		t.Errorf("%d %q, want %d with %q", status, body, w.status, w.body)
	}
}

// raw sends text as it is, so that no client cleans it up, and returns the answer.
func (g *running) raw(t testing.TB, text string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := bytes.Cut(b, []byte("\r\n\r\n"))
	var status int
	if _, err := fmt.Sscanf(string(head), "HTTP/1.1 %d", &status); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return status, string(body)
}

func TestKeysOpenTheirEndpoint(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 100)
	g := start(t, route(replica(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })))
	for _, k := range []string{"Bearer " + key, "bearer second-key", "BEARER  " + key} {
		g.want(call{key: k}, 200, "")
		if h := <-seen; h.Get("Authorization") != "" {
			t.Errorf("the replica got the key: %v", h)
		}
	}
	for k, text := range map[string]string{
		"-": "needs a key", "Bearer": "needs a key", "Bearer ": "needs a key", "Basic abc": "needs a key", key: "needs a key",
		"Bearer wrong": "not one of", "Bearer " + key + "x": "not one of",
	} {
		r := g.want(call{key: k}, 401, text)
		if !strings.HasPrefix(r.header.Get("WWW-Authenticate"), `Bearer realm="iris"`) || !strings.Contains(r.body, "zarpa keys iris") {
			t.Errorf("%q: %v %s", k, r.header, r.body)
		}
	}
	g.want(call{key: "Bearer wrong", path: "/v2/models/iris/infer"}, 401, `{"error":"the key is not one of`)
	rotated := route(g.Routes().Endpoints[0].Deployments[0].Replicas[0].Address)
	rotated.Keys = [][]byte{zarpa.KeyDigest("third-key")}
	g.set(rotated)
	g.want(call{}, 401, "may have been replaced")
	g.want(call{key: "Bearer third-key"}, 200, "")
	rotated.Keys = nil
	g.set(rotated)
	g.want(call{key: "Bearer third-key"}, 401, "")
}

func TestIDsAreTheSameOnBothSides(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	g := start(t, route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "of-the-replica")
		w.Header().Set("X-Ms-Request-Id", "of-the-replica")
		got <- r.Header
	})))
	for _, c := range []struct{ request, ms, client, wantMS, wantClient string }{
		{"", "", "", "*", ""},
		{"A", "", "", "A", ""},
		{"A", "B", "", "B", "B"},
		{"A", "", "C", "C", "C"},
		{"A", "B", "C", "B", "C"},
	} {
		h := http.Header{}
		for k, v := range map[string]string{"X-Request-Id": c.request, "X-Ms-Request-Id": c.ms, "X-Ms-Client-Request-Id": c.client} {
			if v != "" {
				h.Set(k, v)
			}
		}
		r := g.want(call{header: h}, 200, "")
		id := r.header.Get("X-Request-Id")
		if c.wantMS == "*" {
			c.wantMS = id
		}
		if c.request != "" && id != c.request || len(r.header["X-Request-Id"]) != 1 || len(r.header["X-Ms-Request-Id"]) != 1 {
			t.Errorf("%+v: %v", c, r.header)
		}
		if r.header.Get("X-Ms-Request-Id") != c.wantMS || r.header.Get("X-Ms-Client-Request-Id") != c.wantClient {
			t.Errorf("%+v: %v", c, r.header)
		}
		if there := <-got; there.Get("X-Request-Id") != id {
			t.Errorf("the replica got %q, the client %q", there.Get("X-Request-Id"), id)
		}
	}
	g.want(call{header: http.Header{"X-Request-Id": {strings.Repeat("x", 101)}}}, 431, "more than 100")
}

func TestOldRoutesAreIgnoredAndBadOnesRefused(t *testing.T) {
	t.Parallel()
	g := start(t, route(replica(t, echoPath)))
	g.set(route(replica(t, echoPath)))
	if err := g.SetRoutes(context.Background(), zarpa.Routes{Revision: 1}); err != nil {
		t.Fatal(err)
	}
	g.want(call{}, 200, "POST /score")
	bad := map[string]func(*zarpa.Route){
		"endpoint name":         func(r *zarpa.Route) { r.Endpoint = "../x" },
		"auth":                  func(r *zarpa.Route) { r.Auth = "magic" },
		"32":                    func(r *zarpa.Route) { r.Keys = [][]byte{{1}} },
		"replica address":       func(r *zarpa.Route) { r.Deployments[0].Replicas[0].Address = "ftp://x" },
		"deployment name":       func(r *zarpa.Route) { r.Deployments[0].Name = "" },
		"must not be negative":  func(r *zarpa.Route) { r.Deployments[0].Weight = -1 },
		"hold and slow_start":   func(r *zarpa.Route) { r.Deployments[0].Hold = -1 },
		"slow_start must not":   func(r *zarpa.Route) { r.Deployments[0].SlowStart = -1 },
		"limits: rate, burst":   func(r *zarpa.Route) { r.Limits = &zarpa.KeyLimits{Rate: 1, Burst: -1} },
		"retry_budget: 101":     func(r *zarpa.Route) { r.RetryBudget = 101 },
		"ejection: time must":   func(r *zarpa.Route) { r.Ejection = &zarpa.EjectionSpec{Time: -1} },
		"sticky":                func(r *zarpa.Route) { r.Sticky = "header:" },
		"mirror: percent":       func(r *zarpa.Route) { r.Mirror = &zarpa.MirrorSpec{Deployment: "blue", Percent: 101} },
		"replica \"r0\" stands": func(r *zarpa.Route) { d := &r.Deployments[0]; d.Replicas = append(d.Replicas, d.Replicas[0]) },
	}
	for text, change := range bad {
		r := route("unix:/x")
		change(&r)
		err := g.SetRoutes(context.Background(), zarpa.Routes{Revision: 9, Endpoints: []zarpa.Route{r}})
		if e := zarpa.AsError(err); e == nil || e.Code != zarpa.Invalid || !strings.Contains(e.Message, text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	g.want(call{}, 200, "POST /score")
	g.set()
	g.want(call{}, 404, "does not exist")
}
