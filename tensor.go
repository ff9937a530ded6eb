package zarpa

import "math"

// ElementType is the type of a tensor's elements, or of a value that is no tensor.
type ElementType uint8

// The element types. The text of each is its datatype in the Open Inference Protocol v2, or, for
// types that the protocol does not know, its ONNX name in upper case.
const (
	Undefined ElementType = iota
	Bool
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	Float16
	BFloat16
	Float32
	Float64
	String // arbitrary bytes; ONNX calls it string, the protocol BYTES
	Complex64
	Complex128
	Float8E4M3FN
	Float8E4M3FNUZ
	Float8E5M2
	Float8E5M2FNUZ
	Uint4 // two elements a byte, low half first
	Int4  // two elements a byte, low half first
	// Sequence and Map mark values that are no tensors: see [Tensor.Items].
	Sequence
	Map
	numElementTypes
)

var elementTypes = [numElementTypes]struct {
	name string
	bits int
}{
	Undefined: {"UNDEFINED", 0}, Bool: {"BOOL", 8},
	Uint8: {"UINT8", 8}, Uint16: {"UINT16", 16}, Uint32: {"UINT32", 32}, Uint64: {"UINT64", 64},
	Int8: {"INT8", 8}, Int16: {"INT16", 16}, Int32: {"INT32", 32}, Int64: {"INT64", 64},
	Float16: {"FP16", 16}, BFloat16: {"BF16", 16}, Float32: {"FP32", 32}, Float64: {"FP64", 64},
	String: {"BYTES", 0}, Complex64: {"COMPLEX64", 64}, Complex128: {"COMPLEX128", 128},
	Float8E4M3FN: {"FLOAT8E4M3FN", 8}, Float8E4M3FNUZ: {"FLOAT8E4M3FNUZ", 8},
	Float8E5M2: {"FLOAT8E5M2", 8}, Float8E5M2FNUZ: {"FLOAT8E5M2FNUZ", 8},
	Uint4: {"UINT4", 4}, Int4: {"INT4", 4}, Sequence: {"SEQUENCE", 0}, Map: {"MAP", 0},
}

// String is the type's name, as in "FP32".
func (t ElementType) String() string {
	if t >= numElementTypes {
		t = Undefined
	}
	return elementTypes[t].name
}

// Bits is the size of one element in bits; 0 for strings and for values that are no tensors.
func (t ElementType) Bits() int {
	if t >= numElementTypes {
		return 0
	}
	return elementTypes[t].bits
}

// MarshalText is the type's name.
func (t ElementType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a type's name.
func (t *ElementType) UnmarshalText(b []byte) error {
	for i, et := range elementTypes {
		if et.name == string(b) {
			*t = ElementType(i)
			return nil
		}
	}
	return Errorf(Invalid, "datatype %q: unknown", b).WithHint("use one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES")
}

// Tensor is one named value on its way into or out of a model.
//
// Numbers are in Data: row-major, little-endian, without padding, len(Data) = [ByteSize] of type
// and shape. Strings are in Strings, one per element, and Data is nil. Shape has one entry per
// dimension, none for a scalar; a zero in it makes an empty tensor. A Sequence holds its values in
// Items; a Map holds two Items, the keys and the values, of equal length. An optional value that
// is absent has type Undefined.
//
// Whoever makes a Tensor owns its memory; a Session reads it until Run returns and never writes it.
type Tensor struct {
	Name    string
	Type    ElementType
	Shape   []int64
	Data    []byte
	Strings []string
	Items   []Tensor
}

// Elements is the number of elements of a shape: the product, 1 for a scalar. A negative
// dimension, or a product beyond 2^62, is an error.
func Elements(shape []int64) (int64, error) {
	n, zero := int64(1), false
	for i, d := range shape {
		switch {
		case d < 0:
			return 0, Errorf(Invalid, "shape %v: dimension %d is negative", shape, i)
		case d == 0:
			zero = true
		case n > (math.MaxInt64/2)/d:
			return 0, Errorf(Invalid, "shape %v: too many elements", shape)
		default:
			n *= d
		}
	}
	if zero {
		return 0, nil
	}
	return n, nil
}

// ByteSize is the length of Data for a tensor of numbers; 4-bit types round up to a whole byte.
func ByteSize(t ElementType, shape []int64) (int64, error) {
	n, err := Elements(shape)
	if err != nil {
		return 0, err
	}
	bits := int64(t.Bits())
	if bits > 0 && n > (math.MaxInt64-7)/bits {
		return 0, Errorf(Invalid, "shape %v: too many bytes", shape)
	}
	return (n*bits + 7) / 8, nil
}

// Dim is one dimension of a signature: a fixed size, or a dynamic one with an optional name.
type Dim struct {
	// Size is the number of elements along the dimension; -1 where a request may choose it.
	Size int64 `json:"size"`
	// Name is the dynamic dimension's name; equal names in one signature mean equal sizes.
	Name string `json:"name,omitempty"`
}

// ValueInfo describes one input or output of a model.
type ValueInfo struct {
	Name string      `json:"name"`
	Type ElementType `json:"datatype"`
	// Shape is nil with NoShape set when the file does not say the rank.
	Shape   []Dim `json:"shape"`
	NoShape bool  `json:"no_shape,omitempty"`
	// Optional inputs may be left out of a request; optional outputs may be absent.
	Optional bool `json:"optional,omitempty"`
	// Items describes the values in a Sequence (one entry) or the keys and values of a Map (two).
	Items []ValueInfo `json:"items,omitempty"`
	Doc   string      `json:"doc,omitempty"`
	// Columns are the names of a matrix's columns, in their order, where the model knows them: a table
	// whose columns are named is put in that order.
	Columns []string `json:"columns,omitempty"`
}

// Sizes is the shape as the Open Inference Protocol writes it: -1 for dynamic dimensions. It is
// never nil.
func (v ValueInfo) Sizes() []int64 {
	sizes := make([]int64, len(v.Shape))
	for i, d := range v.Shape {
		sizes[i] = d.Size
	}
	return sizes
}

// Signature is what a model takes and gives, read from its file.
type Signature struct {
	Inputs  []ValueInfo `json:"inputs"`
	Outputs []ValueInfo `json:"outputs"`
	// Opsets maps an operator domain to its version; the default domain's name is "ai.onnx".
	Opsets          map[string]int64  `json:"opsets,omitempty"`
	IRVersion       int64             `json:"ir_version,omitempty"`
	Producer        string            `json:"producer,omitempty"`
	ProducerVersion string            `json:"producer_version,omitempty"`
	Doc             string            `json:"doc,omitempty"`
	Metadata        map[string]string `json:"metadata,omitempty"`
}
