package replica

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/zarpa-dev/zarpa"
)

// Logs is [zarpa.Logger].Logs. Replicas are read one after the other, or with Follow all at once,
// those that come later included.
func (s *Set) Logs(ctx context.Context, h zarpa.Handle, q zarpa.LogQuery) (io.ReadCloser, error) {
	s.mu.Lock()
	dep, err := s.find(h)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	slots := slices.Clone(dep.slots)
	s.mu.Unlock()
	prefix := q.Replica == ""
	if !prefix {
		slots = slices.DeleteFunc(slots, func(l *slot) bool { return l.id() != q.Replica })
		if len(slots) == 0 {
			return nil, zarpa.Errorf(zarpa.NotFound, "replica %q of %s does not exist", q.Replica, dep.key).
				WithHint("zarpa endpoint show %s lists those that do", strings.Split(dep.key, "/")[0])
		}
	}
	reading, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	out := &logStream{PipeReader: r, cancel: cancel, done: make(chan struct{})}
	lines := &lineWriter{w: w}
	go func() { // ends with reading; Close waits for it
		defer close(out.done)
		stop := context.AfterFunc(reading, func() { w.CloseWithError(io.EOF) })
		defer stop()
		var err error
		switch {
		case !q.Follow:
			err = s.readEach(reading, slots, q, lines)
		case prefix:
			err = s.followAll(reading, dep, q, lines)
		default:
			err = s.lines(reading, slots[0], q, lines.to(""))
		}
		if reading.Err() != nil {
			err = nil // the reader left, or the time is up: that is the end of the text
		}
		w.CloseWithError(err)
	}()
	return out, nil
}

// logStream is a pipe whose Close ends what writes to it.
type logStream struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

func (l *logStream) Close() error {
	l.cancel()
	err := l.PipeReader.Close()
	<-l.done
	return err
}

// lineWriter takes whole lines from many goroutines.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) to(prefix string) func(string) error {
	return func(line string) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, err := io.WriteString(l.w, prefix+line+"\n")
		return err
	}
}

func (l *slot) id() string { return l.note.ID } // never changes

func (s *Set) readEach(ctx context.Context, slots []*slot, q zarpa.LogQuery, w *lineWriter) error {
	for _, l := range slots {
		prefix := ""
		if q.Replica == "" {
			prefix = "[" + l.id() + "] "
		}
		if err := s.lines(ctx, l, q, w.to(prefix)); err != nil {
			return err
		}
	}
	return nil
}

// lines reads one replica.
func (s *Set) lines(ctx context.Context, l *slot, q zarpa.LogQuery, emit func(string) error) error {
	s.mu.Lock()
	dead := q.Previous && l.note.Last == nil
	s.mu.Unlock()
	if dead {
		return nil // no run of it has died
	}
	read := LogRead{Tail: q.Tail, Previous: q.Previous, Follow: q.Follow && !q.Previous, Gone: l.gone}
	return s.o.Runner.Lines(ctx, l.start(), read, emit)
}

// followAll follows every replica until the deployment is gone.
func (s *Set) followAll(ctx context.Context, dep *deployment, q zarpa.LogQuery, w *lineWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var mu sync.Mutex
	var failed error
	known := map[*slot]bool{}
	for {
		s.mu.Lock()
		slots, changed, gone := slices.Clone(dep.slots), s.changed, s.deployments[dep.key] != dep
		s.mu.Unlock()
		if gone {
			wg.Wait()
			mu.Lock()
			defer mu.Unlock()
			return failed
		}
		for _, l := range slots {
			if known[l] {
				continue
			}
			known[l] = true
			wg.Go(func() {
				if err := s.lines(ctx, l, q, w.to("["+l.id()+"] ")); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
