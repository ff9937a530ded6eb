package gateway

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

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

// SaveRoutes replaces file as one step: after a crash at any point it holds the old routes or the
// new ones, whole. Mode 0600, though it holds digests of keys only.
func SaveRoutes(file string, r zarpa.Routes) (err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return zarpa.Errorf(zarpa.Internal, "write routes: %w", err)
	}
	dir := filepath.Dir(file)
	tmp, err := os.CreateTemp(dir, filepath.Base(file)+".*.tmp")
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
