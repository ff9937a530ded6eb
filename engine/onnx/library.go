//go:build cgo

package onnx

// #cgo CFLAGS: -O2
// #cgo LDFLAGS: -ldl
// #cgo nocallback zarpa_run
// #cgo noescape zarpa_run
// #cgo nocallback zarpa_release
// #cgo noescape zarpa_release
// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/zarpa-dev/zarpa"
)

// library is an opened ONNX Runtime. It is never closed: the environment belongs to the process.
type library struct {
	path    string
	version string
	c       *C.zarpa_library // in C memory
}

// process holds the one library of this process. It is a package variable because the runtime's
// environment, and the binding's state, are: there is one, whoever asks.
var process struct {
	mu  sync.Mutex
	lib *library
}

// open gives the process's library, opening it the first time.
func open(path string, log *slog.Logger) (*library, error) {
	process.mu.Lock()
	defer process.mu.Unlock()
	if lib := process.lib; lib != nil {
		if lib.path != path {
			if err := unfit(path); err != nil {
				return nil, err
			}
			return nil, zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: this process already uses %s, and cannot use %s too", lib.path, path)
		}
		return lib, nil
	}
	lib, err := probe(path)
	if err != nil {
		return nil, err
	}
	ort.SetSharedLibraryPath(path)
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		return nil, zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s does not start: %w", path, innermost(err)).WithHint(libraryHint)
	}
	if _, text := lib.failure(C.zarpa_prepare(lib.c)); text != "" {
		return nil, zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s does not start: %s", path, text).WithHint(libraryHint)
	}
	process.lib = lib
	if log != nil {
		log.Info("onnx runtime opened", "library", path, "version", lib.version)
	}
	return lib, nil
}

// probe opens the library and checks that it is ONNX Runtime and new enough.
func probe(path string) (*library, error) {
	lib := &library{path: path, c: (*C.zarpa_library)(C.calloc(1, C.sizeof_zarpa_library))}
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	var text [512]C.char
	failed := C.zarpa_open(cpath, lib.c, &text[0], C.size_t(len(text)))
	if failed == 0 {
		lib.version = C.GoString(lib.c.version)
		return lib, nil
	}
	C.free(unsafe.Pointer(lib.c))
	reason := C.GoString(&text[0])
	switch failed {
	case 1:
		if err := unfit(path); err != nil {
			return nil, err
		}
		if !strings.Contains(path, "/") {
			return nil, zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: no library found").WithHint(libraryHint).Because(errors.New(reason))
		}
		return nil, zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s does not open: %s", path, reason).WithHint(libraryHint)
	case 2:
		return nil, zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s is another library", path).WithHint(libraryHint)
	default:
		return nil, zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s is version %s, too old: 1.24 or later is needed (C API 24)", path, reason).
			WithHint(libraryHint)
	}
}

// failure reads and frees a native status: its code and text, 0 and "" for success.
func (l *library) failure(status unsafe.Pointer) (int, string) {
	if status == nil {
		return 0, ""
	}
	code := int(C.zarpa_status_code(l.c, status))
	text := strings.TrimSpace(C.GoString(C.zarpa_status_text(l.c, status)))
	C.zarpa_status_release(l.c, status)
	if text == "" {
		text = "no reason given"
	}
	return code, bounded(text)
}

// check makes an internal error of a status that valid use does not give.
func (l *library) check(status unsafe.Pointer) error {
	if code, text := l.failure(status); text != "" {
		return zarpa.Errorf(zarpa.Internal, "ONNX Runtime: %s (code %d)", text, code)
	}
	return nil
}

// bounded keeps the runtime's text to one line of a readable length.
func bounded(text string) string {
	const most = 600
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// innermost is the cause at the end of a chain: the runtime's own words.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
