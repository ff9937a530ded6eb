package gateway

import (
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// A full table forgets one caller for a new one, those who are as good as new first.
func TestAFullTableOfCallersForgetsAsFewAsItMust(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits zarpa.KeyLimits
		later  time.Duration
		fewer  bool // more than one is as good as new
	}{
		"nobody has it all back": {zarpa.KeyLimits{Rate: 1, Burst: 100}, time.Second, false},
		"a rate next to nothing": {zarpa.KeyLimits{Rate: 1e-6, Burst: 1_000_000}, time.Second, false},
		"all have it all back":   {zarpa.KeyLimits{Rate: 1, Burst: 100}, time.Hour, true},
		"no rate":                {zarpa.KeyLimits{Concurrent: 1}, time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var all callers
			now := time.Now()
			enter := func(n int) {
				who := identity{1: byte(n), 2: byte(n >> 8)} // all in one part
				a, err := all.take(who, c.limits, now)
				if err != nil {
					t.Fatal(err)
				}
				a.giveBack()
			}
			for n := range maxCallers {
				enter(n)
			}
			now = now.Add(c.later)
			enter(maxCallers)
			if got := len(all.parts[0].known); got > maxCallers || got < maxCallers != c.fewer {
				t.Errorf("%d are known", got)
			}
		})
	}
}
