package api_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/internal/seal"
	"github.com/zarpa-dev/zarpa/store/sqlite"
	"github.com/zarpa-dev/zarpa/target"
)

// nowhere takes routes and forgets them.
type nowhere struct{}

func (nowhere) SetRoutes(context.Context, zarpa.Routes) error { return nil }

// small is a target of at most ten replicas.
type small struct{ zarpa.Driver }

func (small) Check(spec zarpa.DeploymentSpec) error {
	if spec.Replicas > 10 {
		return zarpa.Errorf(zarpa.Invalid, "deployment %q: replicas: %d is more than 10", spec.Name, spec.Replicas)
	}
	return nil
}

// server is the API over a real store and real blobs, with a reconciler that does not run: an
// operation that was begun stays so.
type server struct {
	http  *httptest.Server
	store *sqlite.Store
	blobs *dir.Blobs
	// signing has the keys of scoring tokens
	signing *api.Signing
	box     *seal.Box
}

func newServer(t *testing.T) *server {
	t.Helper()
	return newServerThat(t, nil)
}

// newServerThat converts by the function.
func newServerThat(t *testing.T, convert convertFunc) *server {
	t.Helper()
	return startServer(t, api.Options{Convert: convert})
}

// newServerAt has a clock of the test's.
func newServerAt(t *testing.T, now func() time.Time) *server {
	t.Helper()
	return startServer(t, api.Options{Now: now})
}

