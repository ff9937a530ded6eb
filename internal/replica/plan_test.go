package replica

import (
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
		want          int
		views         []view
		start         int
		stop, surplus []int
		enough        bool
	}{
		{"StartsWhatIsMissing", 2, []view{at(loading, true, false)}, 1, nil, nil, false},
		{"KeepsTheOldUntilEnoughAreReady", 1, []view{at(ready, false, true), at(loading, true, false)}, 0, nil, []int{0}, false},
		{"KeepsTheOldThatRecovers", 1, []view{at(unready, false, false), at(loading, true, false)}, 0, nil, []int{0}, false},
		{"DrainsTheOldFirst", 1, []view{at(ready, false, true), at(ready, true, true)}, 0, nil, []int{0}, true},
		{"StopsTheDrained", 1, []view{at(ready, false, false), at(ready, true, true)}, 0, []int{0}, []int{0}, true},
		{"StopsAnOldThatNeverServed", 1, []view{at(loading, false, false), at(backoff, false, false)}, 1, []int{0, 1}, []int{0, 1}, false},
		{"KeepsTheBest", 1, []view{at(backoff, true, false), at(ready, true, true)}, 0, []int{0}, []int{0}, true},
		{"CountsNothingThatStops", 1, []view{{phase: ready, current: true, stopping: true}}, 1, nil, nil, false},
		{"DrainsAllForNone", 0, []view{at(ready, true, true)}, 0, nil, []int{0}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := decide(tc.want, tc.views)
			if p.start != tc.start || p.enough != tc.enough || !slices.Equal(p.stop, tc.stop) || !slices.Equal(p.surplus, tc.surplus) {
				t.Errorf("decide = %+v, want %+v", p, tc)
			}
		})
	}
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
