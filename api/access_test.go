package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/internal/scoringtoken"
)

// as sends a request with a token of its own and returns status and body.
func (s *server) as(t *testing.T, token, call, body string) (int, string) {
	t.Helper()
	method, path, _ := strings.Cut(call, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
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

// grant makes a named token.
func (s *server) grant(t *testing.T, name string, role zarpa.Role) string {
	t.Helper()
	code, answer := s.as(t, "secret", "POST /v1/accesses", fmt.Sprintf(`{"name": %q, "role": %q}`, name, role))
	var g zarpa.AccessGrant
	if err := json.Unmarshal([]byte(answer), &g); err != nil || code != http.StatusCreated || g.Token == "" {
		t.Fatalf("create access: %d %s", code, answer)
	}
	return g.Token
}

// log reads the audit log as the admin.
func (s *server) log(t *testing.T, query string) []zarpa.AuditEntry {
	t.Helper()
	code, answer := s.as(t, "secret", "GET /v1/audit?"+query, "")
	var list []zarpa.AuditEntry
	if err := json.Unmarshal([]byte(answer), &list); err != nil || code != http.StatusOK {
		t.Fatalf("audit: %d %s", code, answer)
	}
	return list
}

const putIris = `{"deployments": [{"name": "blue", "model": "iris", "env": {"PASSWORD": "hunter2"}}]}`

func TestRolesBoundWhatATokenDoes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	if code, answer := s.as(t, "secret", "PUT /v1/endpoints/iris", putIris); code != http.StatusOK {
		t.Fatalf("%d %s", code, answer)
	}
	tokens := map[string]string{}
	for _, role := range []zarpa.Role{zarpa.RoleViewer, zarpa.RoleDeployer, zarpa.RoleAdmin} {
		tokens[string(role)] = s.grant(t, "the-"+string(role), role)
	}
	for _, c := range []struct {
		call, body string
		need       string
	}{
		{"GET /v1/endpoints", "", "viewer"},
		{"GET /v1/models/iris", "", "viewer"},
		{"GET /v1/server", "", "viewer"},
		{"GET /v1/signing-keys", "", "viewer"},
		{"GET /v1/endpoints/iris/keys", "", "deployer"},
		{"POST /v1/endpoints/iris/keys/primary", "", "deployer"},
		{"POST /v1/endpoints/iris/token", "{}", "deployer"},
		{"PUT /v1/endpoints/iris?dry_run=true", putIris, "deployer"},
		{"PUT /v1/endpoints/iris", "{", "deployer"}, // refused before the body is looked at
		{"GET /v1/audit?object=iris", "", "deployer"},
		{"GET /v1/audit", "", "admin"},
		{"GET /v1/audit?object=access/the-viewer", "", "admin"},
		{"GET /v1/accesses", "", "admin"},
		{"POST /v1/accesses", `{"name": "x", "role": "admin"}`, "admin"},
		{"POST /v1/signing-keys", "", "admin"},
	} {
		allowed := false
		for _, role := range []string{"viewer", "deployer", "admin"} {
			allowed = allowed || role == c.need
			code, answer := s.as(t, tokens[role], c.call, c.body)
			if allowed == (code == http.StatusForbidden) {
				t.Errorf("%s as %s: %d %s; it needs %s", c.call, role, code, answer, c.need)
			}
			if !allowed && (!strings.Contains(answer, "needs the role ") || !strings.Contains(answer, `\"the-`+role+`\" has `+role)) {
				t.Errorf("%s as %s: %s; want the role needed and the role had", c.call, role, answer)
			}
		}
	}
	if code, answer := s.as(t, tokens["viewer"], "GET /v1/nothing", ""); code != http.StatusNotFound {
		t.Errorf("a call that there is not: %d %s", code, answer)
	}
}

func TestNamedTokensEndWhenTheyAreEnded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := newServerAt(t, func() time.Time { return now })
	revoked, deleted := s.grant(t, "revoked", zarpa.RoleViewer), s.grant(t, "deleted", zarpa.RoleViewer)
	code, answer := s.as(t, "secret", "POST /v1/accesses", `{"name": "short", "role": "viewer", "lifetime": "1h"}`)
	var short zarpa.AccessGrant
	if err := json.Unmarshal([]byte(answer), &short); err != nil || code != http.StatusCreated || !short.Access.Expires.Equal(now.Add(time.Hour)) {
		t.Fatalf("%d %s", code, answer)
	}
	expect := func(token string, code int, want string) {
		t.Helper()
		if got, answer := s.as(t, token, "GET /v1/models", ""); got != code || !strings.Contains(answer, want) {
			t.Errorf("%d %s; want %d with %q", got, answer, code, want)
		}
	}
	for _, token := range []string{revoked, deleted, short.Token} {
		expect(token, http.StatusOK, "[]")
	}
	if code, answer := s.as(t, "secret", "POST /v1/accesses", `{"name": "short", "role": "admin"}`); code != http.StatusConflict {
		t.Errorf("a taken name: %d %s", code, answer)
	}
	for _, call := range []string{"POST /v1/accesses/revoked/revoke", "POST /v1/accesses/revoked/revoke", "DELETE /v1/accesses/deleted"} {
		if code, answer := s.as(t, "secret", call, ""); code != http.StatusNoContent {
			t.Errorf("%s: %d %s", call, code, answer)
		}
	}
	for _, call := range []string{"POST /v1/accesses/nobody/revoke", "DELETE /v1/accesses/nobody"} {
		if code, answer := s.as(t, "secret", call, ""); code != http.StatusNotFound || !strings.Contains(answer, "zarpa access list") {
			t.Errorf("%s: %d %s", call, code, answer)
		}
	}
	now = now.Add(time.Hour)
	expect(revoked, http.StatusUnauthorized, "was revoked at 2026-01-02 03:04")
	expect(deleted, http.StatusUnauthorized, "missing or wrong")
	expect(short.Token, http.StatusUnauthorized, "expired at 2026-01-02 04:04")
	code, answer = s.as(t, "secret", "GET /v1/accesses", "")
	if code != http.StatusOK || strings.Contains(answer, short.Token) || strings.Contains(answer, "digest") {
		t.Errorf("the list: %d %s", code, answer)
	}
}