// startServer fills in what every server has.
func startServer(t *testing.T, o api.Options) *server {
	t.Helper()
	ctx, data := t.Context(), t.TempDir()
	store, err := sqlite.Open(ctx, filepath.Join(data, "zarpa.db"))
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := dir.Open(ctx, filepath.Join(data, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	box, err := seal.Open(filepath.Join(data, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Nouns().Targets.Put(ctx, zarpa.Target{Name: "local", Kind: "process", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	signing, err := api.OpenSigning(ctx, store, box)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	drivers := map[string]zarpa.Driver{"local": small{}}
	recon := target.New(target.Options{Drivers: drivers, Store: store, Router: nowhere{}, Log: log, KeyDigests: api.KeyDigests(store, box)})
	o.Store, o.Blobs, o.Reconciler, o.Seal, o.Signing, o.Token, o.Log = store, blobs, recon, box, signing, "secret", log
	o.Server = zarpa.Server{Version: "test", GatewayURL: "http://gateway"}
	o.Metrics, o.GatewayMetrics = http.NotFoundHandler(), http.NotFoundHandler()
	s := &server{store: store, blobs: blobs, signing: signing, box: box, http: httptest.NewServer(api.New(o))}
	t.Cleanup(func() {
		s.http.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask sends a request with the token and returns status and body.
func (s *server) ask(t *testing.T, method, path string, body any) (int, string) {
	t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+path, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if _, ok := body.([]byte); ok {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	return send(t, s, req)
}

// send returns status and body of the answer.
func send(t *testing.T, s *server, req *http.Request) (int, string) {
	t.Helper()
	resp, err := s.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// register registers the iris model under a name.
func (s *server) register(t *testing.T, name string) {
	t.Helper()
	model, err := os.ReadFile(filepath.Join("..", "examples", "iris", "iris.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	code, answer := s.ask(t, http.MethodPost, "/v1/content", tarOf(t, "iris.onnx", model))
	if code != http.StatusCreated {
		t.Fatalf("%d %s", code, answer)
	}
	var content zarpa.Content
	if err := json.Unmarshal([]byte(answer), &content); err != nil {
		t.Fatal(err)
	}
	code, answer = s.ask(t, http.MethodPost, "/v1/models", fmt.Sprintf(`{"name": %q, "digest": %q}`, name, content.Digest))
	if code != http.StatusCreated {
		t.Fatalf("%d %s", code, answer)
	}
}

func tarOf(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestCallsAnswerWithCodesAndWords(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	const put = `{"deployments": [{"name": "blue", "model": "iris"}]}`
	for _, c := range []struct {
		name, method, path string
		body               any
		code               int
		want, not          string
	}{
		{"server", "GET", "/v1/server", nil, 200, `"gateway_url":"http://gateway"`, ""},
		{"models", "GET", "/v1/models", nil, 200, `"name":"iris"`, ""},
		{"models of nobody", "GET", "/v1/models?name=nobody", nil, 200, `[]`, ""},
		{"newest model", "GET", "/v1/models/iris", nil, 200, `"version":1`, ""},
		{"no such model", "GET", "/v1/models/rose", nil, 404, `"not_found"`, ""},
		{"bad reference", "GET", "/v1/models/iris:x", nil, 400, "NAME:VERSION", ""},
		{"delete without a version", "DELETE", "/v1/models/iris", nil, 400, "which version", ""},
		{"register unknown content", "POST", "/v1/models", `{"name": "a", "digest": "sha256:` + strings.Repeat("0", 64) + `"}`, 404, "not_found", ""},
		{"register a bad digest", "POST", "/v1/models", `{"name": "a", "digest": "../../x"}`, 400, "digest", ""},
		{"register an unknown field", "POST", "/v1/models", `{"name": "a", "digst": "x"}`, 400, "did you mean digest", ""},
		{"register no JSON", "POST", "/v1/models", `{`, 400, "invalid", ""},
		{"no tar", "POST", "/v1/content", []byte("not a tar, but long enough to be looked at as one by its reader"), 400, "tar", ""},
		{"tar that leaves", "POST", "/v1/content", tarOf(t, "../x", []byte("x")), 400, "../x", ""},
		{"endpoints", "GET", "/v1/endpoints", nil, 200, `[]`, "null"},
		{"no such endpoint", "GET", "/v1/endpoints/rose", nil, 404, "zarpa endpoint list", ""},
		{"keys of nobody", "GET", "/v1/endpoints/rose/keys", nil, 404, "not_found", ""},
		{"logs of nobody", "GET", "/v1/endpoints/rose/logs", nil, 404, "not_found", ""},
		{"bad name", "PUT", "/v1/endpoints/1rose", put, 400, "letter", ""},
		{"unknown field", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "replcas": 1}]}`, 400, "replicas", ""},
		{"no deployments", "PUT", "/v1/endpoints/rose", `{}`, 400, "deployments: missing", ""},
		{"pending model", "PUT", "/v1/endpoints/rose?dry_run=true&pending=tulip:1", `{"deployments": [{"name": "blue", "model": "tulip:1"}]}`, 200, "tulip:1", ""},
		{"pending without a dry run", "PUT", "/v1/endpoints/rose?pending=tulip:1", `{"deployments": [{"name": "blue", "model": "tulip:1"}]}`, 404, "tulip:1", ""},
		{"unknown model", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "tulip"}]}`, 404, "tulip is not registered", ""},
		{"pending further model", "PUT", "/v1/endpoints/rose?dry_run=true&pending=tulip:1", `{"deployments": [{"name": "blue", "model": "iris", "models": ["tulip:1"]}]}`, 200, `"field":"deployments.blue.models","to":"tulip:1"`, ""},
		{"unknown further model", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "models": ["tulip"]}]}`, 404, "tulip is not registered", ""},
		{"a model twice", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "models": ["iris:1"]}]}`, 400, "twice", ""},
		{"models that are no list", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "models": "tulip"}]}`, 400, "models", ""},
		{"unknown model control", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "model_control": "poll"}]}`, 400, "none or explicit", ""},
		{"too many batch rows", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "max_batch_rows": 10001}]}`, 400, "max_batch_rows", ""},
		{"batch delay as a number", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "max_batch_delay": 5}]}`, 400, "max_batch_delay", ""},
		{"too long a batch delay", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "max_batch_delay": "11s"}]}`, 400, "between 0 and 10s", ""},
		{"unknown status codes", "PUT", "/v1/endpoints/rose", `{"status_codes": "v3", "deployments": []}`, 400, "standard, v1 or v2", ""},
		{"an origin that is none", "PUT", "/v1/endpoints/rose", `{"cors_origins": ["example.com"], "deployments": []}`, 400, "cors_origins[0]", ""},
		{"more than the target can ever run", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "replicas": 11}]}`, 400, "more than 10", ""},
		{"as much as it can", "PUT", "/v1/endpoints/rose?dry_run=true", `{"deployments": [{"name": "blue", "model": "iris", "replicas": 10}]}`, 200, "deployments.blue.replicas", ""},
		{"unknown target", "PUT", "/v1/endpoints/rose", `{"deployments": [{"name": "blue", "model": "iris", "target": "moon"}]}`, 404, "moon", ""},
		{"must exist", "PUT", "/v1/endpoints/rose?generation=3", put, 409, "generation 0, not 3", ""},
		{"dry run", "PUT", "/v1/endpoints/rose?dry_run=true", put, 200, `"deployments.blue.model"`, "operation"},
		{"a dry run makes nothing", "GET", "/v1/endpoints/rose", nil, 404, "", ""},
		{"operations", "GET", "/v1/operations", nil, 200, "[]", ""},
		{"too many operations", "GET", "/v1/operations?limit=100000", nil, 400, "limit", ""},
		{"tail beyond all bounds", "GET", "/v1/endpoints/rose/logs?tail=9223372036854775807", nil, 404, "not_found", ""},
		{"limit that is none", "GET", "/v1/operations?limit=x", nil, 400, "limit", ""},
		{"no such operation", "GET", "/v1/operations/op-1", nil, 404, "not_found", ""},
		{"targets", "GET", "/v1/targets", nil, 200, `"local"`, ""},
		{"no such call", "GET", "/v3/nothing", nil, 404, "openapi.yaml", ""},
	} {
		code, answer := s.ask(t, c.method, c.path, c.body)
		if code != c.code || !strings.Contains(answer, c.want) || c.not != "" && strings.Contains(answer, c.not) {
			t.Errorf("%s: %d %s; want %d with %q, without %q", c.name, code, answer, c.code, c.want, c.not)
		}
	}
}

