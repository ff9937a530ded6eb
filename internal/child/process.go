package child

import (
	"errors"
	"syscall"
	"time"
)

// pollDeath looks at a process every so often: true when it is dead, false when closed first.
func pollDeath(pid int, closed <-chan struct{}) bool {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if _, alive := processStart(pid); !alive {
			return true
		}
		select {
		case <-closed:
			return false
		case <-tick.C:
		}
	}
}

// signal reaches the whole process group: the process leads one of its own.
func (p *process) signal(sig syscall.Signal) {
	if p.pid > 0 {
		_ = syscall.Kill(-p.pid, sig) // it may have died this instant
	}
}

// reap ends what the dead process left of its group and, when it is a child of this process,
// collects it: only then is its exit status known.
func (p *process) reap() (syscall.WaitStatus, bool) {
	_ = syscall.Kill(-p.pid, syscall.SIGKILL) // before it is collected: until then the pid is its own
	var status syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(p.pid, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		return status, err == nil && pid == p.pid
	}
}
