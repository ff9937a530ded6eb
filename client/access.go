package client

import (
	"context"
	"net/http"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// ListAccesses lists the named tokens of the control API.
func (c *Client) ListAccesses(ctx context.Context) ([]zarpa.Access, error) {
	return read[[]zarpa.Access](c, func() (*http.Response, error) { return c.wire.ListAccesses(ctx) })
}

// CreateAccess makes a named token; the answer alone has the token itself.
func (c *Client) CreateAccess(ctx context.Context, spec zarpa.AccessSpec) (zarpa.AccessGrant, error) {
	return read[zarpa.AccessGrant](c, func() (*http.Response, error) { return c.wire.CreateAccess(ctx, spec) })
}

// RevokeAccess ends a named token at once and keeps its name taken.
func (c *Client) RevokeAccess(ctx context.Context, name string) error {
	_, err := read[struct{}](c, func() (*http.Response, error) { return c.wire.RevokeAccess(ctx, name) })
	return err
}

// DeleteAccess ends a named token at once and frees its name.
func (c *Client) DeleteAccess(ctx context.Context, name string) error {
	_, err := read[struct{}](c, func() (*http.Response, error) { return c.wire.DeleteAccess(ctx, name) })
	return err
}

// Audit reads the audit log, newest first.
func (c *Client) Audit(ctx context.Context, q zarpa.AuditQuery) ([]zarpa.AuditEntry, error) {
	return read[[]zarpa.AuditEntry](c, func() (*http.Response, error) {
		return c.wire.ListAudit(ctx, &ListAuditParams{
			Object: unlessZero(q.Object), Since: unlessZero(q.Since.Round(time.Microsecond)), Before: unlessZero(q.Before), Limit: unlessZero(q.Limit),
		})
	})
}

// unlessZero is a parameter that is left out when it has no value.
func unlessZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// CreateToken makes a scoring token of an endpoint.
func (c *Client) CreateToken(ctx context.Context, name string, spec zarpa.TokenSpec) (zarpa.ScoringToken, error) {
	return read[zarpa.ScoringToken](c, func() (*http.Response, error) { return c.wire.CreateToken(ctx, name, spec) })
}

// RotateSigningKey lets scoring tokens be signed by a new key.
func (c *Client) RotateSigningKey(ctx context.Context) ([]zarpa.SigningKey, error) {
	return read[[]zarpa.SigningKey](c, func() (*http.Response, error) { return c.wire.RotateSigningKey(ctx) })
}

// SigningKeys lists the keys whose signatures make scoring tokens valid.
func (c *Client) SigningKeys(ctx context.Context) ([]zarpa.SigningKey, error) {
	return read[[]zarpa.SigningKey](c, func() (*http.Response, error) { return c.wire.ListSigningKeys(ctx) })
}

// SetKey makes the primary or secondary key a value of the user's own.
func (c *Client) SetKey(ctx context.Context, name, which string, spec zarpa.KeySpec) (zarpa.KeyPair, error) {
	return read[zarpa.KeyPair](c, func() (*http.Response, error) { return c.wire.SetKey(ctx, name, which, spec) })
}