func TestEveryCallWantsTheToken(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for path, item := range loadSpec(t).Paths.Map() {
		for method := range item.Operations() {
			for _, header := range []string{"", "Bearer", "Bearer wrong", "Basic secret", "secret"} {
				req, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+strings.NewReplacer("{", "", "}", "").Replace(path), nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", header)
				resp, err := s.http.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				want := http.StatusUnauthorized
				if path == "/healthz" {
					want = http.StatusOK
				}
				if resp.StatusCode != want {
					t.Errorf("%s %s with %q: %d, want %d", method, path, header, resp.StatusCode, want)
				}
			}
		}
	}
}

func TestASecondChangeNamesTheOperationInTheWay(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	put := func(replicas int) (int, string) {
		return s.ask(t, http.MethodPut, "/v1/endpoints/iris", fmt.Sprintf(`{"deployments": [{"name": "blue", "model": "iris", "replicas": %d}]}`, replicas))
	}
	code, answer := put(1)
	var first zarpa.ChangeSet
	if err := json.Unmarshal([]byte(answer), &first); err != nil || code != 200 || first.Operation == nil {
		t.Fatalf("%d %s", code, answer)
	}
	code, answer = put(2)
	if code != http.StatusConflict || !strings.Contains(answer, first.Operation.ID) {
		t.Errorf("%d %s; want 409 that names %s", code, answer, first.Operation.ID)
	}
	// The same again is no change, and so no conflict.
	if code, answer = put(1); code != 200 || strings.Contains(answer, "operation") {
		t.Errorf("the same: %d %s", code, answer)
	}
	e, err := s.store.Nouns().Endpoints.Get(t.Context(), "iris")
	if err != nil || e.Generation != 1 || e.Spec.Deployments[0].Replicas != 1 || e.Spec.Deployments[0].Model != "iris:1" {
		t.Errorf("stored: %+v, %v", e, err)
	}
}

