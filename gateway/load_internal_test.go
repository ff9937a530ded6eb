package gateway

import (
	"io"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Integrals are exact: three requests at two places for known times.
func TestIntegralsAreTheTimesOfTheRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := pooled(zarpa.Route{Endpoint: "iris", Deployments: []zarpa.RouteDeployment{{
			Name: "blue", Weight: 100, MaxConcurrency: 1,
			Replicas: []zarpa.RouteReplica{{ID: "a", Address: "unix:/a"}, {ID: "b", Address: "unix:/b"}},
		}}})
		check := func(busy, queued float64, inFlight, waiting int) {
			t.Helper()
			l := p.load()[0]
			if math.Abs(l.BusySeconds-busy) > 1e-5 || math.Abs(l.QueuedSeconds-queued) > 1e-5 || l.InFlight != inFlight || l.Queued != waiting {
				t.Errorf("%+v, want %v and %v seconds", l, busy, queued)
			}
		}
		want := ask{since: time.Now(), wait: time.Hour}
		first, _ := p.acquire(t.Context(), want)
		<-time.After(2 * time.Second)
		second, _ := p.acquire(t.Context(), want)
		third := make(chan *replica)
		go func() {
			r, _ := p.acquire(t.Context(), want)
			third <- r
		}()
		synctest.Wait()
		<-time.After(3 * time.Second)
		check(5+3, 3, 2, 1)
		p.release(first)
		r := <-third
		<-time.After(4 * time.Second)
		check(5+7+4, 3, 2, 0)
		p.release(second)
		p.release(r)
		<-time.After(time.Hour)
		check(5+7+4, 3, 0, 0)
	})
}

func BenchmarkAccessLine(b *testing.B) {
	e := entry{
		at: time.Now(), requestID: "6dd93a1e-3e42-4dd2-b3f9-4a5b3e1d9a57", endpoint: "iris", deployment: "blue", method: "POST", path: "/endpoints/iris/score",
		protocol: "HTTP/1.1", status: 200, in: 35, out: 80, total: 173 * time.Microsecond, client: "127.0.0.1", key: "primary",
		trace: trace{auth: 4 * time.Microsecond, read: 9 * time.Microsecond, queue: time.Microsecond, upstream: 121 * time.Microsecond, replica: "blue-0.elaw", tries: 1},
	}
	l := newAccessLog(io.Discard, nil, nil)
	b.ReportAllocs()
	for range b.N {
		l.add(e)
		l.lines = l.lines[:0]
	}
}
