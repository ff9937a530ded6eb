//go:build cgo

package onnx

import "github.com/zarpa-dev/zarpa"

// Runners is how many of a session's idle calls have threads of their own.
func Runners(s zarpa.Session) int {
	own := s.(*session)
	own.mu.Lock()
	defer own.mu.Unlock()
	n := 0
	for _, c := range own.calls {
		if c.runner != nil {
			n++
		}
	}
	return n
}

// BreakRunners closes the pipes over which the threads of idle calls tell that they have ended.
func BreakRunners(s zarpa.Session) {
	own := s.(*session)
	own.mu.Lock()
	defer own.mu.Unlock()
	for _, c := range own.calls {
		if c.runner != nil {
			_ = c.runner.ended.Close()
		}
	}
}
