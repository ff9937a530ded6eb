//go:build cgo

package onnx

// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"runtime"
	"unsafe"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inputs"
)

// call is the memory of one run, used by one run at a time and again by the next.
type call struct {
	lib *library
	// c is in C memory, and so are the arrays it points to: they hold addresses of Go memory only
	// while it is pinned.
	c           *C.zarpa_call
	inputs      []C.zarpa_value
	outputs     []C.zarpa_value
	inputNames  []*C.char
	outputNames []*C.char
	pinner      runtime.Pinner
	kept        []byte // memory for copies of misplaced tensors, and what of it is free in this run
	scratch     []byte

	slots []int         // for each input of the signature the tensor given for it, or -1
	seen  []inputs.Seen // for each shared dimension name
	want  []int         // the wanted outputs
	fired chan struct{}
	// runner is where long runs go; nil as long as there was none.
	runner *runner
	// broken marks a call whose run options cannot be used again.
	broken bool
	// terminate tells the running model to stop; made once, to be handed to every context.
	terminate func()
}

func newCall(s *session) (*call, error) {
	in, out := len(s.inputNames), len(s.outputNames)
	c := &call{
		lib: s.lib, slots: make([]int, in), seen: s.checker.NewSeen(), want: make([]int, 0, out),
		fired: make(chan struct{}, 1), c: (*C.zarpa_call)(C.calloc(1, C.sizeof_zarpa_call)),
	}
	c.c.session = s.pointer
	c.c.inputs = (*C.zarpa_value)(C.calloc(C.size_t(in+1), C.sizeof_zarpa_value))
	c.c.outputs = (*C.zarpa_value)(C.calloc(C.size_t(out+1), C.sizeof_zarpa_value))
	c.c.input_names = (**C.char)(C.calloc(C.size_t(in+1), C.sizeof_size_t))
	c.c.output_names = (**C.char)(C.calloc(C.size_t(out+1), C.sizeof_size_t))
	c.c.values = (*unsafe.Pointer)(C.calloc(C.size_t(in+out+1), C.sizeof_size_t))
	c.inputs = unsafe.Slice(c.c.inputs, in)
	c.outputs = unsafe.Slice(c.c.outputs, out)
	c.inputNames = unsafe.Slice(c.c.input_names, in)
	c.outputNames = unsafe.Slice(c.c.output_names, out)
	c.terminate = func() {
		c.lib.failure(C.zarpa_terminate(c.lib.c, c.c.options))
		c.fired <- struct{}{}
	}
	if err := s.lib.check(C.zarpa_run_options(s.lib.c, &c.c.options)); err != nil {
		c.free(s)
		return nil, err
	}
	return c, nil
}

func (c *call) free(s *session) {
	if c.runner != nil {
		c.runner.close()
	}
	if c.c.options != nil {
		C.zarpa_run_options_release(s.lib.c, c.c.options)
	}
	C.free(unsafe.Pointer(c.c.inputs))
	C.free(unsafe.Pointer(c.c.outputs))
	C.free(unsafe.Pointer(c.c.input_names))
	C.free(unsafe.Pointer(c.c.output_names))
	C.free(unsafe.Pointer(c.c.values))
	C.free(unsafe.Pointer(c.c))
}

// disarm takes the run back from its context. A terminate that has begun is waited for, so that it
// cannot hit the next run.
func (c *call) disarm(stop func() bool) {
	if stop() {
		return
	}
	<-c.fired
	if _, text := c.lib.failure(C.zarpa_unterminate(c.lib.c, c.c.options)); text != "" {
		c.broken = true
	}
}

// reset lets go of all that the run held.
func (c *call) reset(s *session) {
	C.zarpa_release(s.lib.c, c.c.inputs, c.c.input_count)
	C.zarpa_release(s.lib.c, c.c.outputs, c.c.output_count)
	c.c.input_count, c.c.output_count = 0, 0
	c.pinner.Unpin()
	c.scratch = c.kept
}