func TestSettingsOfProtocolsAndBatchingAreKeptAndCompared(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	s.register(t, "rank")
	const put = `{"status_codes": "v1", "cors_origins": ["*", "https://a.example"], "deployments": [{"name": "blue", "model": "iris",
		"models": ["rank"], "model_control": "explicit", "max_batch_rows": 16, "max_batch_delay": "2ms"}]}`
	code, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris", put)
	var set zarpa.ChangeSet
	if err := json.Unmarshal([]byte(answer), &set); err != nil || code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	got := map[string]string{}
	for _, c := range set.Changes {
		got[c.Field] = c.To
	}
	for field, want := range map[string]string{
		"status_codes": "v1", "cors_origins": "*, https://a.example", "deployments.blue.model": "iris:1", "deployments.blue.models": "rank:1",
		"deployments.blue.model_control": "explicit", "deployments.blue.max_batch_rows": "16", "deployments.blue.max_batch_delay": "2ms",
		"deployments.blue.max_concurrency": "32",
	} {
		if got[field] != want {
			t.Errorf("%s: %q, want %q", field, got[field], want)
		}
	}
	if code, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris", put); code != 200 || strings.Contains(answer, "operation") {
		t.Errorf("the same again: %d %s", code, answer)
	}
	for _, ref := range []string{"iris:1", "rank:1"} {
		if code, answer := s.ask(t, http.MethodDelete, "/v1/models/"+ref, nil); code != http.StatusConflict || !strings.Contains(answer, "deployed") {
			t.Errorf("delete %s: %d %s; want a conflict", ref, code, answer)
		}
	}
	e, err := s.store.Nouns().Endpoints.Get(t.Context(), "iris")
	if err != nil || !slices.Equal(e.Spec.Deployments[0].AllModels(), []string{"iris:1", "rank:1"}) {
		t.Errorf("stored: %+v, %v", e, err)
	}
}