func TestChangesAreAuditedAndWhatFailedIsNot(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	ci := s.grant(t, "ci", zarpa.RoleDeployer)
	for _, c := range []struct {
		call, body string
		code       int
	}{
		{"PUT /v1/endpoints/iris", putIris, 200},
		{"PUT /v1/endpoints/iris", putIris, 200}, // no change
		{"PUT /v1/endpoints/rose?dry_run=true", putIris, 200},
		{"PUT /v1/endpoints/iris", `{"deployments": [{"name": "blue", "model": "iris", "replicas": 2}]}`, 409},
		{"PUT /v1/endpoints/iris", `{"deployments": [{"name": "blue", "model": "none"}]}`, 404},
		{"POST /v1/endpoints/iris/keys/secondary", "", 200},
		{"PUT /v1/endpoints/iris/keys/primary", `{"value": "my own key of some length"}`, 400},
		{"PUT /v1/endpoints/iris/keys/primary", `{"value": "my-own-key-of-some-length"}`, 200},
		{"POST /v1/endpoints/iris/token", `{}`, 201},
		{"PATCH /v1/models/iris:1", `{"set_tags": {"stage": "prod"}}`, 200},
		{"DELETE /v1/models/iris:1", "", 409},
		{"POST /v1/accesses", `{"name": "x", "role": "admin"}`, 403},
	} {
		if code, answer := s.as(t, ci, c.call, c.body); code != c.code {
			t.Errorf("%s: %d %s, want %d", c.call, code, answer, c.code)
		}
	}
	var got []string
	for _, e := range s.log(t, "") {
		line := fmt.Sprintf("%s %s %s %s", e.Who, e.Role, e.Action, e.Object)
		if e.Refused != "" {
			line += " refused"
		}
		got = append(got, line)
		if e.Address != "127.0.0.1" || e.RequestID == "" || e.At.IsZero() {
			t.Errorf("%s: from %q, request %q, at %v", line, e.Address, e.RequestID, e.At)
		}
	}
	slices.Reverse(got)
	want := []string{
		"admin admin model.register iris:1", "admin admin access.create access/ci",
		"ci deployer endpoint.create iris", "ci deployer key.regenerate iris", "ci deployer key.set iris",
		"ci deployer token.create iris", "ci deployer model.update iris:1", "ci deployer access.create /v1/accesses refused",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	update := s.log(t, "object=iris:1&limit=1")[0]
	if !slices.Equal(update.Changes, []zarpa.Change{{Field: "tags.stage", To: "prod"}}) {
		t.Errorf("the model's update: %+v", update.Changes)
	}
	if n := len(s.log(t, "since="+url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339)))); n != 0 {
		t.Errorf("%d entries of the future", n)
	}
	_, whole := s.as(t, "secret", "GET /v1/audit", "")
	_, keys := s.as(t, ci, "GET /v1/endpoints/iris/keys", "")
	var pair zarpa.KeyPair
	if err := json.Unmarshal([]byte(keys), &pair); err != nil || pair.Primary != "my-own-key-of-some-length" {
		t.Fatalf("keys: %s", keys)
	}
	for _, secret := range []string{ci, pair.Primary, pair.Secondary, "hunter2"} {
		if strings.Contains(whole, secret) {
			t.Errorf("the log holds a secret: %s", whole)
		}
	}
	// A deployer sees what was done to an endpoint, and not from where.
	code, answer := s.as(t, ci, "GET /v1/audit?object=iris", "")
	if code != http.StatusOK || !strings.Contains(answer, "key.regenerate") || strings.Contains(answer, "127.0.0.1") {
		t.Errorf("as a deployer: %d %s", code, answer)
	}
}

func TestRefusedCallsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newServerAt(t, func() time.Time { return now })
	viewer := s.grant(t, "ci", zarpa.RoleViewer)
	for range 50 {
		if code, answer := s.as(t, viewer, "GET /v1/accesses", ""); code != http.StatusForbidden {
			t.Fatalf("%d %s", code, answer)
		}
	}
	refusals := func() (n int) {
		for _, e := range s.log(t, "") {
			if e.Refused != "" {
				n++
			}
		}
		return n
	}
	if n := refusals(); n != 10 {
		t.Errorf("%d of 50 are in the log, want 10", n)
	}
	now = now.Add(time.Minute)
	s.as(t, viewer, "GET /v1/accesses", "")
	if n := refusals(); n != 11 {
		t.Errorf("%d a minute later, want 11", n)
	}
	// Strangers are not logged at all.
	s.as(t, "wrong", "GET /v1/accesses", "")
	if n := refusals(); n != 11 {
		t.Errorf("%d after a stranger's call, want 11", n)
	}
}

func TestScoringTokensAreSignedByTheCurrentKey(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	s := newServerAt(t, func() time.Time { return now })
	s.register(t, "iris")
	s.as(t, "secret", "PUT /v1/endpoints/iris", putIris)
	token := func() zarpa.ScoringToken {
		t.Helper()
		code, answer := s.as(t, "secret", "POST /v1/endpoints/iris/token", `{"lifetime": "10m"}`)
		var st zarpa.ScoringToken
		if err := json.Unmarshal([]byte(answer), &st); err != nil || code != http.StatusCreated {
			t.Fatalf("%d %s", code, answer)
		}
		return st
	}
	first := token()
	if !first.Expires.Equal(now.Add(10*time.Minute)) || !first.RefreshBy.Equal(now.Add(8*time.Minute)) || first.Type != "Bearer" {
		t.Errorf("the token: %+v at %v", first, now)
	}
	valid := func(st zarpa.ScoringToken) bool {
		t.Helper()
		v, err := scoringtoken.NewVerifier(s.signing.VerifyKeys())
		if err != nil {
			t.Fatal(err)
		}
		c, err := v.Verify(st.Token, now)
		return err == nil && c.Endpoint == "iris" && c.Subject == "admin" && c.RefreshBy.Equal(st.RefreshBy)
	}
	rotate := func() {
		t.Helper()
		if code, answer := s.as(t, "secret", "POST /v1/signing-keys", ""); code != http.StatusOK || strings.Contains(answer, "seed") {
			t.Fatalf("%d %s", code, answer)
		}
	}
	if !valid(first) {
		t.Error("a new token is not valid")
	}
	rotate()
	second := token()
	if !valid(first) || !valid(second) {
		t.Errorf("after one rotation: the token before %t, the new one %t", valid(first), valid(second))
	}
	rotate()
	if valid(first) || !valid(second) {
		t.Errorf("after two: the token of two keys before %t, of one before %t", valid(first), valid(second))
	}
	for _, c := range []struct {
		call, body string
		code       int
		want       string
	}{
		{"POST /v1/endpoints/rose/token", "{}", 404, "zarpa endpoint list"},
		{"POST /v1/endpoints/iris/token", `{"lifetime": "25h"}`, 400, "between 1m and 24h"},
		{"POST /v1/endpoints/iris/token", `{"lifetime": "1s"}`, 400, "between 1m and 24h"},
		{"POST /v1/endpoints/iris/token", `{"life": "1h"}`, 400, "life"},
		{"PUT /v1/endpoints/iris/keys/primary", `{"value": "short"}`, 400, "between 16 and 256"},
		{"PUT /v1/endpoints/iris/keys/third", `{"value": "0123456789abcdef"}`, 400, "primary or secondary"},
	} {
		if code, answer := s.as(t, "secret", c.call, c.body); code != c.code || !strings.Contains(answer, c.want) {
			t.Errorf("%s %s: %d %s, want %d with %q", c.call, c.body, code, answer, c.code, c.want)
		}
	}
}

