package api

import (
	"context"
	"math"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// GetLoad tells what the gateway has counted; without a wait, at once.
func (s *server) GetLoad(ctx context.Context, req GetLoadRequestObject) (GetLoadResponseObject, error) {
	var wait zarpa.Duration
	if req.Params.Wait != nil {
		if err := wait.UnmarshalText([]byte(*req.Params.Wait)); err != nil {
			return nil, zarpa.Errorf(zarpa.Invalid, "wait: %w", err)
		}
	}
	wake := int64(math.MaxInt64)
	if req.Params.Wake != nil {
		wake = *req.Params.Wake
	}
	load, err := s.Load.Load(ctx, wake, min(time.Duration(wait), maxWait))
	if err != nil {
		return nil, err
	}
	return GetLoad200JSONResponse(load), nil
}
