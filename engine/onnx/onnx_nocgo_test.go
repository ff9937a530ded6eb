//go:build !cgo

package onnx_test

import (
	"errors"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/onnx"
)

func TestABuildWithoutEngineSaysSo(t *testing.T) {
	t.Parallel()
	_, err := onnx.New(onnx.Options{}).Load(t.Context(), t.TempDir(), zarpa.LoadOptions{})
	var e *zarpa.Error
	if !errors.As(err, &e) || e.Code != zarpa.Unavailable || e.Hint == "" {
		t.Errorf("got %v", err)
	}
}
