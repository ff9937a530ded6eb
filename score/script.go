package score

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// script lets a model that is a scoring script answer a request of /score: decode is the body's
// bytes, encode is the script's own.
func (s *Server) script(w http.ResponseWriter, r *http.Request, m *model) (err error) {
	c := s.begin(m)
	defer s.end(c)
	defer func() { c.count(err) }()
	ctx, cancel := context.WithTimeout(r.Context(), s.timeLeft(r.Header))
	defer cancel()
	if err := s.plainBody(w, r, c); err != nil {
		return s.ended(ctx, err)
	}
	c.spent.input = time.Since(c.began)
	if err := s.limit.limit(ctx); err != nil {
		return s.ended(ctx, err)
	}
	defer s.limit.leave()
	began := time.Now()
	c.spent.queue = began.Sub(c.began) - c.spent.input
	reply := &scriptReply{ResponseWriter: w}
	err = m.scorer.Score(reply, r.WithContext(ctx), c.text)
	now := time.Now()
	c.spent.infer, c.spent.total = now.Sub(began), now.Sub(c.began)
	switch {
	case err != nil && reply.status != 0: // what was begun cannot be taken back
		return answeredError{errors.Join(err, http.ErrAbortHandler)}
	case err != nil:
		return s.ended(ctx, err)
	case w.Header().Get("X-Ms-Run-Function-Failed") == "True":
		return answeredError{zarpa.Errorf(zarpa.ModelError, "the script failed")}
	}
	m.entry.stats.ran(1, c.spent.infer, now)
	return nil
}

// plainBody reads a request's body into c.text, decompressed.
func (s *Server) plainBody(w http.ResponseWriter, r *http.Request, c *call) (err error) {
	limit := int64(s.opts.MaxBody)
	c.body = httpx.Grow(c.body, r.ContentLength)
	if c.body, err = httpx.ReadBodyAt(w, r, limit, c.body); err != nil {
		return err
	}
	c.text = c.body
	if encoding := r.Header["Content-Encoding"]; len(encoding) > 0 {
		c.text, err = decompress(strings.Join(encoding, ","), c.text, limit, 0)
	}
	return err
}

// scriptReply notes that an answer has begun.
type scriptReply struct {
	http.ResponseWriter

	status int
}

func (r *scriptReply) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *scriptReply) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush.
func (r *scriptReply) Unwrap() http.ResponseWriter { return r.ResponseWriter }
