package api

import (
	"context"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const (
	defaultOperations = 20
	maxOperations     = 1000
)

// ListOperations lists operations, newest first.
func (s *server) ListOperations(ctx context.Context, req ListOperationsRequestObject) (ListOperationsResponseObject, error) {
	endpoint, limit := "", defaultOperations
	if req.Params.Endpoint != nil {
		endpoint = *req.Params.Endpoint
	}
	if req.Params.Limit != nil {
		limit = *req.Params.Limit
	}
	if limit < 1 || limit > maxOperations {
		return nil, zarpa.Errorf(zarpa.Invalid, "limit: %d is not between 1 and %d", limit, maxOperations)
	}
	list, err := s.Store.Nouns().Operations.List(ctx, endpoint, limit)
	if err != nil {
		return nil, err
	}
	return ListOperations200JSONResponse(notNil(list)), nil
}

// GetOperation shows an operation, and waits for it to change when asked to.
func (s *server) GetOperation(ctx context.Context, req GetOperationRequestObject) (GetOperationResponseObject, error) {
	var wait zarpa.Duration
	if req.Params.Wait != nil {
		if err := wait.UnmarshalText([]byte(*req.Params.Wait)); err != nil {
			return nil, zarpa.Errorf(zarpa.Invalid, "wait: %w", err)
		}
	}
	timeout := time.NewTimer(min(time.Duration(wait), maxWait))
	defer timeout.Stop()
	for {
		changed := s.Reconciler.Changed()
		op, err := s.Store.Nouns().Operations.Get(ctx, req.Id)
		if err != nil {
			return nil, err
		}
		if wait <= 0 || op.State != zarpa.OperationRunning || req.Params.After == nil || op.Revision > *req.Params.After {
			return GetOperation200JSONResponse(op), nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return GetOperation200JSONResponse(op), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
