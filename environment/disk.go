package environment

import (
	"io/fs"
	"syscall"
)

// fileKey names a file among those of a machine.
type fileKey struct{ device, inode uint64 }

// keyOf is the key of a file, and whether it has several names.
func keyOf(info fs.FileInfo) (fileKey, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileKey{}, false
	}
	return fileKey{uint64(st.Dev), uint64(st.Ino)}, st.Nlink > 1 //nolint:unconvert // Dev is signed on Darwin
}
