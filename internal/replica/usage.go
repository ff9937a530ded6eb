package replica

import (
	"context"
	"fmt"

	"github.com/zarpa-dev/zarpa"
)

var _ zarpa.Capacity = (*Set)(nil)

// Capacity is [zarpa.Capacity].Capacity but for the machine's processors and memory, of which a set knows
// nothing. Replicas that were told to end count until their requests have: what they hold is not free yet,
// but their place is.
func (s *Set) Capacity(ctx context.Context) (zarpa.CapacityReport, error) {
	if err := ctx.Err(); err != nil {
		return zarpa.CapacityReport{}, fmt.Errorf("capacity: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	report := zarpa.CapacityReport{MaxReplicas: s.o.MaxReplicas, Of: map[string]int{}}
	for _, d := range s.deployments {
		for _, l := range d.slots {
			spec := l.note.Deployment.Spec
			report.UsedCPU += spec.CPU
			report.UsedMemory += spec.Memory
			if !l.stopping {
				report.Replicas++
				report.Of[zarpa.ReplicasOf(l.note.Deployment.Endpoint, spec.Name)]++
			}
		}
	}
	return report, nil
}

// free is how many more replicas the target has room for. It needs mu.
func (s *Set) free() int {
	free := s.o.MaxReplicas
	for _, d := range s.deployments {
		free -= d.adding
		for _, l := range d.slots {
			if !l.stopping {
				free--
			}
		}
	}
	return free
}

// giveBack gives the places back that an Apply has taken and not used.
func (s *Set) giveBack(dep *deployment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dep.adding = 0
}
