package modelfile

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
)

// Field numbers of TypeProto.
const (
	typeTensor   = 1
	typeSequence = 4
	typeMap      = 5
	typeSparse   = 8
	typeOptional = 9
)

// elementTypes are the element types by their number in TensorProto.DataType. Others read as
// undefined.
var elementTypes = [...]zarpa.ElementType{
	1: zarpa.Float32, 2: zarpa.Uint8, 3: zarpa.Int8, 4: zarpa.Uint16, 5: zarpa.Int16, 6: zarpa.Int32,
	7: zarpa.Int64, 8: zarpa.String, 9: zarpa.Bool, 10: zarpa.Float16, 11: zarpa.Float64, 12: zarpa.Uint32,
	13: zarpa.Uint64, 14: zarpa.Complex64, 15: zarpa.Complex128, 16: zarpa.BFloat16,
	17: zarpa.Float8E4M3FN, 18: zarpa.Float8E4M3FNUZ, 19: zarpa.Float8E5M2, 20: zarpa.Float8E5M2FNUZ,
	21: zarpa.Uint4, 22: zarpa.Int4,
}

func elementType(number uint64) zarpa.ElementType {
	if number >= uint64(len(elementTypes)) {
		return zarpa.Undefined
	}
	return elementTypes[number]
}

// appendValue reads a ValueInfoProto.
func appendValue(values *[]zarpa.ValueInfo, msg message, kind string) error {
	if len(*values) >= maxValues {
		return zarpa.Errorf(zarpa.Invalid, "more than %d %ss", maxValues, kind)
	}
	v := zarpa.ValueInfo{NoShape: true}
	valueName, doc := "", ""
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case 1:
			valueName, err = name(f.body)
		case 2:
			v, err = readType(f.body, 0)
		case 3:
			doc, err = f.body.text(maxDoc)
		}
		if err != nil {
			return err
		}
	}
	if valueName == "" {
		return zarpa.Errorf(zarpa.Invalid, "%s %d has no name", kind, len(*values))
	}
	v.Name, v.Doc = valueName, doc
	*values = append(*values, v)
	return nil
}

// readType reads a TypeProto; depth counts the types around it.
func readType(msg message, depth int) (zarpa.ValueInfo, error) {
	v := zarpa.ValueInfo{NoShape: true}
	if depth > maxDepth {
		return v, zarpa.Errorf(zarpa.Invalid, "types nested more than %d deep", maxDepth)
	}
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return v, err
		}
		if f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case typeTensor, typeSparse:
			v, err = readTensorType(f.body)
		case typeSequence:
			var item zarpa.ValueInfo
			item, _, err = readItem(f.body, 1, depth)
			v = zarpa.ValueInfo{Type: zarpa.Sequence, NoShape: true, Items: []zarpa.ValueInfo{item}}
		case typeMap:
			value, key, mapErr := readItem(f.body, 2, depth)
			err = mapErr
			keys := zarpa.ValueInfo{Type: elementType(key), Shape: []zarpa.Dim{}}
			v = zarpa.ValueInfo{Type: zarpa.Map, NoShape: true, Items: []zarpa.ValueInfo{keys, value}}
		case typeOptional:
			v, _, err = readItem(f.body, 1, depth)
			v.Optional = true
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

// readItem reads the type inside a sequence, map or optional, in field number `at`, and the map's
// key type in field 1.
func readItem(msg message, at protowire.Number, depth int) (v zarpa.ValueInfo, key uint64, err error) {
	v.NoShape = true
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return v, key, err
		}
		switch {
		case f.number == at && f.kind == protowire.BytesType:
			if v, err = readType(f.body, depth+1); err != nil {
				return v, key, err
			}
		case f.number == 1 && f.kind == protowire.VarintType:
			key = f.value
		}
	}
	return v, key, nil
}

func readTensorType(msg message) (zarpa.ValueInfo, error) {
	v := zarpa.ValueInfo{NoShape: true}
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return v, err
		}
		switch {
		case f.number == 1 && f.kind == protowire.VarintType:
			v.Type = elementType(f.value)
		case f.number == 2 && f.kind == protowire.BytesType:
			v.NoShape = false
			if v.Shape, err = readShape(f.body); err != nil {
				return v, err
			}
		}
	}
	return v, nil
}

func readShape(msg message) ([]zarpa.Dim, error) {
	shape := []zarpa.Dim{}
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return nil, err
		}
		if f.number != 1 || f.kind != protowire.BytesType {
			continue
		}
		if len(shape) >= maxRank {
			return nil, zarpa.Errorf(zarpa.Invalid, "a shape of more than %d dimensions", maxRank)
		}
		d, err := readDim(f.body)
		if err != nil {
			return nil, err
		}
		shape = append(shape, d)
	}
	return shape, nil
}

func readDim(msg message) (zarpa.Dim, error) {
	d := zarpa.Dim{Size: -1}
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return d, err
		}
		switch {
		case f.number == 1 && f.kind == protowire.VarintType:
			d = zarpa.Dim{Size: max(int64(f.value), -1)}
		case f.number == 2 && f.kind == protowire.BytesType:
			param, err := name(f.body)
			if err != nil {
				return d, err
			}
			d = zarpa.Dim{Size: -1, Name: param}
		}
	}
	return d, nil
}
