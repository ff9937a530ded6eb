//go:build cgo

package onnx_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/onnx"
)

// iterations is a run of slow.onnx: a thousand take some 15 ms.
func iterations(n int64) []zarpa.Tensor { return tensors(i64("iterations", shape(1), n)) }

func TestLongRunsHaveThreadsOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := load(t, "slow.onnx")
	const many = 500
	want, err := s.Run(t.Context(), iterations(many), nil)
	if err != nil {
		t.Fatal(err)
	}
	again := func() {
		t.Helper()
		got, err := s.Run(t.Context(), iterations(many), nil)
		if err != nil || !bytes.Equal(got[0].Data, want[0].Data) {
			t.Errorf("%v %v, want %v", got, err, want)
		}
	}
	for range 3 {
		again()
	}
	if onnx.Runners(s) != 1 {
		t.Fatalf("%d threads after runs one by one", onnx.Runners(s))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 3 {
				again()
			}
		})
	}
	wg.Wait()

	// a run there is stopped like any other, and the thread goes on
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := s.Run(ctx, iterations(1e9), nil); zarpa.AsError(err).Code != zarpa.Timeout {
		t.Errorf("%v, want a timeout", err)
	}
	again()

	// nothing is read before its end, even where nobody tells of it
	onnx.BreakRunners(s)
	for range 4 {
		again()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if onnx.Runners(s) != 0 {
		t.Error("threads outlive the session")
	}
}

func TestShortRunsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	s := load(t, "add.onnx")
	in := tensors(f32("a", shape(1, 2), 1, 2), f32("b", shape(1, 2), 3, 4))
	for range 100 {
		if _, err := s.Run(t.Context(), in, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := onnx.Runners(s); n > 1 { // one, where the machine let a run wait
		t.Errorf("%d threads", n)
	}
}
