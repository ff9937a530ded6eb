package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
)

// engines are targets that tell what was closed.
type engines struct{ closed chan string }

func (engines) Open(_ context.Context, t zarpa.Target, _ bool) (zarpa.Target, error) { return t, nil }

func (e engines) Close(name string) error {
	e.closed <- name
	return nil
}

func TestATargetIsDeletedByForceWhenNothingIsToStayThere(t *testing.T) {
	t.Parallel()
	e := engines{make(chan string, 1)}
	s := startServer(t, api.Options{Targets: e})
	ctx, n := t.Context(), s.store.Nouns()
	far := zarpa.Endpoint{Name: "far", Generation: 1, Created: time.Now(), Spec: zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{{Name: "blue", Model: "m:1", Target: "moon"}}}}
	put := func() {
		t.Helper()
		if err := n.Endpoints.Put(ctx, far); err != nil {
			t.Fatal(err)
		}
		far.Generation++
	}
	if err := n.Targets.Put(ctx, zarpa.Target{Name: "moon", Kind: "container"}); err != nil {
		t.Fatal(err)
	}
	put()
	if err := n.Deployments.Put(ctx, zarpa.Observed{Endpoint: "far", Deployment: "blue", Target: "moon"}); err != nil {
		t.Fatal(err)
	}
	refused := func(path, hint string) {
		t.Helper()
		if code, body := s.ask(t, http.MethodDelete, path, nil); code != http.StatusConflict || !strings.Contains(body, "far/blue is on it") || !strings.Contains(body, hint) {
			t.Fatalf("%s: %d %s", path, code, body)
		}
	}
	refused("/v1/targets/moon", "--force")
	refused("/v1/targets/moon?force=true", "--no-wait")
	far.Deleting = true
	put()
	refused("/v1/targets/moon?force=false", "--force")
	if code, body := s.ask(t, http.MethodDelete, "/v1/targets/moon?force=true", nil); code != http.StatusNoContent || <-e.closed != "moon" {
		t.Fatalf("%d %s", code, body)
	}
}
