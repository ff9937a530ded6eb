package environment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// lockEvery is how often one who waits looks at the lock and at the log: soon enough for a person.
const lockEvery = 100 * time.Millisecond

// held is a lock on one identity. It is an open file, so that it ends with the last process that has
// it: the tools of a build inherit it, and nobody builds in their folder while they live.
type held struct{ file *os.File }

// release gives the lock back. Its file is left: removing it would part those who wait for it.
func (h held) release() { _ = h.file.Close() }

func (c *Cache) lockPath(id string) string { return filepath.Join(c.opts.Dir, "locks", id+".lock") }

// tryLock takes the lock of an identity, or says that somebody else has it.
func (c *Cache) tryLock(id string) (h held, ok bool, err error) {
	f, err := os.OpenFile(c.lockPath(id), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return held{}, false, diskError("lock environment "+id, err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return held{f}, true, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return held{}, false, nil
	}
	return held{}, false, diskError("lock environment "+id, os.NewSyscallError("flock", err))
}

// lock waits for the lock of an identity and meanwhile follows the log of the build that has it.
func (c *Cache) lock(ctx context.Context, id string, progress func(string)) (held, error) {
	var log follower
	defer log.close()
	for {
		h, ok, err := c.tryLock(id)
		if err != nil {
			return held{}, err
		}
		if log.path != "" || !ok {
			log.path = c.logPath(id)
			log.read(progress)
		}
		if ok {
			return h, nil
		}
		select {
		case <-ctx.Done():
			return held{}, fmt.Errorf("wait for environment %s: %w", id, ctx.Err())
		case <-time.After(lockEvery):
		}
	}
}

// locked tells whether somebody builds or removes an environment now. It asks for a shared lock, so
// that those who ask do not see each other; one who waits to build may have to look once more.
func (c *Cache) locked(id string) bool {
	f, err := os.Open(c.lockPath(id))
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // was only read
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return errors.Is(err, syscall.EWOULDBLOCK)
}

// Remove deletes an environment with its log, in any phase but building. What runs in it breaks: the
// caller knows that nothing does. not_found when there is none, conflict while it is built.
func (c *Cache) Remove(ctx context.Context, id string) error {
	if err := c.check(ctx, id); err != nil {
		return err
	}
	if _, err := os.Stat(c.folder(id)); errors.Is(err, fs.ErrNotExist) {
		return missing(id)
	}
	h, ok, err := c.tryLock(id)
	if err != nil {
		return err
	}
	if !ok {
		return zarpa.Errorf(zarpa.Conflict, "environment %s: it is being built", id).WithHint("wait for the build, or cancel it")
	}
	defer h.release()
	return c.remove(id)
}

// remove deletes the folder of an environment whose lock is held, the record first: what a crash
// leaves is no environment. It is no error where there is nothing.
func (c *Cache) remove(id string) error {
	if _, err := os.Lstat(c.folder(id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Remove(c.recordPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError("remove environment "+id, err)
	}
	if err := os.RemoveAll(c.folder(id)); err != nil {
		return diskError("remove environment "+id, err)
	}
	c.opts.Log.Info("environment removed", "environment", id)
	return nil
}

// Sweep removes the environments that are not in keep and were last used before a time, and what
// builds that were cut off left behind. It returns their identities, also those before an error.
// What is being built stays.
func (c *Cache) Sweep(ctx context.Context, keep map[string]bool, before time.Time) ([]string, error) {
	return c.sweep(ctx, func(id string, r record, there bool) bool {
		return !there || !keep[id] && r.Used.Before(before)
	})
}

// sweep removes the folders that unwanted chooses; there says whether a folder has a record.
func (c *Cache) sweep(ctx context.Context, unwanted func(id string, r record, there bool) bool) (removed []string, err error) {
	ids, err := c.ids()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return removed, fmt.Errorf("sweep the environments: %w", err)
		}
		gone, err := c.sweepOne(id, unwanted)
		if err != nil {
			return removed, err
		}
		if gone {
			removed = append(removed, id)
		}
	}
	return removed, nil
}

func (c *Cache) sweepOne(id string, unwanted func(id string, r record, there bool) bool) (bool, error) {
	h, ok, err := c.tryLock(id)
	if err != nil || !ok {
		return false, err // it is being built
	}
	defer h.release()
	r, err := c.read(id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, diskError("sweep environment "+id, err)
	}
	if !unwanted(id, r, err == nil) {
		return false, nil
	}
	return true, c.remove(id)
}
