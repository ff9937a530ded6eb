package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// authenticate lets a request through that carries one of the endpoint's keys. Digests are
// compared, all of them, in constant time: neither a key's content nor which of the keys it was
// can be measured. A refusal sets WWW-Authenticate (RFC 6750).
func (ru *rule) authenticate(header http.Header, answer http.Header) *zarpa.Error {
	if ru.open {
		return nil
	}
	key, ok := bearer(header["Authorization"])
	if !ok {
		answer.Set("WWW-Authenticate", `Bearer realm="`+ru.name+`"`)
		return zarpa.Errorf(zarpa.Unauthenticated, "endpoint %q needs a key", ru.name).
			WithHint("send Authorization: Bearer KEY; zarpa keys %s prints the key", ru.name)
	}
	digest := sha256.Sum256([]byte(key))
	found := 0
	for i := range ru.keys {
		found |= subtle.ConstantTimeCompare(digest[:], ru.keys[i][:])
	}
	if found == 1 {
		return nil
	}
	answer.Set("WWW-Authenticate", `Bearer realm="`+ru.name+`", error="invalid_token"`)
	return zarpa.Errorf(zarpa.Unauthenticated, "the key is not one of endpoint %q", ru.name).
		WithHint("zarpa keys %s prints the key; it may have been replaced", ru.name)
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
