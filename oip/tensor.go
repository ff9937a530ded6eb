package oip

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// hasJSON says whether a datatype has a JSON form.
func hasJSON(t zarpa.ElementType) bool { return t != zarpa.Float16 && t != zarpa.BFloat16 }

// isFloat says whether a datatype holds fractions.
func isFloat(t zarpa.ElementType) bool {
	return t == zarpa.Float16 || t == zarpa.BFloat16 || t == zarpa.Float32 || t == zarpa.Float64
}

// signed says whether a datatype is an integer with a sign.
func signed(t zarpa.ElementType) bool { return t >= zarpa.Int8 && t <= zarpa.Int64 }

// inProtocol says whether the protocol, or Triton's superset of it, has the datatype.
func inProtocol(t zarpa.ElementType) bool { return t >= zarpa.Bool && t <= zarpa.String }

// raw is the tensor as the binary extension and raw contents write it.
func raw(t zarpa.Tensor) []byte {
	if t.Type != zarpa.String {
		return t.Data
	}
	var b []byte
	for _, s := range t.Strings {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // made-up texts are short
		b = append(b, s...)
	}
	return b
}

// fromRaw reads what raw writes.
func fromRaw(v zarpa.Tensor, b []byte) (zarpa.Tensor, error) {
	n, err := zarpa.Elements(v.Shape)
	if err != nil {
		return v, err
	}
	if v.Type != zarpa.String {
		if size, err := zarpa.ByteSize(v.Type, v.Shape); err != nil || size != int64(len(b)) {
			return v, fmt.Errorf("output %q: %d bytes for %v %v", v.Name, len(b), v.Type, v.Shape)
		}
		v.Data = b
		return v, nil
	}
	v.Strings = []string{}
	for len(b) > 0 {
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return v, fmt.Errorf("output %q: the length before a BYTES element goes beyond the data", v.Name)
		}
		size := int(binary.LittleEndian.Uint32(b))
		v.Strings = append(v.Strings, string(b[4:4+size]))
		b = b[4+size:]
	}
	if int64(len(v.Strings)) != n {
		return v, fmt.Errorf("output %q: %d BYTES elements for shape %v", v.Name, len(v.Strings), v.Shape)
	}
	return v, nil
}

// bits is element i as an unsigned number of the type's width.
func bits(t zarpa.Tensor, i int) uint64 {
	size := t.Type.Bits() / 8
	var b [8]byte
	copy(b[:], t.Data[i*size:(i+1)*size])
	return binary.LittleEndian.Uint64(b[:])
}

// integer is element i as a signed number.
func integer(t zarpa.Tensor, i int) int64 {
	shift := 64 - t.Type.Bits()
	return int64(bits(t, i)<<shift) >> shift //nolint:gosec // two's complement is meant
}

// element is element i as JSON.
func element(t zarpa.Tensor, i int) string {
	switch {
	case t.Type == zarpa.String:
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(t.Strings[i]) // to memory
		return strings.TrimSuffix(b.String(), "\n")
	case t.Type == zarpa.Bool:
		return strconv.FormatBool(t.Data[i] != 0)
	case t.Type == zarpa.Float32:
		return decimal(float64(math.Float32frombits(uint32(bits(t, i)))), 32) //nolint:gosec // four bytes
	case t.Type == zarpa.Float64:
		return decimal(math.Float64frombits(bits(t, i)), 64)
	case signed(t.Type):
		return strconv.FormatInt(integer(t, i), 10)
	}
	return strconv.FormatUint(bits(t, i), 10)
}

// decimal is a float in the fewest digits that read back as the same, negative zero with a fraction.
func decimal(f float64, width int) string {
	if f == 0 && math.Signbit(f) {
		return "-0.0"
	}
	return strconv.FormatFloat(f, 'g', -1, width)
}

// count is the number of elements that the tensor holds.
func count(t zarpa.Tensor) int {
	if t.Type == zarpa.String {
		return len(t.Strings)
	}
	return len(t.Data) / max(1, t.Type.Bits()/8)
}

