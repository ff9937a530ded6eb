package score

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// discard is a ResponseWriter without memory of its own, so that the handler alone is measured.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

func BenchmarkScore(b *testing.B) {
	var rows strings.Builder
	for i := range 500 {
		fmt.Fprintf(&rows, ",[%d.%d,3.2000000476837,4.6999998092651,1.3999999761581]", i%10, i)
	}
	label := zarpa.Tensor{Name: "label", Type: zarpa.Int64, Shape: []int64{1}, Data: make([]byte, 8)}
	probabilities := zarpa.Tensor{Name: "probabilities", Type: zarpa.Float32, Shape: []int64{1, 3}, Data: le(float32(0.1), float32(0.7), float32(0.2))}
	s := iris()
	s.run = func(context.Context, []zarpa.Tensor, []string) ([]zarpa.Tensor, error) {
		return []zarpa.Tensor{label, probabilities}, nil
	}
	h := newServer(b, s, Options{}).Handler()
	for _, c := range []struct{ name, path, body string }{
		{"one_row", "/score", `{"data":[[5.1,3.5,1.4,0.2]]}`},
		{"500_rows", "/score", `{"data":[` + rows.String()[1:] + `]}`},
		{"infer", inferPath, `{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			body := bytes.NewReader(nil)
			r := httptest.NewRequest(http.MethodPost, c.path, io.NopCloser(body))
			r.ContentLength = int64(len(c.body))
			w := &discard{h: http.Header{}}
			text := []byte(c.body)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(text)
				clear(w.h)
				h.ServeHTTP(w, r)
			}
		})
	}
}
