package score

import (
	"encoding/binary"
	"slices"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inputs"
)

// batchShape is how the rows of a model's requests come together and apart again.
type batchShape struct {
	sig     zarpa.Signature
	checker *inputs.Checker
	rowwise []bool // for each input; only an optional one can be false
}

// newBatchShape makes that of a model whose rows can be run together; the error says why they
// cannot. Every input that is needed, and every output, must have one row for each of the
// request's, along a first dimension that is free; a sequence of maps must have one for each. A
// sequence of tensors may as well have one for each class.
func newBatchShape(sig zarpa.Signature) (*batchShape, error) {
	s := &batchShape{sig: sig, checker: inputs.New(sig), rowwise: make([]bool, len(sig.Inputs))}
	name, some := "", false
	for i := range sig.Inputs {
		v := &sig.Inputs[i]
		err := rowwise(v, name)
		if err != nil && !v.Optional {
			return nil, zarpa.Errorf(zarpa.Invalid, "input %q: %w", v.Name, err)
		}
		if s.rowwise[i] = err == nil; s.rowwise[i] {
			some = true
			if name == "" {
				name = v.Shape[0].Name
			}
		}
	}
	if !some {
		return nil, zarpa.Errorf(zarpa.Invalid, "no input has rows")
	}
	for i := range sig.Outputs {
		v := &sig.Outputs[i]
		switch {
		case v.Optional:
			return nil, zarpa.Errorf(zarpa.Invalid, "output %q: it may be absent", v.Name)
		case v.Type == zarpa.Sequence && len(v.Items) == 1 && v.Items[0].Type == zarpa.Map:
			continue // a map for each row, as the answers will show
		}
		if err := rowwise(v, name); err != nil {
			return nil, zarpa.Errorf(zarpa.Invalid, "output %q: %w", v.Name, err)
		}
	}
	return s, nil
}

// rowwise says why a value has no rows; name is what others call their first dimension.
func rowwise(v *zarpa.ValueInfo, name string) error {
	switch {
	case v.Type == zarpa.Sequence || v.Type == zarpa.Map || v.Type == zarpa.Undefined:
		return zarpa.Errorf(zarpa.Invalid, "it is no tensor")
	case v.NoShape || len(v.Shape) == 0 || v.Shape[0].Size >= 0:
		return zarpa.Errorf(zarpa.Invalid, "its first dimension is not free")
	case v.Type.Bits()%8 != 0:
		return zarpa.Errorf(zarpa.Invalid, "elements of %s share bytes", v.Type)
	}
	first := v.Shape[0].Name
	if name != "" && first != "" && first != name {
		return zarpa.Errorf(zarpa.Invalid, "its first dimension is %q, and that of another %q", first, name)
	}
	if name == "" {
		name = first
	}
	for _, d := range v.Shape[1:] {
		if name != "" && d.Size < 0 && d.Name == name {
			return zarpa.Errorf(zarpa.Invalid, "%q is one more of its dimensions", name)
		}
	}
	return nil
}

// admit checks a request and finds who may share its run: those of equal types, inputs given,
// dimensions but the first, and outputs wanted. No parameter of a request reaches the model, so
// that none sets requests apart. The error is invalid and names the input or output.
func (s *batchShape) admit(m *member, maxRows int64) error {
	c := m.call
	m.slots = make([]int, len(s.sig.Inputs))
	if err := s.checker.Place(c.inputs, m.slots, s.checker.NewSeen()); err != nil {
		return err
	}
	want, err := s.checker.Want(c.wanted, make([]int, 0, 8))
	if err != nil {
		return err
	}
	m.key, m.rows = alone, c.rows()
	rows := int64(-1)
	var room [128]byte
	key := append(room[:0], 'r')
	for n, i := range m.slots {
		if i < 0 {
			key = append(key, 0)
			continue
		}
		shape := c.inputs[i].Shape
		if !s.rowwise[n] || rows >= 0 && shape[0] != rows {
			return nil
		}
		rows = shape[0]
		key = append(key, 1)
		for _, d := range shape[1:] {
			key = binary.AppendUvarint(key, uint64(d))
		}
	}
	if rows <= 0 || rows >= maxRows {
		return nil
	}
	for _, n := range want {
		key = binary.AppendUvarint(key, uint64(n))
	}
	m.key, m.rows = string(key), rows
	return nil
}

// join makes one request of the batch's. It copies all that it returns out of the members' memory,
// and closes b.copied then.
func (s *batchShape) join(b *batch) ([]zarpa.Tensor, []string) {
	defer close(b.copied)
	first := b.members[0]
	in := make([]zarpa.Tensor, 0, len(s.sig.Inputs))
	for n, i := range first.slots {
		if i < 0 {
			continue
		}
		t := first.call.inputs[i]
		t.Name, t.Shape = s.sig.Inputs[n].Name, slices.Clone(t.Shape)
		t.Shape[0], t.Data, t.Strings = b.rows, nil, nil
		bytes, strings := 0, 0
		for _, m := range b.members {
			bytes += len(m.call.inputs[m.slots[n]].Data)
			strings += len(m.call.inputs[m.slots[n]].Strings)
		}
		t.Data, t.Strings = slices.Grow(t.Data, bytes), slices.Grow(t.Strings, strings)
		for _, m := range b.members {
			t.Data = append(t.Data, m.call.inputs[m.slots[n]].Data...)
			t.Strings = append(t.Strings, m.call.inputs[m.slots[n]].Strings...)
		}
		in = append(in, t)
	}
	if len(first.call.wanted) == 0 {
		return in, nil
	}
	return in, slices.Clone(first.call.wanted)
}

// split gives each member of the batch its rows of the outputs. The error says which output has
// not as many as went in.
func (s *batchShape) split(outputs []zarpa.Tensor, b *batch) ([][]zarpa.Tensor, error) {
	for i := range outputs {
		t := &outputs[i]
		rows := int64(len(t.Items))
		if t.Type != zarpa.Sequence {
			rows = -1
			if len(t.Shape) > 0 {
				rows = t.Shape[0]
			}
		}
		if rows != b.rows {
			return nil, zarpa.Errorf(zarpa.Internal, "output %q: shape %v for %d rows", t.Name, t.Shape, b.rows)
		}
	}
	parts := make([][]zarpa.Tensor, len(b.members))
	all := make([]zarpa.Tensor, len(b.members)*len(outputs))
	from := int64(0)
	for k, m := range b.members {
		parts[k] = all[k*len(outputs) : (k+1)*len(outputs) : (k+1)*len(outputs)]
		for i := range outputs {
			parts[k][i] = cut(&outputs[i], from, from+m.rows, b.rows)
		}
		from += m.rows
	}
	return parts, nil
}

// cut is some of the rows of a tensor, in its memory.
func cut(t *zarpa.Tensor, from, to, rows int64) zarpa.Tensor {
	part := zarpa.Tensor{Name: t.Name, Type: t.Type}
	if t.Type == zarpa.Sequence {
		part.Items = t.Items[from:to:to]
		return part
	}
	part.Shape = slices.Clone(t.Shape)
	part.Shape[0] = to - from
	if t.Type == zarpa.String {
		each := int64(len(t.Strings)) / rows
		part.Strings = t.Strings[from*each : to*each : to*each]
		return part
	}
	each := int64(len(t.Data)) / rows
	part.Data = t.Data[from*each : to*each : to*each]
	return part
}
