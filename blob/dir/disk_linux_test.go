package dir_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// smallDisk is a file system of 512 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("needs a small disk, and may not mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestFullDiskSaysSoAndLeavesNothing(t *testing.T) {
	t.Parallel()
	root := smallDisk(t)
	b := open(t, root)
	_, err := b.Put(t.Context(), strings.NewReader(strings.Repeat("x", 1<<20)))
	expect(t, err, zarpa.Unavailable, "disk full")
	if n := temporary(t, root); n != 0 {
		t.Fatalf("%d files are left in tmp", n)
	}
	put(t, b, "small") // there is room again
}

func TestLinkCopiesToAnotherDisk(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir())
	other := smallDisk(t)
	dst := filepath.Join(other, "model.onnx")
	digest := put(t, b, "hello")
	if err := b.Link(t.Context(), digest, dst); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	big := put(t, b, strings.Repeat("x", 1<<20))
	expect(t, b.Link(t.Context(), big, dst+"2"), zarpa.Unavailable, "disk full")
	if _, err := os.Stat(dst + "2"); !os.IsNotExist(err) {
		t.Fatalf("half a copy is left: %v", err)
	}
}
