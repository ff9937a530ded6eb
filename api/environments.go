package api

import (
	"context"
	"io"

	"github.com/zarpa-dev/zarpa"
)

// environments are the Python environments of this machine, as package environment keeps them.
type environments interface {
	List(ctx context.Context) ([]zarpa.Environment, error)
	Get(ctx context.Context, id string) (zarpa.Environment, error)
	Log(ctx context.Context, id string) (io.ReadCloser, error)
	Remove(ctx context.Context, id string) error
}

// ListEnvironments lists them, the newest first, without their packages.
func (s *server) ListEnvironments(ctx context.Context, _ ListEnvironmentsRequestObject) (ListEnvironmentsResponseObject, error) {
	list, err := s.Environments.List(ctx)
	if err != nil {
		return nil, err
	}
	users, err := s.EnvironmentUsers(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Packages, list[i].UsedBy = nil, users[list[i].ID]
	}
	return ListEnvironments200JSONResponse(notNil(list)), nil
}

// GetEnvironment shows one.
func (s *server) GetEnvironment(ctx context.Context, req GetEnvironmentRequestObject) (GetEnvironmentResponseObject, error) {
	e, err := s.Environments.Get(ctx, req.Id)
	if err != nil {
		return nil, err
	}
	users, err := s.EnvironmentUsers(ctx)
	if err != nil {
		return nil, err
	}
	e.UsedBy = users[e.ID]
	return GetEnvironment200JSONResponse(e), nil
}

// DeleteEnvironment removes one that nobody uses.
func (s *server) DeleteEnvironment(ctx context.Context, req DeleteEnvironmentRequestObject) (DeleteEnvironmentResponseObject, error) {
	users, err := s.EnvironmentUsers(ctx)
	if err != nil {
		return nil, err
	}
	if by := users[req.Id]; len(by) > 0 {
		return nil, zarpa.Errorf(zarpa.Conflict, "environment %s is used by %s", req.Id, by[0]).
			WithHint("delete or change that deployment first")
	}
	e, err := s.Environments.Get(ctx, req.Id)
	if err != nil {
		return nil, err
	}
	// What is removed can be built again, and its removal is no part of a transaction: it comes first, so
	// that what failed has no entry.
	if err := s.Environments.Remove(ctx, req.Id); err != nil {
		return nil, err
	}
	if err := s.audit(ctx, s.Store.Nouns(), "environment.delete", environmentObject+e.ID); err != nil {
		return nil, err
	}
	return DeleteEnvironment204Response{}, nil
}

// GetEnvironmentLog sends what its build printed.
func (s *server) GetEnvironmentLog(ctx context.Context, req GetEnvironmentLogRequestObject) (GetEnvironmentLogResponseObject, error) {
	r, err := s.Environments.Log(ctx, req.Id)
	if err != nil {
		return nil, err
	}
	return GetEnvironmentLog200ApplicationoctetStreamResponse{Body: r}, nil
}
