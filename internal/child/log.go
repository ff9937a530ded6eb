package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// DefaultLogLimit bounds what is kept of the output of one run, in bytes.
const DefaultLogLimit = 16 << 20

const (
	// followEvery is how often a followed log is looked at: soon enough for a person, and paid
	// only while somebody follows.
	followEvery = 200 * time.Millisecond
	maxLine     = 64 << 10 // a longer line is cut in pieces
	maxTailLine = 2 << 10  // a line of an [zarpa.Exit]
)

// Log is the output of a process: a file that the process itself appends to. The older half of
// a long one is beside it with ".1" behind its name. While its supervisor is away nothing is
// cut off.
type Log struct {
	Path string `json:"path"`
	// Limit bounds both files together; 0 is [DefaultLogLimit].
	Limit int64 `json:"limit,omitempty"`
}

func (l Log) limit() int64 {
	if l.Limit > 0 {
		return l.Limit
	}
	return DefaultLogLimit
}

// open opens the log for a process, and locks it: the lock lives as long as anybody has the file
// open as this run's output.
func (l Log) open() (*os.File, error) {
	f, err := os.OpenFile(l.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", filepath.Base(l.Path), ErrRunning)
		}
		return nil, fmt.Errorf("lock the log: %w", err)
	}
	return f, nil
}

