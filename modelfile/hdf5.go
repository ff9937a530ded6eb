package modelfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/zarpa-dev/zarpa"
)

// hdf5Head is how much of an HDF5 file is searched for the attributes of its root, which Keras writes before
// the weights.
const hdf5Head = 4 << 20

// inspectHDF5 judges an HDF5 file by the attributes that Keras gives to one with a whole model.
func inspectHDF5(r io.ReaderAt, size int64) (Info, error) {
	head := make([]byte, min(size, hdf5Head))
	if n, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "cannot be read at byte %d", n).Because(err)
	}
	switch keras, whole := bytes.Contains(head, []byte("keras_version\x00")), bytes.Contains(head, []byte("model_config\x00")); {
	case whole:
		return Info{Format: zarpa.FormatKeras, Framework: "keras", FrameworkVersion: attribute(r, head, "keras_version")}, nil
	case keras, bytes.Contains(head, []byte("layers\x00")), bytes.Contains(head, []byte("layer_names\x00")):
		return Info{}, zarpa.Errorf(zarpa.Invalid, "the weights of a Keras model, without the model").WithHint("save all of it: model.save('model.keras')")
	}
	return Info{}, zarpa.Errorf(zarpa.Invalid, "an HDF5 file that Keras did not save").WithHint(scriptHint)
}

// attribute is the text of an attribute, or "" where it cannot be found. A text of variable length stands
// in a heap: the attribute has its length, the heap's address and its number in it. The heap's address
// is proven by the heap's mark.
func attribute(r io.ReaderAt, head []byte, name string) string {
	const (
		reach     = 128 // bytes between an attribute's name and its value
		reference = 4 + 8 + 4
		longest   = 64
	)
	at := bytes.Index(head, append([]byte(name), 0))
	if at < 0 {
		return ""
	}
	value := head[at+len(name):]
	for i := 0; i+reference <= min(len(value), reach); i++ {
		length := binary.LittleEndian.Uint32(value[i:])
		heap := binary.LittleEndian.Uint64(value[i+4:])
		number := binary.LittleEndian.Uint32(value[i+12:])
		if length == 0 || length > longest || heap == 0 || heap > 1<<62 || number == 0 {
			continue
		}
		if text, ok := heapText(r, int64(heap), number); ok && len(text) >= int(length) {
			return text[:length]
		}
	}
	return ""
}

// heapText is an object of one of HDF5's global heaps.
func heapText(r io.ReaderAt, heap int64, number uint32) (string, bool) {
	const head, objectHead, most = 16, 16, 4096
	b := make([]byte, most)
	n, err := r.ReadAt(b, heap)
	if err != nil && !errors.Is(err, io.EOF) || n < head || string(b[:4]) != "GCOL" {
		return "", false
	}
	b = b[head:n]
	for len(b) >= objectHead {
		index, size := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint64(b[8:])
		if index == 0 || size > uint64(len(b)-objectHead) {
			return "", false
		}
		if uint32(index) == number {
			return string(b[objectHead : objectHead+size]), true
		}
		b = b[min(uint64(len(b)), objectHead+(size+7)/8*8):]
	}
	return "", false
}
