package score

import (
	"encoding/base64"
	"math"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// appendMessage appends a message of the protocol as the JSON that its REST routes answer: fields
// by the names they have in the .proto, all of them but messages that are not set, and whole numbers
// as numbers, which protobuf's own JSON writes as texts.
func appendMessage(dst []byte, m proto.Message) []byte {
	return appendFields(dst, m.ProtoReflect())
}

func appendFields(dst []byte, m protoreflect.Message) []byte {
	dst = append(dst, '{')
	first := true
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.HasPresence() && !m.Has(f) { // a message, or a choice that was not taken
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst, _ = tensorjson.AppendString(dst, string(f.Name()))
		dst = appendField(append(dst, ':'), f, m.Get(f))
	}
	return append(dst, '}')
}

func appendField(dst []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch {
	case f.IsList():
		dst = append(dst, '[')
		for i := range v.List().Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendScalar(dst, f, v.List().Get(i))
		}
		return append(dst, ']')
	case f.IsMap():
		dst = append(dst, '{')
		first := true
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst, _ = tensorjson.AppendString(dst, k.String())
			dst = appendScalar(append(dst, ':'), f.MapValue(), v)
			return true
		})
		return append(dst, '}')
	}
	return appendScalar(dst, f, v)
}

func appendScalar(dst []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch v := v.Interface().(type) {
	case protoreflect.Message:
		return appendFields(dst, v)
	case protoreflect.EnumNumber:
		if named := f.Enum().Values().ByNumber(v); named != nil {
			dst, _ = tensorjson.AppendString(dst, string(named.Name()))
			return dst
		}
		return strconv.AppendInt(dst, int64(v), 10)
	case string:
		dst, _ = tensorjson.AppendString(dst, v)
	case []byte:
		dst, _ = tensorjson.AppendString(dst, base64.StdEncoding.EncodeToString(v))
	case bool:
		dst = strconv.AppendBool(dst, v)
	case int32:
		dst = strconv.AppendInt(dst, int64(v), 10)
	case int64:
		dst = strconv.AppendInt(dst, v, 10)
	case uint32:
		dst = strconv.AppendUint(dst, uint64(v), 10)
	case uint64:
		dst = strconv.AppendUint(dst, v, 10)
	case float32:
		return appendScalar(dst, f, protoreflect.ValueOfFloat64(float64(v)))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(dst, "null"...)
		}
		dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
	}
	return dst
}
