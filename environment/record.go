package environment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/zarpa-dev/zarpa"
)

const (
	recordFormat = 1
	idLength     = 16
	maxRecord    = 8 << 20 // bytes; ten thousand packages are less than one
)

// record is environment.json. Its file's time is when the environment was used last.
type record struct {
	Format int `json:"format"`
	// Dir is the environment's folder when it was built: one that was moved does not run.
	Dir string `json:"dir"`
	zarpa.Environment
}

func (c *Cache) folder(id string) string { return filepath.Join(c.opts.Dir, id) }
func (c *Cache) recordPath(id string) string {
	return filepath.Join(c.opts.Dir, id, "environment.json")
}
func (c *Cache) logPath(id string) string { return filepath.Join(c.opts.Dir, id, "build.log") }
func (c *Cache) prefix(id string) string  { return filepath.Join(c.opts.Dir, id, "venv") }
func (c *Cache) python(id string) string  { return filepath.Join(c.prefix(id), "bin", "python") }

// read reads a record. One that is not whole, or of another format or place, counts as none: the
// environment is built again.
func (c *Cache) read(id string) (record, error) {
	info, err := os.Stat(c.recordPath(id))
	if err != nil {
		return record{}, fmt.Errorf("read environment %s: %w", id, err)
	}
	if info.Size() > maxRecord {
		return record{}, fmt.Errorf("read environment %s: %w", id, fs.ErrNotExist)
	}
	b, err := os.ReadFile(c.recordPath(id))
	if err != nil {
		return record{}, fmt.Errorf("read environment %s: %w", id, err)
	}
	var r record
	if json.Unmarshal(b, &r) != nil || r.Format != recordFormat || r.ID != id || r.Dir != c.folder(id) {
		return record{}, fmt.Errorf("read environment %s: %w", id, fs.ErrNotExist)
	}
	r.Used = info.ModTime().UTC()
	return r, nil
}

// write puts a record in its place at once, durably.
func (c *Cache) write(r record) (err error) {
	r.Format, r.Dir = recordFormat, c.folder(r.ID)
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	temp := c.recordPath(r.ID) + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(temp, r.Used, r.Used); err != nil {
		return err
	}
	if err := os.Rename(temp, c.recordPath(r.ID)); err != nil {
		return err
	}
	return syncFolder(c.folder(r.ID))
}

// complete tells whether the interpreter of a ready environment is still there: it is a link to one
// of the machine, which may have been removed.
func (c *Cache) complete(r record) bool {
	info, err := os.Stat(c.python(r.ID))
	return err == nil && info.Mode().IsRegular()
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func validID(id string) bool {
	return len(id) == idLength && strings.Trim(id, "0123456789abcdef") == ""
}

func (c *Cache) check(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("environment %.40q: %w", id, err)
	}
	if !validID(id) {
		return zarpa.Errorf(zarpa.Invalid, "environment %.40q: not an identity of %d hexadecimal digits", id, idLength).
			WithHint("list the environments with: zarpa environment list")
	}
	return nil
}

func missing(id string) error {
	return zarpa.Errorf(zarpa.NotFound, "environment %q: there is none", id).WithHint("list the environments with: zarpa environment list")
}

// Get returns an environment in any phase; not_found when there is none.
func (c *Cache) Get(ctx context.Context, id string) (zarpa.Environment, error) {
	if err := c.check(ctx, id); err != nil {
		return zarpa.Environment{}, err
	}
	r, err := c.read(id)
	if err == nil {
		return r.Environment, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return zarpa.Environment{}, diskError("read environment "+id, err)
	}
	info, err := os.Stat(c.logPath(id))
	if err != nil || !c.locked(id) {
		return zarpa.Environment{}, missing(id) // or left behind by a crash
	}
	began := info.ModTime().UTC()
	return zarpa.Environment{ID: id, Phase: zarpa.EnvironmentBuilding, Created: began, Used: began}, nil
}

// List returns all environments, in any phase, the newest first.
func (c *Cache) List(ctx context.Context) ([]zarpa.Environment, error) {
	ids, err := c.ids()
	if err != nil {
		return nil, err
	}
	list := []zarpa.Environment{}
	for _, id := range ids {
		e, err := c.Get(ctx, id)
		if errors.Is(err, zarpa.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b zarpa.Environment) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// ids are the folders of environments, whole or not, in order.
func (c *Cache) ids() ([]string, error) {
	entries, err := os.ReadDir(c.opts.Dir)
	if err != nil {
		return nil, diskError("list the environments", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && validID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Python is the path of a ready environment's interpreter. not_found when there is no such
// environment, unavailable when it is not ready or the interpreter that it was made of is gone.
func (c *Cache) Python(id string) (string, error) {
	if err := c.check(context.Background(), id); err != nil { // nothing in it waits
		return "", err
	}
	r, err := c.read(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", missing(id)
	case err != nil:
		return "", diskError("read environment "+id, err)
	case r.Phase != zarpa.EnvironmentReady:
		return "", zarpa.Errorf(zarpa.Unavailable, "environment %s: it is not ready but %s", id, r.Phase)
	case !c.complete(r):
		return "", zarpa.Errorf(zarpa.Unavailable, "environment %s: the Python %s that it was made of is gone", id, r.Python).
			WithHint("deploy again, which builds it again")
	}
	return c.python(id), nil
}

// diskError names a failure of the machine's files. A full disk and a missing right are told to the
// user; the rest is a defect or a broken machine.
func diskError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return zarpa.Errorf(zarpa.Unavailable, "%s: no space left on the disk", doing).
			WithHint("make room, for example with: zarpa environment prune").Because(err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return zarpa.Errorf(zarpa.Unavailable, "%s: not allowed", doing).
			WithHint("give the user that runs zarpa the right to write there").Because(err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
