package api

import "context"

// ListTargets lists where replicas can run.
func (s *server) ListTargets(ctx context.Context, _ ListTargetsRequestObject) (ListTargetsResponseObject, error) {
	list, err := s.Store.Nouns().Targets.List(ctx)
	if err != nil {
		return nil, err
	}
	return ListTargets200JSONResponse(notNil(list)), nil
}

// GetTarget shows one target.
func (s *server) GetTarget(ctx context.Context, req GetTargetRequestObject) (GetTargetResponseObject, error) {
	t, err := s.Store.Nouns().Targets.Get(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	return GetTarget200JSONResponse(t), nil
}
