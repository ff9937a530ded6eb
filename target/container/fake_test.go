package container

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// fakeEngine answers as the tests say, and else with nothing that is there.
type fakeEngine struct {
	answers map[string]http.HandlerFunc // by the last two elements of the path

	mu    sync.Mutex
	calls []string
}

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	name := strings.Join(parts[max(0, len(parts)-2):], "/")
	f.mu.Lock()
	f.calls = append(f.calls, name)
	f.mu.Unlock()
	w.Header().Set("Api-Version", "1.43")
	if answer := f.answers[name]; answer != nil {
		answer(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch parts[len(parts)-1] {
	case "_ping":
	case "info", "version":
		_, _ = w.Write([]byte(`{"OSType":"linux","Architecture":"x86_64","ServerVersion":"1","NCPU":2}`))
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"message":"no such thing"}`))
	}
}

func answer(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
}

// hang answers nothing until the caller has given up.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// runnerOf is a runner of that engine, without a driver around it.
func runnerOf(t *testing.T, f *fakeEngine, o Options) *runner {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	o.Host, o.Dir, o.Instance, o.Target = "tcp://"+server.Listener.Addr().String(), t.TempDir(), "i", "t"
	o = o.withDefaults()
	h, err := o.endpoint()
	if err != nil {
		t.Fatal(err)
	}
	engine, err := dial(o, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &runner{o: o, host: h, engine: engine, ctx: ctx, watched: map[string]*run{}, newest: map[string]string{}, changed: make(chan struct{}), back: make(chan struct{}, 1), sweeps: make(lockable, 1), images: newImages(o)}
	t.Cleanup(func() {
		stop()
		r.wait.Wait()
		_ = engine.Close()
	})
	return r
}

func TestEngineThatHangsInAStopIsAskedToKill(t *testing.T) {
	t.Parallel()
	killed := make(chan struct{})
	var once sync.Once
	started := time.Now().UTC()
	f := &fakeEngine{answers: map[string]http.HandlerFunc{
		"c1/stop": hang,
		"c1/kill": func(w http.ResponseWriter, _ *http.Request) {
			once.Do(func() { close(killed) })
			w.WriteHeader(http.StatusNoContent)
		},
		"c1/json": func(w http.ResponseWriter, r *http.Request) {
			state := map[string]any{"Status": "running", "Running": true, "StartedAt": started.Format(time.RFC3339Nano)}
			select {
			case <-killed:
				state["Status"], state["Running"], state["ExitCode"] = "exited", false, 137
			default:
			}
			answer(map[string]any{"Id": "c1", "State": state, "Config": map[string]any{}, "HostConfig": map[string]any{}})(w, r)
		},
	}}
	r := runnerOf(t, f, Options{})
	r.slack = 50 * time.Millisecond
	w := r.watch(replica.Start{ID: "blue-0.aaaa", Dir: t.TempDir()}, note{Container: "c1", Started: started})
	if err := w.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if w.Exit().Signal != "SIGKILL" {
		t.Errorf("%+v", w.Exit())
	}
}

func TestDeadContainersThatWereToldOfAreNotFoundAgain(t *testing.T) {
	t.Parallel()
	listed := []map[string]any{
		{"Id": "new", "State": "exited", "Labels": map[string]string{labelMade: "2"}},
		{"Id": "old", "State": "exited", "Labels": map[string]string{labelMade: "1"}},
	}
	f := &fakeEngine{answers: map[string]http.HandlerFunc{"containers/json": answer(listed)}}
	r := runnerOf(t, f, Options{})
	for name, n := range map[string]note{
		"TheNewestHasEnded":          {Container: "new", Started: time.Now(), Ended: true},
		"TheNewestCouldNotBeStarted": {Container: "removed"},
	} {
		s := replica.Start{ID: "blue-0.aaaa", Dir: t.TempDir()}
		if err := n.save(s.Dir); err != nil {
			t.Fatal(err)
		}
		if found, err := r.Find(t.Context(), s); found != nil {
			t.Errorf("%s: %+v, %v", name, found.Info(), err)
		}
	}
}

func TestCapacityDoesNotWaitForAnEngineThatHangs(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(hang))
	defer server.Close()
	d, err := Open(t.Context(), Options{
		Dir: t.TempDir(), Instance: "i", Target: "t", Host: "tcp://" + server.Listener.Addr().String(),
		Images: func(context.Context, string) (Image, error) { return Image{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if report, err := d.Capacity(ctx); err != nil || ctx.Err() != nil || report.MaxReplicas != DefaultQuota {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestStageThatImagesShareIsBuiltOnce(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	built := map[string]int{}
	inspect := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			n := built[name]
			mu.Unlock()
			if n == 0 {
				w.WriteHeader(http.StatusNotFound)
				_, _ = w.Write([]byte(`{"message":"no such image"}`))
				return
			}
			answer(map[string]any{"Os": "linux", "Architecture": "amd64"})(w, nil)
		}
	}
	f := &fakeEngine{answers: map[string]http.HandlerFunc{
		"env:1/json": inspect("env:1"), "one:1/json": inspect("one:1"), "two:1/json": inspect("two:1"),
		"v1.43/build": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			mu.Lock()
			built[r.URL.Query().Get("t")]++
			mu.Unlock()
			answer(map[string]string{"stream": "done"})(w, nil)
		},
	}}
	stage := func(name string) Stage {
		return Stage{Name: name, Context: func(_ context.Context, w io.Writer) error { _, err := w.Write([]byte("x")); return err }}
	}
	r := runnerOf(t, f, Options{Images: func(_ context.Context, bundle string) (Image, error) {
		return Image{Name: bundle, Build: []Stage{stage("env:1"), stage(bundle)}}, nil
	}})
	a := about{name: "Docker", platform: "linux/amd64"}
	var both sync.WaitGroup
	for _, name := range []string{"one:1", "two:1"} {
		both.Go(func() {
			if _, err := r.image(t.Context(), a, name, func(string) {}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if built["env:1"] != 1 || built["one:1"] != 1 || built["two:1"] != 1 {
		t.Errorf("built %v", built)
	}
}

func TestAnotherEngineIsNotTakenForTheSame(t *testing.T) {
	t.Parallel()
	listed := []map[string]any{{"Id": "c1", "State": "running"}}
	r := runnerOf(t, &fakeEngine{answers: map[string]http.HandlerFunc{"containers/json": answer(listed)}}, Options{
		Images: func(context.Context, string) (Image, error) { return Image{}, nil },
	})
	if err := CheckMove(t.Context(), r.o); err != nil {
		t.Errorf("nothing runs: %v", err)
	}
	runs := func(id string, n note) {
		t.Helper()
		dir := filepath.Join(r.o.Dir, "replicas", id)
		n.Container = id
		if err := errors.Join(os.MkdirAll(dir, 0o700), n.save(dir)); err != nil {
			t.Fatal(err)
		}
	}
	runs("c1", note{Started: time.Now()})
	runs("c2", note{Started: time.Now(), Ended: true})
	runs("c3", note{})
	if err := CheckMove(t.Context(), r.o); err != nil {
		t.Errorf("all that runs is there: %v", err)
	}
	runs("c4", note{Started: time.Now()})
	if err := CheckMove(t.Context(), r.o); !errors.Is(err, zarpa.ErrConflict) {
		t.Errorf("one is missing: %v", err)
	}
}

func TestBuildsGetTheLoginOfTheirBase(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	f := &fakeEngine{answers: map[string]http.HandlerFunc{
		"v1.43/build": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			text, err := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Config"))
			if err != nil {
				t.Error(err)
			}
			got <- string(text)
			answer(map[string]string{"stream": "done"})(w, nil)
		},
	}}
	r := runnerOf(t, f, Options{Login: func(_ context.Context, base string) (Login, error) {
		return Login{Registry: "registry.example", Username: "me", Password: "pass of " + base}, nil
	}})
	stage := Stage{Name: "env:1", Base: "registry.example/base:1", Context: func(context.Context, io.Writer) error { return nil }}
	if err := r.buildStage(t.Context(), stage, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if text := <-got; !strings.Contains(text, `"registry.example"`) || !strings.Contains(text, "pass of registry.example/base:1") {
		t.Errorf("%s", text)
	}
}

func TestARunThatTheEngineBroughtBackAfterTheNextIsSwept(t *testing.T) {
	t.Parallel()
	one := func(id, made string) map[string]any {
		return map[string]any{"Id": id, "State": "running", "Labels": map[string]string{labelReplica: "blue-0.aaaa", labelMade: made}}
	}
	started := time.Now().UTC()
	running := map[string]any{"Status": "running", "Running": true, "StartedAt": started.Format(time.RFC3339Nano)}
	f := &fakeEngine{answers: map[string]http.HandlerFunc{
		"containers/json": answer([]map[string]any{one("newer", "3"), one("now", "2"), one("former", "1")}),
		"now/json":        answer(map[string]any{"Id": "now", "State": running, "Config": map[string]any{}, "HostConfig": map[string]any{}}),
		"v1.43/volumes":   answer(map[string]any{}),
	}}
	r := runnerOf(t, f, Options{})
	if err := os.MkdirAll(filepath.Join(r.o.Dir, "replicas", "blue-0.aaaa"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.answers["containers/former"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	w := r.watch(replica.Start{ID: "blue-0.aaaa", Dir: t.TempDir()}, note{Container: "now", Started: started})
	defer w.Release()
	if err := r.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, want := range map[string]bool{"containers/newer": false, "containers/now": false, "containers/former": true} {
		if got := slices.Contains(f.calls, name); got != want {
			t.Errorf("%s: removed %v", name, got)
		}
	}
}
