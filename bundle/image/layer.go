package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zarpa-dev/zarpa"
)

// made is the time of all that is in a layer: zip files, which some Python packages write, know none
// before 1980.
var made = time.Date(1980, 1, 2, 0, 0, 0, 0, time.UTC)

// entry is a file, a link or a folder of a layer.
type entry struct {
	name string // its path in the image, without the first slash
	mode int64
	link string // where a symbolic link leads
	dir  bool
	size int64
	open func() (io.ReadCloser, error)
}

// fileOf is a file that is not to be executed.
func fileOf(name string, data []byte) entry {
	return entry{name: name, mode: 0o644, size: int64(len(data)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// fromDisk is a file of this machine, read through links.
func fromDisk(name, disk string) (entry, error) {
	info, err := os.Stat(disk)
	if err != nil {
		return entry{}, unreadable(disk, err)
	}
	if !info.Mode().IsRegular() {
		return entry{}, zarpa.Errorf(zarpa.Invalid, "%s: is not a regular file", disk)
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return entry{name: name, mode: mode, size: info.Size(), open: func() (io.ReadCloser, error) { return os.Open(disk) }}, nil
}

func unreadable(disk string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return zarpa.Errorf(zarpa.NotFound, "%s: there is no such file", disk).Because(err)
	}
	return zarpa.Errorf(zarpa.Invalid, "%s: cannot be read: %w", disk, err).WithHint("check its permissions")
}

// recipe makes a layer, where the cache does not have it.
type recipe struct {
	kind string
	key  string // of all that decides the content
	make func(ctx context.Context) ([]entry, []Library, error)
	fast bool // what hardly compresses: models
	bare bool // not compressed, though wrapped as if it were
}

// level is how hard it is compressed.
func (r recipe) level() int {
	switch {
	case r.bare:
		return gzip.NoCompression
	case r.fast:
		return gzip.BestSpeed
	}
	return gzip.DefaultCompression
}

// note is what the cache knows of a layer, beside its file.
type note struct {
	Kind      string    `json:"kind"`
	Digest    string    `json:"digest"`
	DiffID    string    `json:"diff_id"`
	Size      int64     `json:"size"`
	Unpacked  int64     `json:"unpacked"`
	Libraries []Library `json:"libraries,omitempty"`
}

// layer is a compressed layer in a file of the cache.
type layer struct {
	path      string
	note      note
	digest    v1.Hash
	diffID    v1.Hash
	mediaType types.MediaType
}

var _ v1.Layer = (*layer)(nil)

func (l *layer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.diffID, nil }
func (l *layer) Size() (int64, error)                 { return l.note.Size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return l.mediaType, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return unzip(l.path) }

type unzipped struct {
	*gzip.Reader

	file *os.File
}

func (u unzipped) Close() error { return errors.Join(u.Reader.Close(), u.file.Close()) }

func unzip(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return unzipped{z, f}, nil
}

// generation stands in the keys of the cache: another one whenever layers are made in another way.
const generation = "1"

// cache keeps compressed layers, each in DIR/KEY.tar.gz with a note in DIR/KEY.json, which is written
// last. Several processes may share it.
type cache struct{ dir string }

func (c cache) layer(ctx context.Context, r recipe) (*layer, error) {
	version := generation
	if r.bare {
		version += " bare"
	}
	sum := sha256.Sum256([]byte(version + "\x00" + r.kind + "\x00" + r.key))
	base := filepath.Join(c.dir, hex.EncodeToString(sum[:16]))
	if l := c.open(base); l != nil {
		return l, nil
	}
	entries, libraries, err := r.make(ctx)
	if err != nil {
		return nil, err
	}
	if entries, err = ordered(entries); err != nil {
		return nil, fmt.Errorf("layer %s: %w", r.kind, err)
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, diskError(c.dir, err)
	}
	n := note{Kind: r.kind, Libraries: libraries}
	temp, err := os.CreateTemp(c.dir, ".layer-")
	if err != nil {
		return nil, diskError(c.dir, err)
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // it has another name by then, or is to go
	err = n.write(ctx, temp, r, entries)
	if err = errors.Join(err, temp.Close()); err != nil {
		return nil, fmt.Errorf("layer %s: %w", r.kind, diskError(c.dir, err))
	}
	text, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(temp.Name(), base+".tar.gz"); err != nil {
		return nil, diskError(c.dir, err)
	}
	if err := writeWhole(base+".json", text); err != nil {
		return nil, diskError(c.dir, err)
	}
	if l := c.open(base); l != nil {
		return l, nil
	}
	return nil, zarpa.Errorf(zarpa.Conflict, "layers %s: somebody removes what is written", c.dir)
}

// writeWhole puts a small file in its place at once.
func writeWhole(to string, text []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(to), ".note-")
	if err != nil {
		return err
	}
	_, err = temp.Write(text)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// open is a layer that is there in full, else nil. It counts as used now.
func (c cache) open(base string) *layer {
	text, err := os.ReadFile(base + ".json")
	if err != nil {
		return nil
	}
	l := &layer{path: base + ".tar.gz", mediaType: types.OCILayer}
	info, err := os.Stat(l.path)
	if err != nil || json.Unmarshal(text, &l.note) != nil || info.Size() != l.note.Size {
		return nil
	}
	var wrong [2]error
	l.digest, wrong[0] = v1.NewHash(l.note.Digest)
	l.diffID, wrong[1] = v1.NewHash(l.note.DiffID)
	if errors.Join(wrong[:]...) != nil {
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(base+".json", now, now) // only for Sweep, which spares what is young
	return l
}

// Sweep removes the layers of a cache that were not used since before, and what unfinished writes left
// there. It returns how many bytes that freed. A layer that goes is made again when it is needed.
func Sweep(dir string, before time.Time) (int64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, diskError(dir, err)
	}
	var freed int64
	var failed error
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		age := name
		if base, ok := strings.CutSuffix(name, ".tar.gz"); ok {
			age = base + ".json"
		}
		info, err := os.Stat(age)
		if err != nil {
			info, err = os.Stat(name)
		}
		if err != nil || !info.ModTime().Before(before) {
			continue
		}
		if own, err := os.Stat(name); err == nil {
			freed += own.Size()
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, diskError(name, err))
		}
	}
	return freed, failed
}

// ordered adds the folders around the entries, and puts all in order. Equal paths are refused: engines
// do not load them.
func ordered(entries []entry) ([]entry, error) {
	all := make(map[string]entry, len(entries))
	for _, e := range entries {
		if was, there := all[e.name]; there && (!was.dir || !e.dir) {
			return nil, zarpa.Errorf(zarpa.Internal, "%q would be there twice", e.name)
		}
		all[e.name] = e
	}
	for _, e := range entries {
		for at := path.Dir(e.name); at != "."; at = path.Dir(at) {
			if was, there := all[at]; !there {
				all[at] = entry{name: at, mode: 0o755, dir: true}
			} else if !was.dir {
				return nil, zarpa.Errorf(zarpa.Internal, "%q is a file and a folder", at)
			}
		}
	}
	out := make([]entry, 0, len(all))
	for _, e := range all {
		out = append(out, e)
	}
	slices.SortFunc(out, func(x, y entry) int { return strings.Compare(x.name, y.name) })
	return out, nil
}

// counted counts and digests what goes through it.
type counted struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	return n, err
}

// write writes a layer: the same entries give the same bytes.
func (n *note) write(ctx context.Context, w io.Writer, r recipe, entries []entry) error {
	packed := &counted{w: w, sum: sha256.New()}
	zip, err := gzip.NewWriterLevel(packed, r.level())
	if err != nil {
		return err
	}
	plain := &counted{w: zip, sum: sha256.New()}
	if err := writeTar(ctx, plain, entries); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	for _, e := range entries {
		n.Unpacked += e.size
	}
	n.Size = packed.n
	n.Digest = "sha256:" + hex.EncodeToString(packed.sum.Sum(nil))
	n.DiffID = "sha256:" + hex.EncodeToString(plain.sum.Sum(nil))
	return nil
}

func writeTar(ctx context.Context, w io.Writer, entries []entry) error {
	tw := tar.NewWriter(w)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.write(tw); err != nil {
			return fmt.Errorf("%q: %w", e.name, err)
		}
	}
	return tw.Close()
}

func (e entry) write(tw *tar.Writer) error {
	h := &tar.Header{Name: e.name, Mode: e.mode, ModTime: made, Size: e.size, Typeflag: tar.TypeReg}
	switch {
	case e.dir:
		h.Name, h.Typeflag = e.name+"/", tar.TypeDir
	case e.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
	}
	if err := tw.WriteHeader(h); err != nil || e.open == nil {
		return err
	}
	r, err := e.open()
	if err != nil {
		return unreadable(e.name, err)
	}
	_, err = io.Copy(tw, r)
	return errors.Join(err, r.Close())
}

func diskError(doing string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return zarpa.Errorf(zarpa.Unavailable, "%s: no space left on the disk", doing).WithHint("make room").Because(err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return zarpa.Errorf(zarpa.Unavailable, "%s: not allowed", doing).WithHint("give this user the right to write there").Because(err)
	}
	return err
}
