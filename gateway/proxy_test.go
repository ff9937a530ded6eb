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
	"sync/atomic"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const okHead = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// readRequest reads one request whole.
func readRequest(in *bufio.Reader) bool {
	r, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil
}

func TestAnswersThatBreakOffAreNeverWhole(t *testing.T) {
	t.Parallel()
	long := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 1<<20)
	for name, c := range map[string]struct {
		answer string
		status int // 0: the client's connection is cut
		text   string
	}{
		"nothing":             {"", 502, "Replica closed connection before replying"},
		"half a head":         {"HTTP/1.1 200 OK\r\nContent-", 502, "cannot be read"},
		"no HTTP":             {"SSH-2.0-x\r\n\r\n", 502, "cannot be read"},
		"small, half":         {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 502, "cannot be read"},
		"large, half":         {long + "half", 0, ""},
		"chunks, half":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 0, ""},
		"chunks, no end":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", 0, ""},
		"chunks, bad":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 0, ""},
		"length and chunks":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502, "cannot be read"},
		"two lengths":         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", 502, "cannot be read"},
		"folded":              {"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", 502, "cannot be read"},
		"head without end":    {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 20<<10), 502, "cannot be read"},
		"switched":            {"HTTP/1.1 101 Switching Protocols\r\n\r\n", 502, "cannot be read"},
		"interim, endless":    {strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20), 502, "cannot be read"},
		"interim, then whole": {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + okHead, 200, "ok"},
		"until the end":       {"HTTP/1.0 200 OK\r\n\r\nall of it", 200, "all of it"},
		"more than whole":     {okHead + "HTTP/1.1 200 OK\r\n\r\nsmuggled", 200, "ok"},
		"no content":          {"HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
		"error":               {"HTTP/1.1 424 Failed Dependency\r\nContent-Length: 1\r\n\r\nx", 424, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var executed atomic.Int64
			g := start(t, route(rawReplica(t, func(conn net.Conn) {
				if readRequest(bufio.NewReader(conn)) {
					executed.Add(1)
					_, _ = io.WriteString(conn, c.answer)
				}
			})))
			r := g.do(context.Background(), call{body: "x"})
			if r.status != c.status && (c.status != 0 || r.err == nil) || !strings.Contains(r.body, c.text) {
				t.Errorf("%+v", r)
			}
			if c.status != 0 && r.status == 200 && r.body != c.text {
				t.Errorf("%q, want %q", r.body, c.text)
			}
			if executed.Load() != 1 {
				t.Errorf("executed %d times", executed.Load())
			}
			g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
		})
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	// second is what the replica does with the second request on its first connection.
	for name, c := range map[string]struct {
		method, body string
		second       func(conn net.Conn, in *bufio.Reader)
		status       int
	}{
		"a POST that was read is not": {"POST", "x", func(_ net.Conn, in *bufio.Reader) { readRequest(in) }, 502},
		"a GET that was read is":      {"GET", "", func(_ net.Conn, in *bufio.Reader) { readRequest(in) }, 200},
		"a POST that was not read is": {"POST", "x", func(_ net.Conn, in *bufio.Reader) { _, _ = in.Peek(1) }, 200},
		"a POST with an answer's first byte is not": {"POST", "x", func(conn net.Conn, in *bufio.Reader) {
			readRequest(in)
			_, _ = io.WriteString(conn, "H")
		}, 502},
		"a streamed POST is not": {"POST", strings.Repeat("x", 200<<10), func(_ net.Conn, in *bufio.Reader) { _, _ = in.Peek(1) }, 502},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int64
			var tries atomic.Int64
			g := start(t, route(rawReplica(t, func(conn net.Conn) {
				in := bufio.NewReaderSize(conn, 16)
				mine := connections.Add(1)
				for n := 1; ; n++ {
					if mine == 1 && n == 2 {
						c.second(conn, in)
						return
					}
					if !readRequest(in) {
						return
					}
					tries.Add(1)
					_, _ = io.WriteString(conn, okHead)
				}
			})))
			g.want(call{body: "warm"}, 200, "ok")
			r := g.do(context.Background(), call{method: c.method, body: c.body})
			if r.status != c.status {
				t.Errorf("%+v, want %d", r, c.status)
			}
			want := int64(1)
			if c.status == 200 {
				want = 2
			}
			if tries.Load() != want {
				t.Errorf("answered %d requests, want %d", tries.Load(), want)
			}
		})
	}
}

