package client

import (
	"context"
	"io"
	"net/http"

	"github.com/zarpa-dev/zarpa"
)

// ListSecrets lists the names of secrets.
func (c *Client) ListSecrets(ctx context.Context) ([]zarpa.Secret, error) {
	return read[[]zarpa.Secret](c, func() (*http.Response, error) { return c.wire.ListSecrets(ctx) })
}

// SetSecret makes a secret of all that value has, or gives one that is there this value.
func (c *Client) SetSecret(ctx context.Context, name string, value io.Reader) (zarpa.Secret, error) {
	return read[zarpa.Secret](c, func() (*http.Response, error) {
		return c.wire.PutSecretWithBody(ctx, name, "application/octet-stream", value)
	})
}

// DeleteSecret removes a secret that no deployment names.
func (c *Client) DeleteSecret(ctx context.Context, name string) error {
	_, err := read[struct{}](c, func() (*http.Response, error) { return c.wire.DeleteSecret(ctx, name) })
	return err
}
