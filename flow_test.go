package zarpa_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/engine/onnx"
	"github.com/zarpa-dev/zarpa/gateway"
	"github.com/zarpa-dev/zarpa/internal/seal"
	"github.com/zarpa-dev/zarpa/score"
	"github.com/zarpa-dev/zarpa/store/sqlite"
	"github.com/zarpa-dev/zarpa/target"
	"github.com/zarpa-dev/zarpa/target/memory"
)

// plane is a whole control plane in this process: every part is the real one, replicas live in
// the memory driver.
type plane struct {
	client  *client.Client
	gateway *httptest.Server
	store   *sqlite.Store
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	library := os.Getenv("ZARPA_ONNXRUNTIME")
	if library == "" {
		library, _ = filepath.Abs(filepath.Join("bin", "libonnxruntime.so."+onnx.Version))
	}
	if _, err := os.Stat(library); err != nil {
		t.Skipf("ONNX Runtime is not at %s: run make build first", library)
	}
	ctx, data := t.Context(), t.TempDir()
	store := must(sqlite.Open(ctx, filepath.Join(data, "zarpa.db")))(t)
	blobs := must(dir.Open(ctx, filepath.Join(data, "blobs")))(t)
	box := must(seal.Open(filepath.Join(data, "secret.key")))(t)
	if err := store.Nouns().Targets.Put(ctx, zarpa.Target{Name: "local", Kind: "memory", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	runner := replicas{blobs: blobs, dir: filepath.Join(data, "bundles"), engine: onnx.New(onnx.Options{Library: library})}
	driver := must(memory.New(ctx, memory.Options{Start: runner.start}))(t)
	g := gateway.New(gateway.Options{})
	recon := target.New(target.Options{
		Store: store, Drivers: map[string]zarpa.Driver{"local": driver}, Router: g,
		KeyDigests: api.KeyDigests(store, box), Log: slog.New(slog.DiscardHandler),
		Bundle: func(ctx context.Context, p target.Package) (string, error) {
			b := zarpa.Bundle{Format: bundle.Format, Engine: p.Models[0].Format}
			for _, m := range p.Models {
				b.Models = append(b.Models, zarpa.BundleModel{
					Name: m.Name, Version: m.Version, Content: m.Content, Signature: m.Signature, File: m.Content.Files[0].Path,
				})
			}
			return bundle.Build(ctx, blobs, b)
		},
	})
	p := &plane{gateway: httptest.NewServer(g.Handler()), store: store}
	control := httptest.NewServer(api.New(api.Options{
		Store: store, Blobs: blobs, Reconciler: recon, Seal: box, Token: "secret",
		Server: zarpa.Server{Version: "test", GatewayURL: p.gateway.URL}, Log: slog.New(slog.DiscardHandler),
		Metrics: http.NotFoundHandler(), GatewayMetrics: http.NotFoundHandler(),
	}))
	p.client = must(client.New(client.Options{Server: control.URL, Token: "secret"}))(t)
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- recon.Run(running) }()
	t.Cleanup(func() {
		stop()
		control.Close()
		p.gateway.Close()
		err := errors.Join(<-done, driver.StopAll(context.WithoutCancel(ctx)), driver.Close(), store.Close())
		if err != nil {
			t.Error(err)
		}
	})
	return p
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// replicas starts score servers for the memory driver.
type replicas struct {
	blobs  *dir.Blobs
	dir    string
	engine zarpa.Engine
}

func (r replicas) start(ctx context.Context, rep memory.Replica) (memory.Running, error) {
	path, err := bundle.Unpack(ctx, r.blobs, rep.Deployment.Bundle, r.dir)
	if err != nil {
		return memory.Running{}, err
	}
	b, err := bundle.Read(path)
	if err != nil {
		return memory.Running{}, err
	}
	m := b.Models[0]
	server, err := score.New(score.Options{Models: []score.ModelOptions{{
		Name: m.Name, Version: "1", Aliases: []string{rep.Deployment.Endpoint},
		Load: func(ctx context.Context) (zarpa.Session, error) {
			return r.engine.Load(ctx, filepath.Join(path, "models", m.Name, "1"), zarpa.LoadOptions{File: m.File, Threads: 1})
		},
	}}})
	if err != nil {
		return memory.Running{}, err
	}
	if err := server.LoadAll(ctx); err != nil {
		return memory.Running{}, errors.Join(memory.ErrLoad, err)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return memory.Running{}, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() {
		err := server.Serve(running, ln)
		done <- errors.Join(err, server.Close())
		close(done)
	}()
	return memory.Running{Address: "http://" + ln.Addr().String(), Done: done, Shutdown: func(context.Context) error { stop(); return nil }}, nil
}

// heldOut is what a training script wrote: rows and the framework's own predictions.
type heldOut struct {
	Inputs        json.RawMessage `json:"inputs"`
	Label         []int           `json:"label"`
	Digit         []int           `json:"digit"`
	Probabilities [][]float64     `json:"probabilities"`
}

func readHeldOut(t *testing.T, example string) heldOut {
	t.Helper()
	var h heldOut
	b := must(os.ReadFile(filepath.Join("examples", example, "heldout.json")))(t)
	if err := json.Unmarshal(b, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

func (p *plane) deploy(t *testing.T, name, file string) zarpa.Operation {
	t.Helper()
	ctx := t.Context()
	r, w := io.Pipe()
	go func() { w.CloseWithError(bundle.TarFiles(ctx, w, file)) }()
	content := must(p.client.PutContent(ctx, r))(t)
	m := must(p.client.RegisterModel(ctx, zarpa.Registration{Name: name, Digest: content.Digest}))(t)
	answer := must(p.client.PutEndpoint(ctx, name, zarpa.EndpointSpec{
		Deployments: []zarpa.DeploymentSpec{{Name: "blue", Model: m.Ref().String()}},
	}, nil))(t)
	return must(p.client.Wait(ctx, *answer.Operation, nil))(t)
}

// reply is an answer of the gateway.
type reply struct {
	code int
	body []byte
}

// into decodes an answer of success.
func (r reply) into(t *testing.T, v any) {
	t.Helper()
	if r.code != http.StatusOK {
		t.Fatalf("%d: %s", r.code, r.body)
	}
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("%s: %v", r.body, err)
	}
}

// call posts to the gateway.
func (p *plane) call(t *testing.T, path, key string, body []byte) reply {
	t.Helper()
	req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, p.gateway.URL+path, bytes.NewReader(body)))(t)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp := must(p.gateway.Client().Do(req))(t) //nolint:bodyclose // the next line does
	defer resp.Body.Close()
	return reply{resp.StatusCode, must(io.ReadAll(resp.Body))(t)}
}

// try posts to the gateway; an error is an answer other than 200, or none.
func (p *plane) try(ctx context.Context, path, key string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := p.gateway.Client().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return err
}

// TestFromAFileToAPrediction follows the iris and digits models from their files to predictions,
// which are the framework's.
func TestFromAFileToAPrediction(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	for _, name := range []string{"iris", "digits"} {
		op := p.deploy(t, name, filepath.Join("examples", name, name+".onnx"))
		if op.State != zarpa.OperationSucceeded {
			t.Fatalf("%s: %+v", name, op)
		}
	}

	iris := readHeldOut(t, "iris")
	keys := must(p.client.Keys(t.Context(), "iris"))(t)
	var irisAnswer struct {
		Label         []int                `json:"label"`
		Probabilities []map[string]float64 `json:"probabilities"`
	}
	p.call(t, "/endpoints/iris/score", keys.Primary, []byte(`{"data":`+string(iris.Inputs)+`}`)).into(t, &irisAnswer)
	for i, want := range iris.Label {
		if irisAnswer.Label[i] != want {
			t.Errorf("iris row %d: label %d, scikit-learn says %d", i, irisAnswer.Label[i], want)
		}
		for class, want := range iris.Probabilities[i] {
			if got := irisAnswer.Probabilities[i][string(rune('0'+class))]; math.Abs(got-want) > 1e-5 {
				t.Errorf("iris row %d: probability of %d is %v, scikit-learn says %v", i, class, got, want)
			}
		}
	}

	digits := readHeldOut(t, "digits")
	keys = must(p.client.Keys(t.Context(), "digits"))(t)
	var digitsAnswer struct {
		Digit         []int       `json:"digit"`
		Probabilities [][]float64 `json:"probabilities"`
	}
	p.call(t, "/api/v1/service/digits/score", keys.Secondary, []byte(`{"data":`+string(digits.Inputs)+`}`)).into(t, &digitsAnswer)
	for i, want := range digits.Digit {
		if digitsAnswer.Digit[i] != want {
			t.Errorf("digits row %d: %d, JAX says %d", i, digitsAnswer.Digit[i], want)
		}
		for class, want := range digits.Probabilities[i] {
			if got := digitsAnswer.Probabilities[i][class]; math.Abs(got-want) > 1e-5 {
				t.Errorf("digits row %d: probability of %d is %v, JAX says %v", i, class, got, want)
			}
		}
	}
}

// TestAChangeOfBatchingLosesNoRequest changes what replicas depend on while clients call, and looks
// that every call is answered.
func TestAChangeOfBatchingLosesNoRequest(t *testing.T) {
	t.Parallel()
	p, ctx := newPlane(t), t.Context()
	p.deploy(t, "iris", filepath.Join("examples", "iris", "iris.onnx"))
	keys := must(p.client.Keys(ctx, "iris"))(t)
	row := []byte(`{"data": [[5.1, 3.5, 1.4, 0.2]]}`)
	var clients sync.WaitGroup
	var calls, lost atomic.Int64
	stop := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				calls.Add(1)
				if err := p.try(ctx, "/endpoints/iris/score", keys.Primary, row); err != nil {
					t.Log(err)
					lost.Add(1)
				}
			}
		})
	}
	spec := must(p.client.GetEndpoint(ctx, "iris"))(t).Endpoint.Spec
	for _, change := range []func(*zarpa.DeploymentSpec){
		func(d *zarpa.DeploymentSpec) { d.MaxBatchRows = 16 },
		func(d *zarpa.DeploymentSpec) { d.MaxBatchDelay = zarpa.Duration(time.Millisecond) },
		func(d *zarpa.DeploymentSpec) { d.MaxBatchRows, d.MaxBatchDelay = 0, 0 },
	} {
		before := must(p.client.GetEndpoint(ctx, "iris"))(t).Deployments[0].Status.Revision
		change(&spec.Deployments[0])
		answer := must(p.client.PutEndpoint(ctx, "iris", spec, nil))(t)
		if op := must(p.client.Wait(ctx, *answer.Operation, nil))(t); op.State != zarpa.OperationSucceeded {
			t.Errorf("%+v", op)
		}
		if after := must(p.client.GetEndpoint(ctx, "iris"))(t).Deployments[0].Status.Revision; after == before {
			t.Errorf("%+v: the replicas are still of revision %s", answer.Changes, after)
		}
	}
	close(stop)
	clients.Wait()
	if calls.Load() == 0 || lost.Load() > 0 {
		t.Errorf("%d of %d calls were lost", lost.Load(), calls.Load())
	}
}

