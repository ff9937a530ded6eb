//go:build cgo

package onnx

// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"context"
	"sync"
	"sync/atomic"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inputs"
)

// maxIdleCalls bounds the calls kept for the next run; a burst above it allocates.
const maxIdleCalls = 64

// session is a model in memory.
type session struct {
	lib     *library
	native  *ort.DynamicAdvancedSession
	pointer unsafe.Pointer
	sig     zarpa.Signature
	checker *inputs.Checker
	// C strings in the order of the signature.
	inputNames, outputNames []*C.char

	destroy sync.Once
	idle    chan struct{} // closed when the session is closed and nothing runs
	average atomic.Int64  // nanoseconds of a run, of the last ones; what two runs write at a time may be lost

	mu      sync.Mutex // guards what follows
	closed  bool
	running int
	calls   []*call // not in use now
}

var _ zarpa.Session = (*session)(nil)

// newSession takes a native session over, unless it returns an error.
func newSession(lib *library, native *ort.DynamicAdvancedSession) (*session, error) {
	s := &session{lib: lib, native: native, pointer: sessionPointer(native), idle: make(chan struct{})}
	var err error
	if s.sig, err = readSignature(lib, s.pointer, native); err != nil {
		return nil, err
	}
	s.checker = inputs.New(s.sig)
	for _, v := range s.sig.Inputs {
		s.inputNames = append(s.inputNames, C.CString(v.Name))
	}
	for _, v := range s.sig.Outputs {
		s.outputNames = append(s.outputNames, C.CString(v.Name))
	}
	return s, nil
}

// Signature is the runtime's view: optional types and overridable initializers are Optional.
func (s *session) Signature() zarpa.Signature { return s.sig }

// Run executes the model as [zarpa.Session] says. An empty wanted wants all, as nil does. A model
// stops between two operators when ctx ends; until then Run waits, because native code reads the
// inputs.
func (s *session) Run(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, zarpa.AsError(err)
	}
	c, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release(c)
	if c.want, err = s.checker.Want(wanted, c.want); err != nil {
		return nil, err
	}
	if err := s.checker.Place(in, c.slots, c.seen); err != nil {
		return nil, err
	}
	if err := c.fill(s, in); err != nil {
		return nil, err
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, c.terminate)
		defer c.disarm(stop)
	}
	if _, text := s.lib.failure(s.execute(c)); text != "" {
		return nil, runError(ctx, text)
	}
	return c.results(s)
}

// runError says why a run failed: because its caller left, or else because of the model, the
// inputs having been checked.
func runError(ctx context.Context, text string) error {
	if err := ctx.Err(); err != nil {
		return zarpa.AsError(err)
	}
	return zarpa.Errorf(zarpa.ModelError, "the model failed: %s", text)
}

// acquire counts a run in and gives it a call.
func (s *session) acquire() (*call, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, zarpa.Errorf(zarpa.Unavailable, "the model was unloaded")
	}
	s.running++
	if n := len(s.calls); n > 0 {
		c := s.calls[n-1]
		s.calls = s.calls[:n-1]
		s.mu.Unlock()
		return c, nil
	}
	s.mu.Unlock()
	c, err := newCall(s)
	if err != nil {
		s.release(nil)
	}
	return c, err
}

// release counts a run out and keeps its call for the next one.
func (s *session) release(c *call) {
	if c != nil {
		c.reset(s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	switch {
	case c == nil:
	case len(s.calls) < maxIdleCalls && !c.broken:
		s.calls = append(s.calls, c)
	default:
		c.free(s)
	}
	if s.closed && s.running == 0 {
		close(s.idle)
	}
}

// Close waits for running calls and gives the memory back to the system.
func (s *session) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if s.running == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	<-s.idle
	var err error
	s.destroy.Do(func() {
		for _, c := range s.calls {
			c.free(s)
		}
		s.calls = nil
		err = s.native.Destroy()
		for _, name := range append(s.inputNames, s.outputNames...) {
			C.free(unsafe.Pointer(name))
		}
		C.zarpa_trim()
	})
	if err != nil {
		return zarpa.Errorf(zarpa.Internal, "ONNX Runtime: close the session: %w", err)
	}
	return nil
}
