package score

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/onnx"
)

// libraryPath is where ONNX Runtime is; the test is skipped when it is nowhere.
func libraryPath(t testing.TB) string {
	t.Helper()
	path := os.Getenv("ZARPA_ONNXRUNTIME")
	if found, _ := filepath.Glob("../bin/libonnxruntime*"); path == "" && len(found) > 0 {
		path, _ = filepath.Abs(found[0])
	}
	if path == "" {
		t.Skip("no ONNX Runtime in ZARPA_ONNXRUNTIME or ../bin: run make to get it")
	}
	return path
}

// loadONNX loads a model file with one thread, or skips the test.
func loadONNX(t testing.TB, dir, file string) zarpa.Session {
	t.Helper()
	e := onnx.New(onnx.Options{Library: libraryPath(t)})
	s, err := e.Load(context.Background(), dir, zarpa.LoadOptions{File: file, Threads: 1})
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	t.Cleanup(func() {
		s.Close()
		e.Close()
	})
	return s
}

func score(h http.Handler, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/score", strings.NewReader(body)))
	return w
}

// cpuTime is what this process has used of the processors so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBatching compares runs of one request with shared ones. The first number is the time
// for each request, of all clients together; the processors' time is what noise harms least.
func BenchmarkBatching(b *testing.B) {
	for _, model := range []struct{ name, file, body string }{
		{"forest", "forest.onnx", `{"data":[[` + strings.Repeat("0.5,", 63) + `0.5]]}`},
		{"ten_ms", "ten_ms.onnx", `{"data":[[` + strings.Repeat("0.5,", 3071) + `0.5]]}`},
	} {
		session := loadONNX(b, "../bench/models", model.file)
		for _, options := range []struct {
			name string
			Options
		}{
			{"off", Options{MaxConcurrency: 2}},
			{"on", Options{MaxBatchRows: 64}},
			{"on_10ms", Options{MaxBatchRows: 64, MaxBatchDelay: 10 * time.Millisecond}},
			{"on_10ms_2runs", Options{MaxBatchRows: 64, MaxBatchDelay: 10 * time.Millisecond, BatchRuns: 2}},
		} {
			for _, clients := range []int{1, 16, 64} {
				b.Run(strings.Join([]string{model.name, options.name, strconv.Itoa(clients)}, "/"), func(b *testing.B) {
					h := newServer(b, session, options.Options).Handler()
					b.SetParallelism((clients + 1) / 2)
					before := cpuTime(b)
					defer func() { b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op") }()
					if clients == 1 {
						for b.Loop() {
							score(h, model.body)
						}
						return
					}
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if w := score(h, model.body); w.Code != http.StatusOK {
								b.Error(w.Body)
							}
						}
					})
				})
			}
		}
	}
}

// BenchmarkStaticBatch is what the model does without a server, by rows of each run: the time is
// that of one row.
func BenchmarkStaticBatch(b *testing.B) {
	for _, model := range []struct {
		name string
		size int
	}{{"forest", 64}, {"ten_ms", 3072}} {
		session := loadONNX(b, "../bench/models", model.name+".onnx")
		for _, rows := range []int{1, 4, 16, 32, 64} {
			b.Run(model.name+"/"+strconv.Itoa(rows), func(b *testing.B) {
				before := cpuTime(b)
				defer func() { b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op") }()
				in := []zarpa.Tensor{{Name: session.Signature().Inputs[0].Name, Type: zarpa.Float32, Shape: []int64{int64(rows), int64(model.size)}, Data: make([]byte, 4*rows*model.size)}}
				for range (b.N + rows - 1) / rows {
					if _, err := session.Run(b.Context(), in, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
