package modelfile

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
)

// Field numbers of TensorFlow's saved_model.proto and meta_graph.proto, named message and field.
const (
	savedMetaGraph = 2

	metaInfo      = 1
	metaSignature = 5

	infoVersion = 5

	signatureInputs  = 1
	signatureOutputs = 2

	tensorInfoType  = 2
	tensorInfoShape = 3

	tensorShapeDim     = 2
	tensorShapeUnknown = 3
)

// servingSignature is the signature that TensorFlow's own server answers with, unless told otherwise.
const servingSignature = "serving_default"

// savedTypes are the element types by their number in TensorFlow's DataType. Others read as undefined.
var savedTypes = map[uint64]zarpa.ElementType{
	1: zarpa.Float32, 2: zarpa.Float64, 3: zarpa.Int32, 4: zarpa.Uint8, 5: zarpa.Int16, 6: zarpa.Int8, 7: zarpa.String,
	8: zarpa.Complex64, 9: zarpa.Int64, 10: zarpa.Bool, 14: zarpa.BFloat16, 17: zarpa.Uint16, 18: zarpa.Complex128,
	19: zarpa.Float16, 22: zarpa.Uint32, 23: zarpa.Uint64,
}

// savedModel gathers what one pass over a SavedModel finds.
type savedModel struct {
	version    string
	signatures map[string]zarpa.Signature
}

// inspectSavedModel reads saved_model.pb.
func inspectSavedModel(src *source) (Info, error) {
	m := savedModel{signatures: map[string]zarpa.Signature{}}
	for msg := (message{src, 0, src.size}); msg.more(); {
		f, err := msg.next()
		if err != nil {
			return Info{}, asSavedModel(err)
		}
		if f.number != savedMetaGraph || f.kind != protowire.BytesType {
			continue
		}
		if err := m.readGraph(f.body); err != nil {
			return Info{}, asSavedModel(err)
		}
	}
	info := Info{Format: zarpa.FormatSavedModel, Framework: "tensorflow", FrameworkVersion: m.version}
	var ok bool
	if info.Signature, ok = m.serving(); !ok {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a SavedModel without a signature to serve").
			WithHint("save it by model.export(folder), or by tf.saved_model.save(model, folder, signatures=...)")
	}
	return info, nil
}

// asSavedModel names the format in an error of the protobuf reader, which is made for ONNX.
func asSavedModel(err error) error {
	e := *zarpa.AsError(err)
	e.Message = strings.Replace(e.Message, "an ONNX file", "a SavedModel", 1)
	return &e
}

// serving is the signature that is served: serving_default, or the only one.
func (m *savedModel) serving() (zarpa.Signature, bool) {
	if s, ok := m.signatures[servingSignature]; ok {
		return s, true
	}
	delete(m.signatures, "__saved_model_init_op")
	delete(m.signatures, "__saved_model_train_op")
	for _, s := range m.signatures {
		return s, len(m.signatures) == 1
	}
	return zarpa.Signature{}, false
}

func (m *savedModel) readGraph(msg message) error {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		switch {
		case f.kind != protowire.BytesType:
		case f.number == metaInfo:
			err = m.readInfo(f.body)
		case f.number == metaSignature:
			err = m.readSignature(f.body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *savedModel) readInfo(msg message) error {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if f.number == infoVersion && f.kind == protowire.BytesType {
			if m.version, err = name(f.body); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *savedModel) readSignature(msg message) error {
	key, body, err := mapEntry(msg)
	if err != nil {
		return err
	}
	if len(m.signatures) >= maxProperties {
		return zarpa.Errorf(zarpa.Invalid, "more than %d signatures", maxProperties)
	}
	var sig zarpa.Signature
	for body.more() {
		f, err := body.next()
		if err != nil {
			return err
		}
		switch {
		case f.kind != protowire.BytesType:
		case f.number == signatureInputs:
			err = appendSaved(&sig.Inputs, f.body)
		case f.number == signatureOutputs:
			err = appendSaved(&sig.Outputs, f.body)
		}
		if err != nil {
			return err
		}
	}
	m.signatures[key] = sig
	return nil
}

// mapEntry is an entry of a map whose values are messages.
func mapEntry(msg message) (key string, value message, err error) {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return "", value, err
		}
		switch {
		case f.kind != protowire.BytesType:
		case f.number == entryKey:
			if key, err = name(f.body); err != nil {
				return "", value, err
			}
		case f.number == entryValue:
			value = f.body
		}
	}
	return key, value, nil
}

// appendSaved reads an input or output, keeping them in the order of their names: a map has none.
func appendSaved(values *[]zarpa.ValueInfo, msg message) error {
	key, body, err := mapEntry(msg)
	if err != nil {
		return err
	}
	if len(*values) >= maxValues {
		return zarpa.Errorf(zarpa.Invalid, "more than %d inputs or outputs", maxValues)
	}
	v := zarpa.ValueInfo{Name: key, NoShape: true}
	for body.more() {
		f, err := body.next()
		if err != nil {
			return err
		}
		switch {
		case f.number == tensorInfoType && f.kind == protowire.VarintType:
			v.Type = savedTypes[f.value]
		case f.number == tensorInfoShape && f.kind == protowire.BytesType:
			if v.Shape, v.NoShape, err = readSavedShape(f.body); err != nil {
				return err
			}
		}
	}
	at, _ := slices.BinarySearchFunc(*values, key, func(v zarpa.ValueInfo, key string) int { return strings.Compare(v.Name, key) })
	*values = slices.Insert(*values, at, v)
	return nil
}

func readSavedShape(msg message) (shape []zarpa.Dim, unknown bool, err error) {
	shape = []zarpa.Dim{}
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return nil, true, err
		}
		switch {
		case f.number == tensorShapeUnknown && f.kind == protowire.VarintType && f.value != 0:
			return nil, true, nil
		case f.number != tensorShapeDim || f.kind != protowire.BytesType:
			continue
		case len(shape) >= maxRank:
			return nil, true, zarpa.Errorf(zarpa.Invalid, "a shape of more than %d dimensions", maxRank)
		}
		d, err := readSavedDim(f.body)
		if err != nil {
			return nil, true, err
		}
		shape = append(shape, d)
	}
	return shape, false, nil
}

// readSavedDim reads a size; protobuf leaves a 0 out.
func readSavedDim(msg message) (zarpa.Dim, error) {
	d := zarpa.Dim{}
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return d, err
		}
		if f.number == 1 && f.kind == protowire.VarintType {
			d.Size = max(int64(f.value), -1) //nolint:gosec // it is defined as signed
		}
	}
	return d, nil
}
