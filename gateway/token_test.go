package gateway_test

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
	"github.com/zarpa-dev/zarpa/internal/scoringtoken"
)

// signer is a key that signs scoring tokens.
func signer(id string) (ed25519.PrivateKey, zarpa.VerifyKey) {
	private := ed25519.NewKeyFromSeed([]byte(strings.Repeat(id, ed25519.SeedSize)[:ed25519.SeedSize]))
	return private, zarpa.VerifyKey{ID: id, Public: private.Public().(ed25519.PublicKey)}
}

// token is one for an endpoint, signed by the key of an id, that ends at a time from now.
func token(t testing.TB, id, endpoint string, left time.Duration) string {
	t.Helper()
	private, _ := signer(id)
	s, err := scoringtoken.Sign(private, id, scoringtoken.Claims{
		Endpoint: endpoint, Subject: "ci", Issued: time.Now().Add(-time.Hour), Expires: time.Now().Add(left),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func authorized(secret string) string {
	if secret == "-" {
		return secret
	}
	return "Bearer " + secret
}

// setKeys brings routes into use in which the keys of ids sign.
func (g *running) setKeys(ids []string, routes ...zarpa.Route) {
	g.t.Helper()
	r := zarpa.Routes{Revision: g.revision.Add(1), Endpoints: routes}
	for _, id := range ids {
		_, k := signer(id)
		r.VerifyKeys = append(r.VerifyKeys, k)
	}
	if err := g.SetRoutes(context.Background(), r); err != nil {
		g.t.Fatal(err)
	}
}

func TestTokensOpenTheirEndpoint(t *testing.T) {
	t.Parallel()
	address := replica(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	both, tokens, open := route(address), route(address), route(address)
	tokens.Endpoint, tokens.Auth = "rank", zarpa.AuthToken
	open.Endpoint, open.Auth = "open", zarpa.AuthNone
	g := start(t)
	g.setKeys([]string{"k1", "k2"}, both, tokens, open)
	for name, c := range map[string]struct {
		endpoint, key string
		status        int
		challenge     string
	}{
		"a token":                      {"iris", token(t, "k1", "iris", time.Hour), 200, ""},
		"another key's":                {"iris", token(t, "k2", "iris", time.Hour), 200, ""},
		"the endpoint's key":           {"iris", key, 200, ""},
		"a token where keys are none":  {"rank", token(t, "k1", "rank", time.Hour), 200, ""},
		"a key where tokens alone are": {"rank", key, 401, `error="invalid_token", error_description="the endpoint takes scoring tokens alone, and this is none"`},
		"nothing":                      {"rank", "-", 401, `Bearer realm="rank"`},
		"a wrong key":                  {"iris", "wrong", 401, `Bearer realm="iris", error="invalid_token"`},
		"another endpoint's":           {"iris", token(t, "k1", "rank", time.Hour), 401, `error_description="the token is for another endpoint"`},
		"expired":                      {"iris", token(t, "k1", "iris", -time.Minute), 401, `error_description="the token has expired"`},
		"a key that nobody knows":      {"iris", token(t, "k3", "iris", time.Hour), 401, `error_description="the token was signed by a key that is not known here, or no longer"`},
		"anything where all may":       {"open", "a.b.c", 200, ""},
	} {
		for range 2 { // the second time what was verified is remembered
			r := g.do(t.Context(), call{path: "/endpoints/" + c.endpoint + "/score", key: authorized(c.key), body: "x"})
			if r.status != c.status || !strings.Contains(r.header.Get("WWW-Authenticate"), c.challenge) {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	r := g.do(t.Context(), call{method: "GET", path: "/v2/repository/index", key: authorized(token(t, "k1", "rank", time.Hour))})
	if r.status != 200 || !strings.Contains(r.body, "rank") || strings.Contains(r.body, "iris") {
		t.Errorf("the index: %+v", r)
	}
}

func TestRevokedKeysEndTheirTokensAtOnce(t *testing.T) {
	t.Parallel()
	r := route(replica(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }))
	g := start(t)
	old, fresh := token(t, "k1", "iris", time.Hour), token(t, "k2", "iris", time.Hour)
	want := func(token string, status int) {
		t.Helper()
		if got := g.do(t.Context(), call{key: authorized(token), body: "x"}); got.status != status {
			t.Errorf("%+v, want %d", got, status)
		}
	}
	g.setKeys([]string{"k1"}, r)
	want(old, 200)
	want(fresh, 401)
	g.setKeys([]string{"k1", "k2"}, r) // while both are known
	want(old, 200)
	want(fresh, 200)
	g.setKeys([]string{"k2"}, r)
	want(old, 401)
	want(fresh, 200)
	g.setKeys(nil, r)
	want(fresh, 401)
	want(key, 200)
}

func TestKeysThatCannotVerifyAreRefused(t *testing.T) {
	t.Parallel()
	g := start(t)
	err := g.SetRoutes(t.Context(), zarpa.Routes{Revision: 9, VerifyKeys: []zarpa.VerifyKey{{ID: "k"}}})
	if e := zarpa.AsError(err); e == nil || e.Code != zarpa.Invalid || !strings.Contains(e.Message, "verify_keys[0]") {
		t.Error(err)
	}
	r := route()
	r.Auth = "guess"
	if err := g.SetRoutes(t.Context(), zarpa.Routes{Revision: 9, Endpoints: []zarpa.Route{r}}); err == nil || !strings.Contains(err.Error(), "key, token or none") {
		t.Error(err)
	}
}

func TestTokensInMetadata(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		r := g.Routes()
		_, k := signer("k1")
		r.VerifyKeys, r.Revision = []zarpa.VerifyKey{k}, r.Revision+1
		if err := g.SetRoutes(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		in := &inferencepb.ModelInferRequest{ModelName: "iris"}
		for _, named := range [][]string{nil, {"zarpa-endpoint", "iris"}} {
			infer := func(token string) error {
				_, err := c.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), append(named, "authorization", "Bearer "+token)...), in)
				return err
			}
			if err := infer(token(t, "k1", "iris", time.Hour)); err != nil {
				t.Error(err)
			}
			wantCode(t, infer(token(t, "k1", "rank", time.Hour)), codes.Unauthenticated, "")
			wantCode(t, infer(token(t, "k2", "iris", time.Hour)), codes.Unauthenticated, "")
			wantCode(t, infer(token(t, "k1", "iris", -time.Hour)), codes.Unauthenticated, "")
		}
	}, speaks(&speaker{}))
}
