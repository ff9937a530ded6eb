package api_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/registry"
)

// registryServer has a registry; its changes are in the audit log.
func registryServer(t *testing.T) *server {
	t.Helper()
	var s *server
	reg, err := registry.Open(t.Context(), registry.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s = startServer(t, api.Options{Registry: reg})
	return s
}

// named makes a named token of a role.
func (s *server) named(t *testing.T, role string) string {
	t.Helper()
	code, answer := s.ask(t, "POST", "/v1/accesses", fmt.Sprintf(`{"name": %q, "role": %q}`, role, role))
	_, token, ok := strings.Cut(answer, `"token":"`)
	if code != 201 || !ok {
		t.Fatalf("%d %s", code, answer)
	}
	token, _, _ = strings.Cut(token, `"`)
	return token
}

func TestTheRegistryAsksForTokensAndRoles(t *testing.T) {
	t.Parallel()
	s := registryServer(t)
	tokens := map[string]string{"": "", "wrong": "nobody's", "viewer": s.named(t, "viewer"), "deployer": s.named(t, "deployer"), "admin": "secret"}
	call := func(method, path, token string, basic bool) (int, string, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case token != "" && basic:
			req.SetBasicAuth("anybody", token)
		case token != "":
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := s.http.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 1000)
		n, _ := resp.Body.Read(b)
		return resp.StatusCode, string(b[:n]), resp.Header
	}
	for _, c := range []struct {
		method, path string
		codes        map[string]int
	}{
		{"GET", "/v2/", map[string]int{"": 401, "wrong": 401, "viewer": 200, "deployer": 200, "admin": 200}},
		{"GET", "/v2/a/tags/list", map[string]int{"": 401, "wrong": 401, "viewer": 404, "deployer": 404, "admin": 404}},
		{"POST", "/v2/a/blobs/uploads/", map[string]int{"": 401, "wrong": 401, "viewer": 403, "deployer": 202, "admin": 202}},
		{"DELETE", "/v2/a/manifests/x", map[string]int{"": 401, "wrong": 401, "viewer": 403, "deployer": 403, "admin": 404}},
		{"DELETE", "/v2/a/blobs/uploads/manifests/x", map[string]int{"viewer": 403, "deployer": 403, "admin": 404}},
		{"DELETE", "/v2/a/blobs/uploads/blobs/sha256:" + strings.Repeat("0", 64), map[string]int{"deployer": 403, "admin": 404}},
		{"DELETE", "/v2%2Fa%2Fmanifests%2Fx", map[string]int{"": 401, "viewer": 403, "deployer": 403, "admin": 404}},
		{"OPTIONS", "/v2/a/blobs/uploads/x", map[string]int{"": 401, "viewer": 403}},
		{"DELETE", "/v2/a/blobs/uploads/x", map[string]int{"viewer": 403, "deployer": 404, "admin": 404}},
	} {
		for who, want := range c.codes {
			for _, basic := range []bool{true, false} {
				code, body, header := call(c.method, c.path, tokens[who], basic)
				if code != want {
					t.Errorf("%s %s by %q: %d %s, want %d", c.method, c.path, who, code, body, want)
				}
				if code == 401 && (header.Get("WWW-Authenticate") != `Basic realm="zarpa"` || !strings.Contains(body, `"code":"UNAUTHORIZED"`)) {
					t.Errorf("%s by %q: %v %s", c.path, who, header, body)
				}
				if code == 403 && !strings.Contains(body, `"code":"DENIED"`) {
					t.Errorf("%s by %q: %s", c.path, who, body)
				}
			}
		}
	}
	// a revoked token ends with the next call
	if code, answer := s.ask(t, "POST", "/v1/accesses/viewer/revoke", nil); code != 204 {
		t.Fatalf("%d %s", code, answer)
	}
	if code, body, _ := call("GET", "/v2/", tokens["viewer"], true); code != 401 || !strings.Contains(body, "was revoked") {
		t.Errorf("%d %s", code, body)
	}
}

func TestPushesAreInTheAuditLog(t *testing.T) {
	t.Parallel()
	s := newServer(t) // its store gets the entries
	reg, err := registry.Open(t.Context(), registry.Options{Dir: t.TempDir(), Changed: api.RegistryChanged(s.store, slog.New(slog.DiscardHandler).Warn)})
	if err != nil {
		t.Fatal(err)
	}
	with := startServer(t, api.Options{Registry: reg})
	img, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref := strings.TrimPrefix(with.http.URL, "http://") + "/models/iris:1"
	auth := crane.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "ana", Password: with.named(t, "deployer")}))
	if err := crane.Push(img, ref, auth); err != nil {
		t.Fatal(err)
	}
	if err := crane.Delete(ref, auth); err == nil || !strings.Contains(err.Error(), "DENIED") {
		t.Errorf("a deployer deletes: %v", err)
	}
	code, answer := s.ask(t, "GET", "/v1/audit?object=image/models/iris:1", nil)
	if code != 200 || !strings.Contains(answer, `"action":"image.push"`) || !strings.Contains(answer, `"who":"deployer"`) {
		t.Errorf("%d %s", code, answer)
	}
}

func TestWithoutARegistryThereIsNone(t *testing.T) {
	t.Parallel()
	if code, answer := newServer(t).ask(t, "GET", "/v2/", nil); code != 404 {
		t.Errorf("%d %s", code, answer)
	}
}
