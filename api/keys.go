package api

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/seal"
)

// newKey makes a key: 256 random bits, 43 characters that need no quoting anywhere.
func newKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // crypto/rand never fails: it ends the program
	return base64.RawURLEncoding.EncodeToString(b)
}

// sealKeys encrypts a pair for the store.
func sealKeys(box *seal.Box, endpoint string, pair zarpa.KeyPair, now time.Time) (zarpa.SealedKeys, error) {
	plain, err := json.Marshal(pair)
	if err != nil {
		return zarpa.SealedKeys{}, err
	}
	return zarpa.SealedKeys{Endpoint: endpoint, Sealed: box.Seal(endpoint, plain), Updated: now.UTC()}, nil
}

// readKeys reads and decrypts the keys of an endpoint.
func readKeys(ctx context.Context, keys zarpa.Keys, box *seal.Box, endpoint string) (zarpa.KeyPair, error) {
	var pair zarpa.KeyPair
	sealed, err := keys.Get(ctx, endpoint)
	if err != nil {
		return pair, err
	}
	plain, err := box.Unseal(endpoint, sealed.Sealed)
	if err != nil {
		return pair, zarpa.Errorf(zarpa.Internal, "the keys of endpoint %q cannot be read", endpoint).
			WithHint("the file secret.key of the data directory is not the one they were sealed with").Because(err)
	}
	return pair, json.Unmarshal(plain, &pair)
}

// KeyDigests returns the function that tells the reconciler what the gateway keeps of keys.
func KeyDigests(store zarpa.Store, box *seal.Box) func(context.Context, string) ([][]byte, error) {
	return func(ctx context.Context, endpoint string) ([][]byte, error) {
		pair, err := readKeys(ctx, store.Nouns().Keys, box, endpoint)
		if err != nil {
			return nil, err
		}
		return [][]byte{zarpa.KeyDigest(pair.Primary), zarpa.KeyDigest(pair.Secondary)}, nil
	}
}

// GetKeys shows both keys.
func (s *server) GetKeys(ctx context.Context, req GetKeysRequestObject) (GetKeysResponseObject, error) {
	if _, err := s.endpoint(ctx, req.Name); err != nil {
		return nil, err
	}
	pair, err := readKeys(ctx, s.Store.Nouns().Keys, s.Seal, req.Name)
	if err != nil {
		return nil, err
	}
	return GetKeys200JSONResponse(pair), nil
}

// RegenerateKey makes one key anew and answers when the gateway knows it.
func (s *server) RegenerateKey(ctx context.Context, req RegenerateKeyRequestObject) (RegenerateKeyResponseObject, error) {
	pair, err := s.changeKey(ctx, keyChange{endpoint: req.Name, which: req.Which, value: newKey(), action: "key.regenerate"})
	if err != nil {
		return nil, err
	}
	return RegenerateKey200JSONResponse(pair), nil
}

// SetKey makes one key what the user says and answers when the gateway knows it.
func (s *server) SetKey(ctx context.Context, req SetKeyRequestObject) (SetKeyResponseObject, error) {
	if err := req.Body.Validate(); err != nil {
		return nil, err
	}
	pair, err := s.changeKey(ctx, keyChange{endpoint: req.Name, which: req.Which, value: req.Body.Value, action: "key.set"})
	if err != nil {
		return nil, err
	}
	return SetKey200JSONResponse(pair), nil
}

// keyChange gives one key of an endpoint a new value.
type keyChange struct{ endpoint, which, value, action string }

// changeKey stores a key before the gateway gets it: one that is away now gets it when it is back.
func (s *server) changeKey(ctx context.Context, c keyChange) (zarpa.KeyPair, error) {
	var pair zarpa.KeyPair
	if c.which != "primary" && c.which != "secondary" {
		return pair, zarpa.Errorf(zarpa.Invalid, "key: %.40q is not known", c.which).WithHint("use primary or secondary")
	}
	if _, err := s.endpoint(ctx, c.endpoint); err != nil {
		return pair, err
	}
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		var err error
		if pair, err = readKeys(ctx, n.Keys, s.Seal, c.endpoint); err != nil {
			return err
		}
		if c.which == "primary" {
			pair.Primary = c.value
		} else {
			pair.Secondary = c.value
		}
		sealed, err := sealKeys(s.Seal, c.endpoint, pair, s.Now())
		// Which key it was, and never what it is.
		return errors.Join(err, n.Keys.Put(ctx, sealed), s.audit(ctx, n, c.action, c.endpoint, zarpa.Change{Field: "keys." + c.which}))
	})
	if err != nil {
		return zarpa.KeyPair{}, err
	}
	if err := s.Reconciler.Refresh(ctx, c.endpoint); err != nil {
		s.Log.Warn("the gateway will get the new keys when it is back", "endpoint", c.endpoint, "error", err)
		s.Reconciler.Wake(c.endpoint)
	}
	return pair, nil
}
