package modelfile

import (
	"bufio"
	"errors"
	"io"
)

// maxScan bounds the bytes of a file that are looked at one by one; what is stepped over does not count.
const maxScan = 256 << 20

// errEnough ends a scan that has seen maxScan bytes: what was found until then counts.
var errEnough = errors.New("scanned enough")

// stream is a file, or what a compressed one holds, read once from its beginning.
type stream struct {
	buf  *bufio.Reader
	seek io.Seeker // nil where bytes can only be stepped over by reading them
	pos  int64
	left int64 // of maxScan
}

func newStream(r io.Reader) *stream {
	s := &stream{buf: bufio.NewReaderSize(r, windowSize), left: maxScan}
	s.seek, _ = r.(io.Seeker)
	return s
}

// spend counts n bytes that are read.
func (s *stream) spend(n int64) error {
	if n > s.left {
		return errEnough
	}
	s.left -= n
	s.pos += n
	return nil
}

func (s *stream) byte() (byte, error) {
	if err := s.spend(1); err != nil {
		return 0, err
	}
	b, err := s.buf.ReadByte()
	return b, ended(err)
}

// ended is the end of the file where more was due.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// peek is the next byte, or none at the end.
func (s *stream) peek() []byte {
	b, _ := s.buf.Peek(1) // an error comes again with the next read
	return b
}

// take fills p.
func (s *stream) take(p []byte) error {
	if err := s.spend(int64(len(p))); err != nil {
		return err
	}
	_, err := io.ReadFull(s.buf, p)
	return ended(err)
}

// unsigned is a number of n bytes, the lowest first.
func (s *stream) unsigned(n int) (uint64, error) {
	var p [8]byte
	if err := s.take(p[:n]); err != nil {
		return 0, err
	}
	v := uint64(0)
	for i := n - 1; i >= 0; i-- {
		v = v<<8 | uint64(p[i])
	}
	return v, nil
}

// text is n bytes, of which the first `most` are kept.
func (s *stream) text(n uint64, most int) (string, error) {
	p := make([]byte, min(n, uint64(most)))
	if err := s.take(p); err != nil {
		return "", err
	}
	return string(p), s.skip(n - uint64(len(p)))
}

// line is what stands before the next line feed, its first `most` bytes.
func (s *stream) line(most int) (string, error) {
	var line []byte
	for {
		b, err := s.byte()
		switch {
		case err != nil:
			return "", err
		case b == '\n':
			return string(line), nil
		case len(line) < most:
			line = append(line, b)
		}
	}
}

// skip steps over n bytes. Where the file can seek, its end is noticed by the next read only.
func (s *stream) skip(n uint64) error {
	if n > 1<<62 {
		return io.ErrUnexpectedEOF
	}
	here := min(int64(n), int64(s.buf.Buffered()))
	_, _ = s.buf.Discard(int(here)) // they are in the buffer
	s.pos += here
	rest := int64(n) - here
	if rest == 0 {
		return nil
	}
	if s.seek != nil {
		s.pos += rest
		if _, err := s.seek.Seek(rest, io.SeekCurrent); err != nil {
			return io.ErrUnexpectedEOF // some files refuse to go beyond their end
		}
		return nil
	}
	if err := s.spend(rest); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, s.buf, rest)
	return ended(err)
}
