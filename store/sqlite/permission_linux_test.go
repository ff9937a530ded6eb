package sqlite

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// TestOpenSaysWhatMayNotBeWritten makes root an ordinary user for files, on this thread alone.
func TestOpenSaysWhatMayNotBeWritten(t *testing.T) { //nolint:paralleltest // it holds a thread
	dir := t.TempDir()
	path := filepath.Join(dir, "zarpa.db")
	_ = mustOpen(t, path).Close()
	if os.Geteuid() == 0 {
		runtime.LockOSThread() // never unlocked: the thread ends with the test
		if err := syscall.Setfsuid(65534); err != nil {
			t.Skipf("cannot give up root for files: %v", err)
		}
		defer syscall.Setfsuid(0)
	} else {
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(dir, 0o700)
	}
	_, err := Open(t.Context(), filepath.Join(dir, "new.db"))
	expectError(t, err, zarpa.Unavailable, "this user may write", dir)
	_, err = Open(t.Context(), path)
	expectError(t, err, zarpa.Unavailable, "this user may write", path)
}
