package registry

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Swept is what a sweep removed.
type Swept struct {
	Blobs, Uploads int
	Bytes          int64
}

// Sweep removes the blobs that no manifest names and the uploads that nobody goes on with, unless they were
// written or asked for after before. It may run beside pushes: what a client is about to name is young.
// Pushes wait for moments only.
func (s *Server) Sweep(ctx context.Context, before time.Time) (Swept, error) {
	var swept Swept
	err := filepath.WalkDir(s.blobs.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !d.IsDir() || path == s.blobs.dir {
			return nil
		}
		if err := s.sweepBlobs(path, before, &swept); err != nil {
			return err
		}
		return fs.SkipDir
	})
	return swept, errors.Join(err, s.sweepUploads(before, &swept))
}

// sweepBlobs removes those of one folder.
func (s *Server) sweepBlobs(folder string, before time.Time, swept *Swept) error {
	s.blobs.serial.Lock()
	defer s.blobs.serial.Unlock()
	named := s.catalogue.named()
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if _, needed := named[digestPrefix+filepath.Base(folder)+e.Name()]; needed || !info.ModTime().Before(before) {
			continue
		}
		if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
			return err
		}
		swept.Blobs++
		swept.Bytes += info.Size()
	}
	return nil
}

func (s *Server) sweepUploads(before time.Time, swept *Swept) error {
	entries, err := os.ReadDir(s.uploads.dir)
	if err != nil {
		return err
	}
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || s.uploads.busy[e.Name()] || err == nil && !info.ModTime().Before(before) {
			continue
		}
		if err == nil {
			err = os.Remove(s.uploads.path(e.Name()))
		}
		if err != nil {
			return err
		}
		delete(s.uploads.sums, e.Name())
		swept.Uploads++
		swept.Bytes += info.Size()
	}
	return nil
}