func TestAnEndpointThatTriesAgainAndAgainHasFailed(t *testing.T) {
	t.Parallel()
	s, ctx := newServer(t), t.Context()
	nouns := s.store.Nouns()
	err := nouns.Endpoints.Put(ctx, zarpa.Endpoint{Name: "iris", Generation: 1, Spec: zarpa.EndpointSpec{
		Deployments: []zarpa.DeploymentSpec{{Name: "blue", Model: "iris:1", Target: "local", Replicas: 2}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	op := zarpa.Operation{ID: "op-1", Kind: "deploy", Endpoint: "iris", Generation: 1, State: zarpa.OperationRunning}
	if err := nouns.Operations.Create(ctx, op); err != nil {
		t.Fatal(err)
	}
	op.State = zarpa.OperationSucceeded
	if err := nouns.Operations.Update(ctx, op); err != nil {
		t.Fatal(err)
	}
	early, late := &zarpa.Exit{Reason: "it died"}, &zarpa.Exit{Reason: "it died", Ready: true}
	for _, c := range []struct {
		name     string
		replicas []zarpa.Replica
		want     zarpa.EndpointPhase
	}{
		{"is not there yet, after a restart", nil, zarpa.EndpointDegraded},
		{"starts", []zarpa.Replica{{Phase: zarpa.ReplicaStarting}}, zarpa.EndpointDegraded},
		{"rests", []zarpa.Replica{{Phase: zarpa.ReplicaBackoff, Last: early}}, zarpa.EndpointFailed},
		{"starts again", []zarpa.Replica{{Phase: zarpa.ReplicaStarting, Last: early}}, zarpa.EndpointFailed},
		{"loads again", []zarpa.Replica{{Phase: zarpa.ReplicaLoading, Last: early}}, zarpa.EndpointFailed},
		{"loads again after it had served", []zarpa.Replica{{Phase: zarpa.ReplicaLoading, Last: late}}, zarpa.EndpointDegraded},
		{"one is ready", []zarpa.Replica{{Phase: zarpa.ReplicaReady}, {Phase: zarpa.ReplicaLoading, Last: early}}, zarpa.EndpointDegraded},
	} {
		err := nouns.Deployments.Put(ctx, zarpa.Observed{
			Endpoint: "iris", Deployment: "blue", Target: "local", Status: zarpa.DeploymentStatus{Replicas: c.replicas},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, answer := s.ask(t, http.MethodGet, "/v1/endpoints/iris", nil)
		var report zarpa.EndpointReport
		if err := json.Unmarshal([]byte(answer), &report); err != nil {
			t.Fatal(err)
		}
		if report.Phase != c.want {
			t.Errorf("a replica that %s: %s, want %s", c.name, report.Phase, c.want)
		}
	}
}

func TestAFurtherDeploymentGetsNoTrafficUntilTold(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	weights := func(answer string) map[string]string {
		var set zarpa.ChangeSet
		if err := json.Unmarshal([]byte(answer), &set); err != nil {
			t.Fatalf("%s: %v", answer, err)
		}
		got := map[string]string{}
		for _, c := range set.Changes {
			if name, ok := strings.CutSuffix(c.Field, ".weight"); ok {
				got[strings.TrimPrefix(name, "deployments.")] = c.To
			}
		}
		return got
	}
	// A new endpoint: the first in the caller's order.
	_, answer := s.ask(t, http.MethodPut, "/v1/endpoints/new?dry_run=true", `{"deployments": [{"name": "b", "model": "iris"}, {"name": "a", "model": "iris"}]}`)
	if got := weights(answer); got["b"] != "100" || got["a"] != "0" {
		t.Errorf("a new endpoint: %v", got)
	}
	s.ask(t, http.MethodPut, "/v1/endpoints/old", `{"deployments": [{"name": "blue", "model": "iris"}]}`)
	_, answer = s.ask(t, http.MethodPut, "/v1/endpoints/old?dry_run=true", `{"deployments": [{"name": "alpha", "model": "iris"}, {"name": "blue", "model": "iris"}]}`)
	if got := weights(answer); got["blue"] != "100" || got["alpha"] != "0" {
		t.Errorf("a further deployment: %v", got)
	}
	_, answer = s.ask(t, http.MethodPut, "/v1/endpoints/old?dry_run=true", `{"deployments": [{"name": "alpha", "model": "iris", "weight": 5}, {"name": "blue", "model": "iris"}]}`)
	if got := weights(answer); got["alpha"] != "5" || got["blue"] != "" {
		t.Errorf("told: %v", got)
	}
}

func TestADownloadThatBreaksOffLooksBroken(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	m, err := s.store.Nouns().Models.Get(t.Context(), zarpa.ModelRef{Name: "iris"})
	if err != nil {
		t.Fatal(err)
	}
	// A second file whose blob is lost: the first one is sent before that is seen.
	lost, err := s.blobs.Put(t.Context(), strings.NewReader("lost"))
	if err != nil {
		t.Fatal(err)
	}
	m.Content.Files = append(m.Content.Files, zarpa.File{Path: "zzz", Digest: lost.Digest, Size: lost.Size})
	if _, err := s.store.Nouns().Models.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := s.blobs.Delete(t.Context(), lost.Digest); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.http.URL+"/v1/models/iris:2/content", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	resp, err := s.http.Client().Do(req)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Errorf("the download ended as if it was whole, with %s", resp.Status)
	}
}

func TestWaitingForAnOperationEndsInTime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	_, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris", `{"deployments": [{"name": "blue", "model": "iris"}]}`)
	var set zarpa.ChangeSet
	if err := json.Unmarshal([]byte(answer), &set); err != nil {
		t.Fatal(err)
	}
	code, answer := s.ask(t, http.MethodGet, "/v1/operations/"+set.Operation.ID+"?after=0&wait=10ms", nil)
	if code != 200 || !strings.Contains(answer, `"running"`) {
		t.Errorf("%d %s", code, answer)
	}
	if code, answer := s.ask(t, http.MethodGet, "/v1/operations/"+set.Operation.ID+"?wait=10", nil); code != 400 || !strings.Contains(answer, "wait") {
		t.Errorf("%d %s", code, answer)
	}
}
