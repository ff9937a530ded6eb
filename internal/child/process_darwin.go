package child

import (
	"bytes"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pollEvery is how often a process is looked at: this system tells nobody but the parent of a
// death without cgo or a kqueue for each process.
const pollEvery = 100 * time.Millisecond

// process is one process. A pid that is used again within pollEvery is taken for it.
type process struct {
	pid    int
	closed chan struct{}
	once   sync.Once
}

func openProcess(pid int) (*process, error) {
	return &process{pid: pid, closed: make(chan struct{})}, nil
}

func (p *process) wait() bool { return pollDeath(p.pid, p.closed) }

func (p *process) close() {
	if p.closed == nil {
		return
	}
	p.once.Do(func() { close(p.closed) })
}

func bootID() string {
	id, _ := unix.Sysctl("kern.bootsessionuuid") // without it all boots are one
	return id
}

const stateZombie = 5 // SZOMB of <sys/proc.h>

// processStart is when a process started, in microseconds, and whether it lives.
func processStart(pid int) (uint64, bool) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || int(k.Proc.P_pid) != pid {
		return 0, false
	}
	start := k.Proc.P_starttime
	return uint64(start.Sec)*1_000_000 + uint64(start.Usec), k.Proc.P_stat != stateZombie
}

// carriesLabel tells whether a label is an argument of a process or in its environment.
func carriesLabel(pid int, label string) bool {
	b, err := unix.SysctlRaw("kern.procargs2", pid)
	if err != nil {
		return false
	}
	for part := range bytes.SplitSeq(b, []byte{0}) {
		if string(part) == label || string(part) == labelVariable+"="+label {
			return true
		}
	}
	return false
}

// scanLabel finds the session leader of this user that carries a label, or 0.
func scanLabel(label string) int {
	all, err := unix.SysctlKinfoProcSlice("kern.proc.uid", os.Getuid())
	if err != nil {
		return 0
	}
	for _, k := range all {
		pid := int(k.Proc.P_pid)
		if sid, err := unix.Getsid(pid); err == nil && sid == pid && k.Proc.P_stat != stateZombie && carriesLabel(pid, label) {
			return pid
		}
	}
	return 0
}

func peerPID(c *net.UnixConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID); err == nil {
			pid = n
		}
	})
	return pid
}
