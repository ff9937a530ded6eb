package score

import (
	"encoding/binary"
	"math"
	"net/http"
	"slices"
	"strconv"
	"unsafe"

	"github.com/zarpa-dev/zarpa"
)

// The binary tensor extension: a JSON header, then the bytes of the tensors in the header's order.
// The length of the header stands in an HTTP header; 0 is a raw request, whose body is the one
// input. Numbers are little-endian and used where they are, without a copy.

const headerLength = "Inference-Header-Content-Length"

// binaryHeader is the length of a request's JSON header; binary is false where it says none.
func binaryHeader(h http.Header) (length int, binary bool, err error) {
	values := h[headerLength]
	if len(values) == 0 {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(values[0], 10, 31)
	if err != nil || len(values) > 1 {
		return 0, true, zarpa.Errorf(zarpa.Invalid, "header %s: %.40q is not one length", headerLength, values).
			WithHint("send the length of the JSON in bytes")
	}
	return int(n), true, nil
}

// split cuts the tensors off the JSON header.
func (c *call) split(length int) error {
	if length > len(c.text) {
		return zarpa.Errorf(zarpa.Invalid, "header %s: %d, the body has %d bytes", headerLength, length, len(c.text))
	}
	c.dec.Reset(c.text[:length])
	c.tensors, c.binary = c.text[length:], true
	return nil
}

// lead makes an empty buffer begin so many bytes later that what stands behind a header of some
// length lies at a multiple of the alignment. It holds as long as the buffer does not move; and when
// it does, as large ones have pages of their own.
func lead(buf []byte, header int) []byte {
	if cap(buf) < alignment {
		return buf
	}
	return buf[:-(int(uintptr(unsafe.Pointer(unsafe.SliceData(buf))))+header)&(alignment-1)]
}

// takeBinary makes the next bytes of the body the data of input t.
func (c *call) takeBinary(t *tensor) error {
	v, info := &c.values[t.index], &c.model.sig.Inputs[t.index]
	switch {
	case t.data >= 0:
		return zarpa.Errorf(zarpa.Invalid, "input %q: both data and binary_data_size", info.Name).WithHint("send one of them")
	case !c.binary:
		return zarpa.Errorf(zarpa.Invalid, "input %q: binary_data_size without the header %s", info.Name, headerLength).
			WithHint("say how long the JSON before the tensors is")
	case t.size > int64(len(c.tensors)):
		return zarpa.Errorf(zarpa.Invalid, "input %q: binary_data_size is %d, %d bytes are left of the body", info.Name, t.size, len(c.tensors))
	}
	raw := c.tensors[:t.size:t.size]
	c.tensors = c.tensors[t.size:]
	return inside(info.Name, v.setRaw(raw, info.Type, t.shape[:t.rank]))
}

// setRaw makes raw the value's elements.
func (v *value) setRaw(raw []byte, typ zarpa.ElementType, shape []int64) error {
	t := zarpa.Tensor{Type: typ, Shape: shape}
	n, err := zarpa.Elements(shape)
	if err == nil {
		err = takeRaw(&t, raw, n)
	}
	v.binary, v.raw, v.text = true, t.Data, t.Strings
	return err
}

// takeRaw makes raw the data of t, which has n elements. Strings are copied, numbers are not.
func takeRaw(t *zarpa.Tensor, raw []byte, n int64) error {
	if t.Type == zarpa.String {
		return takeStrings(t, raw, n)
	}
	want, err := zarpa.ByteSize(t.Type, t.Shape)
	if err != nil {
		return err
	}
	if want != int64(len(raw)) {
		return zarpa.Errorf(zarpa.Invalid, "%d bytes, shape %v of %v has %d", len(raw), t.Shape, t.Type, want)
	}
	if t.Type == zarpa.Bool {
		if i := slices.IndexFunc(raw, func(b byte) bool { return b > 1 }); i >= 0 {
			return zarpa.Errorf(zarpa.Invalid, "element %d: byte %d is neither 0 nor 1", i, raw[i])
		}
	}
	t.Data = raw
	return nil
}

// takeStrings reads n strings, each behind its length of four bytes.
func takeStrings(t *zarpa.Tensor, raw []byte, n int64) error {
	count := int64(0)
	for rest := raw; len(rest) > 0; count++ {
		size := int64(math.MaxInt64)
		if len(rest) >= 4 {
			size = 4 + int64(binary.LittleEndian.Uint32(rest))
		}
		if size > int64(len(rest)) {
			return zarpa.Errorf(zarpa.Invalid, "element %d is cut off", count).
				WithHint("an element of BYTES is its length in four bytes, little-endian, and its bytes")
		}
		rest = rest[size:]
	}
	if count != n {
		return zarpa.Errorf(zarpa.Invalid, "%d elements, shape %v has %d", count, t.Shape, n)
	}
	t.Strings = make([]string, n)
	all := string(raw) // one copy for all
	for i := range t.Strings {
		size := int(binary.LittleEndian.Uint32(raw))
		t.Strings[i] = all[4 : 4+size]
		raw, all = raw[4+size:], all[4+size:]
	}
	return nil
}

// rawStrings are elements of BYTES, each behind its length.
func rawStrings(elements []string) []byte {
	return appendStrings(make([]byte, 0, sizeOfStrings(elements)), elements)
}

// appendStrings writes elements of BYTES, each behind its length.
func appendStrings(out []byte, elements []string) []byte {
	for _, s := range elements {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(s)))
		out = append(out, s...)
	}
	return out
}

