package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func TestIndexListsWhatTheKeyOpens(t *testing.T) {
	t.Parallel()
	a, _ := (&speaker{}).address(t)
	public, mine, other := route(a), route(a), route()
	public.Endpoint, public.Auth, public.Keys = "public", zarpa.AuthNone, nil
	mine.Endpoint = "mine"
	other.Endpoint, other.Keys = "other", [][]byte{zarpa.KeyDigest("another")}
	empty := route()
	empty.Endpoint = "empty"
	g := serve(t, public, mine, other, empty)
	c := dial(t, g.public)
	for _, q := range []struct {
		key, body, names string
		ready            bool
	}{
		{"", "", "empty mine public", false},
		{"", "{}", "empty mine public", false},
		{"", `{"ready":true}`, "mine public", true},
		{"-", "", "public", false},
		{"Bearer another", "", "other public", false},
	} {
		r := g.want(call{path: "/v2/repository/index", key: q.key, body: q.body}, 200, "[")
		var list []struct{ Name, State, Reason string }
		if err := json.Unmarshal([]byte(r.body), &list); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range list {
			names = append(names, e.Name)
			if (e.State == "READY") != (e.Reason == "") || (e.State == "READY") != (e.Name == "mine" || e.Name == "public") {
				t.Errorf("%+v", e)
			}
		}
		if strings.Join(names, " ") != q.names {
			t.Errorf("%+v: %v", q, names)
		}
		ctx := with(t.Context())
		if q.key != "" {
			ctx = t.Context()
		}
		if strings.HasPrefix(q.key, "Bearer ") {
			continue
		}
		index, err := c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{Ready: q.ready})
		if err != nil || len(index.GetModels()) != len(list) || index.GetModels()[0].GetName() != names[0] || index.GetModels()[0].GetState() != list[0].State {
			t.Errorf("%v %v, want %v", index, err, list)
		}
	}
	g.want(call{path: "/v2/repository/index", key: "Bearer wrong"}, 401, "opens no endpoint")
	g.want(call{path: "/v2/repository/index", body: "[1"}, 400, "request body")
	g.want(call{path: "/v2/repository/index", body: strings.Repeat(" ", 100<<10)}, 413, "request body")
	// tritonclient sends neither a body nor a length.
	if status, body := g.raw(t, "POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); status != 200 || !strings.Contains(body, "public") {
		t.Errorf("%d %s", status, body)
	}
}

// loads counts what replicas were told to load.
type loads struct {
	mu   sync.Mutex
	seen map[string]int
}

// replica is one that keeps what it is told to load, or refuses.
func (l *loads) replica(t *testing.T, name string, status int) zarpa.RouteReplica {
	return zarpa.RouteReplica{ID: name, Address: replica(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		l.seen[name+" "+r.URL.Path+" "+string(b)+r.Header.Get("Authorization")]++
		l.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status >= 400 {
			_, _ = fmt.Fprintf(w, `{"error":"%s cannot"}`, name)
		}
	})}
}

