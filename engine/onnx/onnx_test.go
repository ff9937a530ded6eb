//go:build cgo

package onnx_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/enginetest"
	"github.com/zarpa-dev/zarpa/engine/onnx"
)

const zoo = "../enginetest/testdata"

// library is the path of ONNX Runtime, or "".
func library() string {
	if path := os.Getenv("ZARPA_ONNXRUNTIME"); path != "" {
		return path
	}
	found, _ := filepath.Glob("../../bin/libonnxruntime.so*")
	if len(found) == 0 {
		found, _ = filepath.Glob("../../bin/libonnxruntime*.dylib")
	}
	if len(found) == 0 {
		return ""
	}
	path, _ := filepath.Abs(found[0])
	return path
}

func engine(t testing.TB) *onnx.Engine {
	t.Helper()
	path := library()
	if path == "" {
		t.Skip("no ONNX Runtime in ZARPA_ONNXRUNTIME or ../../bin: run make to get it")
	}
	e := onnx.New(onnx.Options{Library: path})
	t.Cleanup(func() { e.Close() })
	return e
}

func load(t testing.TB, file string) zarpa.Session {
	t.Helper()
	s, err := engine(t).Load(context.Background(), zoo, zarpa.LoadOptions{File: file, Threads: 1})
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func run(t *testing.T, file string, in ...zarpa.Tensor) []zarpa.Tensor {
	t.Helper()
	out, err := load(t, file).Run(t.Context(), in, nil)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return out
}

func shape(dims ...int64) []int64 { return append([]int64{}, dims...) }

func f32(name string, dims []int64, values ...float32) zarpa.Tensor {
	t := zarpa.Tensor{Name: name, Type: zarpa.Float32, Shape: dims}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

func i64(name string, dims []int64, values ...int64) zarpa.Tensor {
	t := zarpa.Tensor{Name: name, Type: zarpa.Int64, Shape: dims}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(v))
	}
	return t
}

func text(name string, dims []int64, values ...string) zarpa.Tensor {
	return zarpa.Tensor{Name: name, Type: zarpa.String, Shape: dims, Strings: values}
}

func sequence(name string, items ...zarpa.Tensor) zarpa.Tensor {
	return zarpa.Tensor{Name: name, Type: zarpa.Sequence, Items: items}
}

func mapping(name string, keys, values zarpa.Tensor) zarpa.Tensor {
	return zarpa.Tensor{Name: name, Type: zarpa.Map, Items: []zarpa.Tensor{keys, values}}
}

func tensors(t ...zarpa.Tensor) []zarpa.Tensor { return t }

