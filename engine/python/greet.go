package python

import (
	"context"
	"errors"
	"os"

	"github.com/zarpa-dev/zarpa"
)

// greet waits for a worker's first frame, which says what it has loaded, or why it has not. Errors:
// those of the load, model_error when the process died, timeout or canceled when ctx ended.
func (w *worker) greet(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.conn.Close() })
	f, err := readFrame(w.in, int64(w.limits.MaxAnswer))
	if !stop() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return zarpa.Errorf(zarpa.Timeout, "the script or model did not load in time").Because(ctx.Err()).
				WithHint("raise start_timeout, or load less in init()")
		}
		return zarpa.AsError(ctx.Err())
	}
	switch {
	case err != nil && w.dying():
		select {
		case <-w.exited:
		default:
			return zarpa.Errorf(zarpa.Unavailable, "the worker was ended while it loaded").Because(err)
		}
		e := zarpa.Errorf(zarpa.ModelError, "the worker %v while it loaded", w.how)
		w.out.close() // reads what is left
		if last := w.out.last(); last != "" {
			e = e.Because(pythonError("the last lines of its stderr:\n" + last))
		}
		return e
	case err != nil:
		return zarpa.Errorf(zarpa.ModelError, "the worker sent nonsense while it loaded").Because(err)
	case f.kind == kindLoadFailed:
		var failure failed
		if err := decodeJSON(f.payload, &failure); err != nil {
			return zarpa.Errorf(zarpa.Internal, "python: read why a worker did not load: %w", err)
		}
		return failure.loadError()
	case f.kind != kindHello:
		return zarpa.Errorf(zarpa.ModelError, "the worker sent nonsense while it loaded").Because(corrupt("kind %d", f.kind))
	}
	if err := decodeJSON(f.payload, &w.hello); err != nil {
		return zarpa.Errorf(zarpa.Internal, "python: read what a worker loaded: %w", err)
	}
	process, err := os.FindProcess(w.hello.PID)
	if err != nil {
		return zarpa.Errorf(zarpa.ModelError, "the worker ended when it had loaded").Because(err)
	}
	w.process.Store(process)
	return nil
}