// flat is the tensor's data as one array.
func flat(t zarpa.Tensor) json.RawMessage {
	list := make([]string, count(t))
	for i := range list {
		list[i] = element(t, i)
	}
	return json.RawMessage("[" + strings.Join(list, ",") + "]")
}

// nested is the tensor's data in arrays of its shape.
func nested(t zarpa.Tensor) json.RawMessage {
	next := 0
	var write func(shape []int64) string
	write = func(shape []int64) string {
		if len(shape) == 0 {
			next++
			return element(t, next-1)
		}
		list := make([]string, shape[0])
		for i := range list {
			list[i] = write(shape[1:])
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	if len(t.Shape) == 0 {
		return flat(t)
	}
	return json.RawMessage(write(t.Shape))
}

// fromJSON reads an output's data, flat or nested.
func fromJSON(v zarpa.Tensor, data json.RawMessage) (zarpa.Tensor, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if v.Type == zarpa.String {
		v.Strings = []string{}
	}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return v, fmt.Errorf("output %q: data is no JSON: %w", v.Name, err)
		}
		if _, bracket := token.(json.Delim); bracket {
			continue
		}
		if err := appendElement(&v, token); err != nil {
			return v, err
		}
	}
	if n, err := zarpa.Elements(v.Shape); err != nil || n != int64(count(v)) {
		return v, fmt.Errorf("output %q: %d elements for shape %v", v.Name, count(v), v.Shape)
	}
	return v, nil
}

// appendElement adds one JSON value, which must be of the datatype and within its range.
func appendElement(v *zarpa.Tensor, token json.Token) error {
	wrong := fmt.Errorf("output %q: the element %v is no %v", v.Name, token, v.Type)
	switch x := token.(type) {
	case string:
		if v.Type != zarpa.String {
			return wrong
		}
		v.Strings = append(v.Strings, x)
		return nil
	case bool:
		if v.Type != zarpa.Bool {
			return wrong
		}
		v.Data = append(v.Data, map[bool]byte{true: 1}[x])
		return nil
	case json.Number:
		b, ok := number(v.Type, x.String())
		if !ok {
			return wrong
		}
		v.Data = append(v.Data, b...)
		return nil
	}
	return wrong
}

// number is a JSON number as the bytes of a datatype.
func number(t zarpa.ElementType, s string) ([]byte, bool) {
	size := t.Bits() / 8
	var word uint64
	var err error
	switch {
	case t == zarpa.Float32:
		f, bad := strconv.ParseFloat(s, 32)
		word, err = uint64(math.Float32bits(float32(f))), bad
	case t == zarpa.Float64:
		f, bad := strconv.ParseFloat(s, 64)
		word, err = math.Float64bits(f), bad
	case signed(t):
		n, bad := strconv.ParseInt(s, 10, t.Bits())
		word, err = uint64(n), bad //nolint:gosec // two's complement is meant
	case t >= zarpa.Uint8 && t <= zarpa.Uint64:
		word, err = strconv.ParseUint(s, 10, t.Bits())
	default:
		return nil, false
	}
	return binary.LittleEndian.AppendUint64(nil, word)[:size], err == nil
}

// sameTensors says how two answers differ; "" when they are the same bits, whatever their order.
func sameTensors(a, b []zarpa.Tensor) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d outputs and %d", len(a), len(b))
	}
	for _, x := range a {
		i := slices.IndexFunc(b, func(y zarpa.Tensor) bool { return x.Name == y.Name })
		switch {
		case i < 0:
			return fmt.Sprintf("output %q in one alone", x.Name)
		case x.Type != b[i].Type || !slices.Equal(x.Shape, b[i].Shape):
			return fmt.Sprintf("output %q as %v %v and as %v %v", x.Name, x.Type, x.Shape, b[i].Type, b[i].Shape)
		case !bytes.Equal(x.Data, b[i].Data) || !slices.Equal(x.Strings, b[i].Strings):
			return fmt.Sprintf("output %q with other elements", x.Name)
		}
	}
	return ""
}
