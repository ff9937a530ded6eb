package python_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa/engine/python"
)

// BenchmarkHop is what a request costs beside the script, which does nothing.
func BenchmarkHop(b *testing.B) {
	s := open(b, python.Options{Workers: 1}, "def init(): pass\ndef run(raw): return 1\n")
	for name, size := range map[string]int{"100B": 100, "100KB": 100 << 10} {
		body := make([]byte, size)
		for i := range body {
			body[i] = 'x'
		}
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/score", nil)
			took := make([]time.Duration, 0, b.N)
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				if err := s.Score(httptest.NewRecorder(), r, body); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
		})
	}
}

// BenchmarkThroughput is what two workers answer to more clients than that.
func BenchmarkThroughput(b *testing.B) {
	s := open(b, python.Options{Workers: 2}, "import json\ndef init(): pass\ndef run(raw): return sum(json.loads(raw))\n")
	body := []byte("[1, 2, 3, 4]")
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/score", nil)
		for pb.Next() {
			if err := s.Score(httptest.NewRecorder(), r, body); err != nil {
				b.Error(err)
			}
		}
	})
}
