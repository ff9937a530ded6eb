package gateway

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
)

// BenchmarkTurn is a place taken and given back: what a request costs at the pool's lock.
func BenchmarkTurn(b *testing.B) {
	for _, replicas := range []int{1, 100} {
		b.Run(fmt.Sprint(replicas, "-replicas"), func(b *testing.B) {
			p := newPool("iris", newMetrics(prometheus.NewRegistry(), func() []*pool { return nil }), newWakes())
			d := zarpa.RouteDeployment{Name: "blue", Weight: 100, MaxConcurrency: 64}
			for i := range replicas {
				d.Replicas = append(d.Replicas, zarpa.RouteReplica{ID: strconv.Itoa(i), Address: "unix:/none"})
			}
			p.update(zarpa.Route{Endpoint: "iris", Deployments: []zarpa.RouteDeployment{d}})
			a := ask{since: time.Now(), wait: time.Hour}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := p.acquire(context.Background(), a)
					if err != nil {
						b.Error(err)
						return
					}
					p.release(r)
				}
			})
		})
	}
}
