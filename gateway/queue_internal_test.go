package gateway

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// Whoever waits is served in turn; copies of requests only when no live one waits.
func TestCopiesStandBehindLiveRequests(t *testing.T) {
	t.Parallel()
	q := &queue{total: new(atomic.Int64)}
	waiters := map[string]*waiter{}
	enter := func(front bool, names ...string) {
		for _, name := range names {
			waiters[name] = &waiter{mirror: name[0] == 'c', from: name}
			q.push(waiters[name], front)
		}
	}
	check := func(want ...string) {
		t.Helper()
		var got, back []string
		for w := q.first; w != nil; w = w.next {
			got = append(got, w.from)
		}
		for w := q.last; w != nil; w = w.prev {
			back = append([]string{w.from}, back...)
		}
		if len(got) != q.length || len(back) != q.length || len(want) != q.length {
			t.Fatalf("%v, backwards %v, %d long, want %v", got, back, q.length, want)
		}
		for i := range want {
			if got[i] != want[i] || back[i] != want[i] {
				t.Fatalf("%v, backwards %v, want %v", got, back, want)
			}
		}
	}
	enter(false, "c1", "live1", "c2", "live2")
	check("live1", "live2", "c1", "c2")
	enter(true, "first", "c3")
	check("first", "live1", "live2", "c1", "c2", "c3")
	q.remove(waiters["c1"])
	q.remove(waiters["live2"])
	enter(false, "live3")
	check("first", "live1", "live3", "c2", "c3")
	for _, name := range []string{"c3", "c2", "first", "live3", "live1"} {
		q.remove(waiters[name])
	}
	check()
	if q.total.Load() != 0 || q.first != nil || q.last != nil || q.copies != nil {
		t.Errorf("%+v", q)
	}
	enter(false, "live4", "c4", "live5")
	check("live4", "live5", "c4")
}

// While a mirror hangs, its endpoint's requests cost no more than without one.
func TestACopyThatIsDroppedCostsNothing(t *testing.T) {
	p := pooled(ejecting(1, nil))
	g := New(Options{})
	ex := &exchange{
		g: g, r: httptest.NewRequest(http.MethodPost, "/", http.NoBody), body: make([]byte, SmallBody),
		rule: &rule{name: "iris", pool: p, mirror: newMirror(&zarpa.MirrorSpec{Deployment: "green", Percent: 100})},
	}
	p.copies.Store(MaxMirrors)
	if n := testing.AllocsPerRun(100, ex.mirror); n > 3 { // of the metric
		t.Errorf("%v allocations", n)
	}
	if ex.mirrored || p.copies.Load() != MaxMirrors {
		t.Errorf("mirrored: %v, %d copies", ex.mirrored, p.copies.Load())
	}
}
