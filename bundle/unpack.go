package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// linker is an optional power of blobs: content appears in a directory without being copied.
type linker interface {
	Link(ctx context.Context, digest, dst string) error
}

const (
	// unpacking leads the name of a directory on its way in, broken that of one on its way out.
	unpacking = ".unpack-"
	broken    = ".broken-"
	// abandoned is the age from which such a directory belongs to nobody.
	abandoned = 24 * time.Hour
)

// Unpack makes the directory dir/<hex of the digest> with all that the bundle holds, and returns
// its path. Every file's digest was checked, and the directory appears at once or not at all. A
// directory that is there is kept, or, when files are missing in it, replaced. Calls may meet:
// all of them return the one directory. Its files must not be written to: they may be the blobs.
func Unpack(ctx context.Context, blobs zarpa.Blobs, digest, dir string) (string, error) {
	if !validDigest(digest) {
		return "", zarpa.Errorf(zarpa.Invalid, "bundle %.80q: not a digest", digest)
	}
	b, text, err := load(ctx, blobs, digest)
	if err != nil {
		return "", err
	}
	final := filepath.Join(dir, strings.TrimPrefix(digest, algorithm))
	c := content{b, text}
	if c.complete(final) {
		return final, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("unpack bundle %s: %w", digest, err)
	}
	if err := sweepFolders(dir, time.Now().Add(-abandoned)); err != nil {
		return "", fmt.Errorf("unpack bundle %s: %w", digest, err)
	}
	temp, err := os.MkdirTemp(dir, unpacking)
	if err != nil {
		return "", fmt.Errorf("unpack bundle %s: %w", digest, err)
	}
	defer os.RemoveAll(temp) //nolint:errcheck // renamed when all went well; else the next Unpack sweeps it
	if err := c.fill(ctx, blobs, temp); err != nil {
		return "", fmt.Errorf("unpack bundle %s: %w", digest, err)
	}
	if err := settle(temp, final, func() bool { return c.complete(final) }); err != nil {
		return "", fmt.Errorf("unpack bundle %s: %w", digest, err)
	}
	return final, nil
}

// settle gives temp its name. A whole directory of that name wins; an incomplete one goes.
func settle(temp, final string, whole func() bool) error {
	for {
		err := os.Rename(temp, final)
		if err == nil {
			return syncFolder(filepath.Dir(final))
		}
		if !errors.Is(err, fs.ErrExist) { // which stands for "not empty", too
			return err
		}
		if whole() {
			return nil
		}
		away, err := os.MkdirTemp(filepath.Dir(final), broken)
		if err != nil {
			return err
		}
		if err := os.Rename(final, filepath.Join(away, "bundle")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, os.RemoveAll(away))
		}
		if err := os.RemoveAll(away); err != nil {
			return err
		}
	}
}

// content is what a bundle's directory holds: its files, and the descriptor as it was stored.
type content struct {
	bundle     zarpa.Bundle
	descriptor []byte
}

// complete looks whether every file is there in its size, without reading the models.
func (c content) complete(dir string) bool {
	there, err := os.ReadFile(filepath.Join(dir, descriptor))
	if err != nil || !bytes.Equal(there, c.descriptor) {
		return false
	}
	for _, f := range Files(c.bundle) {
		info, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(f.Path)))
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size {
			return false
		}
	}
	return true
}

// fill makes a bundle's directory, durably.
func (c content) fill(ctx context.Context, blobs zarpa.Blobs, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	folders := map[string]bool{dir: true}
	for _, f := range Files(c.bundle) {
		dst := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		for up := filepath.Dir(dst); !folders[up]; up = filepath.Dir(up) {
			folders[up] = true
		}
		if err := bring(ctx, blobs, f, dst); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
	}
	info := zarpa.File{Path: descriptor, Digest: digestOf(c.descriptor), Size: int64(len(c.descriptor))}
	if err := writeFile(ctx, bytes.NewReader(c.descriptor), info, filepath.Join(dir, descriptor)); err != nil {
		return err
	}
	for folder := range folders {
		if err := syncFolder(folder); err != nil {
			return err
		}
	}
	return nil
}

