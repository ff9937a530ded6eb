package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// The modes of a replica's secrets: nobody but this user reads them, and nobody changes them.
const (
	secretsMode = 0o700
	secretMode  = 0o400
)

// environ is the environment of a run: that of its deployment, and where its secrets are. They are written
// anew for each run, into a folder of the replica's directory, with which they go.
func (r *runner) environ(ctx context.Context, s replica.Start) ([]string, error) {
	folder, err := r.writeSecrets(ctx, s)
	if err != nil {
		return nil, err
	}
	extra := maps.Clone(s.Deployment.Spec.Env)
	if folder != "" {
		if extra == nil {
			extra = map[string]string{}
		}
		extra[zarpa.SecretsVariable] = folder
	}
	return environment(r.o.Environ, extra), nil
}

// writeSecrets fills the folder of a replica's secrets and returns it; "" without any.
func (r *runner) writeSecrets(ctx context.Context, s replica.Start) (string, error) {
	folder, names := filepath.Join(s.Dir, "secrets"), s.Deployment.Spec.Secrets
	if err := os.RemoveAll(folder); err != nil { // those of the run before
		return "", fmt.Errorf("the secrets of the run before cannot be removed: %w", err)
	}
	if len(names) == 0 {
		return "", nil
	}
	if r.o.Secrets == nil {
		return "", zarpa.Errorf(zarpa.Unavailable, "the deployment has secrets, and this target has none to give")
	}
	values, err := r.o.Secrets(ctx, names)
	if err != nil {
		return "", fmt.Errorf("the secrets cannot be had: %w", err)
	}
	if err := os.Mkdir(folder, secretsMode); err != nil {
		return "", failure(err)
	}
	for _, name := range names {
		value, ok := values[name]
		if !ok {
			return "", zarpa.Errorf(zarpa.NotFound, "secret %q does not exist", name)
		}
		if err := zarpa.ValidateName("secret", name); err != nil { // it becomes a path
			return "", err
		}
		if err := os.WriteFile(filepath.Join(folder, name), value, secretMode); err != nil {
			return "", errors.Join(failure(err), os.RemoveAll(folder))
		}
	}
	return folder, nil
}
