package score

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"github.com/zarpa-dev/zarpa"
)

// classify is the protocol's classification extension: of each row, a row being what stands under
// one index of the first dimension, the k largest elements as texts "value:index", the largest
// first. A vector is one row. The answer has shape [rows, k], or [k] for one of a vector; k is
// never more than a row has. Of equal elements the first comes first; NaN comes last.
//
// The error is invalid, for types without order and for 16-bit floats.
func classify(t *zarpa.Tensor, k int) (zarpa.Tensor, error) {
	out := zarpa.Tensor{Name: t.Name, Type: zarpa.String}
	at, text := elementsOf(t)
	if at == nil {
		return out, zarpa.Errorf(zarpa.Invalid, "output %q: classification: %v has no classes", t.Name, t.Type).WithHint("ask for it without classification")
	}
	n, err := zarpa.Elements(t.Shape)
	if err != nil {
		return out, err
	}
	rows, size := int64(1), n
	if len(t.Shape) > 1 {
		if rows = t.Shape[0]; rows > 0 {
			size = n / rows
		} else {
			size = 0
		}
	}
	most := int(min(int64(k), size))
	out.Shape = []int64{int64(most)}
	if len(t.Shape) > 1 {
		out.Shape = []int64{rows, int64(most)}
	}
	if most == 0 { // however many rows of nothing there are
		return out, nil
	}
	out.Strings = make([]string, 0, int(rows)*most)
	order := make([]int, size)
	for row := range int(rows) {
		first := row * int(size)
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return at(first+b, first+a) })
		for _, i := range order[:most] {
			out.Strings = append(out.Strings, text(first+i)+":"+strconv.Itoa(i))
		}
	}
	return out, nil
}

// elementsOf compares and writes the elements of t by their index; nil when it has no such.
func elementsOf(t *zarpa.Tensor) (compare func(a, b int) int, text func(i int) string) {
	d := t.Data
	float := func(read func(i int) float64) (func(a, b int) int, func(i int) string) {
		return func(a, b int) int { return cmp.Compare(read(a), read(b)) },
			func(i int) string { return percentF(read(i)) }
	}
	whole := func(read func(i int) int64) (func(a, b int) int, func(i int) string) {
		return func(a, b int) int { return cmp.Compare(read(a), read(b)) },
			func(i int) string { return strconv.FormatInt(read(i), 10) }
	}
	switch t.Type {
	case zarpa.Float32:
		return float(func(i int) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(d[4*i:]))) })
	case zarpa.Float64:
		return float(func(i int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(d[8*i:])) })
	case zarpa.Bool, zarpa.Uint8:
		return whole(func(i int) int64 { return int64(d[i]) })
	case zarpa.Int8:
		return whole(func(i int) int64 { return int64(int8(d[i])) })
	case zarpa.Uint16:
		return whole(func(i int) int64 { return int64(binary.LittleEndian.Uint16(d[2*i:])) })
	case zarpa.Int16:
		return whole(func(i int) int64 { return int64(int16(binary.LittleEndian.Uint16(d[2*i:]))) })
	case zarpa.Uint32:
		return whole(func(i int) int64 { return int64(binary.LittleEndian.Uint32(d[4*i:])) })
	case zarpa.Int32:
		return whole(func(i int) int64 { return int64(int32(binary.LittleEndian.Uint32(d[4*i:]))) })
	case zarpa.Int64:
		return whole(func(i int) int64 { return int64(binary.LittleEndian.Uint64(d[8*i:])) })
	case zarpa.Uint64:
		read := func(i int) uint64 { return binary.LittleEndian.Uint64(d[8*i:]) }
		return func(a, b int) int { return cmp.Compare(read(a), read(b)) },
			func(i int) string { return strconv.FormatUint(read(i), 10) }
	default: // what is left has no order, or is not written by the protocol's clients
	}
	return nil, nil
}

// percentF is what %f of C writes.
func percentF(v float64) string {
	switch {
	case v != v:
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	return strconv.FormatFloat(v, 'f', 6, 64)
}
