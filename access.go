package zarpa

import (
	"context"
	"time"
)

// Role says what a caller of the control API may do. Each may do what those before it may.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"   // read all but keys
	RoleDeployer Role = "deployer" // register models, change endpoints, read and regenerate their keys
	RoleAdmin    Role = "admin"    // targets, access tokens, signing keys, the audit log's whole content
)

// Allows reports whether a caller with role r may do what needs role need.
func (r Role) Allows(need Role) bool {
	rank := map[Role]int{RoleViewer: 1, RoleDeployer: 2, RoleAdmin: 3}
	return rank[r] > 0 && rank[r] >= rank[need]
}

// Access is a named token of the control API. The token itself is shown once, when it is made.
type Access struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Digest is the token's [KeyDigest].
	Digest  []byte    `json:"-"`
	Created time.Time `json:"created"`
	// Expires is when it ends by itself; the zero time is never.
	Expires time.Time `json:"expires,omitzero"`
	// Revoked is when somebody ended it.
	Revoked time.Time `json:"revoked,omitzero"`
}

// Accesses keeps the named tokens of the control API.
type Accesses interface {
	// Create stores a new one; conflict when the name is taken, also by one that was revoked.
	Create(ctx context.Context, a Access) error
	// Revoke sets Revoked of one that is not revoked; not_found when there is none.
	Revoke(ctx context.Context, name string, at time.Time) error
	// List returns all, ordered by name.
	List(ctx context.Context) ([]Access, error)
	// Delete removes one, whose name is then free; removing what is gone is no error.
	Delete(ctx context.Context, name string) error
}

// AuditEntry is one change that somebody made: who, what, from, to. It holds no secret.
type AuditEntry struct {
	ID int64     `json:"id"` // grows; the store gives it
	At time.Time `json:"at"`
	// Who is the name of the token or of the person, or "admin" for the server's own token, or the
	// part of Zarpa that acted by itself: "rollout ro-…".
	Who  string `json:"who"`
	Role Role   `json:"role,omitempty"`
	// Action is "endpoint.update", "key.regenerate", …; Object is what it was done to.
	Action  string   `json:"action"`
	Object  string   `json:"object"`
	Changes []Change `json:"changes,omitempty"`
	// RequestID and Address are of the call.
	RequestID string `json:"request_id,omitempty"`
	Address   string `json:"address,omitempty"`
	// Refused is why it was not done; empty for what was done.
	Refused string `json:"refused,omitempty"`
}

// AuditQuery selects entries of the audit log.
type AuditQuery struct {
	Object string    // of this name; empty for all
	Since  time.Time // not before
	Before int64     // with an ID below; 0 for all
	Limit  int       // at most; 0 for all
}

// Audits keeps the audit log.
type Audits interface {
	// Append stores an entry and gives it an ID.
	Append(ctx context.Context, e AuditEntry) error
	// List returns entries, newest first.
	List(ctx context.Context, q AuditQuery) ([]AuditEntry, error)
	// Prune deletes entries from before a time.
	Prune(ctx context.Context, before time.Time) error
}

// ScoringToken is a short-lived token that opens one endpoint, signed by the server and verified by
// the gateway without asking anybody.
type ScoringToken struct {
	Token string `json:"token"`
	Type  string `json:"type"` // "Bearer"
	// Expires is when it ends, RefreshBy when a caller should have got the next one.
	Expires   time.Time `json:"expires"`
	RefreshBy time.Time `json:"refresh_by"`
}

// VerifyKey is the public half of a key that signs scoring tokens.
type VerifyKey struct {
	// ID stands in a token's header as kid.
	ID string `json:"id"`
	// Public is an Ed25519 public key, 32 bytes.
	Public []byte `json:"public"`
}

// AccessSpec asks for a named token.
type AccessSpec struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Lifetime ends it by itself; 0 is never.
	Lifetime Duration `json:"lifetime,omitempty"`
}

// maxAccessLifetime is ten years: a longer time is a slip, and 0 is for ever.
const maxAccessLifetime = Duration(10 * 365 * 24 * time.Hour)

// Validate checks every field and names the first that is wrong.
func (s AccessSpec) Validate() error {
	if err := ValidateName("access", s.Name); err != nil {
		return err
	}
	switch {
	case s.Name == AdminName:
		return Errorf(Invalid, "access name %q: is the server's own token", s.Name).WithHint("choose another name")
	case !s.Role.Allows(RoleViewer):
		return Errorf(Invalid, "role: %.40q is not known", s.Role).WithHint("use viewer, deployer or admin")
	case s.Lifetime != 0 && s.Lifetime < Duration(time.Minute) || s.Lifetime > maxAccessLifetime:
		return Errorf(Invalid, "lifetime: %v is not between 1m and 87600h", s.Lifetime).WithHint("leave it out for a token that does not end by itself")
	}
	return nil
}

// AdminName is who calls with the server's own token, which is kept in a file.
const AdminName = "admin"

// AccessGrant is a new named token, which is told this once.
type AccessGrant struct {
	Access Access `json:"access"`
	Token  string `json:"token"`
}

// TokenSpec asks for a scoring token.
type TokenSpec struct {
	// Lifetime is between 1m and 24h; 0 is [DefaultTokenLifetime].
	Lifetime Duration `json:"lifetime,omitempty"`
}

// DefaultTokenLifetime is how long a scoring token opens its endpoint.
const DefaultTokenLifetime = Duration(time.Hour)

// Validate checks the lifetime.
func (s TokenSpec) Validate() error {
	if s.Lifetime != 0 && s.Lifetime < Duration(time.Minute) || s.Lifetime > Duration(24*time.Hour) {
		return Errorf(Invalid, "lifetime: %v is not between 1m and 24h", s.Lifetime).WithHint("ask for the next token at refresh_by")
	}
	return nil
}

// KeySpec is a key of the user's own for an endpoint.
type KeySpec struct {
	Value string `json:"value"`
}

// The lengths of a user's own key, in bytes.
const minKey, maxKey = 16, 256

// Validate checks that the key is long enough and can stand in a header.
func (s KeySpec) Validate() error {
	if len(s.Value) < minKey || len(s.Value) > maxKey {
		return Errorf(Invalid, "value: a key of %d characters, between %d and %d are needed", len(s.Value), minKey, maxKey).
			WithHint("make one with: openssl rand -hex 32")
	}
	for i, c := range []byte(s.Value) {
		if c <= ' ' || c > '~' {
			return Errorf(Invalid, "value: character %d of the key is not printable ASCII", i+1).WithHint("a key stands in a header: use letters, digits and punctuation")
		}
	}
	return nil
}

// SigningKey is a key that signs scoring tokens, as users see it.
type SigningKey struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Current signs new tokens; the other one, if any, only makes those valid that it signed before.
	Current bool `json:"current,omitempty"`
}