func TestLoadReachesEveryReplica(t *testing.T) {
	t.Parallel()
	l := &loads{seen: map[string]int{}}
	r := route()
	r.Deployments = []zarpa.RouteDeployment{
		{
			Name: "blue", Weight: 100, MaxConcurrency: 1, ModelControl: zarpa.ModelControlExplicit,
			Replicas: []zarpa.RouteReplica{l.replica(t, "a", 200), l.replica(t, "b", 200)},
		},
		{Name: "green", MaxConcurrency: 1, ModelControl: zarpa.ModelControlExplicit, Replicas: []zarpa.RouteReplica{l.replica(t, "c", 200)}},
		{Name: "fixed", MaxConcurrency: 1, Replicas: []zarpa.RouteReplica{l.replica(t, "d", 200)}},
	}
	g := start(t, r)
	large := `{"parameters":{"config":"` + strings.Repeat("x", 100<<10) + `"}}`
	g.want(call{path: "/v2/repository/models/iris/load", body: "{}"}, 200, "")
	g.want(call{path: "/endpoints/iris/v2/repository/models/m/unload", body: large}, 200, "")
	g.want(call{path: "/v2/repository/models/iris/load", header: http.Header{"Zarpa-Deployment": {"green"}}}, 200, "")
	for name, want := range map[string]int{"a": 1, "b": 1, "c": 1, "d": 0} {
		if n := l.seen[name+" /v2/repository/models/iris/load {}"]; n != want {
			t.Errorf("%s: %d, want %d", name, n, want)
		}
		if n := l.seen[name+" /v2/repository/models/m/unload "+large]; n != want {
			t.Errorf("%s: unload %d, want %d", name, n, want)
		}
	}
	if len(l.seen) != 7 {
		t.Errorf("%d kinds of requests", len(l.seen))
	}
	g.want(call{path: "/v2/repository/models/iris/load", key: "-"}, 401, "key")
	g.want(call{path: "/v2/repository/models/iris/load", body: strings.Repeat("x", 2<<20)}, 413, "max_body")
	g.want(call{path: "/v2/repository/models/iris/load", header: http.Header{"Zarpa-Deployment": {"fixed"}}}, 400, "model_control")
	g.want(call{path: "/v2/repository/models/iris/load", header: http.Header{"Zarpa-Deployment": {"none"}}}, 404, "no deployment")
	r.Deployments[1].Replicas = append(r.Deployments[1].Replicas, l.replica(t, "e", 400), l.replica(t, "f", 500))
	g.set(r)
	g.want(call{path: "/v2/repository/models/iris/load"}, 400, "e cannot")
	r.Deployments[0].Replicas = append(r.Deployments[0].Replicas, zarpa.RouteReplica{ID: "gone", Address: "unix:/nowhere"})
	g.set(r)
	g.want(call{path: "/v2/repository/models/iris/load"}, 502, "Replica closed")
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
	g.metric(t, `zarpa_gateway_in_flight{deployment="green",endpoint="iris"} 0`)
	r.Deployments[0].Replicas, r.Deployments[1].Replicas = nil, nil
	g.set(r)
	g.want(call{path: "/v2/repository/models/iris/load"}, 503, "No ready replicas")
}

func TestLoadReachesEveryReplicaByGRPC(t *testing.T) {
	t.Parallel()
	good := &speaker{load: func(string) error { return nil }}
	bad := &speaker{load: func(name string) error { return errors.New(name + " cannot") }}
	a, _ := good.address(t)
	b, _ := good.address(t)
	x, _ := bad.address(t)
	r := route(a, b)
	r.Deployments[0].ModelControl = zarpa.ModelControlExplicit
	g := serve(t, r)
	c := dial(t, g.native)
	if _, err := c.RepositoryModelLoad(with(t.Context()), &pb.RepositoryModelLoadRequest{ModelName: "iris"}); err != nil || good.calls.Load() != 2 {
		t.Errorf("%v, %d calls", err, good.calls.Load())
	}
	if _, err := c.RepositoryModelLoad(with(t.Context(), "zarpa-endpoint", "iris"), &pb.RepositoryModelLoadRequest{ModelName: "other"}); err != nil {
		t.Error(err)
	}
	_, err := c.RepositoryModelUnload(with(t.Context()), &pb.RepositoryModelUnloadRequest{ModelName: "iris"})
	wantCode(t, err, codes.Unimplemented, "RepositoryModelUnload") // the replica's word
	bad1 := route(a, x)
	bad1.Deployments[0].ModelControl = zarpa.ModelControlExplicit
	g.set(bad1)
	_, err = c.RepositoryModelLoad(with(t.Context()), &pb.RepositoryModelLoadRequest{ModelName: "iris"})
	wantCode(t, err, codes.Unknown, "iris cannot")
	gone := route(a, "unix:/nowhere")
	gone.Deployments[0].ModelControl = zarpa.ModelControlExplicit
	g.set(gone)
	_, err = c.RepositoryModelLoad(with(t.Context()), &pb.RepositoryModelLoadRequest{ModelName: "iris"})
	wantCode(t, err, codes.Unknown, "Replica closed connection") // and not where it was
	g.set(route(a))
	_, err = c.RepositoryModelLoad(with(t.Context()), &pb.RepositoryModelLoadRequest{ModelName: "iris"})
	wantCode(t, err, codes.InvalidArgument, "model_control")
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
}

func TestLoadEndsInTime(t *testing.T) {
	t.Parallel()
	h := newHeld()
	r := route(replica(t, h.serve))
	r.RequestTimeout = zarpa.Duration(200 * time.Millisecond)
	r.Deployments[0].ModelControl = zarpa.ModelControlExplicit
	g := start(t, r)
	g.want(call{path: "/v2/repository/models/iris/load", body: "{}"}, 504, "Scoring timeout")
	eventually(t, "the work at the replica ends", func() bool { return h.now.Load() == 0 })
}
