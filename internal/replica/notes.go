package replica

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/child"
)

// noteVersion is of both kinds of notes. A note of a newer version is an error: nothing that it
// tells of may be lost by an older program.
const noteVersion = 1

// wish is the note of one deployment: what the last Apply asked for.
type wish struct {
	Version    int              `json:"version"`
	Deployment zarpa.Deployment `json:"deployment"`
	Removed    bool             `json:"removed,omitempty"`
}

// note is the note of one replica.
type note struct {
	Version    int              `json:"version"`
	ID         string           `json:"id"`
	Ordinal    int              `json:"ordinal"`
	Deployment zarpa.Deployment `json:"deployment"`
	Runs       int              `json:"runs"`   // started so far
	Deaths     int              `json:"deaths"` // in a row
	Last       *zarpa.Exit      `json:"last,omitempty"`
	Next       time.Time        `json:"next,omitzero"` // of a replica in backoff
	Ready      bool             `json:"ready,omitempty"`
	Loaded     zarpa.Duration   `json:"loaded,omitempty"`
	Stopping   bool             `json:"stopping,omitempty"`
	Replace    bool             `json:"replace,omitempty"` // by another one, that is ready before it goes
}

// notes keep all of a set in a directory:
//
//	deployments/ENDPOINT@DEPLOYMENT-DIGEST.json   wish
//	replicas/ID/replica.json                      note, beside what the runner keeps
//
// With an empty dir nothing is kept.
type notes struct{ dir string }

func (n notes) open() error {
	if n.dir == "" {
		return nil
	}
	for _, dir := range []string{n.dir, n.wishes(), n.replicas()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the state directory: %w", err)
		}
	}
	return child.SweepFiles(n.wishes())
}

// Abandon forgets all that a directory tells of deployments and replicas; no set may have it open.
func Abandon(dir string) error {
	n := notes{dir: dir}
	return errors.Join(os.RemoveAll(n.wishes()), os.RemoveAll(n.replicas()))
}

func (n notes) wishes() string   { return filepath.Join(n.dir, "deployments") }
func (n notes) replicas() string { return filepath.Join(n.dir, "replicas") }

// wishPath ends in a digest of the key: some file systems take Iris and iris for one.
func (n notes) wishPath(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(n.wishes(), strings.ReplaceAll(key, "/", "@")+"-"+hex.EncodeToString(sum[:4])+".json")
}

func (n notes) saveWish(w wish) error {
	if n.dir == "" {
		return nil
	}
	w.Version, w.Deployment.Handle = noteVersion, zarpa.Handle{}
	return save(n.wishPath(w.Deployment.Key()), w)
}

func (n notes) forgetWish(key string) error {
	if n.dir == "" {
		return nil
	}
	if err := os.Remove(n.wishPath(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (n notes) replicaDir(id string) string {
	if n.dir == "" {
		return ""
	}
	return filepath.Join(n.replicas(), id)
}

// claim makes a replica's directory; fs.ErrExist when the ID is taken.
func (n notes) claim(id string) error {
	if n.dir == "" {
		return nil
	}
	return os.Mkdir(n.replicaDir(id), 0o700)
}

func (n notes) save(v note) error {
	if n.dir == "" {
		return nil
	}
	v.Version, v.Deployment.Handle = noteVersion, zarpa.Handle{}
	return save(filepath.Join(n.replicaDir(v.ID), "replica.json"), v)
}

func (n notes) forget(id string) error {
	if n.dir == "" {
		return nil
	}
	return os.RemoveAll(n.replicaDir(id))
}

func save(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return child.WriteFile(path, b)
}

// load reads everything. A replica's directory without a note is one that died being made: it
// never ran, and it is removed.
func (n notes) load() ([]wish, []note, error) {
	if n.dir == "" {
		return nil, nil, nil
	}
	var wishes []wish
	names, err := fs.Glob(os.DirFS(n.wishes()), "*.json")
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		var w wish
		if err := read(filepath.Join(n.wishes(), name), &w, &w.Version); err != nil {
			return nil, nil, err
		}
		wishes = append(wishes, w)
	}
	entries, err := os.ReadDir(n.replicas())
	if err != nil {
		return nil, nil, fmt.Errorf("read the state directory: %w", err)
	}
	var replicas []note
	for _, e := range entries {
		if err := child.SweepFiles(n.replicaDir(e.Name())); err != nil {
			return nil, nil, err
		}
		var v note
		err := read(filepath.Join(n.replicas(), e.Name(), "replica.json"), &v, &v.Version)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = os.RemoveAll(filepath.Join(n.replicas(), e.Name()))
		case err == nil && v.ID == e.Name():
			replicas = append(replicas, v)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return wishes, replicas, nil
}

func read(path string, v any, version *int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return zarpa.Errorf(zarpa.Internal, "state file %s is damaged: %v", path, err).
			WithHint("stop what runs, move the file away and start again")
	}
	if *version > noteVersion {
		return zarpa.Errorf(zarpa.Invalid, "state file %s is of version %d, this program knows %d", path, *version, noteVersion).
			WithHint("run the newer version of zarpa that wrote it")
	}
	return nil
}
