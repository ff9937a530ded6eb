package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/oidc"
)

// issuer publishes its configuration and keys over HTTP, and signs.
type issuer struct {
	http  *httptest.Server
	key   *ecdsa.PrivateKey
	down  atomic.Bool
	asked atomic.Int64 // for its keys
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		if i.down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.http.URL, "jwks_uri": i.http.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	})
	i.http = httptest.NewServer(mux)
	t.Cleanup(i.http.Close)
	return i
}

// sign makes a token with further claims; nil leaves one out.
func (i *issuer) sign(t *testing.T, key *ecdsa.PrivateKey, more map[string]any) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": i.http.URL, "aud": "zarpa", "sub": "u-1", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	maps.Copy(claims, more)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func identifier(t *testing.T, i *issuer) *oidc.Identifier {
	t.Helper()
	var rules []oidc.Rule
	for _, text := range []string{"groups=readers:viewer", "groups=ml-admins:admin", "email=ci@example.org:deployer", "urn:x:owner=true:deployer"} {
		r, err := oidc.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	id, err := oidc.New(oidc.Options{Issuer: i.http.URL, Audience: "zarpa", Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestClaimsDecideNameAndRole(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	id := identifier(t, i)
	for _, c := range []struct {
		what   string
		claims map[string]any
		name   string
		role   zarpa.Role
	}{
		{"nothing", nil, "oidc:u-1", ""},
		{"a group", map[string]any{"groups": []string{"others", "readers"}}, "oidc:u-1", zarpa.RoleViewer},
		{"a group that is no list", map[string]any{"groups": "readers"}, "oidc:u-1", zarpa.RoleViewer},
		{"the highest counts", map[string]any{"groups": []string{"ml-admins", "readers"}}, "oidc:u-1", zarpa.RoleAdmin},
		{"a part of a name", map[string]any{"groups": []string{"ml-admins2", "ml-"}}, "oidc:u-1", ""},
		{"an email", map[string]any{"email": "ci@example.org", "email_verified": true}, "ci@example.org", zarpa.RoleDeployer},
		{"an email without a word on it", map[string]any{"email": "a@example.org"}, "a@example.org", ""},
		{"an email that is not verified", map[string]any{"email": "a@example.org", "email_verified": false}, "oidc:u-1", ""},
		{"a subject that is a token's name", map[string]any{"sub": "admin"}, "oidc:admin", ""},
		{"a truth", map[string]any{"urn:x:owner": true}, "oidc:u-1", zarpa.RoleDeployer},
		{"a lie", map[string]any{"urn:x:owner": false}, "oidc:u-1", ""},
	} {
		name, role, err := id.Identify(t.Context(), i.sign(t, i.key, c.claims))
		if err != nil || name != c.name || role != c.role {
			t.Errorf("%s: %q %q %v, want %q %q", c.what, name, role, err, c.name, c.role)
		}
	}
	if n := i.asked.Load(); n != 1 {
		t.Errorf("the keys were asked for %d times, want once", n)
	}
}

func TestTokensOfOthersAreRefused(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	id := identifier(t, i)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	admin := map[string]any{"groups": []string{"ml-admins"}}
	with := func(k string, v any) map[string]any { return map[string]any{"groups": admin["groups"], k: v} }
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"iss": i.http.URL, "aud": "zarpa", "exp": time.Now().Add(time.Hour).Unix()}).
		SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"another's signature": i.sign(t, other, admin),
		"another audience":    i.sign(t, i.key, with("aud", "elsewhere")),
		"another issuer":      i.sign(t, i.key, with("iss", "https://evil.example")),
		"expired":             i.sign(t, i.key, with("exp", time.Now().Add(-time.Minute).Unix())),
		"not signed":          none,
		"no token":            "a.b.c",
	} {
		name, role, err := id.Identify(t.Context(), token)
		if err == nil || zarpa.AsError(err).Code != zarpa.Unauthenticated || name != "" || role != "" {
			t.Errorf("%s: %q %q %v", what, name, role, err)
		}
	}
}

func TestAnIssuerThatIsAwayIsAskedAgain(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	i.down.Store(true)
	id := identifier(t, i)
	token := i.sign(t, i.key, map[string]any{"groups": []string{"readers"}})
	if _, _, err := id.Identify(t.Context(), token); err == nil || zarpa.AsError(err).Code != zarpa.Unavailable {
		t.Fatalf("while it is away: %v", err)
	}
	i.down.Store(false)
	for deadline := time.After(20 * time.Second); ; {
		_, role, err := id.Identify(t.Context(), token)
		if err == nil {
			if role != zarpa.RoleViewer {
				t.Errorf("role %q", role)
			}
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after it came back: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	rule := []oidc.Rule{{Claim: "groups", Value: "a", Role: zarpa.RoleViewer}}
	for want, o := range map[string]oidc.Options{
		"not a URL":     {Issuer: "accounts.example", Audience: "zarpa", Rules: rule},
		"not encrypted": {Issuer: "http://accounts.example", Audience: "zarpa", Rules: rule},
		"oidc-audience": {Issuer: "https://accounts.example", Rules: rule},
		"oidc-roles":    {Issuer: "https://accounts.example", Audience: "zarpa"},
	} {
		if _, err := oidc.New(o); err == nil || zarpa.AsError(err).Code != zarpa.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, text := range []string{"", "groups", "groups=a", "=a:admin", "groups=:admin", "groups=a:root"} {
		if r, err := oidc.ParseRule(text); err == nil {
			t.Errorf("%q: %+v", text, r)
		}
	}
	if r, err := oidc.ParseRule("https://x/roles=urn:a=b:admin"); err != nil || r != (oidc.Rule{Claim: "https://x/roles", Value: "urn:a=b", Role: zarpa.RoleAdmin}) {
		t.Errorf("%+v %v", r, err)
	}
}
