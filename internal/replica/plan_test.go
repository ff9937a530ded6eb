package replica

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	at := func(phase zarpa.ReplicaPhase, current, exposed bool) view {
		return view{phase: phase, current: current, exposed: exposed}
	}
	ready, loading, backoff, unready := zarpa.ReplicaReady, zarpa.ReplicaLoading, zarpa.ReplicaBackoff, zarpa.ReplicaUnready
	for _, tc := range []struct {
		name          string
		want          wanted
		views         []view
		start         int
		stop, leaving []int
	}{
		{"StartsWhatIsMissing", all(2), []view{at(loading, true, false)}, 1, nil, nil},
		{"KeepsTheOldUntilEnoughAreReady", all(1), []view{at(ready, false, true), at(loading, true, false)}, 0, nil, nil},
		{"KeepsTheOldThatRecovers", all(1), []view{at(unready, false, false), at(loading, true, false)}, 0, nil, nil},
		{"DrainsTheOldFirst", all(1), []view{at(ready, false, true), at(ready, true, true)}, 0, nil, []int{0}},
		{"StopsTheDrained", all(1), []view{at(ready, false, false), at(ready, true, true)}, 0, []int{0}, []int{0}},
		{"StopsAnOldThatNeverServed", all(1), []view{at(loading, false, false), at(backoff, false, false)}, 1, []int{0, 1}, nil},
		{"KeepsTheBest", all(1), []view{at(backoff, true, false), at(ready, true, true)}, 0, []int{0}, []int{0}},
		{"CountsNothingThatStops", all(1), []view{{phase: ready, current: true, stopping: true}}, 1, nil, nil},
		{"DrainsAllForNone", all(0), []view{at(ready, true, true)}, 0, nil, []int{0}},
		// at most one more
		{"StartsAsManyAsTheSurgeAllows", wanted{3, 1, 0, roomy}, []view{at(ready, false, true), at(ready, false, true), at(ready, false, true)}, 1, nil, nil},
		{"WaitsForTheOneMore", wanted{2, 1, 0, roomy}, []view{at(ready, false, true), at(ready, false, true), at(loading, true, false)}, 0, nil, nil},
		{"MakesRoomForTheNext", wanted{2, 1, 0, roomy}, []view{at(ready, false, true), at(ready, false, true), at(ready, true, true)}, 0, nil, []int{0}},
		{"StaysWithWhomItChose", wanted{2, 1, 0, roomy}, []view{at(ready, false, true), at(ready, false, false), at(ready, true, true)}, 0, []int{1}, []int{1}},
		{"MakesRoomByWhatServesNobody", wanted{2, 1, 0, roomy}, []view{at(unready, false, false), at(ready, false, true), at(loading, true, false)}, 0, []int{0}, []int{0}},
		// at most one missing
		{"BeginsByTakingAway", wanted{3, 0, 1, roomy}, []view{at(ready, false, true), at(ready, false, true), at(ready, false, true)}, 0, nil, []int{0}},
		{"TakesNoSecondAway", wanted{3, 0, 1, roomy}, []view{at(ready, false, true), at(ready, false, true), at(loading, true, false)}, 0, nil, nil},
		{"FillsThePlace", wanted{3, 0, 1, roomy}, []view{at(ready, false, true), at(ready, false, true)}, 1, nil, nil},
		// on a target that has little room
		{"StartsWhatFits", wanted{3, 3, 0, 2}, []view{at(ready, true, true)}, 2, nil, nil},
		{"TakesThePlaceOfWhatEnds", wanted{1, 1, 0, 0}, []view{at(backoff, false, false)}, 1, []int{0}, nil},
		{"MakesRoomWhereTheTargetHasNone", wanted{2, 2, 0, 0}, []view{at(ready, false, true), at(ready, false, true), at(ready, true, true)}, 0, nil, []int{0}},
		{"FewerOfAnotherRevision", wanted{1, 1, 0, roomy}, []view{at(ready, false, true), at(ready, false, true), at(ready, false, true)}, 0, nil, []int{0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := decide(tc.want, tc.views)
			if p.start != tc.start || !slices.Equal(p.stop, tc.stop) || !slices.Equal(p.leaving, tc.leaving) {
				t.Errorf("decide = %+v, want %+v", p, tc)
			}
		})
	}
}

