// Package onnx runs ONNX models with ONNX Runtime, on the processor, inside this process. It is
// the only package that needs cgo: built without, its engine says so when it is asked to load.
//
// The binding github.com/yalue/onnxruntime_go opens the library, the environment and the sessions;
// native.c, through the same C API, does what the binding does not: values of every type, rank and
// size, absent values, dimension names, and one crossing into C for a whole run. A crash of native
// code ends the process: the scoring server is a process of its own for that reason.
package onnx

import "log/slog"

// Version is the ONNX Runtime release that ships beside the binary.
const Version = "1.27.0"

// Options are the settings of an [Engine].
type Options struct {
	// Library is the path of ONNX Runtime's shared library; empty looks beside the executable,
	// in its ../lib, and then in the system's usual places.
	Library string
	// Log is told once which library was opened; nil tells nobody.
	Log *slog.Logger
}
