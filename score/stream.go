package score

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// stream makes one part of the answer after the other c.outputs and calls send for each. A model
// that does not stream gives one. What send waits for holds no run back: a model whose parts are
// not taken is stopped with ctx. The errors are those of [Server.execute], or of send as they are.
func (s *Server) stream(ctx context.Context, c *call, send func() error) error {
	if c.model.streamer == nil {
		if err := s.execute(ctx, c); err != nil {
			return err
		}
		return send()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make(chan []zarpa.Tensor)
	ended := make(chan error, 1)
	go func() { ended <- s.produce(ctx, c, parts) }()
	for {
		select {
		case c.outputs = <-parts:
			if err := send(); err != nil {
				cancel()
				<-ended //nolint:errcheck // the client is the reason
				return err
			}
		case err := <-ended:
			return err
		}
	}
}

// produce runs a model that streams, in the place of [Server.execute].
func (s *Server) produce(ctx context.Context, c *call, parts chan<- []zarpa.Tensor) error {
	decoded := time.Now()
	c.spent.input = decoded.Sub(c.began)
	if err := s.limit.limit(ctx); err != nil {
		return err
	}
	defer s.limit.leave()
	c.spent.queue = time.Since(decoded)
	return s.unshared(ctx, c, func(ctx context.Context, c *call) error { return runInParts(ctx, c, parts) })
}

// runInParts is [run] for a model that streams.
func runInParts(ctx context.Context, c *call, parts chan<- []zarpa.Tensor) (err error) {
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
	err = c.model.streamer.Stream(ctx, c.inputs, wanted, func(part []zarpa.Tensor) error {
		select {
		case parts <- part:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	now := time.Now()
	c.spent.infer = now.Sub(began)
	if err == nil {
		c.model.entry.stats.ran(c.rows(), c.spent.infer, now)
	}
	return err
}
