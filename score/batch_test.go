package score

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// recorded is one run of a [ledger].
type recorded struct {
	shape  []int64
	data   []byte
	wanted []string
}

// ledger is a model that answers its input x, of rows of any length, as y and z, each run waiting
// until it is let go or its context ends. It notes what it ran.
type ledger struct {
	*session
	entered chan struct{} // one token for each run that began
	leave   chan struct{}
	ended   chan error // how the runs ended that were not let go

	mu   sync.Mutex
	runs []recorded
}

func newLedger() *ledger {
	l := &ledger{entered: make(chan struct{}, 1000), leave: make(chan struct{}), ended: make(chan error, 10)}
	l.session = &session{sig: zarpa.Signature{
		Inputs:  []zarpa.ValueInfo{info("x", zarpa.Float32, -1, -1)},
		Outputs: []zarpa.ValueInfo{info("y", zarpa.Float32, -1, -1), info("z", zarpa.Float32, -1, -1)},
	}}
	l.run = func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		l.mu.Lock()
		l.runs = append(l.runs, recorded{slices.Clone(in[0].Shape), slices.Clone(in[0].Data), slices.Clone(wanted)})
		l.mu.Unlock()
		l.entered <- struct{}{}
		select {
		case <-l.leave:
		case <-ctx.Done():
			l.ended <- ctx.Err()
			return nil, ctx.Err()
		}
		var out []zarpa.Tensor
		for _, name := range []string{"y", "z"} {
			if wanted == nil || slices.Contains(wanted, name) {
				out = append(out, zarpa.Tensor{Name: name, Type: zarpa.Float32, Shape: slices.Clone(in[0].Shape), Data: slices.Clone(in[0].Data)})
			}
		}
		return out, nil
	}
	return l
}

// let lets n runs go, one after the other.
func (l *ledger) let(n int) {
	for range n {
		l.leave <- struct{}{}
	}
}

func (l *ledger) seen() []recorded {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.runs)
}

func theBatcher(s *Server) *batcher { return s.entries[0].model.Load().batcher }

// waitFor waits until so many requests wait in the line.
func waitFor(t *testing.T, s *Server, waiting int) {
	t.Helper()
	b := theBatcher(s)
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		b.mu.Lock()
		n := b.line.waiting
		b.mu.Unlock()
		if n == waiting {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests wait, want %d", n, waiting)
		}
	}
}

// client asks in the background, in the order of its calls.
type client struct {
	t       *testing.T
	srv     *Server
	handler http.Handler
	wg      sync.WaitGroup
	waiting int
}

func newClient(t *testing.T, srv *Server) *client {
	return &client{t: t, srv: srv, handler: srv.Handler()}
}

// wait asks, and returns when the request waits in the line.
func (c *client) wait(ctx context.Context, body string, check func(*httptest.ResponseRecorder)) {
	c.t.Helper()
	c.wg.Go(func() {
		w := httptest.NewRecorder()
		c.handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/score", strings.NewReader(body)).WithContext(ctx))
		check(w)
	})
	c.waiting++
	waitFor(c.t, c.srv, c.waiting)
}

// first asks for what keeps the runner busy.
func (c *client) first(l *ledger) {
	c.wg.Go(func() {
		if w := score(c.handler, `{"data":[[-1]]}`); w.Code != 200 {
			c.t.Errorf("the first: %d %s", w.Code, w.Body)
		}
	})
	<-l.entered
}

func (c *client) answers(want string) func(*httptest.ResponseRecorder) {
	return func(w *httptest.ResponseRecorder) {
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != want {
			c.t.Errorf("%d %s, want %s", w.Code, got, want)
		}
	}
}

func (c *client) fails(status int, text string) func(*httptest.ResponseRecorder) {
	return func(w *httptest.ResponseRecorder) {
		if w.Code != status || !strings.Contains(w.Body.String(), text) {
			c.t.Errorf("%d %s, want %d %s", w.Code, w.Body, status, text)
		}
	}
}

