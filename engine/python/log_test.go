package python_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// record is a log record: what was printed, with its attributes.
type record struct {
	message string
	attrs   map[string]string
}

// recorder keeps log records.
type recorder struct {
	mu      sync.Mutex
	records []record
	more    chan struct{} // closed at the next record
}

func newRecorder() *recorder { return &recorder{more: make(chan struct{})} }

func (r *recorder) log() *slog.Logger { return slog.New(&handler{r: r}) }

type handler struct {
	r     *recorder
	attrs []slog.Attr
}

func (h *handler) Enabled(context.Context, slog.Level) bool { return true }
func (h *handler) WithGroup(string) slog.Handler            { return h }
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.r, append(slices.Clip(h.attrs), attrs...)}
}

func (h *handler) Handle(_ context.Context, rec slog.Record) error {
	e := record{rec.Message, map[string]string{}}
	for _, a := range h.attrs {
		e.attrs[a.Key] = a.Value.String()
	}
	rec.Attrs(func(a slog.Attr) bool { e.attrs[a.Key] = a.Value.String(); return true })
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	h.r.records = append(h.r.records, e)
	close(h.r.more)
	h.r.more = make(chan struct{})
	return nil
}

// lines are the records that a worker's output made.
func (r *recorder) lines() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []record
	for _, e := range r.records {
		if e.attrs["stream"] != "" {
			found = append(found, e)
		}
	}
	return found
}

// waitFor waits for a record whose message, or an attribute, contains text.
func (r *recorder) waitFor(t testing.TB, text string) record {
	t.Helper()
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	for {
		r.mu.Lock()
		more := r.more
		for _, e := range r.records {
			if strings.Contains(e.message, text) {
				r.mu.Unlock()
				return e
			}
			for _, v := range e.attrs {
				if strings.Contains(v, text) {
					r.mu.Unlock()
					return e
				}
			}
		}
		r.mu.Unlock()
		select {
		case <-more:
		case <-timer.C:
			t.Fatalf("nothing in the log of %q; it has %v", text, r.records)
		}
	}
}
