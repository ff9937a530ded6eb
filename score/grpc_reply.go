package score

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
)

// inferReply is a ModelInferResponse, or a ModelStreamInferResponse with one in it, as it goes on
// the wire: what describes the outputs, and between that the outputs' own memory.
type inferReply struct{ data mem.BufferSlice }

// ending says what a reply tells of those after it.
type ending uint8

const (
	unary     ending = iota // it is not on a stream
	moreParts               // others may follow
	lastPart                // it is the last one of its request
)

// inline is up to how many bytes an output is copied behind its description: less than that is
// dearer as a buffer of its own.
const inline = 1024

// reply encodes c.outputs.
func (c *call) reply(end ending) (inferReply, error) {
	head := appendText(make([]byte, 0, 512), 1, c.name)
	head = appendText(head, 2, c.model.entry.Version)
	head = appendText(head, 3, c.id)
	if end != unary {
		head = appendParameter(head, 4, "triton_final_response", protowire.AppendVarint(protowire.AppendTag(nil, paramBool, protowire.VarintType), protowire.EncodeBool(end == lastPart)))
	}
	raw := make([][]byte, 0, len(c.outputs))
	for i := range c.outputs {
		t := &c.outputs[i]
		if t.Type == zarpa.Undefined { // an optional output that is absent
			continue
		}
		described, data, err := c.replyOutput(t)
		if err != nil {
			return inferReply{}, err
		}
		head = protowire.AppendBytes(protowire.AppendTag(head, 5, protowire.BytesType), described)
		raw = append(raw, data)
	}
	var w gather
	w.buf = head
	for _, data := range raw {
		w.buf = protowire.AppendVarint(protowire.AppendTag(w.buf, 6, protowire.BytesType), uint64(len(data)))
		w.add(data)
	}
	w.flush()
	if end != unary {
		return inferReply{onStream(w.data)}, nil
	}
	return inferReply{w.data}, nil
}

// onStream wraps a ModelInferResponse in the message of the stream.
func onStream(data mem.BufferSlice) mem.BufferSlice {
	wrap := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.BytesType), uint64(data.Len()))
	return append(mem.BufferSlice{mem.SliceBuffer(wrap)}, data...)
}

// gather collects bytes that are copied and bytes that are not.
type gather struct {
	data mem.BufferSlice
	buf  []byte
	from int // what of buf is not in data yet
}

func (g *gather) add(data []byte) {
	if len(data) <= inline {
		g.buf = append(g.buf, data...)
		return
	}
	g.flush()
	g.data = append(g.data, mem.SliceBuffer(data))
}

func (g *gather) flush() {
	if len(g.buf) > g.from {
		g.data = append(g.data, mem.SliceBuffer(g.buf[g.from:len(g.buf):len(g.buf)]))
		g.from = len(g.buf)
	}
}

// replyOutput is an output's InferOutputTensor and its raw contents.
func (c *call) replyOutput(t *zarpa.Tensor) (described, raw []byte, err error) {
	shown, contentType, err := c.shown(t, c.how(t.Name))
	if err != nil {
		return nil, nil, err
	}
	shown.Name, t = t.Name, &shown
	if contentField(t.Type) == 0 && t.Type != zarpa.Float16 && t.Type != zarpa.BFloat16 {
		return nil, nil, zarpa.Errorf(zarpa.ModelError, "output %q: the inference protocol has no datatype for %v", t.Name, t.Type).
			WithHint("ask for other outputs, or add a Cast to the model")
	}
	described = appendText(nil, 1, t.Name)
	described = appendText(described, 2, t.Type.String())
	if len(t.Shape) > 0 {
		var packed []byte
		for _, n := range t.Shape {
			packed = protowire.AppendVarint(packed, uint64(n))
		}
		described = protowire.AppendBytes(protowire.AppendTag(described, 3, protowire.BytesType), packed)
	}
	if contentType != "" {
		described = appendParameter(described, 4, "content_type", appendText(nil, paramString, contentType))
	}
	if t.Type == zarpa.String {
		return described, rawStrings(t.Strings), nil
	}
	return described, t.Data, nil
}

// appendText appends a field of text, which is left out when it is empty.
func appendText(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

// appendParameter appends one entry of a map of parameters; value is an InferParameter.
func appendParameter(b []byte, num protowire.Number, key string, value []byte) []byte {
	entry := appendText(nil, 1, key)
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), value)
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), entry)
}
