package score

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// run executes the model once. A panic of the session is an internal error of this request alone.
func run(ctx context.Context, c *call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while the model ran: %v\n%s", p, debug.Stack())
		}
	}()
	var wanted []string
	if len(c.wanted) > 0 {
		wanted = c.wanted
	}
	began := time.Now()
	c.outputs, err = c.model.session.Run(ctx, c.inputs, wanted)
	now := time.Now()
	c.spent.infer = now.Sub(began)
	if err == nil {
		c.model.entry.stats.ran(c.rows(), c.spent.infer, now)
	}
	return err
}

// ended says why a request failed whose context has ended: an engine may tell it in many ways.
func (s *Server) ended(ctx context.Context, err error) error {
	return s.endedWithin(ctx, s.opts.RequestTimeout, err)
}

// endedWithin is ended for a request whose time limit is not the setting.
func (s *Server) endedWithin(ctx context.Context, limit time.Duration, err error) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return zarpa.Errorf(zarpa.Timeout, "Scoring timeout after %d ms", limit.Milliseconds()).
			WithHint("send less at a time, or raise request_timeout").Because(err)
	case s.draining.Load():
		return zarpa.Errorf(zarpa.Unavailable, "the replica stopped before the request ended").WithHint("send it again").Because(err)
	}
	return zarpa.AsError(ctx.Err())
}
