//go:build cgo

package onnx_test

import (
	"context"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func BenchmarkRun(b *testing.B) {
	for _, bench := range []struct {
		name, dir, file string
		in              []zarpa.Tensor
		wanted          []string
	}{
		{"identity", zoo, "identity_float.onnx", tensors(f32("x", shape(3), 1, 2, 3)), nil},
		{"add", zoo, "add.onnx", tensors(f32("a", shape(1, 2), 1, 2), f32("b", shape(1, 2), 1, 2)), nil},
		{"iris", "../../examples/iris", "iris.onnx", tensors(f32("input", shape(1, 4), 5.1, 3.5, 1.4, .2)), nil},
		{"iris label", "../../examples/iris", "iris.onnx", tensors(f32("input", shape(1, 4), 5.1, 3.5, 1.4, .2)), []string{"label"}},
		{"iris 64", "../../examples/iris", "iris.onnx", tensors(f32("input", shape(64, 4), make([]float32, 256)...)), nil},
		{"iris 64 label", "../../examples/iris", "iris.onnx", tensors(f32("input", shape(64, 4), make([]float32, 256)...)), []string{"label"}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s, err := engine(b).Load(context.Background(), bench.dir, zarpa.LoadOptions{File: bench.file, Threads: 1})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Run(ctx, bench.in, bench.wanted); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRunParallel(b *testing.B) {
	s := load(b, "add.onnx")
	in := tensors(f32("a", shape(1, 2), 1, 2), f32("b", shape(1, 2), 1, 2))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Run(context.Background(), in, nil); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkRunLargeInput(b *testing.B) {
	s := load(b, "identity_float.onnx")
	in := tensors(zarpa.Tensor{Name: "x", Type: zarpa.Float32, Shape: shape(1 << 20), Data: make([]byte, 4<<20)})
	b.SetBytes(4 << 20)
	for b.Loop() {
		if _, err := s.Run(context.Background(), in, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	e := engine(b)
	for b.Loop() {
		s, err := e.Load(context.Background(), "../../examples/iris", zarpa.LoadOptions{Threads: 1})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
