package api

import (
	"context"

	"github.com/zarpa-dev/zarpa"
)

// ReplaceReplica has one replica replaced.
func (s *server) ReplaceReplica(ctx context.Context, req ReplaceReplicaRequestObject) (ReplaceReplicaResponseObject, error) {
	if _, err := s.endpoint(ctx, req.Name); err != nil {
		return nil, err
	}
	seen, err := s.Store.Nouns().Deployments.List(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	for _, o := range seen {
		for _, r := range o.Status.Replicas {
			if r.ID != req.Replica {
				continue
			}
			// The replica is not in the store: the entry comes first, and tells at least what was tried.
			if err := s.audit(ctx, s.Store.Nouns(), "replica.replace", req.Name, zarpa.Change{Field: "replica", From: r.ID}); err != nil {
				return nil, err
			}
			if err := s.Reconciler.Replace(ctx, o, r.ID); err != nil {
				return nil, err
			}
			return ReplaceReplica202Response{}, nil
		}
	}
	return nil, zarpa.Errorf(zarpa.NotFound, "endpoint %q has no replica %.80q", req.Name, req.Replica).
		WithHint("zarpa endpoint show %s shows those that it has", req.Name)
}
