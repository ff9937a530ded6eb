package zarpa_test

import (
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func TestCapacityTellsTheRoomThatIsLeft(t *testing.T) {
	t.Parallel()
	report := zarpa.CapacityReport{MaxReplicas: 10, Replicas: 4, CPU: 2, UsedCPU: 0.5, Memory: 4 << 30, UsedMemory: 1 << 30}
	for name, c := range map[string]struct {
		report zarpa.CapacityReport
		cpu    zarpa.CPU
		memory zarpa.Bytes
		slots  int
		room   int
	}{
		"nothing is asked for":   {report, 0, 0, 6, -1},
		"by processors":          {report, 0.5, 1, 6, 3},
		"by memory":              {report, 0.1, 2 << 30, 6, 1},
		"tenths add up":          {zarpa.CapacityReport{CPU: 1, UsedCPU: 0.1 + 0.2}, 0.1, 0, -1, 7},
		"more is used than is":   {zarpa.CapacityReport{MaxReplicas: 2, Replicas: 3, CPU: 1, UsedCPU: 3}, 0.5, 0, 0, 0},
		"nothing is known":       {zarpa.CapacityReport{}, 0.5, 1 << 30, -1, -1},
		"what another one takes": {report.With(zarpa.DeploymentSpec{CPU: 0.5, Memory: 1 << 30}, 2), 0.5, 1 << 30, 4, 1},
	} {
		d := zarpa.DeploymentSpec{CPU: c.cpu, Memory: c.memory}
		if slots, room := c.report.Slots(), c.report.Room(d); slots != c.slots || room != c.room {
			t.Errorf("%s: %d slots and room for %d, want %d and %d", name, slots, room, c.slots, c.room)
		}
	}
}
