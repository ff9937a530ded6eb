package child

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	recordVersion = 1
	recordName    = "run.json"
	maxRecord     = 1 << 20
)

// record is what is kept on disk about one run. It is written twice: before the process is
// started (PID 0: the intent) and after.
type record struct {
	Version    int       `json:"version"`
	Label      string    `json:"label"`
	PID        int       `json:"pid,omitempty"`
	StartTicks uint64    `json:"start_ticks,omitempty"` // field 22 of /proc/PID/stat
	Boot       string    `json:"boot"`
	Started    time.Time `json:"started"`
	Socket     string    `json:"socket,omitempty"`
	Log        Log       `json:"log"`
	Limits     Limits    `json:"limits"`
	Cgroups    []string  `json:"cgroups,omitempty"`
	Enforced   []string  `json:"enforced,omitempty"`
}

func (r record) write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", r.Label, err)
	}
	return WriteFile(filepath.Join(dir, recordName), b)
}

// readRecord answers fs.ErrNotExist when there is none, or none that can be read: a torn record
// can only come from a power failure, which no process survives.
func readRecord(dir string) (record, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return record{}, fmt.Errorf("read the record of a run: %w", err)
	}
	return parseRecord(b)
}

func parseRecord(b []byte) (record, error) {
	var r record
	if len(b) > maxRecord {
		return r, fmt.Errorf("record of a run: %d bytes, %d allowed: %w", len(b), maxRecord, fs.ErrNotExist)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("record of a run: %w: %w", err, fs.ErrNotExist)
	}
	if r.Version > recordVersion {
		return record{}, fmt.Errorf("record of a run: version %d is newer than %d", r.Version, recordVersion)
	}
	if r.Version < 1 || r.Label == "" || r.PID < 0 {
		return record{}, fmt.Errorf("record of a run: incomplete: %w", fs.ErrNotExist)
	}
	return r, nil
}

func removeRecord(dir string) error {
	err := os.Remove(filepath.Join(dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// temporary is the pattern of the names of files on their way in.
const temporary = ".tmp-*"

// SweepFiles removes what [WriteFile] left in directories when its process was killed within it.
// Nobody may write there meanwhile: the caller holds the lock of the data directory they are in.
func SweepFiles(dirs ...string) error {
	for _, dir := range dirs {
		left, err := fs.Glob(os.DirFS(dir), temporary)
		if err != nil {
			return fmt.Errorf("sweep %s: %w", dir, err)
		}
		for _, name := range left {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("sweep %s: %w", dir, err)
			}
		}
	}
	return nil
}

// WriteFile replaces a file so that a crash leaves the old content or the new, readable by the
// owner alone.
func WriteFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporary)
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
