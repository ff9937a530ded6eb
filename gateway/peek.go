package gateway

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
)

// peek reads one string field of a protobuf message and leaves the rest alone: tensors are stepped
// over, wherever gRPC's buffers break. As everywhere in protobuf, the last of several values counts
// and an absent one is empty. It agrees with the full parser on every message of the protocol;
// groups, which none of them has, are refused.
func peek(f *grpcx.Frame, wanted protowire.Number) (string, *zarpa.Error) {
	c := cursor{left: f.Len()}
	for b := range f.Chunks {
		if len(b) > 0 {
			c.chunks = append(c.chunks, b)
		}
	}
	var value string
	for c.left > 0 {
		tag, ok := c.varint()
		number, kind := protowire.DecodeTag(tag)
		if !ok || number < protowire.MinValidNumber {
			return "", errMessage()
		}
		length := uint64(0)
		switch kind {
		case protowire.VarintType:
			_, ok = c.varint()
		case protowire.Fixed32Type:
			length = 4
		case protowire.Fixed64Type:
			length = 8
		case protowire.BytesType:
			length, ok = c.varint()
		default:
			ok = false
		}
		if !ok || length > uint64(c.left) { //nolint:gosec // left is never negative
			return "", errMessage()
		}
		if kind == protowire.BytesType && number == wanted {
			if length > maxPeek {
				return "", zarpa.Errorf(zarpa.NotFound, "Request for unknown model: its name has %d bytes", length)
			}
			value = c.text(int(length)) //nolint:gosec // at most maxPeek
			continue
		}
		c.skip(int(length)) //nolint:gosec // at most left
	}
	return value, nil
}

// maxPeek is the longest name that is looked at; endpoints' names are shorter.
const maxPeek = 1 << 10

func errMessage() *zarpa.Error {
	return zarpa.Errorf(zarpa.Invalid, "the message is not the protobuf message that the method takes")
}

// cursor reads bytes that lie in several pieces, none of them empty.
type cursor struct {
	chunks [][]byte
	left   int
}

func (c *cursor) varint() (v uint64, ok bool) {
	for shift := 0; shift < 64 && c.left > 0; shift += 7 {
		b := c.chunks[0][0]
		c.skip(1)
		if shift == 63 && b > 1 {
			return 0, false
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, true
		}
	}
	return 0, false
}

// skip steps over n bytes, at most left.
func (c *cursor) skip(n int) {
	c.left -= n
	for n > 0 {
		if n < len(c.chunks[0]) {
			c.chunks[0] = c.chunks[0][n:]
			return
		}
		n -= len(c.chunks[0])
		c.chunks = c.chunks[1:]
	}
}

// text reads n bytes, at most left.
func (c *cursor) text(n int) string {
	out := make([]byte, 0, n)
	for len(out) < n {
		piece := c.chunks[0][:min(n-len(out), len(c.chunks[0]))]
		out = append(out, piece...)
		c.skip(len(piece))
	}
	return string(out)
}
