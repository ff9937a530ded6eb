package api

import (
	"context"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// What the audit log calls the things that are neither endpoints nor models.
const (
	accessObject      = "access/"
	environmentObject = "environment/"
	secretObject      = "secret/"
	imageObject       = "image/"
	signingObject     = "signing-key"
)

// ListAccesses lists the named tokens.
func (s *server) ListAccesses(ctx context.Context, _ ListAccessesRequestObject) (ListAccessesResponseObject, error) {
	list, err := s.Store.Nouns().Accesses.List(ctx)
	if err != nil {
		return nil, err
	}
	return ListAccesses200JSONResponse(notNil(list)), nil
}

// CreateAccess makes a named token and shows it this once: the store has its digest.
func (s *server) CreateAccess(ctx context.Context, req CreateAccessRequestObject) (CreateAccessResponseObject, error) {
	spec := *req.Body
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	token, now := namedPrefix+newKey(), s.Now().UTC()
	a := zarpa.Access{Name: spec.Name, Role: spec.Role, Digest: zarpa.KeyDigest(token), Created: now}
	changes := []zarpa.Change{{Field: "role", To: string(a.Role)}}
	if spec.Lifetime > 0 {
		a.Expires = now.Add(time.Duration(spec.Lifetime))
		changes = append(changes, zarpa.Change{Field: "expires", To: a.Expires.Format(time.RFC3339)})
	}
	defer s.accesses.changed()
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		if err := n.Accesses.Create(ctx, a); err != nil {
			return err
		}
		return s.audit(ctx, n, "access.create", accessObject+a.Name, changes...)
	})
	if err != nil {
		return nil, err
	}
	return CreateAccess201JSONResponse(zarpa.AccessGrant{Access: a, Token: token}), nil
}

// RevokeAccess ends a named token: the next call that carries it is refused.
func (s *server) RevokeAccess(ctx context.Context, req RevokeAccessRequestObject) (RevokeAccessResponseObject, error) {
	defer s.accesses.changed()
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		was, err := accessNamed(ctx, n, req.Name)
		if err != nil || !was.Revoked.IsZero() {
			return err
		}
		now := s.Now().UTC()
		if err := n.Accesses.Revoke(ctx, req.Name, now); err != nil {
			return err
		}
		return s.audit(ctx, n, "access.revoke", accessObject+req.Name, zarpa.Change{Field: "revoked", To: now.Format(time.RFC3339)})
	})
	if err != nil {
		return nil, err
	}
	return RevokeAccess204Response{}, nil
}

// DeleteAccess forgets a named token.
func (s *server) DeleteAccess(ctx context.Context, req DeleteAccessRequestObject) (DeleteAccessResponseObject, error) {
	defer s.accesses.changed()
	err := s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		was, err := accessNamed(ctx, n, req.Name)
		if err != nil {
			return err
		}
		if err := n.Accesses.Delete(ctx, req.Name); err != nil {
			return err
		}
		return s.audit(ctx, n, "access.delete", accessObject+req.Name, zarpa.Change{Field: "role", From: string(was.Role)})
	})
	if err != nil {
		return nil, err
	}
	return DeleteAccess204Response{}, nil
}

func accessNamed(ctx context.Context, n zarpa.Nouns, name string) (zarpa.Access, error) {
	list, err := n.Accesses.List(ctx)
	if err != nil {
		return zarpa.Access{}, err
	}
	for _, a := range list {
		if a.Name == name {
			return a, nil
		}
	}
	return zarpa.Access{}, zarpa.Errorf(zarpa.NotFound, "access %q does not exist", clip(name)).WithHint("zarpa access list shows those that do")
}
