package e2e

import (
	"sync"
	"time"
)

// window is a time in which predictions may fail, and how.
type window struct {
	class    string
	endpoint string // empty for all
	from, to time.Time
}

// windows are what was done to the product: only they explain failures. They may be added to
// from many goroutines.
type windows struct {
	mu   sync.Mutex
	list []window
}

func (ws *windows) add(w window) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.list = append(ws.list, w)
}

// explains tells whether the request was under way in a window of its failure's class.
func (ws *windows) explains(f failure) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.list {
		if w.class == f.class && (w.endpoint == "" || w.endpoint == f.endpoint) && !f.start.After(w.to) && !f.end.Before(w.from) {
			return true
		}
	}
	return false
}

// forget drops windows that have closed long before.
func (ws *windows) forget(before time.Time) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	kept := ws.list[:0]
	for _, w := range ws.list {
		if w.to.After(before) {
			kept = append(kept, w)
		}
	}
	ws.list = kept
}
