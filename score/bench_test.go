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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
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
	off := newServer(b, s, Options{}).Handler()
	on := newServer(b, s, Options{MaxBatchRows: 16, MaxBatchDelay: time.Millisecond}).Handler()
	for _, c := range []struct {
		name, path, body string
		h                http.Handler
	}{
		{"one_row", "/score", `{"data":[[5.1,3.5,1.4,0.2]]}`, off},
		{"one_row_batching", "/score", `{"data":[[5.1,3.5,1.4,0.2]]}`, on},
		{"500_rows", "/score", `{"data":[` + rows.String()[1:] + `]}`, off},
		{"infer", inferPath, `{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}`, off},
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
				c.h.ServeHTTP(w, r)
			}
		})
	}
}

// BenchmarkGRPC measures the server's part of a ModelInfer without a connection, and the whole with
// one, which has the client's part in it.
func BenchmarkGRPC(b *testing.B) {
	s := iris()
	label := zarpa.Tensor{Name: "label", Type: zarpa.Int64, Shape: []int64{1}, Data: make([]byte, 8)}
	s.run = func(context.Context, []zarpa.Tensor, []string) ([]zarpa.Tensor, error) {
		return []zarpa.Tensor{label}, nil
	}
	srv := newServer(b, s, Options{})
	l := serve(b, srv)
	for _, rows := range []int{1, 10_000} {
		in := request(make([]float32, 4*rows)...)
		wire, err := proto.Marshal(in)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("handler/%d_rows", rows), func(b *testing.B) {
			pieces := inPieces(wire, 16<<10)
			chain := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				return next(ctx, req)
			}
			read := func(m any) error { return inferCodec{}.Unmarshal(pieces, m) }
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := srv.unaryInfer(b.Context(), read, chain); err != nil {
					b.Fatal(err)
				}
			}
		})
		for name, addr := range map[string]string{"carried": l.rest, "alone": l.grpc} {
			b.Run(fmt.Sprintf("%s/%d_rows", name, rows), func(b *testing.B) {
				client := pb.NewGRPCInferenceServiceClient(dial(b, addr))
				b.SetBytes(int64(len(wire)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := client.ModelInfer(b.Context(), in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