// issued stands for an issuer: the name of the bearer is the first part of the token, the role the last.
type issued struct{}

func (issued) Identify(_ context.Context, token string) (string, zarpa.Role, error) {
	parts := strings.Split(token, ".")
	if parts[1] != "good" {
		return "", "", zarpa.Errorf(zarpa.Unauthenticated, "not of the issuer")
	}
	return parts[0], zarpa.Role(parts[2]), nil
}

func TestTokensOfAnIssuerAreTakenBesideOurs(t *testing.T) {
	t.Parallel()
	s := startServer(t, api.Options{Identifier: issued{}})
	for _, c := range []struct {
		token string
		code  int
		want  string
	}{
		{"ana.good.viewer", 200, "[]"},
		{"ana.good.", 403, `\"ana\" has none`},
		{"ana.bad.admin", 401, "not of the issuer"},
		{"ana.good.viewer.more", 401, "missing or wrong"},
		{s.grant(t, "ci", zarpa.RoleViewer), 200, "[]"},
		{"secret", 200, "[]"},
	} {
		if code, answer := s.as(t, c.token, "GET /v1/models", ""); code != c.code || !strings.Contains(answer, c.want) {
			t.Errorf("%s: %d %s, want %d with %q", c.token, code, answer, c.code, c.want)
		}
	}
	if e := s.log(t, "object=/v1/models")[0]; e.Who != "ana" || e.Action != "model.list" || e.Refused == "" {
		t.Errorf("the refusal: %+v", e)
	}
}
