package child

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pollEvery is how often a process is looked at on kernels without pidfd (before 5.3).
const pollEvery = 100 * time.Millisecond

// process holds on to one process by a pidfd, so that a pid that is used again is not taken for it.
type process struct {
	pid    int
	fd     *os.File // nil when the kernel has no pidfd
	closed chan struct{}
	once   sync.Once
}

func openProcess(pid int) (*process, error) {
	p := &process{pid: pid, closed: make(chan struct{})}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	switch {
	case err == nil:
		p.fd = os.NewFile(uintptr(fd), "pidfd")
	case !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM):
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return p, nil
}

// wait returns true when the process is dead, false when close was called before.
func (p *process) wait() bool {
	if p.fd == nil {
		return pollDeath(p.pid, p.closed)
	}
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool { // parks in the runtime's poller, not in a thread
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	return err == nil
}

func (p *process) close() {
	if p.closed == nil {
		return
	}
	p.once.Do(func() {
		close(p.closed)
		if p.fd != nil {
			_ = p.fd.Close()
		}
	})
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it all boots are one
	return strings.TrimSpace(string(b))
}

// processStart is when a process started, in ticks since boot, and whether it lives: a dead one
// that nobody has collected does not.
func processStart(pid int) (uint64, bool) {
	state, _, start, ok := processStat(pid)
	return start, ok && state != 'Z' && state != 'X'
}

func processStat(pid int) (state byte, session int, start uint64, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, 0, false
	}
	return parseStat(b)
}

// parseStat reads /proc/PID/stat: the command, field 2, may hold any byte but ends at the last ")".
func parseStat(b []byte) (state byte, session int, start uint64, ok bool) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return 0, 0, 0, false
	}
	f := strings.Fields(string(b[end+1:])) // f[0] is field 3
	if len(f) < 20 || len(f[0]) != 1 {
		return 0, 0, 0, false
	}
	session, err1 := strconv.Atoi(f[3])
	start, err2 := strconv.ParseUint(f[19], 10, 64)
	return f[0][0], session, start, err1 == nil && err2 == nil
}

// carriesLabel tells whether a label is an argument of a process or in its environment.
func carriesLabel(pid int, label string) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	for file, want := range map[string]string{"/cmdline": label, "/environ": labelVariable + "=" + label} {
		b, err := os.ReadFile(dir + file)
		if err != nil {
			continue
		}
		for part := range bytes.SplitSeq(b, []byte{0}) {
			if string(part) == want {
				return true
			}
		}
	}
	return false
}

// scanLabel finds the session leader of this user that carries a label, or 0. What it started
// carries the label, too, but leads no session.
func scanLabel(label string) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	uid := uint32(os.Getuid())
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name(), &st) != nil || st.Uid != uid {
			continue
		}
		state, session, _, ok := processStat(pid)
		if ok && session == pid && state != 'Z' && state != 'X' && carriesLabel(pid, label) {
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
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && cred.Uid == uint32(os.Getuid()) {
			pid = int(cred.Pid)
		}
	})
	return pid
}
