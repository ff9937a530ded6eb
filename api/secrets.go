package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/seal"
)

// sealedAs binds a sealed value to its secret: that of an endpoint's keys, of the same name or not, is
// never taken for one.
func sealedAs(secret string) string { return secretObject + secret }

// SecretValues returns the function that reads the values of secrets, for the drivers that give them to
// replicas. It may be called from many goroutines. Errors: not_found, which names the secret, and internal
// when a value cannot be decrypted; none holds a value.
func SecretValues(store zarpa.Store, box *seal.Box) func(ctx context.Context, names []string) (map[string][]byte, error) {
	return func(ctx context.Context, names []string) (map[string][]byte, error) {
		values := make(map[string][]byte, len(names))
		for _, name := range names {
			secret, err := store.Nouns().Secrets.Get(ctx, name)
			if err != nil {
				return nil, err
			}
			if values[name], err = box.Unseal(sealedAs(name), secret.Sealed); err != nil {
				return nil, zarpa.Errorf(zarpa.Internal, "secret %q cannot be read", name).
					WithHint("the file secret.key of the data directory is not the one it was sealed with: set the secret anew").Because(err)
			}
		}
		return values, nil
	}
}

// ListSecrets lists names, never values.
func (s *server) ListSecrets(ctx context.Context, _ ListSecretsRequestObject) (ListSecretsResponseObject, error) {
	list, err := s.Store.Nouns().Secrets.List(ctx)
	if err != nil {
		return nil, err
	}
	return ListSecrets200JSONResponse(notNil(list)), nil
}

// PutSecret makes a secret or gives it another value.
func (s *server) PutSecret(ctx context.Context, req PutSecretRequestObject) (PutSecretResponseObject, error) {
	if err := zarpa.ValidateName("secret", req.Name); err != nil {
		return nil, err
	}
	value, err := secretValue(req.Body)
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", req.Name, err)
	}
	now := s.Now().UTC()
	secret := zarpa.Secret{Name: req.Name, Sealed: s.Seal.Seal(sealedAs(req.Name), value), Created: now, Updated: now}
	err = s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		if err := n.Secrets.Put(ctx, secret); err != nil {
			return err
		}
		var err error
		if secret, err = n.Secrets.Get(ctx, req.Name); err != nil {
			return err
		}
		return s.audit(ctx, n, "secret.set", secretObject+req.Name) // that it was set, and never to what
	})
	if err != nil {
		return nil, err
	}
	return PutSecret200JSONResponse(secret), nil
}

// secretValue reads a value whole.
func secretValue(body io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(body, zarpa.MaxSecret+1))
	switch {
	case err != nil:
		return nil, zarpa.Errorf(zarpa.Invalid, "the value broke off").Because(err)
	case len(value) > zarpa.MaxSecret:
		return nil, zarpa.Errorf(zarpa.TooLarge, "the value has more than %d bytes", zarpa.MaxSecret)
	case len(value) == 0:
		return nil, zarpa.Errorf(zarpa.Invalid, "the value is empty").WithHint("send it as the body: zarpa secret set NAME --from-file FILE")
	}
	return value, nil
}

// DeleteSecret removes a secret that no deployment names.
func (s *server) DeleteSecret(ctx context.Context, req DeleteSecretRequestObject) (DeleteSecretResponseObject, error) {
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		if _, err := n.Secrets.Get(ctx, req.Name); err != nil {
			return err
		}
		if err := unusedSecret(ctx, n, req.Name); err != nil {
			return err
		}
		if err := n.Secrets.Delete(ctx, req.Name); err != nil {
			return err
		}
		return s.audit(ctx, n, "secret.delete", secretObject+req.Name)
	})
	if err != nil {
		return nil, err
	}
	return DeleteSecret204Response{}, nil
}

// unusedSecret is a conflict while a deployment names the secret.
func unusedSecret(ctx context.Context, n zarpa.Nouns, name string) error {
	endpoints, err := n.Endpoints.List(ctx)
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		for _, d := range e.Spec.Deployments {
			if slices.Contains(d.Secrets, name) {
				return zarpa.Errorf(zarpa.Conflict, "secret %q: deployment %s/%s has it", name, e.Name, d.Name).
					WithHint("take it from the deployment first: zarpa deploy %s --deployment %s --secret ''", e.Name, d.Name)
			}
		}
	}
	return nil
}

// checkSecrets wants the secrets that a deployment names to be there.
func checkSecrets(ctx context.Context, n zarpa.Nouns, d zarpa.DeploymentSpec) error {
	for _, name := range d.Secrets {
		_, err := n.Secrets.Get(ctx, name)
		if errors.Is(err, zarpa.ErrNotFound) {
			return zarpa.Errorf(zarpa.Invalid, "deployment %q: secrets: %q does not exist", d.Name, clip(name)).
				WithHint("make it with zarpa secret set %s --from-file FILE; zarpa secret list shows those that are there", clip(name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
