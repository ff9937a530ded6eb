package python

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// kind says what a frame is. The worker's wire.py has the same numbers.
type kind uint8

// The frames to a worker, and from it.
const (
	kindScore kind = 1 + iota
	kindRun
	kindBatch
)

const (
	kindHello kind = 16 + iota
	kindResult
	kindChunk
	kindEnd
	kindTensors
	kindFailed
	kindLoadFailed
	kindBatched
	kindTrace
)

// frameHead is payload length, kind, three bytes of nothing, id; little-endian.
const frameHead = 12

// frame is one message of a worker. payload belongs to who read it.
type frame struct {
	kind    kind
	id      uint32
	payload []byte
}

// errCorrupt marks what a worker cannot have meant: its memory or its socket is broken.
var errCorrupt = errors.New("the worker's answer is no frame")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errCorrupt, fmt.Sprintf(format, args...))
}

// appendHead begins a frame whose payload is so long.
func appendHead(b []byte, k kind, id uint32, length int) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	b = append(b, byte(k), 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, id)
}

// firstRead bounds the memory that a frame takes before its bytes are there.
const firstRead = 1 << 20

// readFrame reads one frame whose payload has at most limit bytes. Errors: io.EOF when there is none,
// errCorrupt for what is no frame, and those of the connection.
func readFrame(in io.Reader, limit int64) (frame, error) {
	var head [frameHead]byte
	if n, err := io.ReadFull(in, head[:]); err != nil {
		if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
			return frame{}, corrupt("it broke off in the head of a frame")
		}
		return frame{}, err
	}
	length := int64(binary.LittleEndian.Uint32(head[:]))
	f := frame{kind: kind(head[4]), id: binary.LittleEndian.Uint32(head[8:])}
	switch {
	case f.kind < kindHello || f.kind > kindTrace:
		return f, corrupt("kind %d", f.kind)
	case head[5] != 0 || head[6] != 0 || head[7] != 0:
		return f, corrupt("padding %x", head[5:8])
	case length > limit:
		return f, corrupt("%d bytes, the limit is %d", length, limit)
	}
	var err error
	f.payload, err = readBytes(in, length)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = corrupt("it broke off after %d of %d bytes", len(f.payload), length)
	}
	return f, err
}

// readBytes reads so many bytes; memory grows with what has come, because a broken length costs nothing.
func readBytes(in io.Reader, length int64) ([]byte, error) {
	b := make([]byte, 0, min(length, firstRead))
	for {
		n, err := io.ReadFull(in, b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err != nil || int64(len(b)) == length {
			return b, err
		}
		grown := make([]byte, len(b), min(length, 4*int64(len(b))))
		copy(grown, b)
		b = grown
	}
}