// all is a number of replicas that may all be started beside those before them.
func all(n int) wanted { return wanted{replicas: n, surge: n, free: roomy} }

// roomy is a target that is far from full.
const roomy = 100

// TestUpdatesKeepTheirBounds lets updates of all sizes run, with replicas that become ready in any order.
func TestUpdatesKeepTheirBounds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 7))
		want := wanted{replicas: 1 + random.IntN(5), surge: random.IntN(4), missing: random.IntN(3)}
		if want.surge+want.missing == 0 {
			want.surge = 1
		}
		limit := want.replicas + 1 + random.IntN(4) // of the target: room for one more, or a few
		var views []view
		for range want.replicas {
			views = append(views, view{ordinal: len(views), phase: zarpa.ReplicaReady, exposed: true})
		}
		done := func() bool {
			return len(views) == want.replicas && !slices.ContainsFunc(views, func(v view) bool { return !v.current || v.phase != zarpa.ReplicaReady })
		}
		for round := 0; !done(); round++ {
			if round == 1000 {
				t.Fatalf("seed %d, %+v: it comes to no end: %+v", seed, want, views)
			}
			want.free = limit - len(views)
			if p := decide(want, views); p.short > 0 {
				t.Fatalf("seed %d, round %d, %+v: it is said to have no room: %+v", seed, round, want, views)
			}
			views = next(want, views, random)
			routed := 0
			for _, v := range views {
				if v.exposed {
					routed++
				}
			}
			if routed < want.replicas-want.missing || len(views) > min(want.replicas+want.surge, limit) {
				t.Fatalf("seed %d, round %d, %+v: %d of %d are on the routes", seed, round, want, routed, len(views))
			}
		}
	}
}

// TestWhatHasNoRoomIsSaid: a target that is full for good is told apart from one whose places come free
// as the update goes on.
func TestWhatHasNoRoomIsSaid(t *testing.T) {
	t.Parallel()
	former, current := view{phase: zarpa.ReplicaReady, exposed: true}, view{current: true, phase: zarpa.ReplicaLoading}
	for name, c := range map[string]struct {
		want  wanted
		views []view
		short int
	}{
		"more than fit":                   {wanted{5, 5, 0, 2}, []view{current}, 2},
		"as many as fit":                  {wanted{3, 3, 0, 2}, []view{current}, 0},
		"an update without any place":     {wanted{2, 2, 0, 0}, []view{former, former}, 2},
		"an update with one place":        {wanted{2, 2, 0, 1}, []view{former, former}, 0},
		"an update in the one place":      {wanted{2, 2, 0, 0}, []view{former, former, current}, 0},
		"an update that may take one out": {wanted{2, 2, 1, 0}, []view{former, former}, 0},
	} {
		if p := decide(c.want, c.views); p.short != c.short {
			t.Errorf("%s: %d short, want %d: %+v", name, p.short, c.short, p)
		}
	}
}

// next is one Apply and one Observe, with time passing in between.
func next(want wanted, views []view, random *rand.Rand) []view {
	p := decide(want, views)
	var left []view
	for i, v := range views {
		if slices.Contains(p.stop, i) {
			continue
		}
		if v.phase == zarpa.ReplicaLoading && random.IntN(2) == 0 {
			v.phase = zarpa.ReplicaReady
		}
		left = append(left, v)
	}
	for range p.start {
		left = append(left, view{ordinal: 100 + len(left), current: true, phase: zarpa.ReplicaLoading})
	}
	p = decide(want, left)
	for i := range left {
		left[i].exposed = left[i].phase == zarpa.ReplicaReady && !slices.Contains(p.leaving, i)
	}
	return left
}

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	t.Parallel()
	b := Backoff{First: 100 * time.Millisecond, Max: 30 * time.Second}
	for deaths, want := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 5: 1600 * time.Millisecond, 9: 25600 * time.Millisecond, 10: 30 * time.Second, 1 << 30: 30 * time.Second,
	} {
		if got := b.delay(deaths); got != want {
			t.Errorf("delay(%d) = %v, want %v", deaths, got, want)
		}
	}
}
