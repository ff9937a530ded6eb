package api

import (
	"context"
	"io"

	"github.com/zarpa-dev/zarpa/bundle"
)

// PutContent stores the files of a tar archive.
func (s *server) PutContent(ctx context.Context, req PutContentRequestObject) (PutContentResponseObject, error) {
	c, err := bundle.WriteContent(ctx, s.Blobs, req.Body, bundle.Limits{})
	if err != nil {
		return nil, err
	}
	return PutContent201JSONResponse(c), nil
}

// GetModelContent sends a model's files as a tar archive.
func (s *server) GetModelContent(ctx context.Context, req GetModelContentRequestObject) (GetModelContentResponseObject, error) {
	m, err := s.model(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { // ends when the answer is sent or the client left: then r is closed
		w.CloseWithError(bundle.WriteTar(ctx, s.Blobs, m.Content, w))
	}()
	return GetModelContent200ApplicationxTarResponse{Body: r}, nil
}
