package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// identity tells callers apart: the digest of a key, of a token's subject, or of nothing for an open
// endpoint, whose callers are told apart by their address.
type identity [32]byte

// authenticate lets a request through that carries one of the endpoint's keys or a scoring token for
// it, and says whose it is. A refusal sets WWW-Authenticate (RFC 6750).
func (ru *rule) authenticate(header http.Header, answer http.Header, now time.Time) (identity, *zarpa.Error) {
	who, err := ru.check(header["Authorization"], now)
	if err == nil {
		return who, nil
	}
	challenge := `Bearer realm="` + ru.name + `"`
	if secret, ok := bearer(header["Authorization"]); ok {
		challenge += `, error="invalid_token"`
		if ru.tokenOnly || tokenShaped(secret) {
			challenge += `, error_description="` + err.Message + `"`
		}
	}
	answer.Set("WWW-Authenticate", challenge)
	return who, err
}

// check is authenticate for any protocol; values are those of the one field with the key. Digests are
// compared, all of them, in constant time: neither a key's content nor which of the keys it was
// can be measured.
func (ru *rule) check(values []string, now time.Time) (identity, *zarpa.Error) {
	if ru.open {
		return identity{}, nil
	}
	secret, ok := bearer(values)
	if !ok {
		return identity{}, ru.noCredentials()
	}
	digest := sha256.Sum256([]byte(secret))
	found := 0
	for i := range ru.keys {
		found |= subtle.ConstantTimeCompare(digest[:], ru.keys[i][:])
	}
	if found == 1 {
		return identity(digest), nil
	}
	switch {
	case tokenShaped(secret):
	case ru.tokenOnly: // the text stands between quotes in the challenge
		return identity{}, zarpa.Errorf(zarpa.Unauthenticated, "the endpoint takes scoring tokens alone, and this is none").
			WithHint("zarpa token %s prints one", ru.name)
	default:
		return identity{}, zarpa.Errorf(zarpa.Unauthenticated, "the key is not one of endpoint %q", ru.name).
			WithHint("zarpa keys %s prints the key; it may have been replaced", ru.name)
	}
	v, err := ru.tokens.check(digest, secret, now)
	if err == nil && v.endpoint != ru.name {
		err = zarpa.Errorf(zarpa.Unauthenticated, "the token is for another endpoint")
	}
	if err != nil {
		return identity{}, err.WithHint("zarpa token %s prints a new one", ru.name)
	}
	return v.who, nil
}

func (ru *rule) noCredentials() *zarpa.Error {
	if ru.tokenOnly {
		return zarpa.Errorf(zarpa.Unauthenticated, "endpoint %q needs a scoring token", ru.name).
			WithHint("send Authorization: Bearer TOKEN; zarpa token %s prints one, and keys are not taken", ru.name)
	}
	return zarpa.Errorf(zarpa.Unauthenticated, "endpoint %q needs a key", ru.name).
		WithHint("send Authorization: Bearer KEY; zarpa keys %s prints the key", ru.name)
}

// bearer is the token of the one Authorization header. Two such headers are none: servers differ
// in which of them they read.
func bearer(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	token = strings.Trim(token, " \t")
	return token, ok && token != "" && strings.EqualFold(scheme, "Bearer")
}

// opens reports whether a key or token opens any endpoint. The map is looked up with the digest of what the
// caller sent, whose timing says nothing of the keys that there are.
func (s *snapshot) opens(values []string, now time.Time) bool {
	secret, ok := bearer(values)
	if !ok {
		return false
	}
	digest := sha256.Sum256([]byte(secret))
	if s.keys[digest] || !tokenShaped(secret) {
		return s.keys[digest]
	}
	v, err := s.tokens.check(digest, secret, now)
	return err == nil && s.rules[v.endpoint] != nil
}

// admits reports whether the caller may use any endpoint.
func (s *snapshot) admits(values []string, now time.Time) bool { return s.open || s.opens(values, now) }