// sizeOfStrings is the number of bytes that appendStrings writes.
func sizeOfStrings(elements []string) int {
	n := 4 * len(elements)
	for _, s := range elements {
		n += len(s)
	}
	return n
}

// decodeRaw reads a raw request: the body is the one input. Its shape is the model's, with at most
// one free dimension, which the number of bytes settles; BYTES are one element. All outputs are
// answered in binary.
func (c *call) decodeRaw() error {
	needed := -1
	for i, v := range c.model.sig.Inputs {
		switch {
		case v.Optional:
		case needed >= 0:
			return rawRefused("the model has several inputs")
		default:
			needed = i
		}
	}
	if needed < 0 {
		return rawRefused("the model needs no input")
	}
	info, v := &c.model.sig.Inputs[needed], &c.values[needed]
	shape, err := rawShape(info, len(c.text))
	if err != nil {
		return err
	}
	v.given, v.binary, c.binaryOut = true, true, true
	v.Reshape(shape)
	if info.Type == zarpa.String {
		v.text = []string{string(c.text)}
		return nil
	}
	return inside(info.Name, v.setRaw(c.text, info.Type, shape))
}

func rawRefused(why string) *zarpa.Error {
	return zarpa.Errorf(zarpa.Invalid, "raw binary request: %s", why).
		WithHint("send a JSON header before the tensors, and its length in %s", headerLength)
}

func rawShape(info *zarpa.ValueInfo, size int) ([]int64, error) {
	if info.NoShape || info.Type == zarpa.Sequence || info.Type == zarpa.Map {
		return nil, rawRefused("the shape of the input is not known")
	}
	shape, free, fixed := info.Sizes(), -1, int64(1)
	for i, n := range shape {
		switch {
		case n >= 0:
			fixed *= n
		case info.Type == zarpa.String:
			shape[i] = 1
		case free >= 0:
			return nil, rawRefused("the input has several free dimensions")
		default:
			free = i
		}
	}
	if info.Type == zarpa.String {
		if fixed != 1 {
			return nil, rawRefused("an input of several strings")
		}
		return shape, nil
	}
	if row := fixed * int64(info.Type.Bits()) / 8; free >= 0 && row > 0 {
		shape[free] = int64(size) / row
	} else if free >= 0 {
		shape[free] = 0
	}
	return shape, nil
}
