package target

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// history is what is remembered of the operation that runs for each endpoint, beyond its record. A new
// control plane remembers nothing and begins anew.
type history struct {
	mu sync.Mutex
	of map[string]*remembered // by endpoint
}

type remembered struct {
	operation string
	deaths    map[string]bool // "REPLICA@TIME"
	ready     map[string]int  // the most that were, by deployment
	moved     time.Time       // when it last became more
}

// at needs mu. A later operation takes the place of one that was interrupted.
func (h *history) at(op zarpa.Operation) *remembered {
	m := h.of[op.Endpoint]
	if m == nil || m.operation != op.ID {
		m = &remembered{operation: op.ID, deaths: map[string]bool{}, ready: map[string]int{}}
		h.of[op.Endpoint] = m
	}
	return m
}

// death notes a replica's last death and returns how many of its deaths the operation has seen.
func (h *history) death(op zarpa.Operation, rep zarpa.Replica) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.at(op)
	m.deaths[fmt.Sprintf("%s@%d", rep.ID, rep.Last.At.UnixNano())] = true
	n := 0
	for key := range m.deaths {
		if strings.HasPrefix(key, rep.ID+"@") {
			n++
		}
	}
	return n
}

// progress notes how many replicas of a deployment are ready: one that becomes ready is a step forward,
// one that comes and goes is not.
func (h *history) progress(op zarpa.Operation, deployment string, ready int, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.at(op); ready > m.ready[deployment] {
		m.ready[deployment], m.moved = ready, now
	}
}

// moved is when an operation last made a step forward; zero for never.
func (h *history) moved(op zarpa.Operation) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at(op).moved
}

func (h *history) forget(endpoint string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, endpoint)
}
