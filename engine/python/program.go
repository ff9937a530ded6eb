package python

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed all:worker/zarpa_worker
var workerFiles embed.FS

// packageName is the Python package in the worker program.
const packageName = "zarpa_worker"

// writeProgram puts the worker program below dir, unless it is there, and returns the folder of the
// package. Several processes may do so at once: the whole appears with one rename.
func writeProgram(dir string) (string, error) {
	digest, err := programDigest()
	if err != nil {
		return "", err
	}
	home := filepath.Join(dir, "worker-"+digest)
	program := filepath.Join(home, packageName)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(dir, ".worker-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // gone when all went well
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	files, err := fs.Sub(workerFiles, "worker")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(fresh, pythonOnly{files}); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, home); err != nil {
		if _, there := os.Stat(program); there != nil {
			return "", err
		}
	}
	return program, nil
}

// pythonOnly hides what an interpreter left beside the sources.
type pythonOnly struct{ fs.FS }

// ReadDir leaves caches out.
func (p pythonOnly) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(p.FS, name)
	kept := entries[:0]
	for _, e := range entries {
		if e.Name() != "__pycache__" {
			kept = append(kept, e)
		}
	}
	return kept, err
}

// programDigest names the content of the worker program.
func programDigest() (string, error) {
	hash := sha256.New()
	err := fs.WalkDir(workerFiles, "worker", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == "__pycache__":
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		text, err := workerFiles.ReadFile(name)
		hash.Write([]byte(name + "\x00"))
		hash.Write(text)
		hash.Write([]byte{0})
		return err
	})
	return hex.EncodeToString(hash.Sum(nil)[:8]), err
}
