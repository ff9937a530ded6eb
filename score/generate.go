package score

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// generateForm is the body of …/generate and of …/generate_stream:
//
//	{"id": "1", "parameters": {…}, "stream": true, "prompt": "once", "max_tokens": 5}
//
// Every key but those three is an input by its name; where the model has an input of one of those
// names, that is what it means. Values are elements or nested arrays, fitted to the input's shape
// by dimensions of one: see fitRank. The answer is an object of the model's name and version, the
// id, and each output by name: a bare value for one element, else a flat array.
type generateForm struct{}

var _ codec = generateForm{}

func (generateForm) decode(c *call, _ *http.Request) error {
	d := &c.dec
	err := object(d, func(key []byte) (err error) {
		i, ok := c.model.inputs[string(key)]
		switch {
		case ok && c.values[i].given:
			return twice("input", key)
		case ok:
			return c.generateInput(i)
		}
		switch string(key) {
		case "id":
			c.hasID = true
			if c.id, err = d.String(); err != nil {
				return zarpa.Errorf(zarpa.Invalid, "id: not a string")
			}
			return nil
		case "parameters":
			return c.requestParameters()
		case "stream": // the path says it
			if _, err := d.Bool(); err != nil {
				return zarpa.Errorf(zarpa.Invalid, "stream: not true or false")
			}
			return nil
		}
		return unknown("input", key, append(names(c.model.sig.Inputs), "id", "parameters", "stream"))
	})
	if err != nil {
		return err
	}
	return d.End()
}

func (c *call) generateInput(i int) error {
	if err := c.read(i, 0); err != nil {
		return err
	}
	v := &c.values[i]
	if shape, ok := fitRank(v.Shape(), &c.model.sig.Inputs[i]); ok {
		v.Reshape(shape)
	}
	return nil
}

// fitRank gives a shape as written the rank of the input: by dimensions of one before it, as for one
// row of a batch, or else behind it, as for one column. ok is false where neither fits.
func fitRank(shape []int64, info *zarpa.ValueInfo) ([]int64, bool) {
	missing := len(info.Shape) - len(shape)
	if info.NoShape || missing <= 0 || len(info.Shape) > tensorjson.MaxRank {
		return nil, false
	}
	fits := func(full []int64) bool {
		for i, d := range info.Shape {
			if d.Size >= 0 && d.Size != full[i] {
				return false
			}
		}
		return true
	}
	before := make([]int64, len(info.Shape))
	behind := make([]int64, len(info.Shape))
	for i := range before {
		before[i], behind[i] = 1, 1
	}
	copy(before[missing:], shape)
	copy(behind, shape)
	if fits(before) {
		return before, true
	}
	return behind, fits(behind)
}

func (generateForm) encode(c *call) error {
	c.out = c.out[:0]
	if err := c.appendGenerated(); err != nil {
		return err
	}
	c.out = append(c.out, '\n')
	return nil
}

// appendGenerated appends one answer to c.out.
func (c *call) appendGenerated() error {
	out, _ := tensorjson.AppendString(append(c.out, `{"model_name":`...), c.name)
	if v := c.model.entry.Version; v != "" {
		out, _ = tensorjson.AppendString(append(out, `,"model_version":`...), v)
	}
	if c.hasID {
		out, _ = tensorjson.AppendString(append(out, `,"id":`...), c.id)
	}
	for i := range c.outputs {
		t := &c.outputs[i]
		if t.Type == zarpa.Undefined { // an optional output that is absent
			continue
		}
		out, _ = tensorjson.AppendString(append(out, ','), t.Name)
		var err error
		if out, err = c.appendPlain(append(out, ':'), t); err != nil {
			return err
		}
	}
	c.out = append(out, '}')
	return nil
}

// appendPlain writes one element bare, several as a flat array, and what is no tensor nested.
func (c *call) appendPlain(out []byte, t *zarpa.Tensor) ([]byte, error) {
	format := tensorjson.Format{NonFinite: c.allow}
	if t.Type == zarpa.Sequence || t.Type == zarpa.Map {
		return format.AppendNested(out, t)
	}
	if n, err := zarpa.Elements(t.Shape); err == nil && n == 1 {
		bare := *t
		bare.Shape = nil
		return format.AppendNested(out, &bare)
	}
	return format.AppendFlat(out, t)
}

// generate answers POST …/generate: the whole answer of one run.
func (s *Server) generate(w http.ResponseWriter, r *http.Request, p place) error {
	return s.answer(w, r, p, generateForm{})
}

// generateStream answers POST …/generate_stream: a server-sent event for each part of the answer,
// each sent at once. A failure before the first part has a status, one behind it is an event
// {"error": …}.
func (s *Server) generateStream(w http.ResponseWriter, r *http.Request, p place) (err error) {
	m, err := p.entry.ready()
	if err == nil {
		err = m.tensors()
	}
	if err != nil {
		return err
	}
	c := s.begin(m)
	defer s.end(c)
	c.name = p.name
	limit := s.timeLeft(r.Header)
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	defer func() { c.count(err) }()
	if err := s.decode(w, r, c, generateForm{}); err != nil {
		return s.endedWithin(ctx, limit, err)
	}
	e := events{w: w, control: http.NewResponseController(w)}
	// a client that does not read its parts is left, so that its connection is not kept for ever
	_ = e.control.SetWriteDeadline(time.Now().Add(limit + readMargin))
	defer func() { _ = e.control.SetWriteDeadline(time.Time{}) }()
	err = s.stream(ctx, c, func() error {
		c.out = append(c.out[:0], "data: "...)
		if err := c.appendGenerated(); err != nil {
			return err
		}
		return e.send(append(c.out, "\n\n"...))
	})
	if err != nil {
		err = s.endedWithin(ctx, limit, err)
		if !e.begun {
			return err
		}
		return e.fail(r, err)
	}
	if !e.begun { // no part at all is an empty stream
		err = e.send(nil)
	}
	return c.written(err)
}

// events are an answer of server-sent events.
type events struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

var eventType = []string{"text/event-stream; charset=utf-8"}

// send writes an event and flushes it. The error is canceled: the client has left.
func (e *events) send(event []byte) error {
	if !e.begun {
		h := e.w.Header()
		h["Content-Type"] = eventType
		h["Cache-Control"] = []string{"no-cache"}
		e.begun = true
	}
	_, err := e.w.Write(event)
	if err == nil {
		err = e.control.Flush()
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return zarpa.AsError(context.Canceled).Because(err)
	}
	return nil
}

// fail ends the events with an error, which is logged and counted as every other.
func (e *events) fail(r *http.Request, err error) error {
	_ = e.send(append(httpx.ErrorEvent(r, err), '\n')) // a client that has left does not get it
	return answeredError{err}
}

// answeredError is an error that the client was told of already: it is only counted.
type answeredError struct{ err error }

func (e answeredError) Error() string { return e.err.Error() }
func (e answeredError) Unwrap() error { return e.err }