func TestDeadReplicaIsPassedOver(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	g := start(t, route("unix:/nowhere/at/all", replica(t, func(w http.ResponseWriter, _ *http.Request) { n.Add(1) })))
	for range 50 {
		g.want(call{body: "x"}, 200, "")
	}
	if n.Load() != 50 {
		t.Errorf("executed %d times, want 50", n.Load())
	}
}

func TestClosedIdleConnectionsAreNotUsed(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 1000)
	g := start(t, route(rawReplica(t, func(conn net.Conn) {
		if readRequest(bufio.NewReader(conn)) {
			_, _ = io.WriteString(conn, okHead)
		}
		_ = conn.Close()
		closed <- struct{}{}
	})))
	for range 50 {
		g.want(call{body: "x"}, 200, "ok")
		<-closed
	}
	g.metric(t, `zarpa_gateway_retries_total{deployment="blue",endpoint="iris"} 0`)
}

func TestBodies(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Length-Seen", strconv.FormatInt(r.ContentLength, 10))
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		if r.URL.RawQuery == "chunked" {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(b)
	}
	g := start(t, route(replica(t, echo)))
	for _, size := range []int{0, 1, 5000, 6143, 6144, 6145, 16 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300_000, 1 << 20} {
		for _, path := range []string{"/endpoints/iris/score", "/endpoints/iris/score?chunked"} {
			for _, chunked := range []bool{false, true} {
				body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
				var in io.Reader = bytes.NewReader(body)
				if chunked {
					in = io.MultiReader(in)
				}
				req, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, g.url+path, in)
				req.Header.Set("Authorization", "Bearer "+key)
				req.Header.Set("Expect", "100-continue")
				res, err := g.http.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK || !bytes.Equal(got, body) {
					t.Errorf("%d bytes, chunked %v, %s: %d, %d bytes back, %v", size, chunked, path, res.StatusCode, len(got), err)
				}
				if seen := res.Header.Get("Length-Seen"); (seen == "-1") != (chunked && size >= 64<<10) {
					t.Errorf("%d bytes, chunked %v: the replica saw the length %s", size, chunked, seen)
				}
			}
		}
	}
	g.want(call{body: strings.Repeat("x", 1<<20+1)}, 413, "larger than 1Mi")
	for _, size := range []int{1<<20 + 1} { // in chunks
		chunk := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", size, strings.Repeat("x", size))
		status, body := g.raw(t, "POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk)
		if status != 413 || !strings.Contains(body, "larger than 1Mi") {
			t.Errorf("%d %s", status, body)
		}
	}
	small := route(g.Routes().Endpoints[0].Deployments[0].Replicas[0].Address)
	small.MaxBody = 4
	g.set(small)
	g.want(call{body: "1234"}, 200, "1234")
	g.want(call{body: "12345"}, 413, "larger than 4")
	if status, _ := g.raw(t, "POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n"); status != 413 {
		t.Error(status)
	}
	if status, _ := g.raw(t, "POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+key+"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"); status != 400 {
		t.Error(status)
	}
}

func TestHeadersAreClean(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	g := start(t, route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Connection", "X-Hop")
		h.Set("X-Hop", "1")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Upgrade", "x")
		h.Set("Zarpa-Model", "iris:1")
		h["Set-Cookie"] = []string{"a=1", "b=2"}
		h.Set("TraceId", r.Header.Get("TraceId"))
		got <- r
	})))
	r := g.want(call{body: "x", header: http.Header{
		"Connection": {"close, X-Private"}, "X-Private": {"1"}, "Te": {"trailers"}, "Proxy-Authorization": {"Basic x"},
		"Upgrade": {"h2c"}, "Http2-Settings": {"x"}, "X-Forwarded-For": {"1.2.3.4"}, "X-Forwarded-Proto": {"gopher"}, "Zarpa-Timeout-Ms": {"9999999"},
		"Accept": {"a", "b"}, "Traceid": {"T"},
	}}, 200, "")
	for _, name := range []string{"X-Hop", "Keep-Alive", "Upgrade"} {
		if r.header.Get(name) != "" {
			t.Errorf("%s came back: %v", name, r.header)
		}
	}
	if r.header.Get("Zarpa-Model") != "iris:1" || len(r.header["Set-Cookie"]) != 2 || len(r.header["Traceid"]) != 1 {
		t.Errorf("%v", r.header)
	}
	in := (<-got).Header
	for _, name := range []string{"X-Private", "Te", "Proxy-Authorization", "Upgrade", "Http2-Settings", "Authorization"} {
		if in.Get(name) != "" {
			t.Errorf("%s reached the replica: %v", name, in)
		}
	}
	var ms int
	if _, err := fmt.Sscan(in.Get("Zarpa-Timeout-Ms"), &ms); err != nil || ms < 1000 || ms > 20_000 || len(in["Zarpa-Timeout-Ms"]) != 1 {
		t.Errorf("%v", in["Zarpa-Timeout-Ms"])
	}
	if in.Get("X-Forwarded-For") != "1.2.3.4, 127.0.0.1" || in.Get("X-Forwarded-Proto") != "http" || len(in["Accept"]) != 2 {
		t.Errorf("%v", in)
	}
	g.want(call{header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}}, 200, "") // a POST asks for none
	if in := (<-got).Header; in.Get("Upgrade") != "" {
		t.Errorf("%v", in)
	}
}

