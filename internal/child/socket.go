package child

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxSocketPath is the longest path of a Unix socket that works everywhere: the kernels allow 104 to
// 108 bytes with a zero at the end, and some room is kept.
const maxSocketPath = 100

// SocketDir makes the directory for the sockets of the children kept in stateDir, and returns
// its path: stateDir/s when a socket in it, whose name has at most nameLen bytes, has a path
// short enough, else a directory that is this user's alone below the one for temporary files.
// The answer is the same every time.
func SocketDir(stateDir string, nameLen int) (string, error) {
	dir := filepath.Join(stateDir, "s")
	if len(dir)+1+nameLen < maxSocketPath {
		return dir, ownDir(dir)
	}
	sum := sha256.Sum256([]byte(stateDir))
	name := fmt.Sprintf("zarpa-%d-%s", os.Getuid(), hex.EncodeToString(sum[:6]))
	dir = filepath.Join(os.TempDir(), name)
	if len(dir)+1+nameLen >= maxSocketPath {
		dir = filepath.Join("/tmp", name)
	}
	return dir, ownDir(dir)
}

// ownDir makes a directory that nobody else can have prepared.
func ownDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		if err != nil {
			return fmt.Errorf("make a directory for sockets: %w", err)
		}
		return nil
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the directory for sockets: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("directory for sockets %s: it is not this user's alone (mode 0700)", dir)
	}
	return nil
}
