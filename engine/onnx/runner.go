//go:build cgo

package onnx

// #include "native.h"
import "C"

import (
	"os"
	"time"
	"unsafe"
)

// slowRun is from which average on a session's runs go to threads of their own. A goroutine in native
// code holds one of Go's processors, and as long as it does, a thread of Go's runtime looks every 20 µs
// whether another goroutine needs it: on a virtual machine that costs a run of 5 ms some 5 per cent.
// Handing a run over and back costs some 20 µs.
const slowRun = 500 * time.Microsecond

// runner runs calls on a thread of its own, one at a time, while the goroutine that waits holds
// nothing.
type runner struct {
	thread *C.zarpa_runner
	ended  *os.File // gets a byte at the end of every run
	signal *os.File // where the thread writes it
	one    [1]byte
}

// newRunner starts a thread; nil when there is none to be had.
func newRunner() *runner {
	ended, signal, err := os.Pipe()
	if err != nil {
		return nil
	}
	r := &runner{ended: ended, signal: signal, thread: C.zarpa_runner_start(C.int(signal.Fd()))}
	if r.thread == nil {
		r.closePipe()
		return nil
	}
	return r
}

// run executes c and returns the native status. c's memory is read until then.
func (r *runner) run(c *call) unsafe.Pointer {
	C.zarpa_runner_submit(r.thread, c.lib.c, c.c)
	_, _ = r.ended.Read(r.one[:]) // without the byte, the next line waits
	return C.zarpa_runner_wait(r.thread)
}

// close ends the thread, which must not run anything.
func (r *runner) close() {
	C.zarpa_runner_stop(r.thread)
	r.closePipe()
}

func (r *runner) closePipe() {
	_ = r.ended.Close() // nothing was kept there
	_ = r.signal.Close()
}

// execute runs c, here or, where the session's runs are long, on a thread of the call's own.
func (s *session) execute(c *call) unsafe.Pointer {
	average := s.average.Load()
	if average >= int64(slowRun) && c.runner == nil {
		c.runner = newRunner()
	}
	began := time.Now()
	var status unsafe.Pointer
	if average >= int64(slowRun) && c.runner != nil {
		status = c.runner.run(c)
	} else {
		status = C.zarpa_run(s.lib.c, c.c)
	}
	s.average.Store((7*average + int64(time.Since(began))) / 8)
	return status
}