func TestContract(t *testing.T) {
	t.Parallel()
	at := func(file string, in, want []zarpa.Tensor) enginetest.Case {
		return enginetest.Case{Name: file, Dir: zoo, File: file, In: in, Want: want}
	}
	enginetest.Run(t, enginetest.Config{
		Engine: engine(t),
		Cases: []enginetest.Case{
			at("identity_float.onnx", tensors(f32("x", shape(3), 1, 2, -1)), tensors(f32("y", shape(3), 1, 2, -1))),
			at("add.onnx", tensors(f32("a", shape(1, 2), 1, 1), f32("b", shape(1, 2), 2, 2)), tensors(f32("sum", shape(1, 2), 3, 3))),
			at("scalar.onnx", tensors(f32("x", shape(), 3)), tensors(f32("y", shape(), 6))),
			at("zero_size.onnx", tensors(f32("x", shape(0, 3))), tensors(f32("y", shape(0, 3)))),
			at("no_shape.onnx", tensors(f32("x", shape(1, 2), 1, 2)), tensors(f32("y", shape(1, 2), 2, 4))),
			at("fixed_batch.onnx", tensors(f32("x", shape(1, 2), 0, 1)), tensors(f32("y", shape(1, 2), 0, 2))),
			at("default_input.onnx", tensors(f32("a", shape(2), 1, 2)), tensors(f32("sum", shape(2), 101, 102))),
			at("empty_output.onnx", tensors(f32("x", shape(3), 2, 1, 2)), tensors(f32("values", shape(2), 1, 2), i64("counts", shape(2), 1, 2))),
			at("external/model.onnx", tensors(f32("x", shape(1, 4), 0, 0, 0, 0)), tensors(f32("y", shape(1, 4), 1, 2, 3, 4))),
			at("sequence_tensors.onnx", tensors(f32("a", shape(2), 1, 2), f32("b", shape(1), 3)),
				tensors(sequence("y", f32("", shape(2), 1, 2), f32("", shape(1), 3)))),
			at("sequence_empty.onnx", tensors(f32("x", shape(1), 1)), tensors(sequence("y"), f32("z", shape(1), 1))),
			at("sequence_input.onnx", tensors(sequence("x", f32("", shape(2), 1, 2), f32("", shape(1), 3))), tensors(f32("y", shape(3), 1, 2, 3))),
			at("zipmap_int64.onnx", tensors(f32("x", shape(1, 3), .5, .25, .25)),
				tensors(sequence("probabilities", mapping("", i64("", shape(3), 0, 1, 2), f32("", shape(3), .5, .25, .25))))),
			at("zipmap_string.onnx", tensors(f32("x", shape(1, 3), .5, .25, .25)),
				tensors(sequence("probabilities", mapping("", text("", shape(3), "setosa", "versicolor", "virginica"), f32("", shape(3), .5, .25, .25))))),
			at("map_input_string.onnx", tensors(mapping("x", text("", shape(2), "b", "z"), f32("", shape(2), 2, 9))), tensors(f32("y", shape(1, 3), 0, 2, 0))),
			at("map_input_int64.onnx", tensors(mapping("x", i64("", shape(2), 2, 9), f32("", shape(2), 2, 9))), tensors(f32("y", shape(1, 3), 0, 2, 0))),
			at("optional_output.onnx", tensors(f32("x", shape(2), 1, 2)), tensors(f32("y", shape(2), 1, 2))),
			at("optional_none.onnx", tensors(f32("x", shape(2), 1, 2)), tensors(zarpa.Tensor{Name: "y"}, f32("z", shape(2), 1, 2))),
		},
		Fails: at("shape_error.onnx", tensors(f32("x", shape(4), 1, 2, 3, 4)), nil),
		Slow:  at("slow.onnx", tensors(i64("iterations", shape(1), 1e9)), nil),
		Broken: []enginetest.Case{
			at("truncated.onnx", nil, nil), at("not_onnx.onnx", nil, nil), at("empty.onnx", nil, nil),
			at("opset_future.onnx", nil, nil), at("ir_future.onnx", nil, nil), at("custom_op.onnx", nil, nil),
			at("unknown_op.onnx", nil, nil), at("type_clash.onnx", nil, nil), at("external_escape.onnx", nil, nil),
			at("external_absolute.onnx", nil, nil), at("external_missing.onnx", nil, nil), at("external_short.onnx", nil, nil),
			at("external_outside/model.onnx", nil, nil), at("identity_complex64.onnx", nil, nil), at("identity_float6e2m3.onnx", nil, nil),
		},
	})
}

func TestEveryElementTypeGoesThrough(t *testing.T) {
	t.Parallel()
	for name, et := range map[string]zarpa.ElementType{
		"float": zarpa.Float32, "double": zarpa.Float64, "float16": zarpa.Float16, "bfloat16": zarpa.BFloat16,
		"float8e4m3fn": zarpa.Float8E4M3FN, "float8e4m3fnuz": zarpa.Float8E4M3FNUZ, "float8e5m2": zarpa.Float8E5M2, "float8e5m2fnuz": zarpa.Float8E5M2FNUZ,
		"int8": zarpa.Int8, "int16": zarpa.Int16, "int32": zarpa.Int32, "int64": zarpa.Int64, "bool": zarpa.Bool,
		"uint8": zarpa.Uint8, "uint16": zarpa.Uint16, "uint32": zarpa.Uint32, "uint64": zarpa.Uint64,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, n := range []int{0, 1, 3, 1000} {
				data := make([]byte, n*et.Bits()/8+1)
				for i := range data {
					data[i] = byte(i % 2)
				}
				for _, start := range []int{0, 1} { // aligned, and not
					in := zarpa.Tensor{Name: "x", Type: et, Shape: shape(int64(n)), Data: data[start:][:len(data)-1]}
					want := in
					want.Name = "y"
					enginetest.Equal(t, run(t, "identity_"+name+".onnx", in), tensors(want))
				}
			}
		})
	}
}

