package score

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
)

// contentNames are the fields of InferTensorContents, by number.
var contentNames = [...]string{
	1: "bool_contents", 2: "int_contents", 3: "int64_contents", 4: "uint_contents",
	5: "uint64_contents", 6: "fp32_contents", 7: "fp64_contents", 8: "bytes_contents",
}

// contentField is the field that holds elements of a type; 0 for none.
func contentField(t zarpa.ElementType) protowire.Number {
	switch t {
	case zarpa.Bool:
		return 1
	case zarpa.Int8, zarpa.Int16, zarpa.Int32:
		return 2
	case zarpa.Int64:
		return 3
	case zarpa.Uint8, zarpa.Uint16, zarpa.Uint32:
		return 4
	case zarpa.Uint64:
		return 5
	case zarpa.Float32:
		return 6
	case zarpa.Float64:
		return 7
	case zarpa.String:
		return 8
	default: // what is left has none
	}
	return 0
}

// typed reads the n elements of t out of the input's contents.
func (in *inputMessage) typed(t *zarpa.Tensor, n int64) error {
	num := contentField(t.Type)
	if num == 0 {
		return zarpa.Errorf(zarpa.Invalid, "contents: %v has no field there", t.Type).WithHint("send its bytes in raw_input_contents")
	}
	count := int64(0)
	err := fields("InferTensorContents", in.contents, func(f field) error {
		size, err := countElements(f)
		switch {
		case err != nil:
			return err
		case f.num == num:
			count += size
		case size > 0:
			return zarpa.Errorf(zarpa.Invalid, "contents: %s given, %v takes %s", contentNames[f.num], t.Type, contentNames[num])
		}
		return nil
	})
	if err != nil {
		return err
	}
	if count != n {
		return zarpa.Errorf(zarpa.Invalid, "contents: %d elements in %s, shape %v has %d", count, contentNames[num], t.Shape, n)
	}
	w := elementWriter{t: t}
	if t.Type == zarpa.String {
		t.Strings = make([]string, 0, n)
	} else {
		t.Data = make([]byte, 0, n*int64(t.Type.Bits()/8))
	}
	return fields("InferTensorContents", in.contents, func(f field) error {
		if f.num == num {
			return w.take(f)
		}
		return nil
	})
}

// countElements is how many elements a field of InferTensorContents holds; 0 for an unknown one.
func countElements(f field) (int64, error) {
	packed := f.typ == protowire.BytesType
	n := int64(len(f.bytes))
	var single protowire.Type
	switch f.num {
	case 1, 2, 3, 4, 5:
		single = protowire.VarintType
		if packed {
			n = 0
			for _, b := range f.bytes {
				n += int64(1 - b>>7) // each varint ends with one byte below 0x80
			}
		}
	case 6:
		single, n = protowire.Fixed32Type, n/4
	case 7:
		single, n = protowire.Fixed64Type, n/8
	case 8:
		single, n = protowire.BytesType, 1
	default:
		return 0, nil
	}
	switch {
	case packed && (f.num == 6 && len(f.bytes)%4 != 0 || f.num == 7 && len(f.bytes)%8 != 0):
		return 0, malformed("InferTensorContents")
	case packed:
		return n, nil
	case f.typ == single:
		return 1, nil
	}
	return 0, nil
}

// elementWriter appends elements to a tensor, whose memory is there already.
type elementWriter struct {
	t *zarpa.Tensor
	n int // elements so far
}

func (w *elementWriter) take(f field) error {
	t := w.t
	switch {
	case f.num == 8:
		t.Strings = append(t.Strings, string(f.bytes))
	case f.num >= 6 && f.typ == protowire.BytesType:
		t.Data = append(t.Data, f.bytes...) // packed as the tensor is
	case f.typ == protowire.Fixed32Type:
		t.Data = binary.LittleEndian.AppendUint32(t.Data, uint32(f.n))
	case f.typ == protowire.Fixed64Type:
		t.Data = binary.LittleEndian.AppendUint64(t.Data, f.n)
	case f.typ == protowire.BytesType:
		return varints(f.bytes, w.integer)
	case f.typ == protowire.VarintType:
		return w.integer(f.n)
	}
	return nil
}

// integer appends one whole number, which stands in a wider field than its type.
func (w *elementWriter) integer(v uint64) error {
	t := w.t
	low, high := int64(0), int64(math.MaxInt64)
	n := int64(0) // stays in range where the field has the type's own
	switch t.Type {
	case zarpa.Bool:
		v = min(v, 1)
	case zarpa.Int8, zarpa.Int16, zarpa.Int32:
		n = int64(int32(v)) // what the field is
		high = 1<<(t.Type.Bits()-1) - 1
		low = -high - 1
	case zarpa.Uint8, zarpa.Uint16, zarpa.Uint32:
		n = int64(uint32(v))
		high = 1<<t.Type.Bits() - 1
	default: // the field has the type's range
	}
	if n < low || n > high {
		return zarpa.Errorf(zarpa.Invalid, "contents: element %d: %d is out of range for %v (%d to %d)", w.n, n, t.Type, low, high)
	}
	w.n++
	switch t.Type.Bits() {
	case 8:
		t.Data = append(t.Data, byte(v))
	case 16:
		t.Data = binary.LittleEndian.AppendUint16(t.Data, uint16(v))
	case 32:
		t.Data = binary.LittleEndian.AppendUint32(t.Data, uint32(v))
	default:
		t.Data = binary.LittleEndian.AppendUint64(t.Data, v)
	}
	return nil
}

// varints gives each number of a packed field to take.
func varints(b []byte, take func(v uint64) error) error {
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return malformed("message, a packed field is cut off")
		}
		b = b[n:]
		if err := take(v); err != nil {
			return err
		}
	}
	return nil
}
