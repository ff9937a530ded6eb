//go:build cgo && linux

package onnx_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/onnx"
)

// field is one length-delimited field of a protobuf message.
func field(number int, content ...[]byte) []byte {
	size := 0
	for _, c := range content {
		size += len(c)
	}
	out := binary.AppendUvarint(nil, uint64(number<<3|2))
	out = binary.AppendUvarint(out, uint64(size))
	for _, c := range content {
		out = append(out, c...)
	}
	return out
}

// number is one varint field of a protobuf message.
func number(field, value int) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field<<3)), uint64(value))
}

// tensorInfo is a ValueInfoProto of float32 [n, size].
func tensorInfo(name string, size int) []byte {
	dims := append(field(1, field(2, []byte("n"))), field(1, number(1, size))...)
	return append(field(1, []byte(name)), field(2, field(1, number(1, 1), field(2, dims)))...)
}

// writeHeavy writes y = x·w with a w of in × out floats.
func writeHeavy(t *testing.T, dir string, in, out int) {
	t.Helper()
	weights := field(9, make([]byte, 4*in*out))
	w := append(append(append(append(number(1, in), number(1, out)...), number(2, 1)...), field(8, []byte("w"))...), weights...)
	node := append(append(append(field(1, []byte("x")), field(1, []byte("w"))...), field(2, []byte("y"))...), field(4, []byte("MatMul"))...)
	graph := field(7, field(1, node), field(2, []byte("g")), field(5, w), field(11, tensorInfo("x", in)), field(12, tensorInfo("y", out)))
	model := append(append(number(1, 8), graph...), field(8, number(2, 17))...)
	if err := os.WriteFile(filepath.Join(dir, "heavy.onnx"), model, 0o600); err != nil {
		t.Fatal(err)
	}
}

// visit is a model with a request of its own.
type visit struct {
	dir, file string
	in        []zarpa.Tensor
}

func visits(t *testing.T, e *onnx.Engine) []visit {
	t.Helper()
	heavy := t.TempDir()
	writeHeavy(t, heavy, 1024, 4096) // 16 MiB
	all := []visit{
		{dir: heavy, file: "heavy.onnx"},
		{dir: "../../bench/models", file: "forest.onnx"},
		{dir: "../../bench/models", file: "ten_ms.onnx"},
		{dir: "../../examples/iris", file: "iris.onnx"},
		{dir: zoo, file: "batch_double.onnx"},
		{dir: zoo, file: "mixed.onnx"},
		{dir: zoo, file: "zipmap_string.onnx"},
	}
	for i := range all {
		s, err := e.Load(t.Context(), all[i].dir, zarpa.LoadOptions{File: all[i].file, Threads: 1})
		if err != nil {
			t.Fatalf("%s: %v", all[i].file, err)
		}
		for _, v := range s.Signature().Inputs {
			x := zarpa.Tensor{Name: v.Name, Type: v.Type, Shape: v.Sizes()}
			x.Shape[0] = 2
			if n, _ := zarpa.Elements(x.Shape); v.Type == zarpa.String {
				x.Strings = make([]string, n)
			} else {
				x.Data = make([]byte, int(n)*v.Type.Bits()/8)
			}
			all[i].in = append(all[i].in, x)
		}
		s.Close()
	}
	return all
}

// stay loads a model, runs it a few times at once, and unloads it.
func (v visit) stay(t *testing.T, e *onnx.Engine) {
	t.Helper()
	s, err := e.Load(context.Background(), v.dir, zarpa.LoadOptions{File: v.file, Threads: 2})
	if err != nil {
		t.Fatalf("%s: %v", v.file, err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 2 {
				if _, err := s.Run(context.Background(), v.in, nil); err != nil {
					t.Errorf("%s: %v", v.file, err)
				}
			}
		})
	}
	wg.Wait()
}

// The test is not parallel: it measures the process.
func TestMemoryReturnsToItsBaseLine(t *testing.T) {
	e := engine(t)
	all := visits(t, e)
	around := func(n int) {
		for i := range n {
			all[i%len(all)].stay(t, e)
		}
	}
	around(5 * len(all))
	before := resident(t)
	for range 4 {
		around(7 * len(all))
		t.Logf("resident %d KiB", resident(t)>>10)
	}
	after := resident(t)
	t.Logf("resident before %d KiB, after 196 rounds %d KiB", before>>10, after>>10)
	if grown := after - before; grown > 8<<20 {
		t.Errorf("196 rounds kept %d KiB", grown>>10)
	}
}
