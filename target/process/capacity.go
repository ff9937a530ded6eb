package process

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

var _ zarpa.Capacity = (*Driver)(nil)

// Capacity is [zarpa.Capacity].Capacity: the processors that the control plane may use, as its own
// replicas do, and the machine's memory where the system tells it.
func (d *Driver) Capacity(ctx context.Context) (zarpa.CapacityReport, error) {
	report, err := d.set.Capacity(ctx)
	if err != nil {
		return report, err
	}
	report.CPU, report.Memory = zarpa.CPU(runtime.GOMAXPROCS(0)), machineMemory()
	return report, nil
}

// machineMemory is 0 where the system keeps no such file.
func machineMemory() zarpa.Bytes {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return memoryTotal(string(text))
}

// memoryTotal reads "MemTotal:  8007264 kB".
func memoryTotal(text string) zarpa.Bytes {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "MemTotal:")
		if !ok {
			continue
		}
		var kilobytes int64
		if _, err := fmt.Sscanf(rest, "%d kB", &kilobytes); err == nil {
			return zarpa.Bytes(kilobytes << 10)
		}
	}
	return 0
}