// fill lays inputs and the names of wanted outputs out for C.
func (c *call) fill(s *session, in []zarpa.Tensor) error {
	for n, i := range c.slots {
		if i < 0 {
			continue
		}
		k := int(c.c.input_count)
		c.inputNames[k] = s.inputNames[n]
		c.inputs[k] = C.zarpa_value{}
		c.c.input_count++
		if err := c.fillValue(&c.inputs[k], &in[i]); err != nil {
			return err
		}
	}
	for k, n := range c.want {
		c.outputNames[k] = s.outputNames[n]
		c.outputs[k].value = nil
	}
	c.c.output_count = C.size_t(len(c.want))
	return nil
}

// fillValue lays one checked value out. Numbers are used where they are, without a copy, as long as
// they are aligned; the native value for them is made in the run itself.
func (c *call) fillValue(v *C.zarpa_value, t *zarpa.Tensor) error {
	switch t.Type {
	case zarpa.Sequence, zarpa.Map:
		return c.fillContainer(v, t)
	default: // what is left follows
	}
	v.kind = kindTensor
	v._type = C.int32_t(elementNumber(t.Type))
	v.rank = C.size_t(len(t.Shape))
	if len(t.Shape) > 0 {
		c.pinner.Pin(&t.Shape[0])
		v.dims = (*C.int64_t)(&t.Shape[0])
	}
	if t.Type == zarpa.String {
		return c.fillStrings(v, t.Strings)
	}
	v.size = C.size_t(len(t.Data))
	if len(t.Data) > 0 {
		data := c.aligned(t.Data)
		c.pinner.Pin(&data[0])
		v.data = unsafe.Pointer(&data[0])
	}
	return nil
}

// alignment is where the runtime's own memory begins. Its kernels take the elements up to such an
// address one by one, and so add up in another order: the last digits of an answer would depend on
// where a request happened to lie.
const alignment = 64

// maxScratch bounds the memory that a call keeps for such copies.
const maxScratch = 64 << 10

// aligned is data itself where it begins at a multiple of the alignment, else a copy that does.
func (c *call) aligned(data []byte) []byte {
	if misplaced(data) == 0 {
		return data
	}
	size := len(data) + alignment - 1
	var room []byte
	switch {
	case size > maxScratch:
		room = make([]byte, size)
	case size > len(c.scratch):
		c.kept = make([]byte, max(size, 2*len(c.kept), 512)) // what was given out of the old one stays with its tensors
		c.scratch = c.kept
		fallthrough
	default:
		room, c.scratch = c.scratch[:size], c.scratch[size:]
	}
	from := (alignment - misplaced(room)) % alignment
	moved := room[from : from+len(data)]
	copy(moved, data)
	return moved
}

// misplaced is how far data begin behind a multiple of the alignment.
func misplaced(data []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(data))) % alignment)
}

func (c *call) fillStrings(v *C.zarpa_value, strings []string) error {
	total := 0
	lengths := make([]C.int64_t, len(strings)+1)
	for i, s := range strings {
		lengths[i] = C.int64_t(len(s))
		total += len(s)
	}
	text := make([]byte, 0, total+1)
	for _, s := range strings {
		text = append(text, s...)
	}
	v.size = C.size_t(len(strings))
	return c.lib.check(C.zarpa_strings(c.lib.c, v, (*C.char)(unsafe.Pointer(unsafe.SliceData(text))), &lengths[0]))
}

func (c *call) fillContainer(v *C.zarpa_value, t *zarpa.Tensor) error {
	n := C.size_t(len(t.Items))
	items := (*C.zarpa_value)(C.calloc(n, C.sizeof_zarpa_value))
	defer C.free(unsafe.Pointer(items))
	defer C.zarpa_release(c.lib.c, items, n)
	view := unsafe.Slice(items, len(t.Items))
	for i := range view {
		if err := c.fillValue(&view[i], &t.Items[i]); err != nil {
			return err
		}
		if view[i].value != nil {
			continue // strings and containers are made already
		}
		if err := c.lib.check(C.zarpa_tensor(c.lib.c, &view[i])); err != nil {
			return err
		}
	}
	v.kind = kindSequence
	if t.Type == zarpa.Map {
		v.kind = kindMap
	}
	return c.lib.check(C.zarpa_container(c.lib.c, v, items, n))
}
