// Package e2e proves the whole product from outside: the binary that users get, its processes,
// its data directory, and nothing of its insides but the client.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/zarpa-dev/zarpa/engine/onnx"
)

// The tests' own settings.
const (
	// binaryVariable names a zarpa binary to test; without it TestMain builds one.
	binaryVariable = "ZARPA_E2E_BINARY"
	// libraryVariable is the product's own: where ONNX Runtime is.
	libraryVariable = "ZARPA_ONNXRUNTIME"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(libraryVariable) == "" {
		if library, err := filepath.Abs(filepath.Join("..", "bin", "libonnxruntime.so."+onnx.Version)); err == nil {
			os.Setenv(libraryVariable, library)
		}
	}
	if os.Getenv(binaryVariable) != "" {
		return m.Run()
	}
	if _, err := os.Stat(os.Getenv(libraryVariable)); err != nil {
		return m.Run() // the tests skip themselves and say why
	}
	dir, err := os.MkdirTemp("", "zarpa-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "zarpa")
	build := exec.Command("go", "build", "-o", binary, "../cmd/zarpa")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build zarpa:", err)
		return 1
	}
	os.Setenv(binaryVariable, binary)
	return m.Run()
}

// needBinary is the binary under test. The test is skipped where replicas could not load a model.
func needBinary(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(os.Getenv(libraryVariable)); err != nil {
		t.Skipf("ONNX Runtime is not at %s: run make build, or set %s", os.Getenv(libraryVariable), libraryVariable)
	}
	return os.Getenv(binaryVariable)
}
