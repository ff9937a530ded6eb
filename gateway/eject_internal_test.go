package gateway

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
)

// ejecting is a route of some replicas, of which failures failures eject one for a second.
func ejecting(replicas int, change func(*zarpa.Route)) zarpa.Route {
	r := zarpa.Route{
		Endpoint: "iris", Ejection: &zarpa.EjectionSpec{Failures: 5, Time: zarpa.Duration(time.Second), MaxPercent: 50},
		Deployments: []zarpa.RouteDeployment{{Name: "blue", Weight: 100, MaxConcurrency: 8}},
	}
	for i := range replicas {
		r.Deployments[0].Replicas = append(r.Deployments[0].Replicas, zarpa.RouteReplica{ID: strconv.Itoa(i), Address: "unix:/none"})
	}
	if change != nil {
		change(&r)
	}
	return r
}

func pooled(r zarpa.Route) *pool {
	p := newPool(r.Endpoint, newMetrics(prometheus.NewRegistry(), func() []*pool { return nil }), newWakes())
	p.update(r)
	return p
}

func (p *pool) replica(id int) *replica {
	return p.deployments[0].replicas[strconv.Itoa(id)+" unix:/none"]
}

// failing lets a replica end some tries badly.
func (p *pool) failing(t *testing.T, id, times int, v verdict) {
	for range times {
		p.judge(t.Context(), p.replica(id), v)
	}
}

// usable is how many replicas take requests.
func (p *pool) usableNow() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deployments[0].usable
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d) // of a bubble: it takes no time
	synctest.Wait()
}

func TestAReplicaThatFailsAloneIsEjectedForLongerEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := pooled(ejecting(3, nil))
		for n := 1; n <= 12; n++ {
			p.failing(t, 0, 4, broken)
			p.failing(t, 0, 1, good)
			if p.failing(t, 0, 4, broken); p.usableNow() != 3 {
				t.Fatal("ejected for failures that are not in a row")
			}
			if p.failing(t, 0, 1, broken); p.usableNow() != 2 {
				t.Fatal("not ejected")
			}
			var taken []*replica
			for range 20 { // more than the places of the two
				if r := p.deployments[0].take(); r != nil {
					taken = append(taken, r)
				}
			}
			if len(taken) != 16 || p.replica(0).inFlight != 0 {
				t.Fatalf("%d places, %d of them at the ejected replica", len(taken), p.replica(0).inFlight)
			}
			for _, r := range taken {
				p.release(r)
			}
			out := time.Duration(min(n, 10)) * time.Second
			if pass(out - time.Millisecond); p.usableNow() != 2 {
				t.Fatalf("back before %v", out)
			}
			if pass(time.Millisecond); p.usableNow() != 3 {
				t.Fatalf("not back after %v", out)
			}
		}
		pass(time.Minute) // longer than it was out
		p.failing(t, 0, 5, broken)
		if pass(time.Second); p.usableNow() != 3 {
			t.Error("what was long ago made the ejection longer")
		}
	})
}

func TestReplicasThatFailAlikeStay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bad, of int // of so many answers of a fellow are failures
		v       verdict
		run     int // in a row at the first replica
		ejected bool
	}{
		"fellows are well":                       {0, 1000, failed, 5, true},
		"no fellow has answered":                 {0, 0, failed, 19, false},
		"no fellow has answered, after a while":  {0, 0, failed, 20, true},
		"no fellow has answered, connections":    {0, 0, broken, 5, true},
		"a tenth is bad everywhere":              {100, 1000, failed, 7, true},
		"a tenth is bad, by chance":              {100, 1000, failed, 6, false},
		"half is bad":                            {500, 1000, failed, 19, false},
		"half is bad, and here everything":       {500, 1000, failed, 21, true},
		"everything is bad":                      {1000, 1000, failed, 1000, false},
		"everything is broken":                   {1000, 1000, broken, 1000, false},
		"fellows answer badly, this one is dead": {10, 1000, broken, 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := pooled(ejecting(2, nil))
			p.failing(t, 0, 1, failed) // a time of comparison begins
			p.failing(t, 0, 1, good)
			p.replica(1).record.failed.Store(int64(c.bad))
			p.replica(1).record.answered.Store(int64(c.of))
			p.failing(t, 0, c.run, c.v)
			if got := p.usableNow() == 1; got != c.ejected {
				t.Errorf("ejected: %v", got)
			}
		})
	}
}

func TestWhatWasLongAgoIsNotCompared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := pooled(ejecting(2, nil))
		p.failing(t, 1, 100_000, good)
		pass(time.Hour)
		for range 100 { // requests that are bad, wherever they go
			p.failing(t, 0, 1, failed)
			p.failing(t, 1, 1, failed)
		}
		if p.usableNow() != 2 {
			t.Error("a replica was ejected for bad requests, beside the good ones of an hour ago")
		}
	})
}

func TestSomeReplicasAlwaysStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failAll := func(p *pool, n int) {
			for id := range n {
				p.failing(t, id, 5, broken)
			}
		}
		for replicas, want := range map[int]int{1: 1, 2: 1, 3: 2, 4: 2, 5: 3} {
			p := pooled(ejecting(replicas, nil))
			if failAll(p, replicas); p.usableNow() < want {
				t.Errorf("of %d replicas %d are left, want %d", replicas, p.usableNow(), want)
			}
		}
		p := pooled(ejecting(3, func(r *zarpa.Route) { r.Ejection.MaxPercent = 100 }))
		p.failing(t, 0, 5, broken)
		p.failing(t, 1, 200, broken)
		if p.usableNow() != 1 || p.ejected()["blue"] != 2 {
			t.Fatalf("%d usable, %v", p.usableNow(), p.ejected())
		}
		p.bench(p.replica(2)) // the last one cannot be reached: the others are better than none
		if p.usableNow() != 2 || p.ejected()["blue"] != 0 {
			t.Errorf("%d usable, %v", p.usableNow(), p.ejected())
		}
		pass(time.Minute)
		if p.usableNow() != 3 {
			t.Errorf("%d usable at last", p.usableNow())
		}
		for _, off := range []*zarpa.EjectionSpec{nil, {Failures: -1, Time: 1, MaxPercent: 100}} {
			p := pooled(ejecting(3, func(r *zarpa.Route) { r.Ejection = off }))
			if p.failing(t, 0, 1000, broken); p.usableNow() != 3 {
				t.Error("ejected where nobody wants it")
			}
		}
	})
}

// A replica that is out for what is over comes back when the only other one fails.
func TestTheLastReplicaChangesPlacesWithOneThatIsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := pooled(ejecting(2, func(r *zarpa.Route) { r.Ejection.Time = zarpa.Duration(time.Minute) }))
		p.failing(t, 1, 1, failed) // a time of comparison begins
		p.failing(t, 1, 1000, good)
		p.failing(t, 1, 5, broken)
		if p.usableNow() != 1 || p.replica(1).record.ejected == nil {
			t.Fatal("not ejected")
		}
		p.failing(t, 0, 4, broken)
		if p.replica(1).record.ejected == nil {
			t.Fatal("they changed places too soon")
		}
		p.failing(t, 0, 1, broken)
		if p.usableNow() != 1 || p.replica(0).record.ejected == nil || p.replica(1).record.ejected != nil {
			t.Errorf("%d usable, %v out", p.usableNow(), p.ejected())
		}
		for range 8 {
			if r := p.deployments[0].take(); r != p.replica(1) {
				t.Fatal("no place at the one that is back")
			}
		}
	})
}

func TestNewReplicasGetMoreAndMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(r *zarpa.Route) { r.Deployments[0].SlowStart = zarpa.Duration(10 * time.Second) }
		p := pooled(ejecting(1, slow))
		p.update(ejecting(2, slow))
		// part is the share of requests, one at a time, that the new one gets.
		part := func() float64 {
			const all = 4000
			mine := 0
			for range all {
				r := p.deployments[0].take()
				if r == p.replica(1) {
					mine++
				}
				p.release(r)
			}
			return float64(mine) / all
		}
		if got := part(); got != 0 {
			t.Errorf("at once it gets %v", got)
		}
		pass(5 * time.Second)
		if got := part(); got < .25 || got > .42 { // half of a share is a third of both
			t.Errorf("at half time it gets %v", got)
		}
		var taken []*replica
		for range 6 {
			taken = append(taken, p.deployments[0].take())
		}
		if a, b := p.replica(0).inFlight, p.replica(1).inFlight; b > (a+2)/2 {
			t.Errorf("at half time the old one has %d, the new one %d", a, b)
		}
		for range 10 { // nobody waits while it has room
			taken = append(taken, p.deployments[0].take())
		}
		if a, b := p.replica(0).inFlight, p.replica(1).inFlight; a != 8 || b != 8 || p.deployments[0].take() != nil {
			t.Errorf("%d and %d of 8 places are taken", a, b)
		}
		for _, r := range taken {
			p.release(r)
		}
		pass(5 * time.Second)
		if got := part(); got < .42 || got > .58 {
			t.Errorf("at the end it gets %v", got)
		}
	})
}

func TestTheFirstReplicasStartAtOnce(t *testing.T) {
	t.Parallel()
	slow := func(r *zarpa.Route) { r.Deployments[0].SlowStart = zarpa.Duration(time.Hour) }
	p := pooled(ejecting(2, slow))
	if n := len(p.deployments[0].warming); n != 0 {
		t.Errorf("%d warm up beside nobody", n)
	}
	p.update(ejecting(4, slow))
	if n := len(p.deployments[0].warming); n != 2 {
		t.Errorf("%d warm up, want 2", n)
	}
	last := ejecting(4, slow)
	last.Deployments[0].Replicas = last.Deployments[0].Replicas[2:]
	p.update(last) // the old ones are gone
	for range 16 {
		if p.deployments[0].take() == nil {
			t.Fatal("no place")
		}
	}
	if n := len(p.deployments[0].warming); n != 0 {
		t.Errorf("%d warm up beside nobody", n)
	}
}
