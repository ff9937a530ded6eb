//go:build cgo

package onnx

import "github.com/zarpa-dev/zarpa"

// elementTypes are the element types by their number in ONNX, which the C API shares. Numbers
// beyond it (2-bit integers, 4-bit floats) read as undefined.
var elementTypes = [...]zarpa.ElementType{
	1: zarpa.Float32, 2: zarpa.Uint8, 3: zarpa.Int8, 4: zarpa.Uint16, 5: zarpa.Int16, 6: zarpa.Int32,
	7: zarpa.Int64, 8: zarpa.String, 9: zarpa.Bool, 10: zarpa.Float16, 11: zarpa.Float64, 12: zarpa.Uint32,
	13: zarpa.Uint64, 14: zarpa.Complex64, 15: zarpa.Complex128, 16: zarpa.BFloat16,
	17: zarpa.Float8E4M3FN, 18: zarpa.Float8E4M3FNUZ, 19: zarpa.Float8E5M2, 20: zarpa.Float8E5M2FNUZ,
	21: zarpa.Uint4, 22: zarpa.Int4,
}

func elementType(number int) zarpa.ElementType {
	if number < 0 || number >= len(elementTypes) {
		return zarpa.Undefined
	}
	return elementTypes[number]
}

// elementNumber is the ONNX number of a type; 0 when it has none.
func elementNumber(t zarpa.ElementType) int {
	for number, et := range elementTypes {
		if et == t {
			return number
		}
	}
	return 0
}

// The kinds of values in the C API (enum ONNXType).
const (
	kindAbsent   = 0
	kindTensor   = 1
	kindSequence = 2
	kindMap      = 3
	kindSparse   = 5
	kindOptional = 6
)
