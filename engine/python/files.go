package python

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// socketPair makes a connection: one end for this process, one for a child.
func socketPair() (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock() // so that no child is started before the descriptors are closed on exec
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket of a child")
	conn, err := net.FileConn(ours)
	err = errors.Join(err, ours.Close()) // conn has a descriptor of its own
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// pipe makes a pipe whose reading end does not block, and whose writing end, for a child, does: a
// child that prints must not be told to try again. os.Pipe makes both alike.
func pipe() (reads int, writes *os.File, err error) {
	var fds [2]int
	syscall.ForkLock.RLock()
	err = syscall.Pipe(fds[:])
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, nil, os.NewSyscallError("pipe", err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		_, _ = syscall.Close(fds[0]), syscall.Close(fds[1])
		return 0, nil, os.NewSyscallError("setnonblock", err)
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "pipe of a child"), nil
}

// closeAll closes what this process has handed on, or has no more use for.
func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nothing was written through it
	}
}
