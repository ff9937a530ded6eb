package python

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unicode"
	"unicode/utf8"
)

const (
	// maxLine bounds a line in the log; a longer one is split.
	maxLine = 64 << 10
	// tailLines and tailLine bound what is remembered of stderr, for the cause of a worker's death.
	tailLines = 12
	tailLine  = 400
	// pipeCapacity is what a pipe holds at most, unless its writer enlarged it.
	pipeCapacity = 64 << 10
)

// streamNames are the values of the attribute "stream".
var streamNames = [2]string{"stdout", "stderr"}

// output turns what a process prints into log records: a line each, as it was printed, with the id of
// the request that ran meanwhile beside it. To be exact it is read by two: by a goroutine of its own,
// whenever something comes, and by who asks the worker, right before and after a request.
type output struct {
	log     *slog.Logger
	files   [2]*os.File
	readers sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	fds     [2]int
	part    [2][]byte // a line without an end yet
	request string
	tail    []string
	room    []byte
}

// newOutput makes the pipes of a process and reads them. The writing ends, for the process, are the
// caller's.
func newOutput(log *slog.Logger) (*output, []*os.File, error) {
	o := &output{log: log, room: make([]byte, 16<<10)}
	var theirs []*os.File
	for i := range o.fds {
		fd, writes, err := pipe()
		if err != nil {
			closeAll(theirs)
			o.close()
			return nil, nil, err
		}
		o.fds[i], o.files[i] = fd, os.NewFile(uintptr(fd), streamNames[i])
		theirs = append(theirs, writes)
	}
	for i := range o.files {
		o.readers.Go(func() { o.read(i) })
	}
	return o, theirs, nil
}

// read waits for output and reads it, until the last process that can print has ended or the output
// is closed. Between two chunks others get their turn, however fast the process prints.
func (o *output) read(stream int) {
	raw, err := o.files[stream].SyscallConn()
	if err != nil {
		return // closed already
	}
	_ = raw.Read(func(uintptr) bool { // false waits until there is more, which is told only after EAGAIN
		for {
			o.mu.Lock()
			n, err := o.chunk(stream)
			o.mu.Unlock()
			if n == 0 {
				return !errors.Is(err, syscall.EAGAIN)
			}
		}
	})
}

// chunk reads what is there now, up to the size of room, and returns how many bytes that was: 0 with
// EAGAIN when nothing is there, and 0 without at the end of the stream. The caller holds mu.
func (o *output) chunk(stream int) (int, error) {
	for !o.closed {
		n, err := syscall.Read(o.fds[stream], o.room)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil || n <= 0:
			return 0, err
		}
		o.take(stream, o.room[:n])
		return n, nil
	}
	return 0, nil
}

// settle reads what was printed before it was called, and ends the line: no more than a pipe holds,
// for a process may print without a pause. The caller holds mu.
func (o *output) settle(stream int) {
	for seen := 0; seen < pipeCapacity; {
		n, _ := o.chunk(stream) // an error is the end of the stream, which read finds too
		if n == 0 {
			break
		}
		seen += n
	}
	if len(o.part[stream]) > 0 {
		o.emit(stream)
	}
}

// take logs the lines in b and keeps the rest. The caller holds mu.
func (o *output) take(stream int, b []byte) {
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		if room := maxLine - len(o.part[stream]); len(line) > room {
			line, rest, ended = b[:room], b[room:], true
		}
		o.part[stream] = append(o.part[stream], line...)
		if ended {
			o.emit(stream)
		}
		b = rest
	}
}

// emit logs the line that was gathered. The caller holds mu.
func (o *output) emit(stream int) {
	line := printable(strings.TrimSuffix(string(o.part[stream]), "\r"))
	if o.part[stream] = o.part[stream][:0]; cap(o.part[stream]) > maxLine {
		o.part[stream] = nil
	}
	if stream == 1 {
		if len(o.tail) == tailLines {
			o.tail = append(o.tail[:0], o.tail[1:]...)
		}
		o.tail = append(o.tail, line[:min(len(line), tailLine)])
	}
	attrs := []slog.Attr{slog.String("stream", streamNames[stream])}
	if o.request != "" {
		attrs = append(attrs, slog.String("request_id", o.request))
	}
	o.log.LogAttrs(context.Background(), slog.LevelInfo, line, attrs...) //nolint:sloglint // the message is what was printed, as it was
}

// attribute says whose output follows: that of a request, or of none. What was printed before belongs
// to what was said before, a line without an end too.
func (o *output) attribute(request string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.fds {
		o.settle(i)
	}
	o.request = request
}

// last is what the process printed last to stderr.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.tail, "\n")
}

// close reads what is left and ends the readers, also where a process that was started by the one
// that has ended still prints.
func (o *output) close() {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	for i := range o.files {
		if o.files[i] != nil {
			o.settle(i)
		}
	}
	o.closed = true
	o.mu.Unlock()
	for _, f := range o.files {
		if f != nil {
			_ = f.Close() // it was only read
		}
	}
	o.readers.Wait()
}

// printable is a line whose bytes are not text as their escapes; what is text stays as it is.
func printable(line string) string {
	odd := func(r rune) bool { return r == utf8.RuneError || r != '\t' && r != 0x1b && unicode.IsControl(r) }
	if strings.IndexFunc(line, odd) < 0 {
		return line
	}
	var b strings.Builder
	for i := 0; i < len(line); {
		r, size := utf8.DecodeRuneInString(line[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(line[i])|0x100, 16)[1:])
		case r != utf8.RuneError && odd(r):
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteString(line[i : i+size])
		}
		i += size
	}
	return b.String()
}
