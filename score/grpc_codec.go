package score

import (
	"sync"
	"unsafe"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
)

// alignment is where the bytes of every raw input begin: at a multiple that suits the widest
// instructions that a runtime reads them with.
const alignment = 64

// maxRaw bounds the raw contents of one request, which cost more memory here than on the wire.
const maxRaw = 10_000

// inferRequest is a ModelInferRequest as it came, before its model is known: head is the message
// without its raw contents, and raw are those, each aligned. Both lie in buf, to which the bytes
// were copied once, from gRPC's frames. It is used again, with its memory, for another request.
type inferRequest struct {
	buf    []byte
	head   []byte
	raw    [][]byte
	inputs []inputMessage
	shapes []int64 // memory of the inputs' shapes
	slots  []int   // which of inputs is at each of the model's
	err    error   // why it is no message
	// what it asks for beside what a call holds
	model, version string
	final          bool // an empty last answer on a stream
}

// requests are kept with their memory between uses.
type requests struct{ pool sync.Pool }

func (p *requests) get() *inferRequest {
	if m, ok := p.pool.Get().(*inferRequest); ok {
		return m
	}
	return new(inferRequest)
}

// put gives m back, when nothing reads its memory any more.
func (p *requests) put(m *inferRequest) {
	if cap(m.buf) > kept {
		return
	}
	clear(m.raw)
	for i := range m.inputs {
		m.inputs[i].reset()
	}
	*m = inferRequest{buf: m.buf[:0], raw: m.raw[:0], slots: m.slots, shapes: m.shapes[:0], inputs: m.inputs[:0]}
	p.pool.Put(m)
}

// inferCodec is that of the server: requests and answers of the model go by their own way, all else by protobuf's.
type inferCodec struct{ grpcx.Codec }

var _ encoding.CodecV2 = inferCodec{}

// Unmarshal never fails for a request of the model: its handler says what is wrong with it.
func (c inferCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*inferRequest)
	if !ok {
		return c.Codec.Unmarshal(data, v)
	}
	m.err = m.fill(data)
	return nil
}

// Marshal hands the answer on as it lies in memory.
func (c inferCodec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(inferReply); ok {
		return r.data, nil
	}
	return c.Codec.Marshal(v)
}

// piece is where one raw content lies in the message: its tag, its bytes, its end.
type piece struct{ tag, from, to int }

const (
	fieldRawInput = 7
	maxGroups     = 100 // how deep groups of unknown fields may nest
)

// fill lays the message out in m.buf.
func (m *inferRequest) fill(data mem.BufferSlice) error {
	pieces, err := findRaw(data)
	if err != nil {
		return err
	}
	size := data.Len()
	room := size + alignment*(len(pieces)+1)
	if cap(m.buf) < room {
		m.buf = make([]byte, room)
	}
	m.buf = m.buf[:cap(m.buf)]
	m.raw = m.raw[:0]
	head, r := 0, reader{data: data}
	for _, p := range pieces {
		head += r.copy(m.buf[head:], p.tag-r.pos)
		r.skip(p.to - r.pos)
	}
	head += r.copy(m.buf[head:], size-r.pos)
	m.head = m.buf[:head:head]
	at := head
	r = reader{data: data}
	for _, p := range pieces {
		r.skip(p.from - r.pos)
		at = aligned(m.buf, at)
		n := r.copy(m.buf[at:], p.to-p.from)
		m.raw = append(m.raw, m.buf[at:at+n:at+n])
		at += n
	}
	return nil
}

// aligned is the first index from at on whose address is a multiple of the alignment.
func aligned(buf []byte, at int) int {
	base := uintptr(unsafe.Pointer(unsafe.SliceData(buf)))
	return at + int(-(base+uintptr(at))&(alignment-1))
}

// findRaw walks over the message's fields and says where the raw contents lie.
func findRaw(data mem.BufferSlice) ([]piece, error) {
	var pieces []piece
	r := reader{data: data}
	for end := data.Len(); r.pos < end; {
		p := piece{tag: r.pos}
		num, typ, ok := r.tag()
		if ok && num == fieldRawInput && typ == protowire.BytesType {
			n, whole := r.varint()
			p.from = r.pos
			p.to = p.from + int(min(n, uint64(end)))
			if ok = whole && r.skip(p.to-p.from); ok {
				pieces = append(pieces, p)
			}
		} else if ok {
			ok = r.value(num, typ, 0)
		}
		switch {
		case !ok:
			return nil, malformed("ModelInferRequest")
		case len(pieces) > maxRaw:
			return nil, zarpa.Errorf(zarpa.Invalid, "raw_input_contents: more than %d", maxRaw)
		}
	}
	return pieces, nil
}

func malformed(message string) error {
	return zarpa.Errorf(zarpa.Invalid, "request: not a valid %s", message).WithHint("send protobuf of the published protocol")
}

// reader walks over bytes that lie in several buffers. Its methods report whether there was enough.
type reader struct {
	data  mem.BufferSlice
	chunk []byte // what is left of the buffer before data
	pos   int
}

// more makes chunk hold something.
func (r *reader) more() bool {
	for len(r.chunk) == 0 {
		if len(r.data) == 0 {
			return false
		}
		r.chunk, r.data = r.data[0].ReadOnlyData(), r.data[1:]
	}
	return true
}

func (r *reader) skip(n int) bool {
	for n > 0 && r.more() {
		k := min(n, len(r.chunk))
		r.chunk, r.pos, n = r.chunk[k:], r.pos+k, n-k
	}
	return n == 0
}

// copy fills dst with the next n bytes and returns n.
func (r *reader) copy(dst []byte, n int) int {
	for done := 0; done < n && r.more(); {
		k := copy(dst[done:n], r.chunk)
		r.chunk, r.pos, done = r.chunk[k:], r.pos+k, done+k
	}
	return n
}

func (r *reader) varint() (v uint64, ok bool) {
	for shift := 0; shift < 64 && r.more(); shift += 7 {
		b := r.chunk[0]
		r.chunk, r.pos = r.chunk[1:], r.pos+1
		if shift == 63 && b > 1 {
			return 0, false
		}
		if v |= uint64(b&0x7f) << shift; b < 0x80 {
			return v, true
		}
	}
	return 0, false
}

func (r *reader) tag() (protowire.Number, protowire.Type, bool) {
	v, ok := r.varint()
	num, typ := protowire.DecodeTag(v)
	return num, typ, ok && num >= protowire.MinValidNumber
}

// value passes over the value of a field, groups with all that is in them.
func (r *reader) value(num protowire.Number, typ protowire.Type, depth int) bool {
	switch typ {
	case protowire.VarintType:
		_, ok := r.varint()
		return ok
	case protowire.Fixed32Type:
		return r.skip(4)
	case protowire.Fixed64Type:
		return r.skip(8)
	case protowire.BytesType:
		n, ok := r.varint()
		return ok && n <= 1<<31 && r.skip(int(n))
	case protowire.StartGroupType:
		for depth < maxGroups {
			inner, kind, ok := r.tag()
			if !ok || kind == protowire.EndGroupType {
				return ok && inner == num
			}
			if !r.value(inner, kind, depth+1) {
				return false
			}
		}
	default: // what is left is no wire type
	}
	return false
}
