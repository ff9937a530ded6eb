//go:build cgo

package onnx

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

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

// Library is the path of the library that an engine with these options would open; unavailable when none is
// there but, perhaps, where the system's loader looks.
func Library(wanted string) (string, error) {
	path, err := find(wanted, places())
	if err == nil && !filepath.IsAbs(path) && wanted == "" {
		return "", zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: its library is not there").WithHint(libraryHint)
	}
	return path, err
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
	info, err := f.Stat()
	head := make([]byte, 64)
	if _, short := io.ReadFull(f, head); err != nil || short != nil || string(head[:4]) != elfMagic || sections(head) > info.Size() {
		return zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s is not a shared library, or not all of it", path).
			WithHint(libraryHint).Because(err)
	}
	machine := binary.LittleEndian.Uint16(head[18:])
	if want := map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH]; want != 0 && machine != want {
		return zarpa.Errorf(zarpa.Unavailable, "ONNX Runtime: %s is built for %s, and this machine is %s", path, machineName(machine), machineName(want)).
			WithHint(libraryHint)
	}
	return nil
}

// elfMagic begins a library of Linux. The header is read by hand: debug/elf would make a replica's program
// larger by a fiftieth.
const elfMagic = "\x7fELF"

// sections is where the table of sections begins, which stands at a file's end: one that was cut short ends
// before.
func sections(head []byte) int64 { return int64(binary.LittleEndian.Uint64(head[40:])) }

// machineName is the name of a machine that an ELF file is for, where it is one of the usual.
func machineName(number uint16) string {
	names := map[uint16]string{3: "EM_386", 21: "EM_PPC64", 22: "EM_S390", 40: "EM_ARM", 62: "EM_X86_64", 183: "EM_AARCH64", 243: "EM_RISCV"}
	if name := names[number]; name != "" {
		return name
	}
	return "machine " + strconv.Itoa(int(number))
}