// TestAnEndpointsLife goes through keys, update, conflict and deletion of one endpoint.
func TestAnEndpointsLife(t *testing.T) {
	t.Parallel()
	p, ctx := newPlane(t), t.Context()
	p.deploy(t, "iris", filepath.Join("examples", "iris", "iris.onnx"))
	row := []byte(`{"data": [[5.1, 3.5, 1.4, 0.2]]}`)

	if code := p.call(t, "/endpoints/iris/score", "", row).code; code != http.StatusUnauthorized {
		t.Errorf("without a key: %d", code)
	}
	before := must(p.client.Keys(ctx, "iris"))(t)
	after := must(p.client.RegenerateKey(ctx, "iris", "primary"))(t)
	if before.Primary == after.Primary || before.Secondary != after.Secondary {
		t.Error("regenerating the primary key must change it alone")
	}
	for key, want := range map[string]int{before.Primary: 401, after.Primary: 200, after.Secondary: 200} {
		if code := p.call(t, "/endpoints/iris/score", key, row).code; code != want {
			t.Errorf("after the change of the primary key: %d, want %d", code, want)
		}
	}

	report := must(p.client.GetEndpoint(ctx, "iris"))(t)
	spec := report.Endpoint.Spec
	again := must(p.client.PutEndpoint(ctx, "iris", spec, nil))(t)
	if len(again.Changes) != 0 || again.Operation != nil {
		t.Errorf("the same again: %+v", again)
	}
	spec.Deployments[0].Replicas = 2
	update := must(p.client.PutEndpoint(ctx, "iris", spec, nil))(t)
	if len(update.Changes) != 1 || update.Changes[0].Field != "deployments.blue.replicas" {
		t.Errorf("changes: %+v", update.Changes)
	}
	if op := must(p.client.Wait(ctx, *update.Operation, nil))(t); op.State != zarpa.OperationSucceeded {
		t.Errorf("update: %+v", op)
	}
	if err := p.client.DeleteModel(ctx, "iris:1"); zarpa.AsError(err).Code != zarpa.Conflict {
		t.Errorf("delete a deployed model: %v", err)
	}
	deletion := must(p.client.DeleteEndpoint(ctx, "iris"))(t)
	if op := must(p.client.Wait(ctx, *deletion.Operation, nil))(t); op.State != zarpa.OperationSucceeded {
		t.Errorf("delete: %+v", op)
	}
	if _, err := p.client.GetEndpoint(ctx, "iris"); !errors.Is(err, zarpa.ErrNotFound) {
		t.Errorf("a deleted endpoint: %v", err)
	}
	if code := p.call(t, "/endpoints/iris/score", after.Primary, row).code; code != http.StatusNotFound {
		t.Errorf("the gateway of a deleted endpoint: %d", code)
	}
	if err := p.client.DeleteModel(ctx, "iris:1"); err != nil {
		t.Errorf("delete a model that is not deployed: %v", err)
	}
}
