//go:build cgo

package onnx

import (
	"debug/elf"
	"os"
	"path/filepath"
	"runtime"

	"github.com/zarpa-dev/zarpa"
)

const libraryHint = "put libonnxruntime.so." + Version + " beside the zarpa binary, or name the library in ZARPA_ONNXRUNTIME"

// find is the path of the library to open: the wanted one, or the first that exists in places, or
// a bare name that leaves the search to the system's loader.
func find(wanted string, places []string) (string, error) {
	if wanted != "" {
		if info, err := os.Stat(wanted); err != nil || info.IsDir() {
			return "", zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: no library at %s", wanted).WithHint(libraryHint)
		}
		return wanted, nil
	}
	for _, dir := range places {
		for _, name := range libraryNames() {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && !info.IsDir() {
				return path, nil
			}
		}
	}
	return libraryNames()[0], nil
}

func libraryNames() []string {
	if runtime.GOOS == "darwin" {
		return []string{"libonnxruntime.dylib", "libonnxruntime." + Version + ".dylib"}
	}
	return []string{"libonnxruntime.so", "libonnxruntime.so." + Version, "libonnxruntime.so.1"}
}

// places are the folders to search, nearest first.
func places() []string {
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dir := filepath.Dir(exe)
		dirs = append(dirs, dir, filepath.Join(dir, "..", "lib"))
	}
	return append(dirs, "/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/onnxruntime/lib", "/opt/homebrew/lib")
}

// unfit explains a library that the loader refused, where its header tells why; else nil.
func unfit(path string) error {
	f, err := os.Open(path)
	if err != nil || runtime.GOOS != "linux" {
		return nil
	}
	defer f.Close() //nolint:errcheck // was only read
	image, err := elf.NewFile(f)
	if err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s is not a shared library, or not all of it", path).
			WithHint(libraryHint).Because(err)
	}
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if want != 0 && image.Machine != want {
		return zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s is built for %s, and this machine is %s", path, image.Machine, want).
			WithHint(libraryHint)
	}
	return nil
}
