package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// caller is who makes a call.
type caller struct {
	name    string
	role    zarpa.Role
	address string // without the port
}

type callerKey struct{}

// callerOf is who makes the call whose context this is; nobody outside of one.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// whoOf is the caller's name, for what keeps who asked for it.
func whoOf(ctx context.Context) string { return callerOf(ctx).name }

// Identifier tells who a token of another party, such as an OIDC issuer, stands for. An error is
// unauthenticated, or unavailable when that party is needed and cannot be reached now.
type Identifier interface {
	// Identify is asked for tokens that are JSON web tokens. The name tells persons apart from named
	// tokens; a role of "" is that of somebody who is known and may do nothing.
	Identify(ctx context.Context, token string) (name string, role zarpa.Role, err error)
}

// namedPrefix begins every named token, so that who finds one knows what it is.
const namedPrefix = "zarpa_"

// authenticate lets calls through that carry a token that is known, and tells who it is.
func (s *server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			next.ServeHTTP(w, r)
			return
		}
		c, err := s.identify(r)
		if err != nil {
			if zarpa.AsError(err).Code == zarpa.Unauthenticated {
				w.Header().Set("WWW-Authenticate", `Bearer realm="zarpa"`)
			}
			httpx.WriteError(w, r, httpx.API, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// identify finds out who calls: by the server's own token, a named one, or that of an issuer. Digests
// are compared, all of them, so that neither time nor length tells anything.
func (s *server) identify(r *http.Request) (caller, error) { return s.identifyBy(r, bearerOf(r)) }

// bearerOf is the token of a call; "" for none.
func bearerOf(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// identifyBy is identify for who carries the token in a way of his own.
func (s *server) identifyBy(r *http.Request, token string) (caller, error) {
	c := caller{address: addressOf(r)}
	if token == "" {
		return c, noToken()
	}
	want, got := sha256.Sum256([]byte(s.Token)), sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
		c.name, c.role = zarpa.AdminName, zarpa.RoleAdmin
		return c, nil
	}
	if s.Identifier != nil && strings.Count(token, ".") == 2 {
		var err error
		c.name, c.role, err = s.Identifier.Identify(r.Context(), token)
		return c, err
	}
	a, found, err := s.accesses.find(r.Context(), got[:])
	switch {
	case err != nil:
		return c, err
	case !found:
		return c, noToken()
	}
	c.name, c.role = a.Name, a.Role
	var ended *zarpa.Error
	switch {
	case !a.Revoked.IsZero():
		ended = zarpa.Errorf(zarpa.Unauthenticated, "the token %q was revoked at %s", a.Name, a.Revoked.UTC().Format(timeFormat))
	case !a.Expires.IsZero() && !s.Now().Before(a.Expires):
		ended = zarpa.Errorf(zarpa.Unauthenticated, "the token %q expired at %s", a.Name, a.Expires.UTC().Format(timeFormat))
	default:
		return c, nil
	}
	ended = ended.WithHint("ask an admin for another: zarpa access create NAME --role %s", a.Role)
	s.refused(context.WithValue(r.Context(), callerKey{}, c), r.Method+" "+clip(r.URL.Path), "access/"+a.Name, ended)
	return c, ended
}

// timeFormat is how errors write a moment.
const timeFormat = "2006-01-02 15:04 UTC"

func noToken() error {
	return zarpa.Errorf(zarpa.Unauthenticated, "the token is missing or wrong").
		WithHint("pass --token or ZARPA_TOKEN; the server keeps the admin's in the file admin-token of its data directory")
}

func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// accessTable holds the named tokens in memory, read from the store when they are first needed and
// after each change.
type accessTable struct {
	store zarpa.Store

	mu   sync.Mutex // guards what follows, held over the reading: the last one to read has what is newest
	read bool
	list []zarpa.Access
}

// find looks a token's digest up, in a time that does not depend on which it is.
func (t *accessTable) find(ctx context.Context, digest []byte) (found zarpa.Access, ok bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.read {
		if t.list, err = t.store.Nouns().Accesses.List(ctx); err != nil {
			return zarpa.Access{}, false, err
		}
		t.read = true
	}
	for _, a := range t.list {
		if subtle.ConstantTimeCompare(a.Digest, digest) == 1 {
			found, ok = a, true
		}
	}
	return found, ok, nil
}

// changed makes the next call read anew.
func (t *accessTable) changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read = false
}
