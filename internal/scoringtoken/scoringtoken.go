// Package scoringtoken is the form of scoring tokens: short-lived JSON web tokens (RFC 7519) that the
// control plane signs with Ed25519 and a gateway verifies without asking anybody. It keeps no keys and
// no clock.
package scoringtoken

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zarpa-dev/zarpa"
)

const (
	// Issuer is the iss of every token; what others signed is refused even under one of our keys.
	Issuer = "zarpa"
	// Leeway is how far the clocks of control plane and gateway may be apart.
	Leeway = 5 * time.Second
	// MaxLength is the longest token, in bytes: ours have about 300, and a longer one is not looked at.
	MaxLength = 2 << 10
)

// Claims are what a token says. Times are whole seconds on the wire.
type Claims struct {
	// Endpoint is the one that the token opens (aud).
	Endpoint string
	// Subject is who asked for it (sub): limits per key count by it. It may be empty.
	Subject string
	// ID tells tokens apart (jti); it may be empty.
	ID string
	// Issued is iat, Expires exp. RefreshBy, refresh_by, is when the next one should be asked for.
	Issued, Expires, RefreshBy time.Time
}

// wire are the claims by their names.
type wire struct {
	jwt.RegisteredClaims
	RefreshBy *jwt.NumericDate `json:"refresh_by,omitempty"`
}

// Sign makes a token. kid is the ID of the [zarpa.VerifyKey] that belongs to the private key. Endpoint,
// Issued and Expires must be set.
func Sign(private ed25519.PrivateKey, kid string, c Claims) (string, error) {
	switch {
	case len(private) != ed25519.PrivateKeySize:
		return "", fmt.Errorf("sign a token: the key has %d bytes, an Ed25519 key %d", len(private), ed25519.PrivateKeySize)
	case kid == "" || c.Endpoint == "" || c.Issued.IsZero() || c.Expires.IsZero():
		return "", errors.New("sign a token: key id, endpoint, issued and expires are needed")
	}
	w := wire{RegisteredClaims: jwt.RegisteredClaims{
		Issuer: Issuer, Subject: c.Subject, Audience: jwt.ClaimStrings{c.Endpoint}, ID: c.ID,
		IssuedAt: jwt.NewNumericDate(c.Issued), ExpiresAt: jwt.NewNumericDate(c.Expires),
	}}
	if !c.RefreshBy.IsZero() {
		w.RefreshBy = jwt.NewNumericDate(c.RefreshBy)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, w)
	token.Header["kid"] = kid
	signed, err := token.SignedString(private)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	if len(signed) > MaxLength {
		return "", fmt.Errorf("sign a token: it has %d bytes, at most %d", len(signed), MaxLength)
	}
	return signed, nil
}

// Verifier checks tokens against a set of keys that never changes. It may be used by many goroutines.
type Verifier struct {
	keys map[string]ed25519.PublicKey
}

// NewVerifier takes the keys whose signatures count; invalid names the first that is none.
func NewVerifier(keys []zarpa.VerifyKey) (*Verifier, error) {
	v := &Verifier{keys: make(map[string]ed25519.PublicKey, len(keys))}
	for i, k := range keys {
		switch {
		case k.ID == "":
			return nil, zarpa.Errorf(zarpa.Invalid, "verify_keys[%d]: no id", i)
		case len(k.Public) != ed25519.PublicKeySize:
			return nil, zarpa.Errorf(zarpa.Invalid, "verify_keys[%d]: %d bytes, an Ed25519 public key has %d", i, len(k.Public), ed25519.PublicKeySize)
		case v.keys[k.ID] != nil:
			return nil, zarpa.Errorf(zarpa.Invalid, "verify_keys[%d]: the id %.64q stands there twice", i, k.ID)
		}
		v.keys[k.ID] = ed25519.PublicKey(k.Public)
	}
	return v, nil
}

// Verify checks form, key, signature, issuer and expiry at a moment, and returns what the token says:
// it opens the one endpoint that [Claims] name, which the caller compares. The error is
// unauthenticated; its message says which check failed, holds nothing of the token, and is fit for a
// header.
func (v *Verifier) Verify(token string, now time.Time) (Claims, error) {
	if len(token) > MaxLength {
		return Claims{}, refused("the token is too long", nil)
	}
	var w wire
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(Issuer), jwt.WithExpirationRequired(),
		jwt.WithLeeway(Leeway), jwt.WithStrictDecoding(), jwt.WithTimeFunc(func() time.Time { return now }))
	if _, err := parser.ParseWithClaims(token, &w, v.key); err != nil {
		return Claims{}, why(err)
	}
	if len(w.Audience) != 1 || w.Audience[0] == "" {
		return Claims{}, refused("the token names no endpoint, or several", nil)
	}
	c := Claims{Endpoint: w.Audience[0], Subject: w.Subject, ID: w.ID, Expires: w.ExpiresAt.Time}
	if w.IssuedAt != nil {
		c.Issued = w.IssuedAt.Time
	}
	if w.RefreshBy != nil {
		c.RefreshBy = w.RefreshBy.Time
	}
	return c, nil
}

// ValidUntil is when a verified token stops to be taken.
func (c Claims) ValidUntil() time.Time { return c.Expires.Add(Leeway) }

// errUnknownKey is a key that was never there, or that was taken away.
var errUnknownKey = errors.New("the key that signed it is not known")

// key is the one that the token's header names.
func (v *Verifier) key(t *jwt.Token) (any, error) {
	id, _ := t.Header["kid"].(string)
	if k, ok := v.keys[id]; ok {
		return k, nil
	}
	return nil, errUnknownKey
}

// why puts the library's errors into our words.
func why(err error) error {
	switch {
	case errors.Is(err, errUnknownKey):
		return refused("the token was signed by a key that is not known here, or no longer", err)
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refused("the token is not well formed", err)
	case errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refused("the token's signature is not right", err)
	case errors.Is(err, jwt.ErrTokenExpired):
		return refused("the token has expired", err)
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return refused("the token is not valid yet", err)
	}
	return refused("the token's claims are not those of a scoring token", err)
}

func refused(message string, cause error) *zarpa.Error {
	return zarpa.Errorf(zarpa.Unauthenticated, "%s", message).Because(cause)
}
