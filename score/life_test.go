package score

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
)

const oneRow = `{"data":[[1,2,3,4]]}`

// gate is a model whose runs wait until they are let go, or until their context ends.
type gate struct {
	*session
	entered chan struct{} // one token for each run that began
	leave   chan struct{}
}

func newGate() *gate {
	g := &gate{session: iris(), entered: make(chan struct{}, 100), leave: make(chan struct{})}
	answer := g.run
	g.run = func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		g.entered <- struct{}{}
		select {
		case <-g.leave:
			return answer(ctx, in, wanted)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return g
}

func TestLimitsRunsAndQueue(t *testing.T) {
	t.Parallel()
	g := newGate()
	srv := newServer(t, g, Options{MaxConcurrency: 2, QueueLimit: 3})
	h := srv.Handler()
	codes := make(chan int, 10)
	for range 5 {
		go func() { codes <- ask(h, http.MethodPost, "/score", oneRow).Code }()
	}
	<-g.entered
	<-g.entered
	for srv.limit.waiting.Load() != 3 {
		runtime.Gosched()
	}
	w := ask(h, http.MethodPost, "/score", oneRow)
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "queue is full") {
		t.Errorf("sixth: %d %v %s", w.Code, w.Header(), w.Body)
	}
	metrics := ask(h, http.MethodGet, "/metrics", "").Body.String()
	for _, want := range []string{"zarpa_score_in_flight 2", "zarpa_score_queued 3", `zarpa_score_rejected_total{reason="overloaded"} 1`, `zarpa_score_requests_total{code="503",route="score"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	close(g.leave)
	for range 5 {
		if code := <-codes; code != 200 {
			t.Errorf("one of five: %d", code)
		}
	}
	if len(srv.limit.slots) != 0 || srv.limit.waiting.Load() != 0 {
		t.Error("slots are not given back")
	}
}

func TestTimeoutAndCancelReachTheRun(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := ask(newServer(t, g, Options{RequestTimeout: 20 * time.Millisecond}).Handler(), http.MethodPost, "/score", oneRow)
	if w.Code != 504 || !strings.Contains(w.Body.String(), "Scoring timeout after 20 ms") || w.Header().Get("x-ms-run-function-failed") != "True" {
		t.Errorf("timeout: %d %v %s", w.Code, w.Header(), w.Body)
	}
	<-g.entered

	// what the gateway says is left counts, when it is less
	r := httptest.NewRequest(http.MethodPost, "/score", strings.NewReader(oneRow))
	r.Header.Set("Zarpa-Timeout-Ms", "15")
	rec := httptest.NewRecorder()
	newServer(t, g, Options{RequestTimeout: time.Hour}).Handler().ServeHTTP(rec, r)
	if rec.Code != 504 {
		t.Errorf("timeout told by the gateway: %d %s", rec.Code, rec.Body)
	}
	<-g.entered

	// while waiting for a slot
	srv := newServer(t, g, Options{MaxConcurrency: 1, RequestTimeout: 20 * time.Millisecond})
	srv.limit.slots <- struct{}{}
	if w := ask(srv.Handler(), http.MethodPost, "/score", oneRow); w.Code != 504 {
		t.Errorf("timeout in the queue: %d %s", w.Code, w.Body)
	}

	srv = newServer(t, g, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	r = httptest.NewRequest(http.MethodPost, "/score", strings.NewReader(oneRow)).WithContext(ctx)
	rec = httptest.NewRecorder()
	done := make(chan struct{})
	go func() { defer close(done); srv.Handler().ServeHTTP(rec, r) }()
	<-g.entered
	cancel()
	<-done
	if rec.Code != 499 {
		t.Errorf("canceled: %d %s", rec.Code, rec.Body)
	}
	if m := ask(srv.Handler(), http.MethodGet, "/metrics", "").Body.String(); !strings.Contains(m, "zarpa_score_canceled_total 1") {
		t.Error("not counted as canceled")
	}
}

func TestClientThatLeavesCancelsTheRun(t *testing.T) {
	t.Parallel()
	g := newGate()
	canceled := make(chan struct{})
	inner := g.run
	g.run = func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		out, err := inner(ctx, in, wanted)
		if errors.Is(err, context.Canceled) {
			close(canceled)
		}
		return out, err
	}
	srv := httptest.NewServer(newServer(t, g, Options{}).Handler())
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(oneRow), oneRow)
	<-g.entered
	_ = conn.Close()
	select {
	case <-canceled:
	case <-time.After(10 * time.Second):
		t.Fatal("the run goes on after its client has left")
	}
}

func TestModelFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		body   string
		failed string
		logged bool
	}{
		{zarpa.Errorf(zarpa.ModelError, "the model failed: bad index").Because(errors.New("cause")), 424, "the model failed: bad index", "True", true},
		{zarpa.Errorf(zarpa.ModelError, "the model failed, and nobody says more"), 424, "the model failed", "True", true},
		{zarpa.Errorf(zarpa.Invalid, "input x: rank"), 400, "input x: rank", "False", false},
		{errors.New("secret"), 500, "an internal error happened", "False", true},
		{nil, 500, "an internal error happened", "False", true}, // a panic
	} {
		s := iris()
		s.run = func(context.Context, []zarpa.Tensor, []string) ([]zarpa.Tensor, error) {
			if c.err == nil {
				panic("secret")
			}
			return nil, c.err
		}
		var log bytes.Buffer
		srv := newServer(t, s, Options{Log: slog.New(slog.NewTextHandler(&log, nil)), MaxConcurrency: 1})
		for range 2 { // the slot is free again
			w := ask(srv.Handler(), http.MethodPost, "/score", oneRow)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) || strings.Contains(w.Body.String(), "secret") || w.Header().Get("x-ms-run-function-failed") != c.failed || w.Header().Get("x-ms-run-fn-exec-ms") != "" {
				t.Errorf("%v: %d %v %s", c.err, w.Code, w.Header(), w.Body)
			}
		}
		if got := strings.Count(log.String(), "request_id="); (got == 2) != c.logged {
			t.Errorf("%v: log %s", c.err, log.String())
		}
	}
}

func TestScoreHeaders(t *testing.T) {
	t.Parallel()
	h := newServer(t, iris(), Options{ServerVersion: "zarpa/0.1"}).Handler()
	w := ask(h, http.MethodPost, "/score", oneRow, "x-ms-client-request-id", "C", "TraceId", "T")
	get := w.Header().Get
	if get("x-ms-run-function-failed") != "False" || !regexp.MustCompile(`^\d+\.\d{3}$`).MatchString(get("x-ms-run-fn-exec-ms")) ||
		get("x-ms-server-version") != "zarpa/0.1" || get("x-ms-client-request-id") != "C" || get("TraceId") != "T" {
		t.Errorf("header %v", w.Header())
	}
	if w := ask(h, http.MethodPost, inferPath, "{}"); w.Header().Get("x-ms-run-function-failed") != "" {
		t.Errorf("infer: header %v", w.Header())
	}
	if w := ask(h, http.MethodGet, "/", "", "x-request-id", strings.Repeat("x", 101)); w.Code != 431 {
		t.Errorf("long id: %d", w.Code)
	}
}

func TestDrainsUnderLoad(t *testing.T) {
	t.Parallel()
	g := newGate()
	srv := newServer(t, g, Options{DrainTimeout: time.Minute, MaxConcurrency: 4})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()
	probe, err := net.Dial("tcp", ln.Addr().String()) // in use before the drain
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	const first = "POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + oneRow
	_, _ = io.WriteString(probe, first)
	var wg sync.WaitGroup
	codes := make(chan int, 7)
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	for range 7 {
		wg.Go(func() {
			resp, err := client.Post("http://"+ln.Addr().String()+"/score", "", strings.NewReader(oneRow))
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			codes <- resp.StatusCode
		})
	}
	for range 4 {
		<-g.entered
	}
	for srv.limit.waiting.Load() != 4 {
		runtime.Gosched()
	}
	stop()
	for srv.Ready() {
		runtime.Gosched()
	}
	if w := ask(srv.Handler(), http.MethodGet, "/v2/health/ready", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "stopping") {
		t.Errorf("ready while draining: %d %s", w.Code, w.Body)
	}
	close(g.leave)
	wg.Wait()
	for range 7 {
		if code := <-codes; code != 200 {
			t.Errorf("a running request got %d", code)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(probe), nil) //nolint:bodyclose // the connection is closed
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v %v", resp, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestDrainTimeoutCutsOff(t *testing.T) {
	t.Parallel()
	g := newGate()
	srv := newServer(t, g, Options{DrainTimeout: time.Millisecond})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()
	answered := make(chan string, 1)
	go func() {
		resp, err := (&http.Client{Transport: &http.Transport{}}).Post("http://"+ln.Addr().String()+"/score", "", strings.NewReader(oneRow))
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		answered <- resp.Status + " " + text(resp.Body)
	}()
	<-g.entered
	stop()
	if got := <-answered; !strings.Contains(got, "503") || !strings.Contains(got, "the replica stopped") {
		t.Errorf("cut off: %s", got)
	}
	if err := <-served; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Serve: %v", err)
	}
}

func TestManyAtOnceDoNotMixUp(t *testing.T) {
	t.Parallel()
	h := newServer(t, echo(info("x", zarpa.Float32, -1), info("s", zarpa.String, -1)), Options{QueueLimit: 100}).Handler()
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 100 {
				n := g*1000 + i
				body := fmt.Sprintf(`{"data":{"x":[%d],"s":["s%d"]}}`, n, n)
				want := fmt.Sprintf(`{"out_x":[%d],"out_s":["s%d"]}`, n, n)
				if got := strings.TrimSpace(ask(h, http.MethodPost, "/score", body).Body.String()); got != want {
					t.Errorf("%s, want %s", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	one := []ModelOptions{{Name: "m"}}
	if _, err := New(Options{Models: one, Registry: reg}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{
		{},
		{Models: []ModelOptions{{}}},
		{Models: []ModelOptions{{Name: "m"}, {Name: "n", Aliases: []string{"m"}}}},
		{Models: one, Self: make(chan int)},
		{Models: one, Registry: reg},
	} {
		if _, err := New(o); zarpa.AsError(err).Code != zarpa.Invalid {
			t.Errorf("%v", err)
		}
	}
}

// Clients that send a byte at a time, or half a body, hold a connection and no run of the model.
func TestSlowClientsCostOneConnection(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(newServer(t, iris(), Options{MaxConcurrency: 1, QueueLimit: 1}).Handler())
	defer srv.Close()
	var slow []net.Conn
	for _, sent := range []string{
		"POST /sco",
		"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"data\"",
		"POST " + inferPath + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"inp",
		"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
	} {
		for range 10 {
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, sent)
			slow = append(slow, conn)
		}
	}
	for range 20 {
		resp, err := http.Post(srv.URL+"/score", "", strings.NewReader(oneRow))
		if err != nil {
			t.Fatal(err)
		}
		if body := text(resp.Body); resp.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		_ = resp.Body.Close()
	}
	if len(slow) != 40 {
		t.Error("too few slow clients")
	}
}

// parted is a gate whose model streams: its answer is one part.
type parted struct{ *gate }

func (p parted) Stream(ctx context.Context, in []zarpa.Tensor, wanted []string, emit func(part []zarpa.Tensor) error) error {
	out, err := p.run(ctx, in, wanted)
	if err != nil {
		return err
	}
	return emit(out)
}

// MaxConcurrency is large where it is for batches: a model whose requests share no runs has no more of
// them than without.
func TestUnbatchedRunsAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, path, body string }{
		{"cannot be batched", "/score", oneRow},
		{"answers cannot be split", "/score", oneRow},
		{"streams", "/v2/models/iris/generate_stream", `{"input":[[1,2,3,4]]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGate()
			var session zarpa.Session = g
			switch c.name {
			case "cannot be batched":
				g.sig.Inputs[0].Shape[0].Size = 1
			case "streams":
				session = parted{g}
			}
			srv := newServer(t, session, Options{MaxBatchRows: 64, QueueLimit: 100})
			if c.name == "answers cannot be split" {
				theBatcher(srv).off.Store(true)
			}
			h := srv.Handler()
			var wg sync.WaitGroup
			for range 40 {
				wg.Go(func() {
					if w := ask(h, http.MethodPost, c.path, c.body); w.Code != http.StatusOK {
						t.Errorf("%d %s", w.Code, w.Body)
					}
				})
			}
			defer wg.Wait()
			defer close(g.leave)
			deadline := time.Now().Add(20 * time.Second)
			for srv.unbatched.waiting.Load() != 40-zarpa.DefaultMaxConcurrency && time.Now().Before(deadline) {
				runtime.Gosched()
			}
			if n := len(g.entered); n != zarpa.DefaultMaxConcurrency {
				t.Errorf("%d runs at a time", n)
			}
		})
	}
}
