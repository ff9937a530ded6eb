// Package dir keeps blobs as files in a directory. It is the embedded store of content, made for
// one machine; several processes may share the directory.
//
//	ROOT/sha256/ab/cdef…   the content of sha256:abcdef…, mode 0444
//	ROOT/tmp/put-…         content on its way in
package dir

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const (
	// abandoned is the age from which a file in tmp is thought to belong to nobody: a Put that
	// goes on writes to its file all the time.
	abandoned = time.Hour
	bufferLen = 1 << 20
	algorithm = "sha256"
)

// Blobs is a zarpa.Blobs in a directory. It holds no open file and needs no closing.
type Blobs struct{ root string }

var _ zarpa.Blobs = (*Blobs)(nil)

// Open makes the directory root, where it is missing, and what belongs into it, and removes what
// interrupted Puts left behind more than an hour ago. unavailable when it cannot be written.
func Open(ctx context.Context, root string) (*Blobs, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("find the blobs %s: %w", root, err)
	}
	b := &Blobs{root: abs}
	if err := b.makeFolders(ctx); err != nil {
		return nil, explain("open the blobs in "+abs, err)
	}
	if err := b.sweepTemporary(ctx, time.Now().Add(-abandoned)); err != nil {
		return nil, explain("sweep the blobs in "+abs, err)
	}
	return b, nil
}

// makeFolders makes all shards at once, durably: no Put has to care for them.
func (b *Blobs) makeFolders(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	top := filepath.Join(b.root, algorithm)
	for _, folder := range []string{top, filepath.Join(b.root, "tmp")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	for i := range 256 {
		err := os.Mkdir(filepath.Join(top, fmt.Sprintf("%02x", i)), 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return errors.Join(syncFolder(top), syncFolder(b.root), syncFolder(filepath.Dir(b.root)))
}

func (b *Blobs) sweepTemporary(ctx context.Context, before time.Time) error {
	entries, err := os.ReadDir(filepath.Join(b.root, "tmp"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its Put has ended
		}
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() && info.ModTime().Before(before) {
			if err := os.Remove(filepath.Join(b.root, "tmp", e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Put writes to a file in tmp, syncs it, gives it its name and syncs the folder. A failure of the
// disk leaves nothing but, after a crash, a file in tmp.
func (b *Blobs) Put(ctx context.Context, r io.Reader) (zarpa.BlobInfo, error) {
	if err := ctx.Err(); err != nil {
		return zarpa.BlobInfo{}, fmt.Errorf("put a blob: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Join(b.root, "tmp"), "put-*")
	if err != nil {
		return zarpa.BlobInfo{}, explain("put a blob", err)
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // renamed when all went well
	info, err := receive(ctx, temp, r)
	if err := errors.Join(err, temp.Close()); err != nil {
		return zarpa.BlobInfo{}, explain("put a blob", err)
	}
	if err := b.settle(temp.Name(), info); err != nil {
		return zarpa.BlobInfo{}, explain("put blob "+info.Digest, err)
	}
	return info, nil
}

// receive copies r to the file, and makes it durable and read-only.
func receive(ctx context.Context, f *os.File, r io.Reader) (zarpa.BlobInfo, error) {
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), bufferLen)
	size, err := w.ReadFrom(reader{ctx, r})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return zarpa.BlobInfo{}, err
	}
	if err := errors.Join(f.Chmod(0o444), f.Sync()); err != nil {
		return zarpa.BlobInfo{}, err
	}
	stored, err := f.Stat()
	if err != nil {
		return zarpa.BlobInfo{}, err
	}
	digest := algorithm + ":" + hex.EncodeToString(sum.Sum(nil))
	return zarpa.BlobInfo{Digest: digest, Size: size, Stored: stored.ModTime().UTC()}, nil
}

// settle names the file. Content that is there already only becomes young again; one of another
// size was damaged by the disk and is replaced.
func (b *Blobs) settle(temp string, info zarpa.BlobInfo) error {
	path, err := b.path(info.Digest)
	if err != nil {
		return err
	}
	there, err := os.Stat(path)
	fresh := err == nil && there.Size() == info.Size && os.Chtimes(path, info.Stored, info.Stored) == nil
	if !fresh { // absent, damaged, or deleted between the two calls
		if err := os.Rename(temp, path); err != nil {
			return err
		}
	}
	return syncFolder(filepath.Dir(path)) // also for content that another Put is just about to sync
}

// Open opens the file. What it returns is an *os.File, so that it also reads at offsets.
func (b *Blobs) Open(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	path, err := b.path(digest)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open blob %s: %w", digest, err)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(digest)
	}
	if err != nil {
		return nil, explain("open blob "+digest, err)
	}
	return f, nil
}

// List reads one shard after the other. A blob that is put or deleted meanwhile may be seen or not.
func (b *Blobs) List(ctx context.Context, each func(zarpa.BlobInfo) bool) error {
	for i := range 256 {
		shard := fmt.Sprintf("%02x", i)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list the blobs: %w", err)
		}
		entries, err := os.ReadDir(filepath.Join(b.root, algorithm, shard))
		if err != nil {
			return explain("list the blobs", err)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("list the blobs: %w", err)
			}
			digest := algorithm + ":" + shard + e.Name()
			if _, err := b.path(digest); err != nil {
				continue // not ours
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted meanwhile
			}
			if err != nil {
				return explain("list the blobs", err)
			}
			if !each(zarpa.BlobInfo{Digest: digest, Size: info.Size(), Stored: info.ModTime().UTC()}) {
				return nil
			}
		}
	}
	return nil
}

// Delete removes the file.
func (b *Blobs) Delete(ctx context.Context, digest string) error {
	path, err := b.path(digest)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete blob %s: %w", digest, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explain("delete blob "+digest, err)
	}
	return nil
}

// Link makes the content of a digest appear, read-only, at the path dst, which must be new: by a
// hard link, or by a synced copy where the file system has none (another disk, for one). Nobody
// may write to dst: it is the blob itself. not_found when there is no such content.
func (b *Blobs) Link(ctx context.Context, digest, dst string) error {
	path, err := b.path(digest)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("link blob %s: %w", digest, err)
	}
	err = os.Link(path, dst)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return zarpa.Errorf(zarpa.Conflict, "link blob %s: %s is there already", digest, dst).Because(err)
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return missing(digest)
		}
		return explain("link blob "+digest, err)
	case errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EMLINK),
		errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EACCES):
		return explain("copy blob "+digest, copyTo(ctx, path, dst))
	}
	return explain("link blob "+digest, err)
}

