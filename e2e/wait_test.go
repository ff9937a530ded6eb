package e2e

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// patience is how long anything may take that must happen at all; a machine shared with other
// tests may stand still for seconds.
const patience = 60 * time.Second

// fatal is an error that waiting longer does not heal.
type fatal struct{ error }

// await calls check until it returns nil. When ctx ends first, the error is check's last.
func await(ctx context.Context, check func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // what the end of ctx itself breaks tells nothing
			last = err
		}
		if stop := (fatal{}); errors.As(err, &stop) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", last)
		}
	}
}

// pause waits and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