// bring makes one file, by a link where there are links.
func bring(ctx context.Context, blobs zarpa.Blobs, f zarpa.File, dst string) error {
	if l, ok := blobs.(linker); ok {
		if err := l.Link(ctx, f.Digest, dst); err != nil {
			return err
		}
		return checkFile(ctx, dst, f)
	}
	r, err := blobs.Open(ctx, f.Digest)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // it was only read
	return writeFile(ctx, r, f, dst)
}

func writeFile(ctx context.Context, r io.Reader, f zarpa.File, dst string) error {
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	digest, _, err := copyDigest(out, reader{ctx, r})
	if err == nil && digest != f.Digest {
		err = damaged("blob " + f.Digest)
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// checkFile compares a file with its digest and size.
func checkFile(ctx context.Context, name string, f zarpa.File) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	digest, n, err := copyDigest(io.Discard, reader{ctx, in})
	if err == nil && (digest != f.Digest || n != f.Size) {
		err = damaged(fmt.Sprintf("file %q", f.Path))
	}
	return err
}

// copyDigest copies and returns the digest and the number of the bytes.
func copyDigest(w io.Writer, r io.Reader) (string, int64, error) {
	sum := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(w, sum), r, make([]byte, 256<<10))
	return algorithm + hex.EncodeToString(sum.Sum(nil)), n, err
}

func sweepFolders(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), unpacking) && !strings.HasPrefix(e.Name(), broken) {
			continue
		}
		info, err := e.Info()
		if err == nil && info.ModTime().Before(before) {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func syncFolder(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Read reads the description in an unpacked bundle's directory, strictly: not_found when there is
// none, conflict when a newer zarpa wrote it, invalid when it is not well-formed. It does not look
// at the other files; see [Verify].
func Read(dir string) (zarpa.Bundle, error) {
	b, _, err := readDescriptor(dir)
	return b, err
}

func readDescriptor(dir string) (zarpa.Bundle, []byte, error) {
	f, err := os.Open(filepath.Join(dir, descriptor))
	if errors.Is(err, fs.ErrNotExist) {
		return zarpa.Bundle{}, nil, zarpa.Errorf(zarpa.NotFound, "bundle %s: there is no %s", dir, descriptor).WithHint("name the directory of an unpacked bundle")
	}
	if err != nil {
		return zarpa.Bundle{}, nil, fmt.Errorf("read bundle: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxDescriptor+1))
	if err != nil {
		return zarpa.Bundle{}, nil, fmt.Errorf("read bundle: %w", err)
	}
	if len(text) > maxDescriptor {
		return zarpa.Bundle{}, nil, zarpa.Errorf(zarpa.TooLarge, "bundle %s: %s is over %d bytes", dir, descriptor, maxDescriptor)
	}
	b, err := parse(text)
	if err != nil {
		return zarpa.Bundle{}, nil, fmt.Errorf("bundle %s: %w", dir, err)
	}
	return b, text, nil
}

// Verify reads every file of an unpacked bundle, compares it with its digest, and returns the
// bundle's digest. A file too many is an error as well: a model may read the files beside it.
func Verify(ctx context.Context, dir string) (string, error) {
	b, text, err := readDescriptor(dir)
	if err != nil {
		return "", err
	}
	wanted := []string{descriptor}
	for _, f := range Files(b) {
		wanted = append(wanted, f.Path)
		err := checkFile(ctx, filepath.Join(dir, filepath.FromSlash(f.Path)), f)
		if errors.Is(err, fs.ErrNotExist) {
			err = zarpa.Errorf(zarpa.NotFound, "file %q: missing", f.Path).Because(err)
		}
		if err != nil {
			return "", fmt.Errorf("bundle %s: %w", dir, err)
		}
	}
	slices.Sort(wanted)
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if _, found := slices.BinarySearch(wanted, name); err == nil && !e.IsDir() && (!found || !e.Type().IsRegular()) {
			err = zarpa.Errorf(zarpa.Invalid, "bundle %s: file %q: does not belong to it", dir, name).WithHint("remove the directory; it is unpacked again")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return digestOf(text), nil
}