func TestBatchesHoldRowsOfOneKind(t *testing.T) {
	t.Parallel()
	l := newLedger()
	srv := newServer(t, l, Options{MaxBatchRows: 4, MaxConcurrency: 32})
	c := newClient(t, srv)
	c.first(l)
	both := func(v string) func(*httptest.ResponseRecorder) { return c.answers(`{"y":` + v + `,"z":` + v + `}`) }
	ctx := t.Context()
	c.wait(ctx, `{"data":[[1]]}`, both("[[1]]"))
	c.wait(ctx, `{"data":[[2,3]]}`, both("[[2,3]]")) // another dimension
	c.wait(ctx, `{"data":[[4],[5]]}`, both("[[4],[5]]"))
	c.wait(ctx, `{"data":[[6],[7]]}`, both("[[6],[7]]"))                               // too many for the one before
	c.wait(ctx, `{"data":[[8]],"outputs":["z"]}`, c.answers(`{"z":[[8]]}`))            // other outputs
	c.wait(ctx, `{"data":[[9,10]],"parameters":{"allow_nan":true}}`, both("[[9,10]]")) // does not reach the model
	c.wait(ctx, `{"data":[[1],[2],[3],[4],[5]]}`, both("[[1],[2],[3],[4],[5]]"))       // larger than a batch
	c.wait(ctx, `{"data":[[11]]}`, both("[[11]]"))
	c.wait(ctx, `{"data":[[12]],"outputs":["z"]}`, c.answers(`{"z":[[12]]}`))
	// what is wrong is told at once, and harms nobody
	c.fails(400, "brackets")(score(c.handler, `{"data":[1]}`))
	c.fails(400, "unknown")(score(c.handler, `{"data":[[1]],"outputs":["no"]}`))
	l.let(6)
	c.wg.Wait()
	want := []recorded{
		{[]int64{1, 1}, le(float32(-1)), nil},
		{[]int64{3, 1}, le([]float32{1, 4, 5}), nil},
		{[]int64{2, 2}, le([]float32{2, 3, 9, 10}), nil},
		{[]int64{3, 1}, le([]float32{6, 7, 11}), nil},
		{[]int64{2, 1}, le([]float32{8, 12}), []string{"z"}},
		{[]int64{5, 1}, le([]float32{1, 2, 3, 4, 5}), nil},
	}
	if got := l.seen(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("runs\n%v, want\n%v", got, want)
	}
	stats := srv.entries[0].stats.read()
	if stats.executions != 6 || stats.inferences != 16 || stats.success.count != 10 || stats.infer.count != 10 || fmt.Sprint(stats.sizes()) != "[1 2 3 5]" || stats.batches[3].infer.count != 2 {
		t.Errorf("statistics %+v", stats.counters())
	}
	metrics := ask(c.handler, http.MethodGet, "/metrics", "").Body.String()
	for _, want := range []string{
		`zarpa_score_batch_rows_sum{model="iris"} 16`, `zarpa_score_batch_rows_count{model="iris"} 6`,
		`zarpa_score_batch_dispatch_total{model="iris",reason="alone"} 1`, `zarpa_score_batch_dispatch_total{model="iris",reason="idle"} 4`,
		`zarpa_score_batch_dispatch_total{model="iris",reason="full"} 1`, `zarpa_score_batch_wait_seconds_count{model="iris"} 6`,
		`zarpa_score_batch_oldest_wait_seconds{model="iris"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	nothingIsLeft(t, srv)
}

// nothingIsLeft closes the server and looks into its line.
func nothingIsLeft(t *testing.T, srv *Server) {
	t.Helper()
	b := theBatcher(srv)
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := &b.line; b.off.Load() || l.inside != 0 || l.running != 0 || l.waiting != 0 || len(l.groups) != 0 {
		t.Errorf("off %v, inside %d, running %d, waiting %d", b.off.Load(), l.inside, l.running, l.waiting)
	}
}

func (c counters) counters() string { return fmt.Sprintf("%+v", c) }

func TestWhoHasLeftIsLeftOut(t *testing.T) {
	t.Parallel()
	l := newLedger()
	srv := newServer(t, l, Options{MaxBatchRows: 8})
	c := newClient(t, srv)
	c.first(l)
	ctx, cancel := context.WithCancel(t.Context())
	late, expire := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer expire()
	c.wait(t.Context(), `{"data":[[1]]}`, c.answers(`{"y":[[1]],"z":[[1]]}`))
	c.wait(ctx, `{"data":[[2]]}`, c.fails(499, ""))
	c.wait(t.Context(), `{"data":[[3]]}`, c.answers(`{"y":[[3]],"z":[[3]]}`))
	cancel()
	waitFor(t, srv, 2)
	c.wg.Go(func() {
		w := httptest.NewRecorder()
		c.handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/score", strings.NewReader(`{"data":[[4]]}`)).WithContext(late))
		c.fails(504, "timeout")(w)
	})
	<-late.Done()
	waitFor(t, srv, 2)
	l.let(2)
	c.wg.Wait()
	if got := l.seen(); len(got) != 2 || !bytes.Equal(got[1].data, le([]float32{1, 3})) {
		t.Errorf("runs %v", got)
	}
}

func TestLeavingARunningBatch(t *testing.T) {
	t.Parallel()
	l := newLedger()
	srv := newServer(t, l, Options{MaxBatchRows: 8})
	c := newClient(t, srv)
	c.first(l)
	one, leaveOne := context.WithCancel(t.Context())
	two, leaveTwo := context.WithCancel(t.Context())
	defer leaveTwo()
	left := make(chan int, 2)
	note := func(w *httptest.ResponseRecorder) { left <- w.Code }
	c.wait(one, `{"data":[[1]]}`, note)
	c.wait(two, `{"data":[[2]]}`, note)
	l.let(1)
	<-l.entered
	leaveOne()
	if code := <-left; code != 499 { // while the run goes on
		t.Errorf("the first to leave: %d", code)
	}
	select {
	case err := <-l.ended:
		t.Errorf("the run ended while one waits for it: %v", err)
	default:
	}
	leaveTwo()
	if code := <-left; code != 499 {
		t.Errorf("the last to leave: %d", code)
	}
	if err := <-l.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the run ended with %v", err)
	}
	c.wg.Wait()
	c.wg.Go(func() { c.answers(`{"y":[[3]],"z":[[3]]}`)(score(c.handler, `{"data":[[3]]}`)) })
	<-l.entered
	l.let(1)
	c.wg.Wait()
}

func TestOneBadRowFailsItsOwnRequestAlone(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func() error{
		"model error": func() error { return zarpa.Errorf(zarpa.ModelError, "index 7 is out of range") },
		"invalid":     func() error { return zarpa.Errorf(zarpa.Invalid, "input x: no good") },
		"panic":       func() error { panic("a defect") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger()
			inner := l.run
			l.run = func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
				out, err := inner(ctx, in, wanted)
				if bytes.Contains(in[0].Data, le(float32(7))) {
					return nil, bad()
				}
				return out, err
			}
			srv := newServer(t, l, Options{MaxBatchRows: 8})
			c := newClient(t, srv)
			c.first(l)
			c.wait(t.Context(), `{"data":[[1]]}`, c.answers(`{"y":[[1]],"z":[[1]]}`))
			c.wait(t.Context(), `{"data":[[7]]}`, func(w *httptest.ResponseRecorder) {
				if want := map[string]int{"model error": 424, "invalid": 400, "panic": 500}[name]; w.Code != want {
					t.Errorf("the bad one: %d %s", w.Code, w.Body)
				}
			})
			c.wait(t.Context(), `{"data":[[3]]}`, c.answers(`{"y":[[3]],"z":[[3]]}`))
			l.let(5) // the first, the batch, and three alone
			c.wg.Wait()
			if got := srv.entries[0].stats.read(); got.executions != 3 || got.success.count != 3 || got.fail.count != 1 {
				t.Errorf("statistics %+v", got)
			}
		})
	}
}

func TestAnswersThatCannotBeSplitEndBatching(t *testing.T) {
	t.Parallel()
	l := newLedger()
	inner := l.run
	l.run = func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		out, err := inner(ctx, in, wanted)
		if err == nil && out[0].Shape[0] > 1 { // one row of several
			out[0].Shape[0], out[0].Data = 1, out[0].Data[:4]
		}
		return out, err
	}
	var log bytes.Buffer
	srv := newServer(t, l, Options{MaxBatchRows: 8, Log: slog.New(slog.NewTextHandler(&log, nil))})
	c := newClient(t, srv)
	c.first(l)
	c.wait(t.Context(), `{"data":[[1]]}`, c.answers(`{"y":[[1]],"z":[[1]]}`))
	c.wait(t.Context(), `{"data":[[2]]}`, c.answers(`{"y":[[2]],"z":[[2]]}`))
	l.let(4)
	c.wg.Wait()
	if !theBatcher(srv).off.Load() || strings.Count(log.String(), "one by one from now on") != 1 || !strings.Contains(log.String(), `output \"y\"`) {
		t.Errorf("log %s", log.String())
	}
	for range 2 {
		c.wg.Go(func() { c.answers(`{"y":[[3]],"z":[[3]]}`)(score(c.handler, `{"data":[[3]]}`)) })
	}
	for range 5 { // two of them at the same time, at last
		<-l.entered
	}
	l.let(2)
	c.wg.Wait()
}

