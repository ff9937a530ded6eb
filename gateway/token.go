package gateway

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/scoringtoken"
)

// maxTokens is how many verified tokens are remembered in each of the parts of tokens; a further one
// takes the place of one that has expired, else of any: it costs that one a signature check.
const (
	maxTokens  = 256
	tokenParts = 16
)

// tokens verifies scoring tokens by one set of keys. A signature check costs as much as a whole hop, so
// that what was verified is remembered until it expires. Keys that change make a new tokens, which
// remembers nothing: what a revoked key signed is refused from then on.
type tokens struct {
	keys     []zarpa.VerifyKey
	verifier *scoringtoken.Verifier
	parts    [tokenParts]tokenPart
}

type tokenPart struct {
	mu    sync.RWMutex
	known map[[32]byte]verified // by digest of the token; no token is kept
}

// verified is what was read from a token.
type verified struct {
	endpoint string
	subject  string
	who      identity
	until    time.Time
}

// newTokens returns the one before when the keys are the same. The keys were validated.
func newTokens(keys []zarpa.VerifyKey, before *tokens) *tokens {
	same := func(a, b zarpa.VerifyKey) bool { return a.ID == b.ID && bytes.Equal(a.Public, b.Public) }
	if before != nil && slices.EqualFunc(keys, before.keys, same) {
		return before
	}
	t := &tokens{keys: keys}
	t.verifier, _ = scoringtoken.NewVerifier(keys)
	return t
}

// tokenShaped tells a JSON web token from a key, which has no points.
func tokenShaped(secret string) bool { return strings.Count(secret, ".") == 2 }

// check verifies a token, by its digest where that is known.
func (t *tokens) check(digest [32]byte, token string, now time.Time) (verified, *zarpa.Error) {
	part := &t.parts[digest[0]%tokenParts]
	part.mu.RLock()
	v, ok := part.known[digest]
	part.mu.RUnlock()
	if ok && now.Before(v.until) {
		return v, nil
	}
	claims, err := t.verifier.Verify(token, now)
	if err != nil {
		return verified{}, zarpa.AsError(err)
	}
	v = verified{endpoint: claims.Endpoint, subject: claims.Subject, who: identity(digest), until: claims.ValidUntil()}
	if claims.Subject != "" { // the next token of the same caller is the same caller
		v.who = identity(sha256.Sum256([]byte("subject " + claims.Subject)))
	}
	part.keep(digest, v, now)
	return v, nil
}

func (p *tokenPart) keep(digest [32]byte, v verified, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[[32]byte]verified{}
	}
	if len(p.known) >= maxTokens {
		for d, old := range p.known {
			if !now.Before(old.until) {
				delete(p.known, d)
			}
		}
	}
	for d := range p.known {
		if len(p.known) < maxTokens {
			break
		}
		delete(p.known, d)
	}
	p.known[digest] = v
}

// tokenSubject is whose token a caller that was let in has; it is remembered from the check.
func (ru *rule) tokenSubject(authorization []string) string {
	secret, ok := bearer(authorization)
	if !ok {
		return ""
	}
	v, err := ru.tokens.check(sha256.Sum256([]byte(secret)), secret, time.Now())
	if err != nil {
		return ""
	}
	return v.subject
}
