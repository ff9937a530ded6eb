package modelfile

import (
	"errors"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
)

// windowSize is what one read of the file fetches.
const windowSize = 16 << 10

// source is a file read forward through a window.
type source struct {
	at     io.ReaderAt // nil when the file can only be read in order
	r      io.Reader
	size   int64
	pos    int64  // of r
	base   int64  // the file offset of window[0]
	window []byte // what has been read around the current place
	buf    [windowSize]byte
}

func newSource(r io.Reader, size int64) *source {
	s := &source{r: r, size: size}
	s.at, _ = r.(io.ReaderAt)
	return s
}

// peek is the n bytes at offset off, fewer at the end of the file, valid until the next peek.
// Offsets never go back, n is at most windowSize.
func (s *source) peek(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.size-off))
	if n <= 0 {
		return nil, nil
	}
	if off < s.base || off+int64(n) > s.base+int64(len(s.window)) {
		if err := s.fill(off); err != nil {
			return nil, err
		}
	}
	start := off - s.base
	return s.window[start : start+int64(n)], nil
}

// fill moves the window to offset off.
func (s *source) fill(off int64) error {
	kept := 0
	if end := s.base + int64(len(s.window)); off >= s.base && off < end {
		kept = copy(s.buf[:], s.window[off-s.base:])
	}
	s.base = off
	want := s.buf[kept:min(int64(windowSize), s.size-off)]
	if err := s.read(want, off+int64(kept)); err != nil {
		s.window = nil
		return zarpa.Errorf(zarpa.Invalid, "cannot be read at byte %d", off).Because(err)
	}
	s.window = s.buf[:kept+len(want)]
	return nil
}

func (s *source) read(p []byte, off int64) error {
	if s.at != nil {
		n, err := s.at.ReadAt(p, off)
		if n == len(p) || err == nil {
			return nil
		}
		return err
	}
	if off < s.pos {
		return errors.New("the file can only be read forward")
	}
	skipped, err := io.CopyN(io.Discard, s.r, off-s.pos)
	s.pos += skipped
	if err != nil {
		return err
	}
	n, err := io.ReadFull(s.r, p)
	s.pos += int64(n)
	return err
}

// message is a protobuf message, or what is left of it: bytes pos to end of the source.
type message struct {
	src      *source
	pos, end int64
}

// field is one field of a message. For length-delimited ones, body is the content.
type field struct {
	number protowire.Number
	kind   protowire.Type
	value  uint64
	body   message
}

func (m *message) more() bool { return m.pos < m.end }

// next reads a field and steps over it.
func (m *message) next() (field, error) {
	var f field
	at := m.pos
	tag, err := m.varint()
	if err != nil {
		return f, err
	}
	f.number, f.kind = protowire.DecodeTag(tag)
	if f.number < protowire.MinValidNumber || f.number > protowire.MaxValidNumber {
		return f, damaged(at)
	}
	switch f.kind {
	case protowire.VarintType:
		f.value, err = m.varint()
		return f, err
	case protowire.Fixed32Type:
		return f, m.skip(4)
	case protowire.Fixed64Type:
		return f, m.skip(8)
	case protowire.BytesType:
		n, err := m.varint()
		if err != nil {
			return f, err
		}
		start := m.pos
		if n > uint64(m.src.size) {
			n = uint64(m.src.size) + 1
		}
		f.body = message{m.src, start, start + int64(n)}
		return f, m.skip(int64(n))
	}
	return f, damaged(at)
}

func (m *message) skip(n int64) error {
	switch {
	case n > m.src.size-m.pos:
		return truncated(m.src.size)
	case n > m.end-m.pos:
		return damaged(m.pos)
	}
	m.pos += n
	return nil
}

func (m *message) varint() (uint64, error) {
	b, err := m.src.peek(m.pos, int(min(10, m.end-m.pos)))
	if err != nil {
		return 0, err
	}
	v, n := protowire.ConsumeVarint(b)
	switch {
	case n > 0:
		m.pos += int64(n)
		return v, nil
	case m.pos+int64(len(b)) == m.src.size && len(b) < 10:
		return 0, truncated(m.src.size)
	}
	return 0, damaged(m.pos)
}

// length is the size of the body in bytes.
func (m *message) length() int64 { return m.end - m.pos }

// text is the body as a string, its first `most` bytes.
func (m *message) text(most int) (string, error) {
	b, err := m.src.peek(m.pos, int(min(m.length(), int64(min(most, windowSize)))))
	if int64(len(b)) < m.length() {
		return strings.ToValidUTF8(string(b), ""), err // without the half of a cut character
	}
	return string(b), err
}

func damaged(at int64) error {
	return zarpa.Errorf(zarpa.Invalid, "not an ONNX file, or a damaged one: no valid field at byte %d", at).WithHint("export the model again")
}

func truncated(size int64) error {
	return zarpa.Errorf(zarpa.Invalid, "truncated: the file ends at byte %d, in the middle of a field", size).WithHint("copy or export the model again")
}
