package gateway_test

import (
	"context"
	"testing"

	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// The ways of a small call: through the gateway on either address, and without it.

func callMany(b *testing.B, c client) {
	b.Helper()
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		in := &pb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{make([]byte, 64)}}
		ctx := with(context.Background())
		for p.Next() {
			if _, err := c.ModelInfer(ctx, in); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func benchCalls(b *testing.B, address func(*served) string) {
	a, _ := (&speaker{}).address(b)
	r := route(a)
	r.Deployments[0].MaxConcurrency = 16
	g := serve(b, r)
	callMany(b, dial(b, address(g)))
}

func BenchmarkCallPublic(b *testing.B) { benchCalls(b, func(g *served) string { return g.public }) }
func BenchmarkCallOwn(b *testing.B)    { benchCalls(b, func(g *served) string { return g.native }) }

func BenchmarkCallDirect(b *testing.B) {
	a, _ := (&speaker{}).address(b)
	callMany(b, dial(b, a))
}
