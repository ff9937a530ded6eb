//go:build cgo && linux

package onnx_test

import (
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// resident is the memory of this process, in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// The test is not parallel: it measures the process.
func TestUnloadingGivesTheMemoryBack(t *testing.T) {
	const elements = 4 << 20 // 16 MiB of float32 in, and as much out
	e := engine(t)
	in := tensors(i64("size", shape(1), elements))
	round := func() {
		s, err := e.Load(context.Background(), zoo, zarpa.LoadOptions{File: "oom.onnx", Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 2 {
			if _, err := s.Run(context.Background(), in, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 5 {
		round()
	}
	before := resident(t)
	for range 200 {
		round()
	}
	after := resident(t)
	t.Logf("resident before %d KiB, after 200 rounds %d KiB", before>>10, after>>10)
	if grown := after - before; grown > 8<<20 {
		t.Errorf("200 rounds kept %d KiB", grown>>10)
	}
}
