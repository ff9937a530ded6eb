package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestOriginsAreAnsweredAsTheOriginalDoes(t *testing.T) {
	t.Parallel()
	const a, b = "https://a.example", "https://b.example"
	for _, c := range []struct {
		name        string
		entries     []string
		origin      string
		allow, vary string
	}{
		{"none", nil, a, "", ""},
		{"all", []string{"*"}, a, a, "Origin"},
		{"all, no origin", []string{"*"}, "", "*", ""},
		{"one", []string{a}, a, a, ""},
		{"one, other", []string{a}, b, "", ""},
		{"one, no origin", []string{a}, "", a, ""},
		{"list", []string{b, a}, b, b, "Origin"},
		{"list, other", []string{b, a}, "https://c.example", "", "Origin"},
		{"list, no origin", []string{b, a}, "", a, "Origin"},
		{"expression", []string{`/https://[ab]\.example/`}, b, b, "Origin"},
		{"expression, more", []string{`/https://[ab]\.example/`}, b + ".evil", "", "Origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := route(replica(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Access-Control-Allow-Origin", "https://replica")
				echoPath(w, r)
			}))
			r.CORSOrigins = c.entries
			g := start(t, r)
			header := http.Header{}
			if c.origin != "" {
				header.Set("Origin", c.origin)
			}
			want := func(got http.Header, allow string) {
				t.Helper()
				if o := got["Access-Control-Allow-Origin"]; strings.Join(o, "|") != allow || got.Get("Vary") != c.vary {
					t.Errorf("allow %q vary %q, want %q %q", o, got.Get("Vary"), allow, c.vary)
				}
			}
			answered := c.allow
			if c.entries == nil {
				answered = "https://replica" // nobody asked the gateway to have a say
			}
			want(g.want(call{header: header, body: "x"}, 200, "POST").header, answered)
			want(g.want(call{header: header, key: "-"}, 401, "key").header, c.allow)
			if c.entries == nil || c.origin == "" {
				return
			}
			header.Set("Access-Control-Request-Method", "POST")
			header.Set("Access-Control-Request-Headers", "authorization, content-type")
			pre := g.want(call{method: "OPTIONS", header: header, key: "-"}, 200, "").header
			want(pre, c.allow)
			methods, headers := "", ""
			if c.allow != "" {
				methods, headers = "GET, POST", "authorization, content-type"
			}
			if pre.Get("Access-Control-Allow-Methods") != methods || pre.Get("Access-Control-Allow-Headers") != headers {
				t.Errorf("%v", pre)
			}
			header.Set("Access-Control-Request-Method", "DELETE")
			if pre := g.want(call{method: "OPTIONS", header: header, key: "-"}, 200, "").header; pre.Get("Access-Control-Allow-Methods") != "" {
				t.Errorf("%v", pre)
			}
		})
	}
}

func TestStatusesAreMappedAsTheEndpointSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		standard       int
		v1, v2         int
		statuscode     string // of v2
		query, request string
		timeout        time.Duration
	}{
		{"ok", 200, 200, 200, "", "200", "", 0},
		{"bad input", 400, 400, 424, "400", "400", "", 0},
		{"model error", 424, 502, 424, "424", "424", "", 0},
		{"model's own 503", 503, 503, 424, "503", "503", "", 0},
		{"replica is full", 503, 503, 429, "", "503&full", "", 0},
		{"replica's time limit", 504, 504, 408, "", "504", "", 0},
		{"internal, or a script raised", 500, 502, 424, "500", "500", "", 0},
		{"moved", 302, 302, 424, "302", "302", "", 0},
		{"time limit", 504, 504, 408, "", "hang", "", 50 * time.Millisecond},
		{"broken", 502, 502, 424, "502", "break", "", 0},
		{"no key", 401, 401, 401, "", "200", "-", 0},
	} {
		for mapping, want := range map[zarpa.StatusCodes]int{"": c.standard, zarpa.StatusStandard: c.standard, zarpa.StatusV1: c.v1, zarpa.StatusV2: c.v2} {
			t.Run(c.name+" "+string(mapping), func(t *testing.T) {
				t.Parallel()
				r := route(replica(t, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					status := 0
					switch query := r.URL.RawQuery; query {
					case "hang":
						<-r.Context().Done()
						return
					case "break":
						panic(http.ErrAbortHandler)
					case "503&full":
						status = 503
						w.Header().Set("Retry-After", "1")
						w.Header().Set("X-Ms-Run-Function-Failed", "False")
					default:
						_, _ = fmt.Sscan(query, &status)
					}
					w.WriteHeader(status)
					_, _ = io.WriteString(w, "its body")
				}))
				r.StatusCodes = mapping
				if c.timeout > 0 {
					r.RequestTimeout = zarpa.Duration(c.timeout)
				}
				g := start(t, r)
				g.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				for _, path := range []string{"/endpoints/iris/score?", "/api/v1/service/iris/score?", "/endpoints/iris/invocations?"} {
					got := g.want(call{path: path + c.query, body: "x", key: c.request}, want, "")
					code := ""
					if mapping == zarpa.StatusV2 {
						code = c.statuscode
					}
					if h := got.header; h.Get("Ms-Azureml-Model-Error-Statuscode") != code || (h.Get("Ms-Azureml-Model-Error-Reason") != "") != (code != "") {
						t.Errorf("%v", h)
					}
					if c.query[0] >= '2' && c.query[0] <= '5' && c.request == "" && got.body != "its body" {
						t.Errorf("%q", got.body)
					}
				}
				g.want(call{path: "/endpoints/iris/v2/models/m/infer?" + c.query, body: "x", key: c.request}, c.standard, "")
			})
		}
	}
}

func TestOverloadIs429InV2(t *testing.T) {
	t.Parallel()
	r := route()
	r.StatusCodes, r.QueueWait, r.MaxQueue = zarpa.StatusV2, zarpa.Duration(time.Millisecond), 1
	g := start(t, r)
	g.want(call{body: "x"}, 503, "No ready replicas")
	h := newHeld()
	full := route(replica(t, h.serve))
	full.StatusCodes, full.QueueWait = zarpa.StatusV2, zarpa.Duration(time.Millisecond)
	full.Deployments[0].MaxConcurrency = 1
	g.set(full)
	got := make(chan reply, 1)
	go func() { got <- g.do(t.Context(), call{body: "first"}) }()
	<-h.arrived
	if r := g.want(call{body: "x"}, 429, "overloaded"); r.header.Get("Retry-After") == "" {
		t.Errorf("%v", r.header)
	}
	h.letGo <- struct{}{}
	<-got
}

// switching is a replica that takes WebSockets and echoes what comes.
func switching(t *testing.T) string {
	return rawReplica(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if r.URL.RawQuery == "no" {
			_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		if r.Header.Get("Connection") != "Upgrade" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Authorization") != "" {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\nhello ",
			r.Header.Get("Sec-Websocket-Key"))
		for {
			b, err := in.ReadByte()
			if err != nil || b == '!' {
				return
			}
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
		}
	})
}

// socket is what a client that asked for a WebSocket has.
type socket struct {
	net.Conn
	in     *bufio.Reader
	status int
	header http.Header
	body   string
}

func (g *running) open(t *testing.T, query, more string) *socket {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "GET /endpoints/iris/score?"+query+" HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"+
		"Sec-WebSocket-Key: K\r\nSec-WebSocket-Version: 13\r\nx-request-id: A\r\n"+more+"\r\n")
	s := &socket{Conn: c, in: bufio.NewReader(c)}
	res, err := http.ReadResponse(s.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if s.status, s.header = res.StatusCode, res.Header; s.status != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(res.Body)
		s.body = string(b)
	}
	return s
}

