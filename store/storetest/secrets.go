package storetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func secret(name string) zarpa.Secret {
	return zarpa.Secret{Name: name, Sealed: []byte{0, 1, 0xff, '\n', 0}, Created: instant(), Updated: instant()}
}

func secretScenarios() []scenario {
	return []scenario{
		{"ReadBackAsPut", secretsReadBack},
		{"PutKeepsCreated", secretsPut},
		{"ListOrdersByName", secretsList},
		{"DeleteIsForGood", secretsDelete},
	}
}

// sameSecret also compares what JSON leaves out.
func sameSecret(t *testing.T, got, want zarpa.Secret) {
	t.Helper()
	same(t, got, want)
	if !bytes.Equal(got.Sealed, want.Sealed) {
		t.Fatalf("sealed %q, want %q", got.Sealed, want.Sealed)
	}
}

func secretsReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	_, err := s.Secrets.Get(ctx, "db")
	fails(t, err, zarpa.NotFound)
	ok(t, s.Secrets.Put(ctx, secret("db")))
	s.restart(t)
	got, err := s.Secrets.Get(ctx, "db")
	ok(t, err)
	sameSecret(t, got, secret("db"))
}

func secretsPut(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Secrets.Put(ctx, secret("db")))
	next := secret("db")
	next.Sealed, next.Created, next.Updated = bytes.Repeat([]byte("x"), zarpa.MaxSecret+100), instant().Add(time.Hour), instant().Add(time.Hour)
	ok(t, s.Secrets.Put(ctx, next))
	next.Created = instant()
	got, err := s.Secrets.Get(ctx, "db")
	ok(t, err)
	sameSecret(t, got, next)
}

func secretsList(t *testing.T, s *subject) {
	ctx := t.Context()
	none, err := s.Secrets.List(ctx)
	ok(t, err)
	same(t, none, []zarpa.Secret{})
	for _, name := range []string{"token", "db", "Key"} {
		ok(t, s.Secrets.Put(ctx, secret(name)))
	}
	all, err := s.Secrets.List(ctx)
	ok(t, err)
	same(t, all, []zarpa.Secret{secret("Key"), secret("db"), secret("token")})
	sameSecret(t, all[0], secret("Key"))
}

func secretsDelete(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Secrets.Delete(ctx, "db"))
	ok(t, s.Secrets.Put(ctx, secret("db")))
	ok(t, s.Secrets.Put(ctx, secret("token")))
	ok(t, s.Secrets.Delete(ctx, "db"))
	_, err := s.Secrets.Get(ctx, "db")
	fails(t, err, zarpa.NotFound)
	all, err := s.Secrets.List(ctx)
	ok(t, err)
	same(t, all, []zarpa.Secret{secret("token")})
}
