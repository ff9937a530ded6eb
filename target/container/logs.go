package container

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa/internal/replica"
)

const (
	maxLine  = 64 << 10 // a longer line is cut in pieces
	maxFrame = 16 << 20 // of the stream; engines send at most some 16 KiB
)

// Lines is [replica.Runner].Lines. The newest container of a replica is its current run, dead or alive; the newest
// dead one is the run before.
func (r *runner) Lines(ctx context.Context, s replica.Start, q replica.LogRead, emit func(string) error) error {
	tail := q.Tail
	for seen := ""; ; tail = 0 {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		id, err := r.newestOf(ctx, s, q.Previous)
		if err != nil {
			return err
		}
		if id != "" && id != seen {
			seen = id
			if err := r.readAll(ctx, id, reading{tail: tail, follow: q.Follow, gone: q.Gone}, emit); err != nil {
				return err
			}
			if q.Follow {
				continue
			}
		}
		if !q.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-q.Gone:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// newestOf is the container of a replica's current run or, with dead, of the newest that has ended; "" when there is none.
func (r *runner) newestOf(ctx context.Context, s replica.Start, dead bool) (string, error) {
	all, err := r.list(ctx, s.ID)
	if err != nil {
		return "", err
	}
	for _, c := range all {
		if c.State == container.StateCreated || dead && c.State != container.StateExited {
			continue
		}
		return c.ID, nil
	}
	return "", nil
}

// reading says which lines of one container are wanted.
type reading struct {
	tail   int
	follow bool
	since  time.Time // of the first line that is not wanted any more
	gone   <-chan struct{}
	// last is set to the time of the newest line.
	last func(time.Time)
}

// readAll reads one container; a followed one until it ends, however often the engine goes away meanwhile.
func (r *runner) readAll(ctx context.Context, id string, q reading, emit func(string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if q.follow && q.gone != nil {
		go func() { // ends with ctx
			select {
			case <-q.gone:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	var last time.Time
	q.last = func(t time.Time) { last = t }
	for {
		q.since = last
		err := r.read(ctx, id, q, emit)
		switch {
		case q.follow && isClosed(q.gone), gone(err):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !q.follow, err != nil && !unreachable(err):
			return err
		case err == nil:
			i, inspecting := r.inspect(ctx, id)
			if gone(inspecting) || inspecting == nil && !i.State.Running {
				return nil
			}
		}
		timer := time.NewTimer(againEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return c != nil
	default:
		return false
	}
}

// read reads the log of one container once.
func (r *runner) read(ctx context.Context, id string, q reading, emit func(string) error) error {
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: q.follow, Tail: "all"}
	if q.tail > 0 {
		o.Tail = strconv.Itoa(q.tail)
	}
	if !q.since.IsZero() {
		o.Since, o.Tail = q.since.UTC().Format(time.RFC3339Nano), "all"
	}
	stream, err := r.engine.ContainerLogs(ctx, id, o)
	if err != nil {
		return err
	}
	defer stream.Close()
	d := decoder{emit: emit, since: q.since, last: q.last}
	return d.decode(stream)
}

// decoder reads the two streams of a container out of the one that engines send: frames of 8 bytes of header (stream,
// three zeros, length) and a text that begins with a time. A long line is in several frames, each with a time.
type decoder struct {
	emit  func(string) error
	since time.Time // lines up to it were read before
	last  func(time.Time)
	lines [3]strings.Builder
}

var errNotFramed = errors.New("the log is not in the engine's format")

func (d *decoder) decode(r io.Reader) error {
	in := bufio.NewReader(r)
	var head [8]byte
	for {
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return d.end()
		} else if err != nil {
			return errors.Join(fmt.Errorf("read the log: %w", err), d.end())
		}
		n := binary.BigEndian.Uint32(head[4:])
		if head[0] > 2 || head[1] != 0 || head[2] != 0 || head[3] != 0 || n > maxFrame {
			return errNotFramed
		}
		text := make([]byte, n)
		if _, err := io.ReadFull(in, text); err != nil {
			return errors.Join(fmt.Errorf("read the log: %w", err), d.end())
		}
		if err := d.frame(int(head[0]), string(text)); err != nil {
			return err
		}
	}
}

func (d *decoder) frame(stream int, text string) error {
	stamp, rest, ok := strings.Cut(text, " ")
	if at, err := time.Parse(time.RFC3339Nano, stamp); ok && err == nil {
		if !d.since.IsZero() && !at.After(d.since) {
			return nil
		}
		text = rest
		if d.last != nil {
			d.last(at)
		}
	}
	line := &d.lines[stream]
	for text != "" {
		piece, rest, whole := strings.Cut(text, "\n")
		text = rest
		for len(piece) > 0 {
			n := min(len(piece), maxLine-line.Len())
			line.WriteString(piece[:n])
			piece = piece[n:]
			if line.Len() == maxLine && (len(piece) > 0 || !whole) {
				if err := d.flush(line); err != nil {
					return err
				}
			}
		}
		if whole {
			if err := d.flush(line); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *decoder) flush(line *strings.Builder) error {
	text := strings.TrimSuffix(line.String(), "\r")
	line.Reset()
	return d.emit(text)
}

// end emits lines that were never ended.
func (d *decoder) end() error {
	for i := range d.lines {
		if d.lines[i].Len() > 0 {
			if err := d.flush(&d.lines[i]); err != nil {
				return err
			}
		}
	}
	return nil
}
