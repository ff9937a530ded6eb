package registry

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// blobs is content by digest.
type blobs struct {
	dir string
	now func() time.Time
	// serial is held while content comes, goes or is found to be needed: between the look and the deed nothing changes.
	serial sync.Mutex
}

func openBlobs(o Options) (*blobs, error) {
	b := &blobs{dir: filepath.Join(o.Dir, "blobs"), now: o.Now}
	return b, os.MkdirAll(b.dir, 0o700)
}

func (b *blobs) path(hex string) string { return filepath.Join(b.dir, hex[:2], hex[2:]) }

// fresh is the age below which a blob's time is left as it is.
const fresh = time.Minute

// find fails unless the blob is there, and makes it young again: who asks is about to name it in a manifest,
// and the sweep spares what is young.
func (b *blobs) find(hex string) error {
	b.serial.Lock()
	defer b.serial.Unlock()
	return b.look(hex)
}

// look is find for who holds serial.
func (b *blobs) look(hex string) error {
	info, err := os.Stat(b.path(hex))
	if errors.Is(err, fs.ErrNotExist) {
		return fail(http.StatusNotFound, "BLOB_UNKNOWN", "the registry has no blob %s%s", digestPrefix, hex)
	}
	if err != nil {
		return err
	}
	if now := b.now(); now.Sub(info.ModTime()) > fresh {
		_ = os.Chtimes(b.path(hex), now, now) // on a read-only disk nothing is swept
	}
	return nil
}

// settle gives a synced file its name. Content that is there becomes young again.
func (b *blobs) settle(temp, hex string) error {
	b.serial.Lock()
	defer b.serial.Unlock()
	folder := filepath.Dir(b.path(hex))
	if err := os.Mkdir(folder, 0o700); err == nil {
		if err := syncFolder(b.dir); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	now := b.now()
	if err := errors.Join(os.Chmod(temp, 0o400), os.Chtimes(temp, now, now), os.Rename(temp, b.path(hex))); err != nil {
		return err
	}
	return syncFolder(folder)
}

// blob answers GET, HEAD and DELETE of one blob.
func (s *Server) blob(w http.ResponseWriter, r *http.Request, p place) error {
	hex, err := hexOf(p.id)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return s.sendBlob(w, r, hex)
	case http.MethodDelete:
		if err := s.deleteBlob(hex); err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return notAllowed(r)
}

func (s *Server) sendBlob(w http.ResponseWriter, r *http.Request, hex string) error {
	if err := s.blobs.find(hex); err != nil {
		return err
	}
	f, err := os.Open(s.blobs.path(hex))
	if errors.Is(err, fs.ErrNotExist) {
		return fail(http.StatusNotFound, "BLOB_UNKNOWN", "the registry has no blob %s%s", digestPrefix, hex)
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	h := w.Header()
	h.Set("Docker-Content-Digest", digestPrefix+hex)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Etag", `"`+digestPrefix+hex+`"`)
	h.Set("Cache-Control", "max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, f) // ranges and conditions, too
	return nil
}

// deleteBlob removes content that no manifest names.
func (s *Server) deleteBlob(hex string) error {
	s.blobs.serial.Lock()
	defer s.blobs.serial.Unlock()
	if repo, named := s.catalogue.named()[digestPrefix+hex]; named {
		return fail(http.StatusMethodNotAllowed, "UNSUPPORTED", "a manifest in %s names the blob: delete the manifest first", repo)
	}
	err := os.Remove(s.blobs.path(hex))
	if errors.Is(err, fs.ErrNotExist) {
		return fail(http.StatusNotFound, "BLOB_UNKNOWN", "the registry has no blob %s%s", digestPrefix, hex)
	}
	return err
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// temporary begins the names of files on their way in.
const temporary = ".tmp-"

// writeDurably writes a file so that after a crash it is whole, as it was, or absent.
func writeDurably(path string, content ...[]byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporary+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone after the rename
	for _, part := range content {
		if _, err = f.Write(part); err != nil {
			break
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}
