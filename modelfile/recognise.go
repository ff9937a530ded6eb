package modelfile

import (
	"bytes"
	"unicode/utf8"
)

// headLength is how much of a file recognise looks at.
const headLength = 512

const exportHint = "export the model to ONNX with its framework"

// recognise says what a file that is surely no ONNX is, by its first bytes, and what to do. It is
// silent about what may be ONNX.
func recognise(head []byte) (what, hint string) {
	for _, m := range magics {
		if len(head) > m.offset && bytes.HasPrefix(head[m.offset:], []byte(m.bytes)) {
			return m.what, m.hint
		}
	}
	if text(head) {
		return "text", "name the model file itself"
	}
	return "", ""
}

// magics are the first bytes of files that people take for models. None begins a protobuf that
// could be ONNX.
var magics = []struct {
	bytes  string
	offset int
	what   string
	hint   string
}{
	{"version https://git-lfs", 0, "a Git LFS pointer", "fetch the content with git lfs pull"},
	{"\x89PNG", 0, "a PNG image", "name the model file itself"},
	{"\xff\xd8\xff", 0, "a JPEG image", "name the model file itself"},
	{"PK\x03\x04", 0, "a zip archive (PyTorch, Keras and NumPy save such)", exportHint + ", or unpack it"},
	{"\x1f\x8b", 0, "a gzip file", "unpack it"},
	{"\x89HDF", 0, "an HDF5 file (Keras saves such)", exportHint},
	{"\x80\x02", 0, "a Python pickle", exportHint},
	{"\x80\x03", 0, "a Python pickle", exportHint},
	{"\x80\x04", 0, "a Python pickle", exportHint},
	{"\x80\x05", 0, "a Python pickle", exportHint},
	{"TFL3", 4, "a TensorFlow Lite model", exportHint},
	{"ORTM", 4, "a model in ONNX Runtime's own format", "register the .onnx file that it was made from"},
	{"GGUF", 0, "a GGUF model", exportHint},
	{"{\"", 8, "a safetensors file", exportHint},
	{"\x7fELF", 0, "a program or library", "name the model file itself"},
	{"ustar", 257, "a tar archive", "unpack it"},
	{"%PDF", 0, "a PDF document", "name the model file itself"},
}

// text reports whether all of b is printable. A protobuf of ONNX is not: its first bytes are tags
// and lengths.
func text(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			return len(b) < utf8.UTFMax // the head may end inside a character
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			return false
		}
		b = b[n:]
	}
	return true
}
