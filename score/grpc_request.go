package score

import (
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// field is one field of a protobuf message: bytes for the wire type of that name, else n.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	bytes []byte
	n     uint64
}

func (f field) is(num protowire.Number, typ protowire.Type) bool { return f.num == num && f.typ == typ }

// text is the field's bytes as protobuf's strings are: valid UTF-8.
func (f field) text(name string) (string, error) {
	if !utf8.Valid(f.bytes) {
		return "", zarpa.Errorf(zarpa.Invalid, "%s: not valid UTF-8", name)
	}
	return string(f.bytes), nil
}

// fields gives each field of a message to take, in the message's order. Groups are passed over.
func fields(message string, b []byte, take func(f field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed(message)
		}
		b = b[n:]
		f := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.n, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			f.n = uint64(v)
		case protowire.Fixed64Type:
			f.n, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return malformed(message)
		}
		b = b[n:]
		if err := take(f); err != nil {
			return err
		}
	}
	return nil
}

// names reads which model is asked for, and the id.
func (m *inferRequest) names() (id string, err error) {
	err = fields("ModelInferRequest", m.head, func(f field) (err error) {
		switch {
		case f.is(1, protowire.BytesType):
			m.model, err = f.text("model_name")
		case f.is(2, protowire.BytesType):
			m.version, err = f.text("model_version")
		case f.is(3, protowire.BytesType):
			id, err = f.text("id")
		}
		return err
	})
	return id, err
}

// inputMessage is one InferInputTensor as it came.
type inputMessage struct {
	name, datatype []byte
	shape          []int64
	contents       []byte
	parts          int // of contents: a message that comes in parts is their concatenation
}

func (in *inputMessage) addContents(part []byte) {
	if in.parts == 1 {
		in.contents = slices.Clip(in.contents) // so that it is copied, and the request stays as it is
	}
	if in.parts++; in.parts == 1 {
		in.contents = part
		return
	}
	in.contents = append(in.contents, part...)
}

func (in *inputMessage) reset() { *in = inputMessage{} }

