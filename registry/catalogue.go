package registry

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// catalogue is what is known of manifests and tags: on disk, and in memory what calls need of it.
type catalogue struct {
	dir string

	mu    sync.RWMutex // guards what follows; writers also hold blobs.serial, from their look at the blobs on
	repos map[string]*repository
}

type repository struct {
	manifests map[string]*description // by digest
	tags      map[string]string       // to digests
}

const (
	manifestsFolder = "_manifests" // no repository's name has such a part
	tagsFolder      = "_tags"
)

// openCatalogue reads all manifests. What a kill left half is removed; a tag of a manifest that is not there is, too.
func openCatalogue(ctx context.Context, o Options) (*catalogue, error) {
	c := &catalogue{dir: filepath.Join(o.Dir, "repos"), repos: map[string]*repository{}}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	var tags []string
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case d.IsDir():
			return nil
		case strings.HasPrefix(d.Name(), temporary):
			return os.Remove(path)
		case filepath.Base(filepath.Dir(path)) == tagsFolder:
			tags = append(tags, path)
			return nil
		}
		return c.load(o, path)
	})
	if err != nil {
		return nil, err
	}
	for _, path := range tags {
		if err := c.loadTag(path); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// repoOf is the repository whose folder of manifests or tags holds a file.
func (c *catalogue) repoOf(path string) string {
	rel, err := filepath.Rel(c.dir, filepath.Dir(filepath.Dir(path)))
	if err != nil {
		return ""
	}
	return filepath.ToSlash(rel)
}

// load reads a manifest. One that the disk damaged is left where it is, said in the log and not served.
func (c *catalogue) load(o Options, path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	media, raw, _ := bytes.Cut(content, []byte("\n"))
	d, err := describe(string(media), raw)
	if err != nil || d.digest != digestPrefix+filepath.Base(path) {
		o.Log.Error("a manifest of the registry is damaged", "path", path, "error", err)
		return nil
	}
	c.repository(c.repoOf(path)).manifests[d.digest] = d
	return nil
}

func (c *catalogue) loadTag(path string) error {
	digest, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	repo := c.repository(c.repoOf(path))
	if repo.manifests[string(digest)] == nil {
		return os.Remove(path)
	}
	repo.tags[filepath.Base(path)] = string(digest)
	return nil
}

// repository is that of a name, made when it is new. It needs mu.
func (c *catalogue) repository(name string) *repository {
	r := c.repos[name]
	if r == nil {
		r = &repository{manifests: map[string]*description{}, tags: map[string]string{}}
		c.repos[name] = r
	}
	return r
}

// find is the manifest that a tag or digest stands for; nil for none.
func (c *catalogue) find(repo, reference string) *description {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r := c.repos[repo]
	if r == nil {
		return nil
	}
	if digest, ok := r.tags[reference]; ok {
		reference = digest
	}
	return r.manifests[reference]
}

func (c *catalogue) manifestPath(repo, digest string) string {
	return filepath.Join(c.dir, filepath.FromSlash(repo), manifestsFolder, strings.TrimPrefix(digest, digestPrefix))
}

func (c *catalogue) tagPath(repo, tag string) string {
	return filepath.Join(c.dir, filepath.FromSlash(repo), tagsFolder, tag)
}

// read is the content of a manifest.
func (c *catalogue) read(repo string, d *description) ([]byte, error) {
	content, err := os.ReadFile(c.manifestPath(repo, d.digest))
	if err != nil {
		return nil, err
	}
	_, raw, _ := bytes.Cut(content, []byte("\n"))
	return raw, nil
}

// put stores a manifest, then the tag that stands for it, if any. The caller holds blobs.serial.
func (c *catalogue) put(p place, d *description, raw []byte) error {
	if c.find(p.repo, d.digest) == nil {
		path := c.manifestPath(p.repo, d.digest)
		if err := c.makeFolder(filepath.Dir(path)); err != nil {
			return err
		}
		if err := writeDurably(path, []byte(d.mediaType+"\n"), raw); err != nil {
			return err
		}
		c.mu.Lock()
		c.repository(p.repo).manifests[d.digest] = d
		c.mu.Unlock()
	}
	if p.id == d.digest {
		return nil
	}
	path := c.tagPath(p.repo, p.id)
	if err := c.makeFolder(filepath.Dir(path)); err != nil {
		return err
	}
	if err := writeDurably(path, []byte(d.digest)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.repository(p.repo).tags[p.id] = d.digest
	return nil
}

// makeFolder makes a folder and those above it, durably.
func (c *catalogue) makeFolder(folder string) error {
	err := os.Mkdir(folder, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err = c.makeFolder(filepath.Dir(folder)); err == nil {
			err = os.Mkdir(folder, 0o700)
		}
	}
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(folder))
}

// remove deletes a tag, or a manifest with all tags that stand for it; tags go first, so that none is ever
// left without its manifest. The caller holds blobs.serial.
func (c *catalogue) remove(p place, d *description) error {
	gone := []string{p.id}
	if p.id == d.digest {
		gone = nil
		c.mu.RLock()
		for tag, digest := range c.repos[p.repo].tags {
			if digest == d.digest {
				gone = append(gone, tag)
			}
		}
		c.mu.RUnlock()
	}
	for _, tag := range gone {
		if err := removeDurably(c.tagPath(p.repo, tag)); err != nil {
			return err
		}
		c.mu.Lock()
		delete(c.repos[p.repo].tags, tag)
		c.mu.Unlock()
	}
	if p.id == d.digest {
		if err := removeDurably(c.manifestPath(p.repo, d.digest)); err != nil {
			return err
		}
		c.mu.Lock()
		delete(c.repos[p.repo].manifests, d.digest)
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.repos[p.repo]; len(r.manifests) == 0 && len(r.tags) == 0 {
		delete(c.repos, p.repo)
	}
	return nil
}

func removeDurably(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// named are the blobs that manifests name, each with a repository where one does.
func (c *catalogue) named() map[string]string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := map[string]string{}
	for name, r := range c.repos {
		for _, d := range r.manifests {
			for _, blob := range d.blobs {
				all[blob] = name
			}
		}
	}
	return all
}