func TestWebSocketsPassBothWays(t *testing.T) {
	t.Parallel()
	auth := "Authorization: Bearer " + key + "\r\n"
	g := serve(t, route("unix:/nowhere", switching(t)))
	for _, end := range []string{"client", "replica"} {
		c := g.open(t, "", auth)
		if h := c.header; c.status != http.StatusSwitchingProtocols || h.Get("Upgrade") != "websocket" || h.Get("Sec-Websocket-Accept") != "K" || h.Get("X-Request-Id") != "A" {
			t.Fatalf("%d %v", c.status, c.header)
		}
		b := make([]byte, 9)
		if _, err := io.ReadFull(c.in, b[:6]); err != nil || string(b[:6]) != "hello " {
			t.Fatalf("%q %v", b, err)
		}
		for _, text := range []string{"abc", "de"} {
			_, _ = io.WriteString(c, text)
			if _, err := io.ReadFull(c.in, b[:len(text)]); err != nil || string(b[:len(text)]) != text {
				t.Fatalf("%q %v", b, err)
			}
		}
		g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 1`)
		if end == "client" {
			_ = c.Close()
		} else {
			_, _ = io.WriteString(c, "!")
			if _, err := c.in.ReadByte(); err != io.EOF {
				t.Errorf("%v", err)
			}
		}
		g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
	}
	g.metric(t, `zarpa_gateway_requests_total{code="101",deployment="blue",endpoint="iris"} 2`)
	// What a conversation takes is no time to an answer: a rollout would judge by it.
	if l, err := g.Load(t.Context(), 0, 0); err != nil || l.Deployments[0].Requests != 2 || len(l.Deployments[0].Latency) != 0 {
		t.Errorf("%+v %v", l, err)
	}
	if c := g.open(t, "no", auth); c.status != http.StatusForbidden || c.body != "no" {
		t.Errorf("%d %q", c.status, c.body)
	}
	if c := g.open(t, "", ""); c.status != http.StatusUnauthorized {
		t.Errorf("%d", c.status)
	}
}

func TestWebSocketsEnd(t *testing.T) {
	t.Parallel()
	auth := "Authorization: Bearer " + key + "\r\n"
	r := route(switching(t))
	r.RequestTimeout = zarpa.Duration(500 * time.Millisecond)
	g := serve(t, r)
	c := g.open(t, "", auth)
	if b, err := io.ReadAll(c.in); err != nil || string(b) != "hello " { // nothing was said for too long
		t.Errorf("%q %v", b, err)
	}
	r.RequestTimeout = zarpa.Duration(20 * time.Second)
	g.set(r)
	c = g.open(t, "", auth)
	stopped := make(chan error, 1)
	go func() { stopped <- g.stop() }()
	eventually(t, "the address is closed", func() bool {
		c, err := net.Dial("tcp", g.public)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	_, _ = io.WriteString(c, "a!") // the drain waits for it
	if b, err := io.ReadAll(c.in); err != nil || string(b) != "hello a" {
		t.Errorf("%q %v", b, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// What follows the head of a request with Upgrade must never be read as a request of its own.
func TestUpgradesWithABodySmuggleNothing(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 10)
	g := start(t, route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen <- r.URL.Path
		_, _ = fmt.Fprintf(w, "%s|%s", r.Header.Get("Upgrade"), b)
	})))
	const inner = "GET /-/self HTTP/1.1\r\nHost: x\r\n\r\n"
	for what, body := range map[string]string{
		"a length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(inner), inner),
		"chunks":   fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(inner), inner),
	} {
		status, got := g.raw(t, "GET /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+
			"\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"+body)
		if status != http.StatusOK || got != "|"+inner {
			t.Errorf("%s: %d %q", what, status, got)
		}
		g.want(call{body: "x"}, http.StatusOK, "|x") // on the same connection to the replica
		if a, b := <-seen, <-seen; a != "/score" || b != "/score" {
			t.Errorf("%s: the replica saw %s and %s", what, a, b)
		}
	}
}