func TestUnloadRunsWhatWaits(t *testing.T) {
	t.Parallel()
	l := newLedger()
	srv := newServer(t, l, Options{MaxBatchRows: 8})
	c := newClient(t, srv)
	c.first(l)
	c.wait(t.Context(), `{"data":[[1]]}`, c.answers(`{"y":[[1]],"z":[[1]]}`))
	c.wait(t.Context(), `{"data":[[2]]}`, c.answers(`{"y":[[2]],"z":[[2]]}`))
	b := theBatcher(srv)
	closed := make(chan error)
	go func() { closed <- srv.Close() }()
	for srv.entries[0].model.Load() != nil {
		runtime.Gosched()
	}
	c.fails(503, "not loaded")(score(c.handler, `{"data":[[3]]}`))
	for closing := false; !closing; {
		b.mu.Lock()
		closing = b.line.closing
		b.mu.Unlock()
	}
	if err := b.run(t.Context(), &call{model: b.model, inputs: []zarpa.Tensor{{Name: "x", Type: zarpa.Float32, Shape: []int64{1, 1}, Data: le(float32(1))}}}); zarpa.AsError(err).Code != zarpa.Unavailable {
		t.Errorf("a request after the unload: %v", err)
	}
	select {
	case <-closed:
		t.Error("closed while runs go on")
	default:
	}
	l.let(2)
	c.wg.Wait()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestRunsAtATime(t *testing.T) {
	t.Parallel()
	l := newLedger()
	srv := newServer(t, l, Options{MaxBatchRows: 8, BatchRuns: 2})
	c := newClient(t, srv)
	c.first(l)
	c.first(l) // beside it
	c.wait(t.Context(), `{"data":[[1]]}`, c.answers(`{"y":[[1]],"z":[[1]]}`))
	if n := len(l.seen()); n != 2 {
		t.Errorf("%d runs at a time", n)
	}
	if m := ask(c.handler, http.MethodGet, "/metrics", "").Body.String(); strings.Contains(m, `zarpa_score_batch_oldest_wait_seconds{model="iris"} 0`+"\n") {
		t.Error("nobody is seen to wait")
	}
	l.let(3)
	c.wg.Wait()
}

func TestWhichModelsShareRuns(t *testing.T) {
	t.Parallel()
	named := func(v zarpa.ValueInfo, names ...string) zarpa.ValueInfo {
		for i, n := range names {
			v.Shape[i].Name = n
		}
		return v
	}
	optional := func(v zarpa.ValueInfo) zarpa.ValueInfo { v.Optional = true; return v }
	x := func() zarpa.ValueInfo { return named(info("x", zarpa.Float32, -1, 4), "n") }
	y := func() zarpa.ValueInfo { return info("y", zarpa.Int64, -1) }
	maps := iris().sig.Outputs[1]
	values := func(v ...zarpa.ValueInfo) []zarpa.ValueInfo { return v }
	for _, c := range []struct {
		name    string
		in, out []zarpa.ValueInfo
		why     string // empty for a model that does
	}{
		{"rows in, rows out", values(x()), values(y(), maps), ""},
		{"equal names", values(x(), named(info("w", zarpa.String, -1), "n")), values(named(y(), "n")), ""},
		{"an optional input without rows", values(x(), optional(info("w", zarpa.Float32, 3))), values(y()), ""},
		{"other names in", values(x(), named(info("w", zarpa.Float32, -1), "m")), values(y()), `"m"`},
		{"other names out", values(x()), values(named(y(), "unique")), `"unique"`},
		{"fixed in", values(info("x", zarpa.Float32, 1, 4)), values(y()), "not free"},
		{"fixed out", values(x()), values(info("y", zarpa.Float32, 1)), "not free"},
		{"a scalar out", values(x()), values(info("y", zarpa.Float32)), "not free"},
		{"no shape", values(zarpa.ValueInfo{Name: "x", Type: zarpa.Float32, NoShape: true}), values(y()), "not free"},
		{"rows by rows", values(named(info("x", zarpa.Float32, -1, -1), "n", "n")), values(y()), "one more"},
		{"rows by rows, out", values(x()), values(named(info("y", zarpa.Float32, -1, -1), "", "n")), "one more"},
		{"half bytes", values(info("x", zarpa.Int4, -1)), values(y()), "share bytes"},
		{"a sequence in", values(zarpa.ValueInfo{Name: "x", Type: zarpa.Sequence}), values(y()), "no tensor"},
		{"a map out", values(x()), values(zarpa.ValueInfo{Name: "y", Type: zarpa.Map}), "no tensor"},
		{"a sequence of tensors out", values(x()), values(zarpa.ValueInfo{Name: "y", Type: zarpa.Sequence, Items: values(y())}), "no tensor"},
		{"an optional output", values(x()), values(optional(y())), "absent"},
		{"nothing in", nil, values(y()), "no input"},
		{"only optional without rows", values(optional(info("w", zarpa.Float32, 3))), values(y()), "no input"},
	} {
		_, err := newBatchShape(zarpa.Signature{Inputs: c.in, Outputs: c.out})
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	var log bytes.Buffer
	srv := newServer(t, constant(zarpa.Tensor{Name: "y", Type: zarpa.Float32, Shape: []int64{1}, Data: le(float32(1))}), Options{MaxBatchRows: 8, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if w := score(srv.Handler(), `{"data":[1]}`); w.Code != 200 || theBatcher(srv) != nil || !strings.Contains(log.String(), "one by one") {
		t.Errorf("%d %s, log %s", w.Code, w.Body, log.String())
	}
}