func TestStringsAreArbitraryBytes(t *testing.T) {
	t.Parallel()
	values := []string{"", "zarpa", "a\x00b", "\xff\xfe", "ñ ☃ 🚢", ""}
	enginetest.Equal(t, run(t, "identity_string.onnx", text("x", shape(6), values...)), tensors(text("y", shape(6), values...)))
	enginetest.Equal(t, run(t, "identity_string.onnx", text("x", shape(2), "", "")), tensors(text("y", shape(2), "", "")))
	enginetest.Equal(t, run(t, "identity_string.onnx", text("x", shape(0))), tensors(text("y", shape(0))))
}

func TestFourBitIntegersArePacked(t *testing.T) {
	t.Parallel()
	for file, et := range map[string]zarpa.ElementType{"int4": zarpa.Int4, "uint4": zarpa.Uint4} {
		packed := zarpa.Tensor{Name: "y", Type: et, Shape: shape(3), Data: []byte{0x21, 0x03}}
		enginetest.Equal(t, run(t, "to_"+file+".onnx", f32("x", shape(3), 1, 2, 3)), tensors(packed))
		packed.Name = "x"
		enginetest.Equal(t, run(t, "from_"+file+".onnx", packed), tensors(f32("y", shape(3), 1, 2, 3)))
	}
}

func TestTypesThatZarpaHasNotAreClearErrors(t *testing.T) {
	t.Parallel()
	_, err := load(t, "to_int2.onnx").Run(t.Context(), tensors(f32("x", shape(3), 1, 1, 1)), nil)
	wantError(t, err, zarpa.ModelError, "element type")
	_, err = load(t, "from_int2.onnx").Run(t.Context(), tensors(zarpa.Tensor{Name: "x", Shape: shape(3), Data: []byte{1}}), nil)
	wantError(t, err, zarpa.Invalid, "cannot fill")
}

func wantError(t *testing.T, err error, code zarpa.Code, part string) {
	t.Helper()
	var e *zarpa.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want %s with %q", err, code, part)
	}
}

func TestOptionalInputs(t *testing.T) {
	t.Parallel()
	enginetest.Equal(t, run(t, "default_input.onnx", f32("a", shape(2), 1, 2), f32("b", shape(1), 5)), tensors(f32("sum", shape(2), 6, 7)))
	given := func(b byte) []zarpa.Tensor {
		return tensors(zarpa.Tensor{Name: "given", Type: zarpa.Bool, Shape: shape(), Data: []byte{b}})
	}
	enginetest.Equal(t, run(t, "optional_input.onnx", f32("x", shape(1), 1)), given(1))
	enginetest.Equal(t, run(t, "optional_input.onnx"), given(0))
	enginetest.Equal(t, run(t, "optional_input.onnx", zarpa.Tensor{Name: "x"}), given(0))
}

func TestSharedDimensionNamesMeanEqualSizes(t *testing.T) {
	t.Parallel()
	_, err := load(t, "add.onnx").Run(t.Context(), tensors(f32("a", shape(1, 2), 1, 1), f32("b", shape(2, 2), 1, 1, 1, 1)), nil)
	wantError(t, err, zarpa.Invalid, `"batch"`)
}

func TestErrorsSuggestTheNearestName(t *testing.T) {
	t.Parallel()
	_, err := load(t, "default_input.onnx").Run(t.Context(), tensors(f32("A1", shape(1), 1)), nil)
	wantError(t, err, zarpa.Invalid, `did you mean "a"?`)
	_, err = load(t, "default_input.onnx").Run(t.Context(), tensors(f32("a", shape(1), 1)), []string{"sun"})
	wantError(t, err, zarpa.Invalid, `did you mean "sum"?`)
}

func TestLoadErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	e := engine(t)
	for file, part := range map[string]string{
		"opset_future.onnx": "older opset", "ir_future.onnx": "older opset", "custom_op.onnx": "operators of ONNX Runtime's CPU build",
		"unknown_op.onnx": "operators of ONNX Runtime's CPU build", "external_missing.onnx": "external data file into the model's folder",
		"external_escape.onnx": "external data file into the model's folder", "truncated.onnx": "damaged or no ONNX model",
		"identity_int4.onnx": "operators of ONNX Runtime's CPU build",
	} {
		_, err := e.Load(t.Context(), zoo, zarpa.LoadOptions{File: file})
		wantError(t, err, zarpa.Invalid, part)
		if err != nil && strings.Contains(err.Error(), zoo) {
			t.Errorf("%s: the error shows a path of this machine: %v", file, err)
		}
	}
}

func TestLibraryErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\xf3\x00\x01" + strings.Repeat("\x00", 31) + "\x40\x00\x38\x00\x00\x00\x40\x00\x00\x00\x00\x00"
	for path, part := range map[string]string{
		filepath.Join(dir, "none.so"): "no library at",
		write("text.so", "text"):      "not a shared library",
		write("riscv.so", foreign):    "built for EM_RISCV",
		write("short.so", foreign[:40]+"\xff\xff\x00\x00\x00\x00\x00\x00"+foreign[48:]): "not all of it",
	} {
		_, err := onnx.New(onnx.Options{Library: path}).Load(t.Context(), zoo, zarpa.LoadOptions{File: "add.onnx"})
		wantError(t, err, zarpa.Unavailable, part)
		wantError(t, err, zarpa.Unavailable, "ZARPA_ONNXRUNTIME")
	}
}

func TestTheSignatureIsTheRuntimes(t *testing.T) {
	t.Parallel()
	sig := load(t, "dynamic_named.onnx").Signature()
	if x := sig.Inputs[0]; x.Type != zarpa.Float32 || x.Shape[0] != (zarpa.Dim{Size: -1, Name: "batch"}) || x.Shape[1] != (zarpa.Dim{Size: -1, Name: "seq"}) {
		t.Errorf("got %+v", sig)
	}
	if x := load(t, "no_shape.onnx").Signature().Inputs[0]; !x.NoShape {
		t.Errorf("unknown rank: %+v", x)
	}
	if x := load(t, "scalar.onnx").Signature().Inputs[0]; x.NoShape || len(x.Shape) != 0 {
		t.Errorf("scalar: %+v", x)
	}
	if b := load(t, "default_input.onnx").Signature().Inputs[1]; b.Name != "b" || !b.Optional {
		t.Errorf("default: %+v", b)
	}
	if y := load(t, "optional_none.onnx").Signature().Outputs[0]; y.Type != zarpa.Float32 || !y.Optional {
		t.Errorf("optional: %+v", y)
	}
}

func TestAModelTooBigForMemoryIsAModelError(t *testing.T) {
	t.Parallel()
	_, err := load(t, "oom.onnx").Run(t.Context(), tensors(i64("size", shape(1), 1<<42)), nil)
	wantError(t, err, zarpa.ModelError, "the model failed")
}

func TestABadRowIsAModelError(t *testing.T) {
	t.Parallel()
	_, err := load(t, "poison_row.onnx").Run(t.Context(), tensors(i64("index", shape(2), 0, 7)), nil)
	wantError(t, err, zarpa.ModelError, "the model failed")
}

// Where the data of a request lie in memory does not show in the answer: kernels add up in an order
// that depends on it.
func TestAnswersDoNotDependOnAddresses(t *testing.T) {
	t.Parallel()
	const rows = 37
	s := load(t, "batch_sum.onnx")
	random := rand.New(rand.NewPCG(1, 2))
	var data []byte
	for range 2 * rows {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(random.NormFloat64()*math.Pow(10, float64(random.IntN(6))))))
	}
	want := ""
	for offset := range 130 {
		moved := append(make([]byte, offset, offset+len(data)), data...)[offset:]
		out, err := s.Run(t.Context(), []zarpa.Tensor{{Name: "x", Type: zarpa.Float32, Shape: shape(rows, 2), Data: moved}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(out[0].Data); want == "" {
			want = got
		} else if got != want {
			t.Fatalf("offset %d: %x, before %x", offset, got, want)
		}
	}
}
