package scoringtoken_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/scoringtoken"
)

func now() time.Time { return time.Unix(1_800_000_000, 0) }

// pair is the n-th key of the tests.
func pair(n byte) (ed25519.PrivateKey, []byte) {
	private := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string('a'+rune(n)), ed25519.SeedSize)))
	return private, private.Public().(ed25519.PublicKey)
}

func claims() scoringtoken.Claims {
	return scoringtoken.Claims{
		Endpoint: "iris", Subject: "ci", ID: "t1", Issued: now(), Expires: now().Add(time.Hour), RefreshBy: now().Add(45 * time.Minute),
	}
}

func sign(t testing.TB, n byte, kid string, c scoringtoken.Claims) string {
	t.Helper()
	private, _ := pair(n)
	token, err := scoringtoken.Sign(private, kid, c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func verifier(t testing.TB) *scoringtoken.Verifier {
	t.Helper()
	_, one := pair(1)
	_, two := pair(2)
	v, err := scoringtoken.NewVerifier([]zarpa.VerifyKey{{ID: "k1", Public: one}, {ID: "k2", Public: two}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWhatWasSignedIsWhatIsRead(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	for n, kid := range map[byte]string{1: "k1", 2: "k2"} {
		got, err := v.Verify(sign(t, n, kid, claims()), now())
		if err != nil || got != claims() {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// forged is a token of any header and claims, signed right with key 1.
func forged(t testing.TB, method jwt.SigningMethod, header, body map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims(body))
	maps.Copy(token.Header, header)
	private, public := pair(1)
	var key any = private
	switch method {
	case jwt.SigningMethodHS256:
		key = public // the usual confusion: a public key as the secret of an HMAC
	case jwt.SigningMethodNone:
		key = jwt.UnsafeAllowNoneSignatureType
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	later := func(d time.Duration) scoringtoken.Claims {
		c := claims()
		c.Expires = now().Add(d)
		return c
	}
	kid := map[string]any{"kid": "k1"}
	body := func(change map[string]any) map[string]any {
		b := map[string]any{"iss": "zarpa", "aud": "iris", "exp": now().Add(time.Hour).Unix()}
		for k, v := range change {
			if b[k] = v; v == nil {
				delete(b, k)
			}
		}
		return b
	}
	ok := sign(t, 1, "k1", claims())
	parts := strings.Split(ok, ".")
	for name, c := range map[string]struct{ token, text string }{
		"expired":            {sign(t, 1, "k1", later(-6*time.Second)), "has expired"},
		"another's key":      {sign(t, 3, "k1", claims()), "signature"},
		"an unknown key":     {sign(t, 1, "k9", claims()), "not known here"},
		"no kid":             {forged(t, jwt.SigningMethodEdDSA, nil, body(nil)), "not known here"},
		"kid is a number":    {forged(t, jwt.SigningMethodEdDSA, map[string]any{"kid": 1}, body(nil)), "not known here"},
		"HMAC of the key":    {forged(t, jwt.SigningMethodHS256, kid, body(nil)), "signature"},
		"unsigned":           {forged(t, jwt.SigningMethodNone, kid, body(nil)), "signature"},
		"another issuer":     {forged(t, jwt.SigningMethodEdDSA, kid, body(map[string]any{"iss": "other"})), "claims"},
		"no issuer":          {forged(t, jwt.SigningMethodEdDSA, kid, body(map[string]any{"iss": nil})), "claims"},
		"never expires":      {forged(t, jwt.SigningMethodEdDSA, kid, body(map[string]any{"exp": nil})), "claims"},
		"not yet":            {forged(t, jwt.SigningMethodEdDSA, kid, body(map[string]any{"nbf": now().Add(time.Minute).Unix()})), "not valid yet"},
		"no endpoint":        {forged(t, jwt.SigningMethodEdDSA, kid, body(map[string]any{"aud": nil})), "names no endpoint"},
		"two endpoints":      {forged(t, jwt.SigningMethodEdDSA, kid, body(map[string]any{"aud": []string{"iris", "rank"}})), "names no endpoint"},
		"another's claims":   {parts[0] + "." + strings.Split(sign(t, 1, "k1", later(2*time.Hour)), ".")[1] + "." + parts[2], "signature"},
		"no signature":       {parts[0] + "." + parts[1] + ".", "signature"},
		"half":               {parts[0] + "." + parts[1], "well formed"},
		"a key":              {"q1goS2M73iIdMwroAuY1hPYGKfo-Jg9jKqDKzc8R9ZE", "well formed"},
		"nothing":            {"", "well formed"},
		"padded":             {ok + "==", "well formed"},
		"longer than we are": {strings.Repeat("a", scoringtoken.MaxLength+1), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := verifier(t).Verify(c.token, now())
			e, is := errors.AsType[*zarpa.Error](err)
			if got != (scoringtoken.Claims{}) || !is || e.Code != zarpa.Unauthenticated || !strings.Contains(e.Message, c.text) || strings.ContainsAny(e.Message, "\"\\\n") {
				t.Errorf("%+v, %v; want %q", got, err, c.text)
			}
		})
	}
	if c, err := verifier(t).Verify(sign(t, 1, "k1", later(-4*time.Second)), now()); err != nil || !c.ValidUntil().After(now()) {
		t.Errorf("within the leeway: %v", err)
	}
}

func TestWhatCannotBeSigned(t *testing.T) {
	t.Parallel()
	private, public := pair(1)
	long := claims()
	long.Subject = strings.Repeat("s", scoringtoken.MaxLength)
	for name, try := range map[string]func() (string, error){
		"a public key": func() (string, error) { return scoringtoken.Sign(ed25519.PrivateKey(public), "k", claims()) },
		"no id":        func() (string, error) { return scoringtoken.Sign(private, "", claims()) },
		"no endpoint": func() (string, error) {
			return scoringtoken.Sign(private, "k", scoringtoken.Claims{Issued: now(), Expires: now()})
		},
		"too long": func() (string, error) { return scoringtoken.Sign(private, "k", long) },
	} {
		if token, err := try(); err == nil || token != "" {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestKeysAreCheckedBeforeTheyAreUsed(t *testing.T) {
	t.Parallel()
	_, public := pair(1)
	for want, keys := range map[string][]zarpa.VerifyKey{
		"verify_keys[0]: no id":                              {{Public: public}},
		"verify_keys[0]: 31 bytes":                           {{ID: "k", Public: public[:31]}},
		"verify_keys[1]: the id \"k\" stands there twice":    {{ID: "k", Public: public}, {ID: "k", Public: public}},
		"verify_keys[1]: 0 bytes, an Ed25519 public key has": {{ID: "k", Public: public}, {ID: "l"}},
	} {
		if _, err := scoringtoken.NewVerifier(keys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// What is taken was signed: no other text than the tokens that were made is, whatever is changed in them.
func FuzzVerify(f *testing.F) {
	genuine := map[string]bool{}
	for n, kid := range map[byte]string{1: "k1", 2: "k2"} {
		token := sign(f, n, kid, claims())
		genuine[token] = true
		f.Add(token)
		f.Add(token[:len(token)-3])
	}
	f.Add(forged(f, jwt.SigningMethodHS256, map[string]any{"kid": "k1"}, map[string]any{"aud": "iris"}))
	header, _ := json.Marshal(map[string]any{"alg": "EdDSA", "kid": []string{"k1"}})
	f.Add(base64.RawURLEncoding.EncodeToString(header) + ".e30.e30")
	v := verifier(f)
	f.Fuzz(func(t *testing.T, token string) {
		c, err := v.Verify(token, now())
		switch {
		case err == nil && (!genuine[token] || c != claims()):
			t.Errorf("%q was taken: %+v", token, c)
		case err != nil && genuine[token]:
			t.Errorf("%q was refused: %v", token, err)
		case err != nil && c != scoringtoken.Claims{}:
			t.Errorf("%q was refused, and read: %+v", token, c)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v, token := verifier(b), sign(b, 1, "k1", claims())
	for b.Loop() {
		if _, err := v.Verify(token, now()); err != nil {
			b.Fatal(err)
		}
	}
}
