//go:build !cgo

package onnx

import (
	"context"

	"github.com/zarpa-dev/zarpa"
)

// Engine is the engine of a build that has none: every Load is an unavailable error.
type Engine struct{}

var _ zarpa.Engine = (*Engine)(nil)

// New returns an engine that can load nothing.
func New(Options) *Engine { return &Engine{} }

// Load says that this build cannot.
func (*Engine) Load(context.Context, string, zarpa.LoadOptions) (zarpa.Session, error) {
	return nil, zarpa.Errorf(zarpa.Unavailable, "this build of zarpa has no ONNX engine").
		WithHint("use a release for this system, or build with CGO_ENABLED=1 and a C compiler")
}

// Close has nothing to close.
func (*Engine) Close() error { return nil }

// Library fails: this binary cannot use one.
func Library(string) (string, error) {
	return "", zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: this zarpa was built without cgo").WithHint("use a release, or build with cgo")
}