func copyTo(ctx context.Context, src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, reader{ctx, in})
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(dst))
	}
	return nil
}

// path is the file of a digest. It alone makes paths, and only of digests that are well-formed.
func (b *Blobs) path(digest string) (string, error) {
	name, ok := strings.CutPrefix(digest, algorithm+":")
	if ok = ok && len(name) == sha256.Size*2; ok {
		ok = strings.Trim(name, "0123456789abcdef") == ""
	}
	if !ok {
		return "", zarpa.Errorf(zarpa.Invalid, "digest %.80q: not a digest", digest).WithHint("write sha256: and 64 hexadecimal digits in lower case")
	}
	return filepath.Join(b.root, algorithm, name[:2], name[2:]), nil
}

func missing(digest string) error {
	return zarpa.Errorf(zarpa.NotFound, "blob %s: there is none", digest)
}

// explain turns a failure of the disk into what a user can act on; others go through, wrapped.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return zarpa.Errorf(zarpa.Unavailable, "%s: disk full", what).Because(err).WithHint("make room on the disk of the blobs, then try again")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR):
		return zarpa.Errorf(zarpa.Unavailable, "%s: the folder cannot be written", what).Because(err).WithHint("check that it is a folder and that this user may write into it")
	case errors.Is(err, syscall.EIO):
		return zarpa.Errorf(zarpa.Unavailable, "%s: the disk cannot be read or written", what).Because(err).WithHint("check the disk and the system's log")
	}
	return fmt.Errorf("%s: %w", what, err)
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// reader ends with its context.
type reader struct {
	ctx context.Context //nolint:containedctx // it lives as long as one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
