package tensorjson

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/zarpa-dev/zarpa"
)

// Format says how tensors are written. The zero value is strict JSON.
type Format struct {
	// NonFinite writes NaN, Infinity and -Infinity bare, as Python does, in place of an error.
	NonFinite bool
}

// AppendNested appends the value of t: nested arrays in the tensor's shape, a bare element for a
// scalar, an array for a Sequence, an object for a Map, null for a value that is absent. Float32
// is written with the fewest digits that read back as the same float32. The name is not written.
//
// Errors are model_error, for a value that JSON cannot carry: NaN and infinities, strings that are
// no UTF-8, complex and 8-bit float types; and for a tensor whose data do not fit its shape.
func (f Format) AppendNested(dst []byte, t *zarpa.Tensor) ([]byte, error) {
	switch t.Type {
	case zarpa.Undefined:
		return append(dst, "null"...), nil
	case zarpa.Sequence:
		return f.appendSequence(dst, t)
	case zarpa.Map:
		return f.appendMap(dst, t)
	default: // what is left follows
	}
	if _, err := check(t); err != nil {
		return dst, err
	}
	dst, _, err := f.appendRows(dst, t, 0, 0)
	return dst, err
}

// AppendFlat appends the elements of t as one array in row-major order, whatever its shape is.
// Errors are those of [Format.AppendNested].
func (f Format) AppendFlat(dst []byte, t *zarpa.Tensor) ([]byte, error) {
	n, err := check(t)
	if err != nil {
		return dst, err
	}
	dst = append(dst, '[')
	if dst, err = f.appendRun(dst, t, 0, n); err != nil {
		return dst, err
	}
	return append(dst, ']'), nil
}

// check is the number of elements of a tensor whose data fit its shape.
func check(t *zarpa.Tensor) (int, error) {
	n, err := zarpa.Elements(t.Shape)
	if err != nil {
		return 0, zarpa.Errorf(zarpa.ModelError, "output %q: %v", t.Name, err)
	}
	have, want := int64(len(t.Data)), int64(0)
	if t.Type == zarpa.String {
		have, want = int64(len(t.Strings)), n
	} else if want, err = zarpa.ByteSize(t.Type, t.Shape); err != nil {
		return 0, zarpa.Errorf(zarpa.ModelError, "output %q: %v", t.Name, err)
	}
	if have != want {
		return 0, zarpa.Errorf(zarpa.ModelError, "output %q: %d bytes or strings for shape %v of %v, %d expected", t.Name, have, t.Shape, t.Type, want)
	}
	return int(n), nil
}

// appendRows appends the sub-tensor at dimension dim whose first element is from; next is the
// element behind it.
func (f Format) appendRows(dst []byte, t *zarpa.Tensor, dim, from int) (out []byte, next int, err error) {
	if dim == len(t.Shape) {
		dst, err = f.appendRun(dst, t, from, from+1)
		return dst, from + 1, err
	}
	size := int(t.Shape[dim])
	dst = append(dst, '[')
	if dim == len(t.Shape)-1 {
		if dst, err = f.appendRun(dst, t, from, from+size); err != nil {
			return dst, from, err
		}
		return append(dst, ']'), from + size, nil
	}
	for i := range size {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, from, err = f.appendRows(dst, t, dim+1, from); err != nil {
			return dst, from, err
		}
	}
	return append(dst, ']'), from, nil
}

// appendRun appends the elements [from, to), separated by commas.
func (f Format) appendRun(dst []byte, t *zarpa.Tensor, from, to int) ([]byte, error) {
	for i := from; i < to; i++ {
		if i > from {
			dst = append(dst, ',')
		}
		ok := true
		switch t.Type {
		case zarpa.Float32:
			v := math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
			dst, ok = f.appendFloat(dst, float64(v), 32)
		case zarpa.Int64:
			dst = strconv.AppendInt(dst, int64(binary.LittleEndian.Uint64(t.Data[8*i:])), 10)
		case zarpa.String:
			if dst, ok = AppendString(dst, t.Strings[i]); !ok {
				return dst, zarpa.Errorf(zarpa.ModelError, "output %q: element %d is not valid UTF-8, so JSON cannot carry it", t.Name, i).
					WithHint("over the inference protocol, ask for it with content_type base64 or as a binary tensor; or make the model return text")
			}
		default:
			dst, ok = f.appendElement(dst, t, i)
		}
		if !ok {
			return dst, f.refuse(t, i)
		}
	}
	return dst, nil
}

func (f Format) refuse(t *zarpa.Tensor, i int) error {
	switch t.Type {
	case zarpa.Float16, zarpa.BFloat16, zarpa.Float32, zarpa.Float64:
		return zarpa.Errorf(zarpa.ModelError, "output %q: element %d is NaN or infinite, so JSON cannot carry it", t.Name, i).
			WithHint("set parameters.allow_nan to true to get it as NaN, Infinity or -Infinity")
	default: // what is left follows
	}
	return zarpa.Errorf(zarpa.ModelError, "output %q: datatype %v cannot be written in JSON", t.Name, t.Type).
		WithHint("ask for other outputs, or add a Cast to FP32 to the model")
}

