package gateway

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// LoadRoutes reads what [SaveRoutes] wrote. A file that is not there is no routes and no error:
// that is how a gateway begins.
func LoadRoutes(file string) (zarpa.Routes, error) {
	var r zarpa.Routes
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, zarpa.Errorf(zarpa.Unavailable, "routes file: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return zarpa.Routes{}, zarpa.Errorf(zarpa.Internal, "routes file %s: %w", file, err).
			WithHint("remove the file: the control plane writes it again")
	}
	return r, nil
}

// sweepRoutes removes what [SaveRoutes] left when its process was killed within it. Nobody may be
// writing the file meanwhile.
func sweepRoutes(file string) error {
	if file == "" {
		return nil
	}
	dir, base := filepath.Split(file)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+".") && strings.HasSuffix(e.Name(), temporary) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// temporary ends the names of files on their way in.
const temporary = ".tmp"

// SaveRoutes replaces file as one step: after a crash at any point it holds the old routes or the
// new ones, whole. Mode 0600, though it holds digests of keys only.
func SaveRoutes(file string, r zarpa.Routes) (err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return zarpa.Errorf(zarpa.Internal, "write routes: %w", err)
	}
	dir := filepath.Dir(file)
	tmp, err := os.CreateTemp(dir, filepath.Base(file)+".*"+temporary)
	if err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "write routes: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
			err = zarpa.Errorf(zarpa.Unavailable, "write routes: %w", err)
		}
	}()
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the rename itself durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
