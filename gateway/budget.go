package gateway

import (
	"sync"
	"sync/atomic"
	"time"
)

// The window of a retry budget, and the least that it allows: an endpoint with few requests may still
// try again.
const (
	budgetWindow    = 10 // seconds
	budgetPerSecond = 1
	budgetSlots     = 16 // a power of two above the window
	percent         = 100
)

// budget bounds how many requests of an endpoint are sent a second time: a share of all requests of
// the last seconds. Without it, replicas that fail under load would get more of it. A request costs an
// atomic addition; only tries are counted under mu.
type budget struct {
	slots [budgetSlots]budgetSlot
	mu    sync.Mutex
}

// budgetSlot is one second. second is changed under the budget's mu.
type budgetSlot struct {
	second   atomic.Int64
	requests atomic.Int64
	retries  int64 // under mu
}

// count counts a request, which is what tries are paid with.
func (b *budget) count(now time.Time) {
	s := &b.slots[now.Unix()&(budgetSlots-1)]
	if s.second.Load() != now.Unix() {
		b.mu.Lock()
		b.slot(now.Unix())
		b.mu.Unlock()
	}
	s.requests.Add(1)
}

// slot is that of a second, emptied of what was there. mu is held.
func (b *budget) slot(second int64) *budgetSlot {
	s := &b.slots[second&(budgetSlots-1)]
	if s.second.Load() != second { // a later one is from before the clock was set back
		s.requests.Store(0)
		s.retries = 0
		s.second.Store(second)
	}
	return s
}

// spend takes one try out of the budget; false when there is none left. share is in per cent; 0 allows
// none at all.
func (b *budget) spend(share int, now time.Time) bool {
	if share <= 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	current := b.slot(now.Unix())
	requests, retries := int64(0), int64(0)
	for i := range b.slots {
		if s := &b.slots[i]; s.second.Load() > now.Unix()-budgetWindow && s.second.Load() <= now.Unix() {
			requests += s.requests.Load()
			retries += s.retries
		}
	}
	if retries >= max(requests*int64(share)/percent, budgetPerSecond*budgetWindow) {
		return false
	}
	current.retries++
	return true
}

// mayRetry spends a try of the endpoint's budget, for a request whose first one has failed.
func (ru *rule) mayRetry(s *series) bool {
	if ru.pool.budget.spend(ru.retryBudget, time.Now()) {
		s.retries.Inc()
		return true
	}
	s.exhausted.Inc()
	return false
}