// held tells whether a process of the run has the log open.
func (l Log) held() bool {
	f, err := os.Open(l.Path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // loses nothing: the content is kept aside or only read
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// Trim keeps the log within its limit: at half of it the content is copied aside and the file
// is truncated. Lines written in between, a few at most, are lost.
func (l Log) Trim() error {
	f, err := os.OpenFile(l.Path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	defer f.Close() //nolint:errcheck // loses nothing: the content is kept aside or only read
	half := l.limit() / 2
	info, err := f.Stat()
	if err != nil || info.Size() <= half {
		return err
	}
	if _, err := f.Seek(-half, io.SeekEnd); err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	aside, err := os.OpenFile(l.Path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	_, err = io.Copy(aside, io.LimitReader(f, half))
	if err = errors.Join(err, aside.Close()); err == nil {
		err = os.Rename(aside.Name(), l.Path+".1")
	}
	// the limit holds even when the older half could not be kept
	return errors.Join(err, f.Truncate(0))
}

// Keep moves the log to another path, in place of what is there. A log that does not exist
// moves nothing; [ErrRunning] when its run has not ended.
func (l Log) Keep(path string) error {
	if l.held() {
		return fmt.Errorf("keep %s: %w", filepath.Base(l.Path), ErrRunning)
	}
	for _, part := range []string{"", ".1"} {
		err := os.Rename(l.Path+part, path+part)
		if errors.Is(err, fs.ErrNotExist) {
			if _, statErr := os.Stat(l.Path); part == ".1" && statErr != nil {
				err = os.Remove(path + part) // of the run before
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep the log: %w", err)
		}
	}
	return nil
}

// end is the last n bytes of the log.
func (l Log) end(n int64) string {
	f, err := os.Open(l.Path)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // loses nothing: the content is kept aside or only read
	if info, err := f.Stat(); err == nil && info.Size() > n {
		_, _ = f.Seek(-n, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, n)) // half a tail is better than none
	return string(b)
}

// Tail is the last lines of the log, at most n, each cut to 2 KiB of valid UTF-8.
func (l Log) Tail(n int) []string {
	text := strings.TrimRight(l.end(int64(n)*maxTailLine), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	for i, line := range lines {
		lines[i] = clip(strings.ToValidUTF8(line, "\uFFFD"), maxTailLine)
	}
	return lines
}

// LogRead says what to read of a log.
type LogRead struct {
	// Tail is the number of lines to begin with; 0 is all.
	Tail int
	// Follow goes on as lines are written, also when the log is kept aside and begun anew.
	Follow bool
	// Gone ends a Follow after what is written has been read; nil never does.
	Gone <-chan struct{}
}

// Lines calls emit for every line, without its newline, until all is read, emit fails or ctx
// ends. A log that does not exist is empty.
func (l Log) Lines(ctx context.Context, q LogRead, emit func(line string) error) error {
	r, err := l.Open()
	if err != nil {
		return err
	}
	return r.Lines(ctx, q, emit)
}

// LogReader reads a log that was found at its path when it was opened, whatever takes its place.
type LogReader struct {
	log     Log
	emit    func(string) error
	older   *os.File // the half that was kept aside
	f       *os.File // grows, is truncated, or is replaced
	offset  int64
	partial []byte
}

// Open opens a log to read it once. A log that does not exist is empty.
func (l Log) Open() (*LogReader, error) {
	r := &LogReader{log: l}
	var err error
	if r.f, err = openLog(l.Path); err != nil {
		return nil, err
	}
	if r.older, err = openLog(l.Path + ".1"); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// openLog returns nil for a file that does not exist.
func openLog(path string) (*os.File, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return f, nil
}

// Lines is [Log.Lines], of the log that was opened. It closes the reader.
func (r *LogReader) Lines(ctx context.Context, q LogRead, emit func(line string) error) error {
	defer r.close()
	r.emit = emit
	if err := r.begin(ctx, q.Tail); err != nil {
		return err
	}
	if !q.Follow {
		return r.flush()
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for last := false; ; {
		if err := r.drain(ctx); err != nil {
			return err
		}
		if last {
			return r.flush()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.Gone:
			last = true
		case <-tick.C:
		}
	}
}

// begin emits what the log holds: the last lines of it, or all.
func (r *LogReader) begin(ctx context.Context, tail int) error {
	var kept []string
	emit := r.emit
	if tail > 0 {
		r.emit = func(line string) error {
			if kept = append(kept, line); len(kept)-tail > tail {
				kept = append(kept[:0], kept[len(kept)-tail:]...)
			}
			return nil
		}
	}
	newer := r.f
	if r.f = r.older; r.f != nil {
		if err := r.read(ctx); err != nil {
			r.f = newer
			return err
		}
	}
	r.f, r.offset = newer, 0
	if err := r.read(ctx); err != nil {
		return err
	}
	r.emit = emit
	for _, line := range kept[max(0, len(kept)-tail)*min(tail, 1):] {
		if err := emit(line); err != nil {
			return err
		}
	}
	return nil
}

// drain reads on, in the file that is open and then in the one that took its place.
func (r *LogReader) drain(ctx context.Context) error {
	now, err := os.Stat(r.log.Path)
	if err != nil {
		return r.read(ctx) // nothing yet, or between two runs
	}
	if r.f != nil {
		was, err := r.f.Stat()
		if err == nil && os.SameFile(was, now) {
			if was.Size() < r.offset {
				r.offset = 0 // trimmed
			}
			return r.read(ctx)
		}
	}
	if err := r.read(ctx); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	if r.f != nil {
		_ = r.f.Close() // it was only read
		r.f = nil
	}
	f, err := os.Open(r.log.Path)
	if err != nil {
		return nil //nolint:nilerr // it went away again: looked for at the next tick
	}
	r.f, r.offset = f, 0
	return r.read(ctx)
}

func (r *LogReader) read(ctx context.Context) error {
	if r.f == nil {
		return nil
	}
	buf := bufio.NewReaderSize(io.NewSectionReader(r.f, r.offset, 1<<62), maxLine)
	for ctx.Err() == nil {
		piece, err := buf.ReadSlice('\n')
		r.offset += int64(len(piece))
		r.partial = append(r.partial, piece...)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read the log: %w", err)
		}
		if err == nil || len(r.partial) >= maxLine {
			if err := r.flush(); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// flush emits the line that has been gathered.
func (r *LogReader) flush() error {
	if len(r.partial) == 0 {
		return nil
	}
	line := strings.TrimSuffix(string(r.partial), "\n")
	r.partial = r.partial[:0]
	return r.emit(line)
}

func (r *LogReader) close() {
	for _, f := range []*os.File{r.older, r.f} {
		if f != nil {
			_ = f.Close() // it was only read
		}
	}
	r.older, r.f = nil, nil
}
