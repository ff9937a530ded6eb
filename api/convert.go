package api

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const (
	// DefaultConversions lets one more conversion than the one under way begin: each takes a processor
	// and the memory of a framework.
	DefaultConversions = 2
	// conversionRetry is about how long a small conversion takes in an environment that is there.
	conversionRetry = 10 * time.Second
)

// ConvertModel brings a model into ONNX. What it does comes as lines while it does it; a client that
// leaves ends it. It is overloaded while [Options.Conversions] others are under way.
func (s *server) ConvertModel(ctx context.Context, req ConvertModelRequestObject) (ConvertModelResponseObject, error) {
	m, err := s.model(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	spec := *req.Body
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if m.Format == zarpa.FormatONNX {
		return nil, zarpa.Errorf(zarpa.Invalid, "model %s: is ONNX already", m.Ref())
	}
	if err := s.allow("model "+m.Ref().String(), m.Format); err != nil {
		return nil, err
	}
	if spec.Name == "" {
		spec.Name = m.Name
	}
	if spec.Samples == 0 {
		spec.Samples = zarpa.DefaultSamples
	}
	select {
	case s.conversions <- struct{}{}:
	default:
		full := zarpa.Errorf(zarpa.Overloaded, "model %s: %d conversions are under way, and no more are begun", m.Ref(), cap(s.conversions)).
			WithHint("try again when one has ended")
		full.RetryAfter = conversionRetry
		return nil, full
	}
	r, w := io.Pipe()
	go func() { // ends when the conversion has, or when the client left: then r is closed and ctx ends
		defer func() { <-s.conversions }()
		out := json.NewEncoder(w)
		last := zarpa.ConversionEvent{}
		c, err := s.Convert(ctx, m, spec, func(line string) {
			_ = out.Encode(zarpa.ConversionEvent{Line: line}) // a client that has left is told nothing
		})
		if err != nil {
			last.Error = zarpa.AsError(err)
		} else {
			last.Conversion = &c
		}
		w.CloseWithError(out.Encode(last))
	}()
	return ConvertModel200ApplicationxNdjsonResponse{Body: r}, nil
}
