// Package oidc tells who the bearer of a token of an OpenID Connect issuer is. It signs nobody in: clients
// bring the token. It is for the control API alone.
package oidc

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/zarpa-dev/zarpa"
)

const (
	// askTimeout bounds one request to the issuer.
	askTimeout = 10 * time.Second
	// askAgain is how long an issuer that could not be reached is left alone.
	askAgain = 2 * time.Second
	// maxName is the longest name of a person that is taken, in bytes.
	maxName = 200
	// subjectPrefix tells a subject, which may be any text, from the names of tokens.
	subjectPrefix = "oidc:"
)

// Rule gives a role to who has a value in a claim of his token.
type Rule struct {
	Claim, Value string
	Role         zarpa.Role
}

// ParseRule reads CLAIM=VALUE:ROLE. The value may have any of these characters, as URLs do.
func ParseRule(text string) (Rule, error) {
	claim, rest, ok := strings.Cut(text, "=")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || claim == "" || colon < 1 {
		return Rule{}, zarpa.Errorf(zarpa.Invalid, "oidc-roles: %q is not CLAIM=VALUE:ROLE", text).WithHint("write groups=ml-admins:admin")
	}
	r := Rule{Claim: claim, Value: rest[:colon], Role: zarpa.Role(rest[colon+1:])}
	if !r.Role.Allows(zarpa.RoleViewer) {
		return r, zarpa.Errorf(zarpa.Invalid, "oidc-roles: %q: the role %q is not known", text, r.Role).WithHint("use viewer, deployer or admin")
	}
	return r, nil
}

// Options name the issuer, and who may do what.
type Options struct {
	// Issuer is its URL, below which its configuration is published.
	Issuer string
	// Audience must be among those of a token: what this server is called there.
	Audience string
	// Rules are all looked at; the highest role counts.
	Rules []Rule
	// HTTP asks the issuer; nil makes a client with a time limit.
	HTTP *http.Client
}

// Identifier knows the tokens of one issuer. The issuer is first asked when a token comes, and again when
// that failed: one that is away keeps nothing from starting. Its keys are kept until a token has another.
// It may be used from many goroutines.
type Identifier struct {
	o Options

	mu       sync.Mutex // guards what follows, and is held while the issuer is asked: one asks for all
	verifier *oidc.IDTokenVerifier
	failed   time.Time // when it could last not be reached
	why      error
}

// New checks the options and asks nobody.
func New(o Options) (*Identifier, error) {
	u, err := url.Parse(o.Issuer)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, zarpa.Errorf(zarpa.Invalid, "oidc-issuer: %q is not a URL", o.Issuer).WithHint("write https://HOST/PATH, as the tokens' iss has it")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, zarpa.Errorf(zarpa.Invalid, "oidc-issuer: %s is not encrypted: its keys could be anybody's", o.Issuer).WithHint("use https")
	case o.Audience == "":
		return nil, zarpa.Errorf(zarpa.Invalid, "oidc-audience: not given").WithHint("name the aud of the tokens that are meant for this server")
	case len(o.Rules) == 0:
		return nil, zarpa.Errorf(zarpa.Invalid, "oidc-roles: not given: nobody could do anything").WithHint("write groups=ml-admins:admin")
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Timeout: askTimeout}
	}
	return &Identifier{o: o}, nil
}

func loopback(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }

// ready is what checks tokens, once the issuer said how.
func (i *Identifier) ready(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.verifier != nil {
		return i.verifier, nil
	}
	if i.why == nil || time.Since(i.failed) >= askAgain {
		// The verifier keeps this context for fetching keys later on: a call's own would be over.
		provider, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), i.o.HTTP), i.o.Issuer)
		if err == nil {
			i.verifier, i.why = provider.Verifier(&oidc.Config{ClientID: i.o.Audience}), nil
			return i.verifier, nil
		}
		i.failed, i.why = time.Now(), err
	}
	return nil, zarpa.Errorf(zarpa.Unavailable, "the issuer %s cannot be asked for its keys now", i.o.Issuer).
		WithHint("try again, or use a token of this server").Because(i.why)
}

// Identify verifies a token and finds the name and the role of its bearer: his email when the issuer verified
// it or says nothing of that, else his subject.
func (i *Identifier) Identify(ctx context.Context, token string) (name string, role zarpa.Role, err error) {
	verifier, err := i.ready(ctx)
	if err != nil {
		return "", "", err
	}
	t, err := verifier.Verify(oidc.ClientContext(ctx, i.o.HTTP), token)
	if err != nil {
		return "", "", zarpa.Errorf(zarpa.Unauthenticated, "the token is not one that %s gave for %q, or it has expired", i.o.Issuer, i.o.Audience).
			WithHint("get a new one from the issuer").Because(err)
	}
	var claims map[string]json.RawMessage
	if err := t.Claims(&claims); err != nil {
		return "", "", zarpa.Errorf(zarpa.Unauthenticated, "the token's claims cannot be read").Because(err)
	}
	return nameOf(t.Subject, claims), i.roleOf(claims), nil
}

func nameOf(subject string, claims map[string]json.RawMessage) string {
	var email string
	verified := true
	_ = json.Unmarshal(claims["email"], &email) // one that is no text is none
	_ = json.Unmarshal(claims["email_verified"], &verified)
	if email != "" && verified && strings.Contains(email, "@") && len(email) <= maxName {
		return email
	}
	return subjectPrefix + subject[:min(len(subject), maxName)]
}

// roleOf is the highest role that a rule gives; none for nobody's.
func (i *Identifier) roleOf(claims map[string]json.RawMessage) (best zarpa.Role) {
	for _, r := range i.o.Rules {
		if has(claims[r.Claim], r.Value) && !best.Allows(r.Role) {
			best = r.Role
		}
	}
	return best
}

// has reports whether a claim is a text or true or false, or a list of texts, with the value.
func has(claim json.RawMessage, value string) bool {
	var one any
	if json.Unmarshal(claim, &one) != nil {
		return false
	}
	switch v := one.(type) {
	case string:
		return v == value
	case bool:
		return v && value == "true"
	case []any:
		return slices.Contains(v, any(value))
	}
	return false
}
