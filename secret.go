package zarpa

import (
	"context"
	"time"
)

// Secret is a named value that replicas get as a file. Nobody reads the value back.
type Secret struct {
	Name string `json:"name"`
	// Sealed is the value, encrypted by who stores it.
	Sealed  []byte    `json:"-"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// MaxSecret bounds a secret's value, in bytes, and MaxSecrets the secrets of one deployment.
const (
	MaxSecret  = 64 << 10
	MaxSecrets = 100
)

// SecretsVariable is the variable that names the folder with a replica's secrets.
const SecretsVariable = "ZARPA_SECRETS"

// Secrets keeps secrets.
type Secrets interface {
	// Put creates a secret or replaces its value; Created of one that is there stays.
	Put(ctx context.Context, s Secret) error
	// Get returns a secret or not_found.
	Get(ctx context.Context, name string) (Secret, error)
	// List returns all, ordered by name.
	List(ctx context.Context) ([]Secret, error)
	// Delete removes a secret; removing what is gone is no error.
	Delete(ctx context.Context, name string) error
}
