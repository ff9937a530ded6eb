package gateway_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

// The three ways to a replica, with 16 closed-loop clients, all in one process: what a hop costs
// is the difference to Direct. Run with -cpu 2 -bench . to compare.

var benchBody = []byte(`{"data": [[5.1, 3.5, 1.4, 0.2]]}`)

func benchReplica(b *testing.B) string {
	return replica(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"label": [0], "probabilities": [[0.98, 0.02, 0.0]]}`))
	})
}

func hammer(b *testing.B, target string) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, target, bytes.NewReader(benchBody))
			req.Header.Set("Authorization", "Bearer "+key)
			req.Header.Set("Content-Type", "application/json")
			res, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode != http.StatusOK {
				b.Error(res.Status)
				return
			}
		}
	})
	b.StopTimer()
	client.CloseIdleConnections()
}

func BenchmarkHop(b *testing.B) {
	r := route(benchReplica(b))
	r.Deployments[0].MaxConcurrency = 16
	g := gateway.New(gateway.Options{})
	if err := g.SetRoutes(context.Background(), zarpa.Routes{Revision: 1, Endpoints: []zarpa.Route{r}}); err != nil {
		b.Fatal(err)
	}
	s := httptest.NewServer(g.Handler())
	defer s.Close()
	hammer(b, s.URL+"/endpoints/iris/score")
}

func dialUnix(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", address[len("unix:"):])
	}
}

func BenchmarkReverseProxy(b *testing.B) {
	u := &url.URL{Scheme: "http", Host: "replica"}
	p := httputil.NewSingleHostReverseProxy(u)
	p.Transport = &http.Transport{MaxIdleConnsPerHost: 64, DialContext: dialUnix(benchReplica(b))}
	s := httptest.NewServer(p)
	defer s.Close()
	hammer(b, s.URL+"/score")
}

func BenchmarkDirect(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"label": [0], "probabilities": [[0.98, 0.02, 0.0]]}`))
	}))
	defer s.Close()
	hammer(b, s.URL+"/score")
}
