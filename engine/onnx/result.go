//go:build cgo

package onnx

// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"unsafe"

	"github.com/zarpa-dev/zarpa"
)

// results copies the outputs of a run into Go memory: once for numbers, into one block for the
// strings of a tensor.
func (c *call) results(s *session) ([]zarpa.Tensor, error) {
	out := make([]zarpa.Tensor, len(c.want))
	for k, n := range c.want {
		if err := readResult(c.lib, &c.outputs[k], &out[k]); err != nil {
			return nil, zarpa.Errorf(zarpa.ModelError, "output %q: %w", s.sig.Outputs[n].Name, err)
		}
		out[k].Name = s.sig.Outputs[n].Name
	}
	return out, nil
}

func readResult(lib *library, v *C.zarpa_value, t *zarpa.Tensor) error {
	switch v.kind {
	case kindAbsent:
		return nil
	case kindTensor:
		return readTensor(lib, v, t)
	case kindSequence:
		t.Type = zarpa.Sequence
	case kindMap:
		t.Type = zarpa.Map
	default:
		return zarpa.Errorf(zarpa.ModelError, "a kind of value that this engine cannot read (%d)", v.kind)
	}
	return readItems(lib, v, t)
}

func readTensor(lib *library, v *C.zarpa_value, t *zarpa.Tensor) error {
	if t.Type = elementType(int(v._type)); t.Type == zarpa.Undefined {
		return zarpa.Errorf(zarpa.ModelError, "an element type that this engine cannot read (%d)", v._type)
	}
	if rank := int(v.rank); t.Shape == nil || cap(t.Shape) < rank {
		t.Shape = make([]int64, rank)
	} else {
		t.Shape = t.Shape[:rank]
	}
	for i, d := range unsafe.Slice(v.dims, int(v.rank)) {
		t.Shape[i] = int64(d)
	}
	if t.Type == zarpa.String {
		return readStrings(lib, v, t)
	}
	size, err := zarpa.ByteSize(t.Type, t.Shape)
	if err != nil {
		return err
	}
	// append, unlike make and copy, does not clear the memory first
	t.Data = append([]byte{}, unsafe.Slice((*byte)(v.data), size)...)
	return nil
}

func readStrings(lib *library, v *C.zarpa_value, t *zarpa.Tensor) error {
	n, err := zarpa.Elements(t.Shape)
	if err != nil {
		return err
	}
	t.Strings = make([]string, n)
	var size C.size_t
	if err := lib.check(C.zarpa_string_size(lib.c, v.value, &size)); err != nil {
		return err
	}
	if n == 0 || size == 0 {
		return nil
	}
	text := make([]byte, int(size))
	offsets := make([]C.size_t, n)
	if err := lib.check(C.zarpa_string_content(lib.c, v.value, (*C.char)(unsafe.Pointer(&text[0])), size, &offsets[0], C.size_t(n))); err != nil {
		return err
	}
	all := unsafe.String(&text[0], len(text)) // text is not written again
	end := int(size)
	for i := n - 1; i >= 0; i-- {
		t.Strings[i] = all[int(offsets[i]):end]
		end = int(offsets[i])
	}
	return nil
}

// pair is the memory of a map: one block for the keys, the values, and the shapes of both.
type pair struct {
	items  [2]zarpa.Tensor
	shapes [2][1]int64
}

// readItems reads what is in a sequence or map.
func readItems(lib *library, v *C.zarpa_value, t *zarpa.Tensor) error {
	n := int(v.size)
	if v.kind == kindMap {
		n = 2
		p := new(pair)
		for i := range p.items {
			p.items[i].Shape = p.shapes[i][:0]
		}
		t.Items = p.items[:]
	} else {
		t.Items = make([]zarpa.Tensor, n)
	}
	if n == 0 {
		return nil
	}
	items := (*C.zarpa_value)(C.calloc(C.size_t(n), C.sizeof_zarpa_value))
	defer C.free(unsafe.Pointer(items))
	if err := lib.check(C.zarpa_items(lib.c, v.value, C.size_t(n), items)); err != nil {
		return err
	}
	defer C.zarpa_release(lib.c, items, C.size_t(n))
	view := unsafe.Slice(items, n)
	for i := range view {
		if err := readResult(lib, &view[i], &t.Items[i]); err != nil {
			return err
		}
	}
	return nil
}
