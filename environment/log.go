package environment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	// maxLine cuts longer lines in pieces, in bytes.
	maxLine = 16 << 10
	// tailLines and tailBytes bound what an error shows of the log's end.
	tailLines = 12
	tailBytes = 2 << 10
	// maxKept bounds the lines that are searched for the cause of a failure: the last ones.
	maxKept = 2000
)

// buildLog takes the output of a build's tools, line by line: blacked out, it goes to the log's file
// and to progress, and the last lines are kept for the cause of a failure. It is an io.Writer for
// one process at a time.
type buildLog struct {
	file     *os.File
	left     int64 // bytes that may still be written
	cut      bool
	redact   redactor
	progress func(string)
	partial  []byte
	kept     []string
	failed   error // the first failure to write
}

func (l *buildLog) Write(p []byte) (int, error) {
	l.partial = append(l.partial, p...)
	for {
		end := bytes.IndexAny(l.partial, "\n\r")
		switch {
		case end >= 0:
			l.line(string(l.partial[:end]))
			l.partial = l.partial[end+1:]
		case len(l.partial) >= maxLine:
			l.line(string(l.partial[:maxLine]))
			l.partial = l.partial[maxLine:]
		default:
			return len(p), nil
		}
	}
}

// flush ends a line that a process left open.
func (l *buildLog) flush() {
	if len(l.partial) > 0 {
		l.line(string(l.partial))
		l.partial = nil
	}
}

// say writes a line of our own.
func (l *buildLog) say(format string, args ...any) { l.line(fmt.Sprintf(format, args...)) }

func (l *buildLog) line(s string) {
	s = l.redact.clean(strings.ToValidUTF8(strings.TrimRight(s, " \t"), "?"))
	if s == "" {
		return
	}
	if len(l.kept) == maxKept {
		l.kept = append(l.kept[:0], l.kept[maxKept/2:]...)
	}
	l.kept = append(l.kept, s)
	l.progress(s)
	if l.cut || l.failed != nil {
		return
	}
	if l.left -= int64(len(s) + 1); l.left < 0 {
		s, l.cut = "the log is full: what follows was not kept", true
	}
	if _, err := l.file.WriteString(s + "\n"); err != nil {
		l.failed = err
	}
}

// close ends the log; a line that could not be written is an error.
func (l *buildLog) close() error {
	l.flush()
	return errors.Join(l.failed, l.file.Close())
}

// tail is the end of the log, for a person.
func tail(lines []string) string {
	size, from := 0, len(lines)
	for from > 0 && len(lines)-from < tailLines {
		size += len(lines[from-1]) + 1
		if size > tailBytes {
			break
		}
		from--
	}
	return strings.Join(lines[from:], "\n")
}

// follower reads the lines that a build of somebody else adds to its log.
type follower struct {
	path    string
	file    *os.File
	partial []byte
}

// read gives the lines that came since the last call to progress. A log that was begun anew is read
// from its beginning.
func (f *follower) read(progress func(string)) {
	if !f.open() {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := f.file.Read(buf)
		f.partial = append(f.partial, buf[:n]...)
		for {
			line, rest, ok := bytes.Cut(f.partial, []byte{'\n'})
			if !ok {
				break
			}
			progress(string(line))
			f.partial = rest
		}
		if err != nil || n == 0 {
			return // io.EOF: what there is; another error ends the following, not the waiting
		}
	}
}

func (f *follower) open() bool {
	now, err := os.Stat(f.path)
	if err != nil {
		return f.file != nil // removed with its environment: read it to the end
	}
	if f.file != nil {
		there, err := f.file.Stat()
		if err == nil && os.SameFile(there, now) {
			at, err := f.file.Seek(0, io.SeekCurrent)
			return err == nil && now.Size() >= at
		}
		f.close()
	}
	f.file, err = os.Open(f.path)
	f.partial = nil
	return err == nil
}

func (f *follower) close() {
	if f.file != nil {
		_ = f.file.Close() // was only read
		f.file = nil
	}
}
