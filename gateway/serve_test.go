package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

func TestControlSocketTakesAndKeepsRoutes(t *testing.T) {
	t.Parallel()
	dir := socketDir(t)
	file := filepath.Join(dir, "routes.json")
	options := gateway.Options{RoutesFile: file, Self: map[string]int{"pid": 7}}
	g := gateway.New(options)
	control, err := net.Listen("unix", filepath.Join(dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(ctx, gateway.Listeners{Public: []net.Listener{public}, Control: control}) }()
	c := gateway.NewControlClient(filepath.Join(dir, "c"))
	defer c.Close()
	want := zarpa.Routes{Revision: 4, Endpoints: []zarpa.Route{ejecting("unix:/nowhere")}}
	if err := c.SetRoutes(ctx, want); err != nil {
		t.Fatal(err)
	}
	got, err := c.Routes(ctx)
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%s, want %s (%v)", b, a, err)
	}
	var self struct{ Pid int }
	if err := c.Self(ctx, &self); err != nil || self.Pid != 7 {
		t.Errorf("self %+v %v", self, err)
	}
	if err := c.SetRoutes(ctx, zarpa.Routes{Revision: 5, Endpoints: []zarpa.Route{{Endpoint: "/"}}}); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("bad routes: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := c.SetRoutes(context.Background(), want); zarpa.AsError(err).Code != zarpa.Unavailable {
		t.Errorf("no gateway: %v", err)
	}
	half := options.RoutesFile + ".123.tmp" // of a gateway that was killed
	if err := os.WriteFile(half, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := gateway.New(options)
	if err := again.Restore(context.Background()); err != nil || again.Routes().Revision != 4 {
		t.Errorf("restored %+v %v", again.Routes(), err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("a file that was half written stays")
	}
}

func TestRoutesFileIsWholeOrAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "routes.json")
	if r, err := gateway.LoadRoutes(file); err != nil || r.Revision != 0 {
		t.Errorf("no file: %+v %v", r, err)
	}
	if err := os.WriteFile(file, []byte(`{"revision":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := gateway.LoadRoutes(file); err == nil {
		t.Error("half a file was taken")
	}
	if err := gateway.SaveRoutes(filepath.Join(file, "x"), zarpa.Routes{}); zarpa.AsError(err).Code != zarpa.Unavailable {
		t.Errorf("%v", err)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*.tmp"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDrainLetsRunningRequestsEnd(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	g := gateway.New(gateway.Options{})
	r := route(replica(t, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-goOn
		_, _ = io.WriteString(w, "done")
	}))
	r.Auth = zarpa.AuthNone
	if err := g.SetRoutes(context.Background(), zarpa.Routes{Revision: 1, Endpoints: []zarpa.Route{r}}); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(ctx, gateway.Listeners{Public: []net.Listener{ln}}) }()
	go func() {
		<-arrived
		cancel()
		close(goOn)
	}()
	res, err := http.Post("http://"+ln.Addr().String()+"/endpoints/iris/score", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "done" {
		t.Errorf("%q %v", b, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// certified are listeners to be with a certificate that signs itself.
func certified(t *testing.T) (gateway.Listeners, *x509.Certificate) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	pair := s.TLS.Certificates[0]
	l := gateway.Listeners{TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }}}
	return l, s.Certificate()
}

func TestServesTLS(t *testing.T) {
	t.Parallel()
	l, certificate := certified(t)
	r := route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %d", r.Header.Get("X-Forwarded-Proto"), len(b))
	}))
	g := gateway.New(gateway.Options{})
	if err := g.SetRoutes(context.Background(), zarpa.Routes{Revision: 1, Endpoints: []zarpa.Route{r}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	l.Public = []net.Listener{listenLocal(t)}
	go func() { ended <- g.Serve(ctx, l) }()
	for _, two := range []bool{false, true} {
		roots := x509.NewCertPool()
		roots.AddCert(certificate)
		c := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: two, TLSClientConfig: &tls.Config{RootCAs: roots}}}
		for _, size := range []int{3, 200_000} {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.Public[0].Addr().String()+"/endpoints/iris/score", strings.NewReader(strings.Repeat("x", size)))
			req.Header.Set("Authorization", "Bearer "+key)
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if want := fmt.Sprintf("https %d", size); string(b) != want || (res.ProtoMajor == 2) != two {
				t.Errorf("%s %q, want %q", res.Proto, b, want)
			}
		}
		c.CloseIdleConnections()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A gateway of this release may come back with the file of one that knew neither tries nor ejection.
func TestOlderRoutesFilesGetTheDefaults(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "routes.json")
	const content = `{"revision": 7, "endpoints": [
		{"endpoint": "old", "auth": "none", "request_timeout": "60s", "max_queue": 9, "deployments": []},
		{"endpoint": "new", "auth": "none", "retry_budget": 0, "ejection": {"failures": -1, "time": "7s", "max_percent": 20}, "deployments": []}]}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := gateway.LoadRoutes(file)
	if err != nil {
		t.Fatal(err)
	}
	older, newer := r.Endpoints[0], r.Endpoints[1]
	var none *zarpa.EjectionSpec
	if older.MaxQueue != 9 || older.RetryBudget != zarpa.DefaultRetryBudget || older.Ejection == nil || *older.Ejection != *none.WithDefaults() {
		t.Errorf("%+v, %+v", older, older.Ejection)
	}
	if want := (zarpa.EjectionSpec{Failures: -1, Time: zarpa.Duration(7 * time.Second), MaxPercent: 20}); newer.RetryBudget != 0 || *newer.Ejection != want {
		t.Errorf("%+v, %+v", newer, newer.Ejection)
	}
}
