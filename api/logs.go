package api

import (
	"context"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// maxTail bounds the lines that a log is begun with: they are held in memory.
const maxTail = 100_000

// GetLogs streams what replicas printed.
func (s *server) GetLogs(ctx context.Context, req GetLogsRequestObject) (GetLogsResponseObject, error) {
	p := req.Params
	seen, err := s.observed(ctx, req.Name, value(p.Deployment))
	if err != nil {
		return nil, err
	}
	logger, err := s.Reconciler.Logger(seen)
	if err != nil {
		return nil, err
	}
	if value(p.Tail) < 0 || value(p.Tail) > maxTail {
		return nil, zarpa.Errorf(zarpa.Invalid, "tail: %d is not between 0 and %d", *p.Tail, maxTail)
	}
	body, err := logger.Logs(ctx, seen.Handle, zarpa.LogQuery{
		Replica: value(p.Replica), Previous: value(p.Previous), Follow: value(p.Follow), Tail: value(p.Tail),
	})
	if err != nil {
		return nil, err
	}
	return GetLogs200ApplicationoctetStreamResponse{Body: body}, nil
}

// observed finds the record of a deployment; the name may be empty when there is one alone.
func (s *server) observed(ctx context.Context, endpoint, deployment string) (zarpa.Observed, error) {
	if _, err := s.endpoint(ctx, endpoint); err != nil {
		return zarpa.Observed{}, err
	}
	seen, err := s.Store.Nouns().Deployments.List(ctx, endpoint)
	if err != nil {
		return zarpa.Observed{}, err
	}
	if deployment != "" {
		seen = slices.DeleteFunc(seen, func(o zarpa.Observed) bool { return o.Deployment != deployment })
	}
	switch {
	case len(seen) == 0 && deployment != "":
		return zarpa.Observed{}, zarpa.Errorf(zarpa.NotFound, "endpoint %q has no deployment %q", endpoint, deployment)
	case len(seen) == 0:
		return zarpa.Observed{}, zarpa.Errorf(zarpa.NotFound, "nothing of endpoint %q has been started yet", endpoint)
	case len(seen) > 1 && deployment == "":
		var names []string
		for _, o := range seen {
			names = append(names, o.Deployment)
		}
		return zarpa.Observed{}, zarpa.Errorf(zarpa.Invalid, "endpoint %q has several deployments: %s", endpoint, strings.Join(names, ", ")).
			WithHint("name one with --deployment")
	}
	return seen[0], nil
}

// value is what an optional parameter holds, or its type's zero.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