// appendElement appends an element of the rarer types; ok is false when JSON cannot carry it.
func (f Format) appendElement(dst []byte, t *zarpa.Tensor, i int) (out []byte, ok bool) {
	d := t.Data
	switch t.Type {
	case zarpa.Float64:
		return f.appendFloat(dst, math.Float64frombits(binary.LittleEndian.Uint64(d[8*i:])), 64)
	case zarpa.Float16:
		return f.appendFloat(dst, float64(fromHalf(binary.LittleEndian.Uint16(d[2*i:]))), 32)
	case zarpa.BFloat16:
		return f.appendFloat(dst, float64(fromBFloat(binary.LittleEndian.Uint16(d[2*i:]))), 32)
	case zarpa.Bool:
		return strconv.AppendBool(dst, d[i] != 0), true
	case zarpa.Uint8:
		return strconv.AppendUint(dst, uint64(d[i]), 10), true
	case zarpa.Uint16:
		return strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint16(d[2*i:])), 10), true
	case zarpa.Uint32:
		return strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint32(d[4*i:])), 10), true
	case zarpa.Uint64:
		return strconv.AppendUint(dst, binary.LittleEndian.Uint64(d[8*i:]), 10), true
	case zarpa.Int8:
		return strconv.AppendInt(dst, int64(int8(d[i])), 10), true
	case zarpa.Int16:
		return strconv.AppendInt(dst, int64(int16(binary.LittleEndian.Uint16(d[2*i:]))), 10), true
	case zarpa.Int32:
		return strconv.AppendInt(dst, int64(int32(binary.LittleEndian.Uint32(d[4*i:]))), 10), true
	case zarpa.Uint4:
		return strconv.AppendUint(dst, uint64(d[i/2]>>(4*(i%2))&15), 10), true
	case zarpa.Int4:
		return strconv.AppendInt(dst, int64(int8(d[i/2]>>(4*(i%2))<<4)>>4), 10), true
	default: // what is left follows
	}
	return dst, false
}

// appendFloat writes the fewest digits that read back the same, in the form of encoding/json:
// without an exponent between 1e-6 and 1e21.
func (f Format) appendFloat(dst []byte, v float64, bits int) (out []byte, ok bool) {
	abs := math.Abs(v)
	if abs < 1<<24 {
		n := int64(v)
		switch {
		case float64(n) != v:
		case n == 0 && math.Signbit(v):
			return append(dst, "-0.0"...), true // many readers take -0 for a whole number, and lose the sign
		default:
			return strconv.AppendInt(dst, n, 10), true
		}
	}
	switch {
	case v != v:
		return append(dst, "NaN"...), f.NonFinite
	case abs > math.MaxFloat64 && v < 0:
		return append(dst, "-Infinity"...), f.NonFinite
	case abs > math.MaxFloat64:
		return append(dst, "Infinity"...), f.NonFinite
	}
	form := byte('f')
	if abs != 0 && (bits == 64 && (abs < 1e-6 || abs >= 1e21) || bits == 32 && (float32(abs) < 1e-6 || float32(abs) >= 1e21)) {
		form = 'e'
	}
	dst = strconv.AppendFloat(dst, v, form, -1, bits)
	if n := len(dst); form == 'e' && n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // 1e-09 becomes 1e-9
		dst = dst[:n-1]
	}
	return dst, true
}

func (f Format) appendSequence(dst []byte, t *zarpa.Tensor) ([]byte, error) {
	dst = append(dst, '[')
	for i := range t.Items {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = f.AppendNested(dst, &t.Items[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// appendMap writes the keys, whole numbers or strings, as an object's keys.
func (f Format) appendMap(dst []byte, t *zarpa.Tensor) ([]byte, error) {
	if len(t.Items) != 2 {
		return dst, zarpa.Errorf(zarpa.ModelError, "output %q: a map of %d parts, keys and values expected", t.Name, len(t.Items))
	}
	keys, values := &t.Items[0], &t.Items[1]
	n, err := check(keys)
	if err != nil {
		return dst, err
	}
	one, err := f.mapValue(values, n)
	if err != nil {
		return dst, err
	}
	_, _, whole := integerRange(keys.Type)
	if !whole && keys.Type != zarpa.String {
		return dst, zarpa.Errorf(zarpa.ModelError, "output %q: a map with keys of %v cannot be written in JSON", t.Name, keys.Type)
	}
	dst = append(dst, '{')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		if whole {
			dst = append(dst, '"')
		}
		if dst, err = f.appendRun(dst, keys, i, i+1); err != nil {
			return dst, err
		}
		if whole {
			dst = append(dst, '"')
		}
		if dst, err = one(append(dst, ':'), i); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// mapValue is how the i-th of n values of a map is written: an item of a sequence, an element of
// a vector, or a row of a tensor.
func (f Format) mapValue(v *zarpa.Tensor, n int) (func(dst []byte, i int) ([]byte, error), error) {
	length := len(v.Items)
	stride := 1
	if v.Type != zarpa.Sequence {
		elements, err := check(v)
		if err != nil {
			return nil, err
		}
		if length = elements; len(v.Shape) > 1 && v.Shape[0] > 0 {
			length = int(v.Shape[0])
			stride = elements / length
		}
	}
	if length != n {
		return nil, zarpa.Errorf(zarpa.ModelError, "output %q: a map of %d keys and %d values", v.Name, n, length)
	}
	return func(dst []byte, i int) ([]byte, error) {
		switch {
		case v.Type == zarpa.Sequence:
			return f.AppendNested(dst, &v.Items[i])
		case len(v.Shape) > 1:
			dst, _, err := f.appendRows(dst, v, 1, i*stride)
			return dst, err
		}
		return f.appendRun(dst, v, i, i+1)
	}, nil
}
