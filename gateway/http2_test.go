package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

// served is a gateway behind its own listeners, as zarpa gateway runs it.
type served struct {
	*running
	public string // HOST:PORT, of all protocols
	native string // of gRPC alone
	stop   func() error
	// control speaks to it as a control plane does.
	control *gateway.ControlClient
}

// serve starts a gateway with real listeners. The client speaks HTTP/2 without encryption.
func serve(t testing.TB, routes ...zarpa.Route) *served {
	t.Helper()
	return serveWith(t, gateway.Options{Version: "test"}, routes...)
}

func serveWith(t testing.TB, o gateway.Options, routes ...zarpa.Route) *served {
	t.Helper()
	g := &running{Gateway: gateway.New(o), t: t}
	g.set(routes...)
	socket := filepath.Join(socketDir(t), "c")
	control, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	native, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{running: g, public: public.Addr().String(), native: native.Addr().String(), control: gateway.NewControlClient(socket)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- g.Serve(ctx, gateway.Listeners{Public: []net.Listener{public}, GRPC: native, Control: control, Drain: 10 * time.Second})
	}()
	s.stop = func() error { cancel(); err := <-ended; ended <- err; return err }
	g.url, g.http = "http://"+s.public, cleartextHTTP2()
	t.Cleanup(func() {
		g.http.CloseIdleConnections()
		s.control.Close()
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func cleartextHTTP2() *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: p}}
}

func TestOneAddressSpeaksBothVersions(t *testing.T) {
	t.Parallel()
	g := serve(t, route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %d", r.RequestURI, len(b))
	})))
	for _, client := range []*http.Client{g.http, {Transport: &http.Transport{}}} {
		g.http = client
		for _, size := range []int{0, 10, 100 << 10} {
			g.want(call{body: strings.Repeat("x", size)}, 200, fmt.Sprintf("/score %d", size))
		}
		g.want(call{body: strings.Repeat("x", 2<<20)}, 413, "max_body")
		g.want(call{body: "x", key: "-"}, 401, "key")
		g.want(call{method: "GET", path: "/v2/health/ready", key: "-"}, 200, "true")
		client.CloseIdleConnections()
	}
}

func TestHTTP2EndsOneRequestAndNotItsConnection(t *testing.T) {
	t.Parallel()
	blocked := make(chan struct{}, 1)
	r := route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if r.URL.RawQuery == "block" && err == nil {
			blocked <- struct{}{}
			<-r.Context().Done()
			blocked <- struct{}{}
			return
		}
		_, _ = io.WriteString(w, "ok")
	}))
	r.RequestTimeout = zarpa.Duration(500 * time.Millisecond)
	g := serve(t, r)
	var dials int
	transport := g.http.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	g.want(call{path: "/endpoints/iris/score?block", body: "x"}, 504, "timeout")
	<-blocked
	<-blocked // the work at the replica has ended
	// A body that never ends costs a 504, and no place.
	half, end := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, g.url+"/endpoints/iris/score", io.MultiReader(strings.NewReader("half"), half))
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := g.http.Do(req)
	if err != nil || res.StatusCode != http.StatusGatewayTimeout {
		t.Fatalf("half a body: %v %v", res, err)
	}
	_ = end.Close()
	_ = res.Body.Close()
	g.want(call{body: strings.Repeat("x", 2<<20)}, 413, "max_body")
	// A client that leaves ends its work.
	r.RequestTimeout = zarpa.Duration(20 * time.Second)
	g.set(r)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan reply, 1)
	go func() { gone <- g.do(ctx, call{path: "/endpoints/iris/score?block", body: "x"}) }()
	<-blocked
	cancel()
	<-blocked
	if r := <-gone; r.err == nil {
		t.Errorf("%+v", r)
	}
	g.want(call{body: "x"}, 200, "ok")
	if dials != 1 {
		t.Errorf("%d connections, want one for all", dials)
	}
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
	g.metric(t, `zarpa_gateway_canceled_total{deployment="blue",endpoint="iris"} 1`)
}

func TestDrainEndsHTTP2Connections(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	g := serve(t, route(replica(t, func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		_, _ = io.WriteString(w, "ended")
	})))
	got := make(chan reply, 1)
	go func() { got <- g.do(context.Background(), call{body: "x"}) }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- g.stop() }()
	eventually(t, "the address is closed", func() bool {
		c, err := net.Dial("tcp", g.public)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(leave)
	if r := <-got; r.status != 200 || r.body != "ended" {
		t.Errorf("%+v", r)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
