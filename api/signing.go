package api

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/scoringtoken"
	"github.com/zarpa-dev/zarpa/internal/seal"
)

// signingRecord is under what the store has the sealed signing keys, beside those of endpoints: no
// endpoint can have this name.
const signingRecord = "*signing"

// signingKeys is how many are kept: the current one, and the one before it.
const signingKeys = 2

// refreshPercent of a scoring token's life are over when the next one should be asked for.
const refreshPercent = 80

// Signing are the keys that sign scoring tokens. They are sealed in the store; what is in memory is
// what the store has. It may be used from many goroutines.
type Signing struct {
	store zarpa.Store
	box   *seal.Box

	mu   sync.Mutex // guards keys; not held over I/O
	keys []signingKey
}

// signingKey is one of them, as it is sealed.
type signingKey struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Seed    []byte    `json:"seed"` // of an Ed25519 key
}

func (k signingKey) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k.Seed) }

// OpenSigning reads the keys, and makes the first one where there is none.
func OpenSigning(ctx context.Context, store zarpa.Store, box *seal.Box) (*Signing, error) {
	s := &Signing{store: store, box: box}
	var keys []signingKey
	err := store.Atomically(ctx, func(n zarpa.Nouns) (err error) {
		if keys, err = s.load(ctx, n); err != nil || len(keys) > 0 {
			return err
		}
		keys = []signingKey{newSigningKey(time.Now())}
		return s.save(ctx, n, keys)
	})
	s.keys = keys
	return s, err
}

func newSigningKey(now time.Time) signingKey {
	seed, id := make([]byte, ed25519.SeedSize), make([]byte, 8)
	_, _ = rand.Read(seed) // crypto/rand never fails: it ends the program
	_, _ = rand.Read(id)
	return signingKey{ID: hex.EncodeToString(id), Created: now.UTC().Truncate(time.Second), Seed: seed}
}

func (s *Signing) load(ctx context.Context, n zarpa.Nouns) (keys []signingKey, err error) {
	sealed, err := n.Keys.Get(ctx, signingRecord)
	if errors.Is(err, zarpa.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	plain, err := s.box.Unseal(signingRecord, sealed.Sealed)
	if err == nil {
		err = json.Unmarshal(plain, &keys)
	}
	for _, k := range keys {
		if len(k.Seed) != ed25519.SeedSize {
			err = errors.New("a seed of another length")
		}
	}
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Internal, "the keys that sign scoring tokens cannot be read").
			WithHint("the file secret.key of the data directory is not the one they were sealed with").Because(err)
	}
	return keys, nil
}

func (s *Signing) save(ctx context.Context, n zarpa.Nouns, keys []signingKey) error {
	plain, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	return n.Keys.Put(ctx, zarpa.SealedKeys{Endpoint: signingRecord, Sealed: s.box.Seal(signingRecord, plain), Updated: keys[0].Created})
}

// VerifyKeys are the public halves, for the gateway: the current key's first.
func (s *Signing) VerifyKeys() []zarpa.VerifyKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []zarpa.VerifyKey
	for _, k := range s.keys {
		public, _ := k.private().Public().(ed25519.PublicKey) // it is no other type
		keys = append(keys, zarpa.VerifyKey{ID: k.ID, Public: public})
	}
	return keys
}

// shown are the keys as users see them.
func (s *Signing) shown() []zarpa.SigningKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []zarpa.SigningKey{}
	for i, k := range s.keys {
		list = append(list, zarpa.SigningKey{ID: k.ID, Created: k.Created, Current: i == 0})
	}
	return list
}

// rotate puts a new key before the others, stores it together with the entry that log makes, and
// returns when new tokens are signed with it.
func (s *Signing) rotate(ctx context.Context, now time.Time, log func(n zarpa.Nouns, was, is string) error) error {
	var keys []signingKey
	err := s.store.Atomically(ctx, func(n zarpa.Nouns) error {
		before, err := s.load(ctx, n)
		if err != nil {
			return err
		}
		was := ""
		if len(before) > 0 {
			was = before[0].ID
		}
		keys = append([]signingKey{newSigningKey(now)}, before...)
		keys = keys[:min(len(keys), signingKeys)]
		return errors.Join(s.save(ctx, n, keys), log(n, was, keys[0].ID))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = keys
	return nil
}

// sign makes a token for one endpoint.
func (s *Signing) sign(c scoringtoken.Claims) (string, error) {
	s.mu.Lock()
	k := s.keys[0]
	s.mu.Unlock()
	return scoringtoken.Sign(k.private(), k.ID, c)
}

// CreateToken signs a scoring token of an endpoint.
func (s *server) CreateToken(ctx context.Context, req CreateTokenRequestObject) (CreateTokenResponseObject, error) {
	spec := *req.Body
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	e, err := s.endpoint(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	if e.Spec.WithDefaults().Auth == zarpa.AuthNone {
		return nil, zarpa.Errorf(zarpa.Conflict, "endpoint %q asks its callers for nothing", req.Name).
			WithHint("send requests without a token, or give the endpoint auth: key or token")
	}
	if spec.Lifetime == 0 {
		spec.Lifetime = zarpa.DefaultTokenLifetime
	}
	// Whole seconds, as on the wire.
	now, life := s.Now().UTC().Truncate(time.Second), time.Duration(spec.Lifetime)
	t := zarpa.ScoringToken{Type: "Bearer", Expires: now.Add(life).Truncate(time.Second), RefreshBy: now.Add(life * refreshPercent / 100).Truncate(time.Second)}
	id := newSigningKey(now).ID
	t.Token, err = s.Signing.sign(scoringtoken.Claims{
		Endpoint: req.Name, Subject: clip(whoOf(ctx)), ID: id, Issued: now, Expires: t.Expires, RefreshBy: t.RefreshBy,
	})
	if err != nil {
		return nil, err
	}
	err = s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		return s.audit(ctx, n, "token.create", req.Name, zarpa.Change{Field: "expires", To: t.Expires.Format(time.RFC3339)}, zarpa.Change{Field: "token_id", To: id})
	})
	if err != nil {
		return nil, err
	}
	return CreateToken201JSONResponse(t), nil
}

// ListSigningKeys tells which keys make scoring tokens valid.
func (s *server) ListSigningKeys(context.Context, ListSigningKeysRequestObject) (ListSigningKeysResponseObject, error) {
	return ListSigningKeys200JSONResponse(s.Signing.shown()), nil
}

// RotateSigningKey signs with a new key from now on, and answers when the gateway knows it.
func (s *server) RotateSigningKey(ctx context.Context, _ RotateSigningKeyRequestObject) (RotateSigningKeyResponseObject, error) {
	err := s.Signing.rotate(ctx, s.Now(), func(n zarpa.Nouns, was, is string) error {
		return s.audit(ctx, n, "signing-key.rotate", signingObject, zarpa.Change{Field: "id", From: was, To: is})
	})
	if err != nil {
		return nil, err
	}
	if err := s.Reconciler.Republish(ctx); err != nil {
		s.Log.Warn("the gateway will get the new signing key when it is back", "error", err)
	}
	return RotateSigningKey200JSONResponse(s.Signing.shown()), nil
}
