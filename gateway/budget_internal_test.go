package gateway

import (
	"testing"
	"time"
)

// Wall clocks are set back, and the budget is no larger then.
func TestTheRetryBudgetOutlivesAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	var b budget
	now := time.Unix(1_000_000, 0)
	for i := range 20 {
		b.count(now.Add(time.Duration(i) * time.Second))
	}
	now = now.Add(-time.Hour)
	b.count(now)
	tries := 0
	for tries < 100 && b.spend(20, now) {
		tries++
	}
	if tries != budgetPerSecond*budgetWindow {
		t.Errorf("%d tries, want %d", tries, budgetPerSecond*budgetWindow)
	}
}
