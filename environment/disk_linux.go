package environment

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// settleDisk makes what was written in a folder durable: an environment that is said to be ready is
// whole after a loss of power.
func settleDisk(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))), f.Close())
}
