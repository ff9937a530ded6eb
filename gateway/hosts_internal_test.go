package gateway

import (
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// TestLookingAHostUpCostsNothing holds for names that are an endpoint's and for others.
func TestLookingAHostUpCostsNothing(t *testing.T) {
	h := newHosts([]zarpa.Route{{Endpoint: "iris", Hostname: "iris.example.com"}})
	for host, want := range map[string]string{"iris.example.com:8080": "iris", "gateway.example.com:8080": "", "127.0.0.1:8080": "", "[::1]:8080": "", "": ""} {
		if got := h.endpoint(host); got != want {
			t.Errorf("%q is %q, want %q", host, got, want)
		}
		if n := testing.AllocsPerRun(100, func() { h.endpoint(host) }); n != 0 {
			t.Errorf("%q: %v allocations", host, n)
		}
	}
}

func BenchmarkHost(b *testing.B) {
	h := newHosts([]zarpa.Route{{Endpoint: "iris", Hostname: "iris.example.com"}})
	for b.Loop() {
		h.endpoint("gateway.example.com:8080")
	}
}