func TestHeadHasNoBodyAndItsLength(t *testing.T) {
	t.Parallel()
	g := start(t, route(replica(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "42") })))
	for range 3 {
		if r := g.want(call{method: "HEAD"}, 200, ""); r.header.Get("Content-Length") != "42" || r.body != "" {
			t.Errorf("%+v", r)
		}
	}
}

func TestStreamsPassUnbuffered(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	g := start(t, route(replica(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Trailer", "Zarpa-Sum")
		for s := range next {
			_, _ = io.WriteString(w, s)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Zarpa-Sum", "6")
	})))
	req := mustRequest("GET", g.url+"/endpoints/iris/score")
	req.Header.Set("Authorization", "Bearer "+key)
	ready := make(chan struct{})
	go func() { next <- "one"; close(ready) }()
	res, err := g.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-ready
	b := make([]byte, 10)
	for _, s := range []string{"one", "two"} {
		if s == "two" {
			next <- s
		}
		if n, err := io.ReadFull(res.Body, b[:3]); err != nil || string(b[:n]) != s {
			t.Fatalf("%q %v", b[:n], err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 || res.Trailer.Get("Zarpa-Sum") != "6" {
		t.Errorf("%q %v %v", rest, err, res.Trailer)
	}
}

func TestTimeLimitHoldsEverywhere(t *testing.T) {
	t.Parallel()
	h := newHeld()
	stuck := route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "begun" {
			_, _ = io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
		}
		h.serve(w, r)
	}))
	stuck.RequestTimeout = zarpa.Duration(50 * time.Millisecond)
	g := start(t, stuck)
	g.want(call{body: "x"}, 504, "Scoring timeout after 50 ms")
	<-h.left // the work was stopped
	if r := g.do(context.Background(), call{path: "/endpoints/iris/score?begun"}); r.err == nil {
		t.Errorf("an answer that broke off looks whole: %+v", r)
	}
	<-h.left
	for _, body := range []string{
		"Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 70_000),
	} {
		status, text := g.raw(t, "POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\n"+body)
		if status != 504 || !strings.Contains(text, "Scoring timeout") {
			t.Errorf("%d %s", status, text)
		}
	}
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
}

func TestSlowClientHoldsNoReplica(t *testing.T) {
	t.Parallel()
	r := route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(make([]byte, 60_000))
	}))
	r.Deployments[0].MaxConcurrency, r.QueueWait = 1, zarpa.Duration(10*time.Second)
	g := start(t, r)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 5 { // they send half a body, and never the rest
		c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\nContent-Length: 10\r\n\r\nhalf")
		wg.Go(func() { <-stop; _ = c.Close() })
	}
	for range 20 {
		g.want(call{body: "x"}, 200, "")
	}
	close(stop)
	wg.Wait()
	g.metric(t, `zarpa_gateway_requests_total{code="499",deployment="",endpoint="iris"} 5`)
}

func TestAnswerBeforeTheBodyIsReadCounts(t *testing.T) {
	t.Parallel()
	g := start(t, route(rawReplica(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		if _, err := in.ReadString('}'); err != nil { // a little of the body
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
	})))
	for range 5 {
		g.want(call{body: "{}" + strings.Repeat("x", 1<<20-2)}, 413, "big")
	}
}

func TestConnectionsEndWithTheirRoute(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 10)
	r := route(rawReplica(t, func(conn net.Conn) {
		for in := bufio.NewReader(conn); readRequest(in); {
			_, _ = io.WriteString(conn, okHead)
		}
		closed <- struct{}{}
	}))
	g := start(t, r)
	g.want(call{body: "x"}, 200, "ok")
	g.set(route()) // the replica leaves its deployment
	<-closed
	g.set(r)
	g.want(call{body: "x"}, 200, "ok")
	g.set() // the endpoint goes
	<-closed
}