// decode makes c.inputs and c.wanted of the request. The tensors' bytes stay where they are.
func (m *inferRequest) decode(c *call) error {
	most := len(c.model.sig.Inputs)
	err := fields("ModelInferRequest", m.head, func(f field) error {
		switch {
		case f.is(4, protowire.BytesType):
			return parameter(f.bytes, func(p param) error { return m.parameter(c, p) })
		case f.is(5, protowire.BytesType):
			if len(m.inputs) == most {
				return zarpa.Errorf(zarpa.Invalid, "inputs: more than %d", most).WithHint("the model takes %s", describeInputs(c.model.sig.Inputs))
			}
			m.inputs = append(m.inputs, inputMessage{})
			return m.input(f.bytes, len(m.inputs)-1)
		case f.is(6, protowire.BytesType):
			return requestedOutput(c, f.bytes)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n := len(m.raw); n > 0 && n != len(m.inputs) {
		return zarpa.Errorf(zarpa.Invalid, "raw_input_contents: %d, and %d inputs", n, len(m.inputs)).WithHint("send the bytes of every input, in the order of inputs")
	}
	return m.place(c)
}

func (m *inferRequest) parameter(c *call, p param) error {
	switch p.key {
	case "allow_nan":
		if p.kind != paramBool {
			return zarpa.Errorf(zarpa.Invalid, "parameter allow_nan: not true or false")
		}
		c.allow = p.n != 0
	case "triton_enable_empty_final_response":
		if p.kind != paramBool {
			return zarpa.Errorf(zarpa.Invalid, "parameter %s: not true or false", p.key)
		}
		m.final = p.n != 0
	}
	return nil
}

// input reads the fields of input i.
func (m *inferRequest) input(b []byte, i int) error {
	in := &m.inputs[i]
	from := len(m.shapes)
	dim := func(v uint64) error {
		if m.shapes = append(m.shapes, int64(v)); len(m.shapes)-from > tensorjson.MaxRank {
			return zarpa.Errorf(zarpa.Invalid, "inputs[%d]: shape: more than %d dimensions", i, tensorjson.MaxRank)
		}
		return nil
	}
	err := fields("InferInputTensor", b, func(f field) error {
		switch {
		case f.is(1, protowire.BytesType):
			in.name = f.bytes
		case f.is(2, protowire.BytesType):
			in.datatype = f.bytes
		case f.is(3, protowire.VarintType):
			return dim(f.n)
		case f.is(3, protowire.BytesType):
			return varints(f.bytes, dim)
		case f.is(4, protowire.BytesType):
			return parameter(f.bytes, func(p param) error { return noSharedMemory("inputs", i, p.key) })
		case f.is(5, protowire.BytesType):
			in.addContents(f.bytes)
		}
		return nil
	})
	in.shape = m.shapes[from:len(m.shapes):len(m.shapes)]
	return err
}

func noSharedMemory(list string, i int, key string) error {
	if strings.HasPrefix(key, "shared_memory_") {
		return unsupported("%s[%d]: parameter %s: shared memory", list, i, key).WithHint("send and take tensors in the message")
	}
	return nil
}

// requestedOutput reads one InferRequestedOutputTensor.
func requestedOutput(c *call, b []byte) error {
	var name []byte
	var how requested
	i := len(c.wanted)
	err := fields("InferRequestedOutputTensor", b, func(f field) error {
		switch {
		case f.is(1, protowire.BytesType):
			name = f.bytes
		case f.is(2, protowire.BytesType):
			return parameter(f.bytes, func(p param) error {
				if p.key == "classification" {
					if p.kind != paramInt && p.kind != paramUint || int64(p.n) < 1 || p.n > maxClasses {
						return zarpa.Errorf(zarpa.Invalid, "outputs[%d]: parameter classification: not a number of classes between 1 and %d", i, maxClasses)
					}
					how.classes = int(p.n)
				}
				return noSharedMemory("outputs", i, p.key)
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.want(name, how)
}

// place puts what was read at the places of the model's inputs.
func (m *inferRequest) place(c *call) error {
	m.slots = slices.Grow(m.slots[:0], len(c.values))[:len(c.values)]
	for i := range m.inputs {
		name := m.inputs[i].name
		at, ok := c.model.inputs[string(name)]
		switch {
		case !ok:
			return unknown("input", name, names(c.model.sig.Inputs))
		case c.values[at].given:
			return twice("input", name)
		}
		c.values[at].given = true
		m.slots[at] = i
	}
	for at := range c.values {
		info := &c.model.sig.Inputs[at]
		if !c.values[at].given {
			if info.Optional {
				continue
			}
			return zarpa.Errorf(zarpa.Invalid, "input %q: missing", info.Name).WithHint("the model takes %s", describeInputs(c.model.sig.Inputs))
		}
		t, err := m.tensor(m.slots[at], info)
		if err != nil {
			return inside(info.Name, err)
		}
		c.inputs = append(c.inputs, t)
	}
	return nil
}

// tensor is input i of the request as the model's input info.
func (m *inferRequest) tensor(i int, info *zarpa.ValueInfo) (zarpa.Tensor, error) {
	in := &m.inputs[i]
	t := zarpa.Tensor{Name: info.Name}
	if err := t.Type.UnmarshalText(in.datatype); err != nil {
		return t, err
	}
	if t.Type != info.Type {
		return t, zarpa.Errorf(zarpa.Invalid, "datatype %v, the model takes %v", t.Type, info.Type)
	}
	n, err := zarpa.Elements(in.shape)
	if err != nil {
		return t, err
	}
	var ok bool
	if t.Shape, ok = fit(in.shape, false, info); !ok {
		return t, zarpa.Errorf(zarpa.Invalid, "shape %v, the model takes %v", t.Shape, info.Sizes()).WithHint("-1 may be any size")
	}
	if err := checkEmpty(t.Shape); err != nil {
		return t, err
	}
	switch {
	case len(m.raw) > 0 && in.parts > 0:
		return t, zarpa.Errorf(zarpa.Invalid, "contents: given beside raw_input_contents").WithHint("send one of both")
	case len(m.raw) > 0:
		return t, takeRaw(&t, m.raw[i], n)
	}
	return t, in.typed(&t, n)
}

// param is one entry of a map of parameters. n is a bool, a whole number, or the bits of a double.
type param struct {
	key  string
	kind protowire.Number
	n    uint64
	text []byte
}

// The fields of InferParameter.
const (
	paramBool   protowire.Number = 1
	paramInt    protowire.Number = 2
	paramString protowire.Number = 3
	paramDouble protowire.Number = 4
	paramUint   protowire.Number = 5
)

// parameter reads one entry of a map of parameters and gives it to take.
func parameter(entry []byte, take func(p param) error) error {
	var p param
	err := fields("InferParameter", entry, func(f field) (err error) {
		switch {
		case f.is(1, protowire.BytesType):
			p.key, err = f.text("parameters: a key")
		case f.is(2, protowire.BytesType):
			err = fields("InferParameter", f.bytes, func(f field) error {
				switch {
				case (f.num == paramBool || f.num == paramInt || f.num == paramUint) && f.typ == protowire.VarintType,
					f.is(paramDouble, protowire.Fixed64Type):
					p.kind, p.n = f.num, f.n
				case f.is(paramString, protowire.BytesType):
					p.kind, p.text = f.num, f.bytes
				}
				return nil
			})
		}
		return err
	})
	if err != nil {
		return err
	}
	if p.kind == paramUint && p.n > math.MaxInt64 {
		p.n = math.MaxInt64
	}
	return take(p)
}
