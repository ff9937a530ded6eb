//go:build cgo

package onnx

// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/zarpa-dev/zarpa"
)

// maxTypeDepth bounds sequences of sequences of …
const maxTypeDepth = 16

// readSignature asks the runtime what a session takes and gives. The runtime does not tell the
// opsets and the IR version: those stay empty.
func readSignature(lib *library, session unsafe.Pointer, native *ort.DynamicAdvancedSession) (zarpa.Signature, error) {
	var sig zarpa.Signature
	var err error
	if sig.Inputs, err = readValues(lib, session, C.ZARPA_INPUTS); err != nil {
		return sig, err
	}
	overridable, err := readValues(lib, session, C.ZARPA_OVERRIDABLE)
	if err != nil {
		return sig, err
	}
	for _, v := range overridable {
		v.Optional = true
		sig.Inputs = append(sig.Inputs, v)
	}
	if sig.Outputs, err = readValues(lib, session, C.ZARPA_OUTPUTS); err != nil {
		return sig, err
	}
	return sig, readMetadata(native, &sig)
}

func readMetadata(native *ort.DynamicAdvancedSession, sig *zarpa.Signature) error {
	meta, err := native.GetModelMetadata()
	if err != nil {
		return zarpa.Errorf(zarpa.Internal, "ONNX Runtime: read the metadata: %w", err)
	}
	defer meta.Destroy() //nolint:errcheck // frees memory; says nothing
	if sig.Producer, err = meta.GetProducerName(); err != nil {
		return zarpa.Errorf(zarpa.Internal, "ONNX Runtime: read the producer: %w", err)
	}
	if sig.Doc, err = meta.GetDescription(); err != nil {
		return zarpa.Errorf(zarpa.Internal, "ONNX Runtime: read the description: %w", err)
	}
	keys, err := meta.GetCustomMetadataMapKeys()
	if err != nil {
		return zarpa.Errorf(zarpa.Internal, "ONNX Runtime: read the metadata: %w", err)
	}
	for _, key := range keys {
		value, _, err := meta.LookupCustomMetadataMap(key)
		if err != nil {
			return zarpa.Errorf(zarpa.Internal, "ONNX Runtime: read metadata %q: %w", key, err)
		}
		if sig.Metadata == nil {
			sig.Metadata = make(map[string]string, len(keys))
		}
		sig.Metadata[key] = value
	}
	return nil
}

func readValues(lib *library, session unsafe.Pointer, which C.int) ([]zarpa.ValueInfo, error) {
	var n C.size_t
	if err := lib.check(C.zarpa_count(lib.c, session, which, &n)); err != nil {
		return nil, err
	}
	values := make([]zarpa.ValueInfo, 0, int(n))
	for i := range n {
		v, err := readValue(lib, session, which, i)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

func readValue(lib *library, session unsafe.Pointer, which C.int, i C.size_t) (zarpa.ValueInfo, error) {
	var name *C.char
	if err := lib.check(C.zarpa_name(lib.c, session, which, i, &name)); err != nil {
		return zarpa.ValueInfo{}, err
	}
	defer C.zarpa_name_release(lib.c, name)
	var typ unsafe.Pointer
	if err := lib.check(C.zarpa_type(lib.c, session, which, i, &typ)); err != nil {
		return zarpa.ValueInfo{}, err
	}
	v, err := readType(lib, typ, 0)
	v.Name = C.GoString(name)
	return v, err
}

// readType reads a type and releases it.
func readType(lib *library, typ unsafe.Pointer, depth int) (zarpa.ValueInfo, error) {
	defer C.zarpa_type_release(lib.c, typ)
	if depth > maxTypeDepth {
		return zarpa.ValueInfo{}, zarpa.Errorf(zarpa.Invalid, "the model's types are nested more than %d deep", maxTypeDepth)
	}
	var info C.zarpa_type_info
	if err := lib.check(C.zarpa_describe_type(lib.c, typ, &info)); err != nil {
		return zarpa.ValueInfo{}, err
	}
	switch info.kind {
	case kindTensor, kindSparse:
		return readShape(lib, &info)
	case kindOptional:
		v, err := readType(lib, info.item, depth+1)
		v.Optional = true
		return v, err
	case kindSequence:
		item, err := readType(lib, info.item, depth+1)
		return zarpa.ValueInfo{Type: zarpa.Sequence, NoShape: true, Items: []zarpa.ValueInfo{item}}, err
	case kindMap:
		value, err := readType(lib, info.item, depth+1)
		key := zarpa.ValueInfo{Type: elementType(int(info.element)), Shape: []zarpa.Dim{}}
		return zarpa.ValueInfo{Type: zarpa.Map, NoShape: true, Items: []zarpa.ValueInfo{key, value}}, err
	}
	return zarpa.ValueInfo{Type: zarpa.Undefined, NoShape: true}, nil
}

func readShape(lib *library, info *C.zarpa_type_info) (zarpa.ValueInfo, error) {
	v := zarpa.ValueInfo{Type: elementType(int(info.element)), NoShape: info.shaped == 0}
	if v.NoShape {
		return v, nil
	}
	rank := int(info.rank)
	v.Shape = make([]zarpa.Dim, rank)
	if rank == 0 {
		return v, nil
	}
	sizes := make([]C.int64_t, rank)
	names := (**C.char)(C.calloc(info.rank, C.size_t(unsafe.Sizeof((*C.char)(nil)))))
	defer C.free(unsafe.Pointer(names))
	if err := lib.check(C.zarpa_dims(lib.c, info.shape, &sizes[0], names, info.rank)); err != nil {
		return v, err
	}
	for i, name := range unsafe.Slice(names, rank) {
		v.Shape[i] = zarpa.Dim{Size: int64(sizes[i])}
		if sizes[i] < 0 {
			v.Shape[i] = zarpa.Dim{Size: -1, Name: C.GoString(name)}
		}
	}
	return v, nil
}
