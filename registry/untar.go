package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/zarpa-dev/zarpa"
)

// unpacker writes files below a folder that nothing leaves: names are checked, links and devices refused, and the
// root keeps the rest.
type unpacker struct {
	root    *os.Root
	files   int // at most
	bytes   int64
	written int
	size    int64
}

func (u *unpacker) tooLarge() error {
	return zarpa.Errorf(zarpa.TooLarge, "the model has more than %d files or %d bytes", u.files, u.bytes)
}

// count adds a file.
func (u *unpacker) count(size int64) error {
	if u.written++; u.written > u.files || size > u.bytes-u.size {
		return u.tooLarge()
	}
	u.size += size
	return nil
}

// maxZstdWindow bounds the memory that an archive may ask for, in bytes.
const maxZstdWindow = 128 << 20

// decompress finds out how a stream is compressed by its first bytes.
func decompress(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(r, bufferLen)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { _ = z.Close() }, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return b, func() {}, nil
}

// maxEntries bounds the entries of an archive, folders and what is not taken included.
const maxEntries = 1_000_000

// untar writes the regular files of an archive. With only, those below that folder are taken, without its name, as
// a layer of an image: they replace those of layers before, and whiteouts remove them.
func (u *unpacker) untar(ctx context.Context, r io.Reader, only string) error {
	plain, done, err := decompress(r)
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "it cannot be decompressed: %w", err)
	}
	defer done()
	t := tar.NewReader(plain)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return zarpa.Errorf(zarpa.Invalid, "it is not a tar archive: %w", err)
		case n >= maxEntries:
			return zarpa.Errorf(zarpa.TooLarge, "the archive has more than %d entries", maxEntries)
		}
		if err := u.entry(t, h, only); err != nil {
			return err
		}
	}
}

// entry takes one entry of an archive.
func (u *unpacker) entry(t io.Reader, h *tar.Header, only string) error {
	name := strings.TrimPrefix(h.Name, "./")
	if only != "" {
		below, ok := strings.CutPrefix(strings.TrimPrefix(path.Clean("/"+h.Name), "/"), only+"/")
		if !ok {
			return nil
		}
		name = below
	}
	if h.Typeflag == tar.TypeDir {
		return nil // those with files are made with them
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := zarpa.ValidatePath(name); err != nil {
		return err
	}
	if path.Base(name) == arriving {
		return zarpa.Errorf(zarpa.Invalid, "file %.200q: no file of a model may be called so", name)
	}
	if only != "" {
		if white, ok := strings.CutPrefix(path.Base(name), ".wh."); ok {
			return u.whiteout(path.Dir(name), white)
		}
	}
	if h.Typeflag != tar.TypeReg {
		return zarpa.Errorf(zarpa.Invalid, "file %.200q: it is a link or a device", name).WithHint("pack the files themselves")
	}
	return u.write(t, h.Size, entryName{name, only != ""})
}

// entryName is where an entry goes; replace says whether it takes the place of one that is there.
type entryName struct {
	name    string
	replace bool
}

func (u *unpacker) write(r io.Reader, size int64, e entryName) error {
	local := filepath.FromSlash(e.name)
	if e.replace {
		if err := u.forget(local); err != nil {
			return err
		}
	}
	if err := u.count(size); err != nil {
		return err
	}
	if err := u.root.MkdirAll(filepath.Dir(local), 0o700); err != nil {
		return occupied(e.name, err)
	}
	f, err := u.root.OpenFile(local, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return occupied(e.name, err)
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return zarpa.Errorf(zarpa.Invalid, "file %.200q cannot be unpacked: %w", e.name, err)
	}
	return nil
}

// forget removes a file or folder of a layer before, and what was counted for it.
func (u *unpacker) forget(local string) error {
	err := fs.WalkDir(u.root.FS(), filepath.ToSlash(local), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			u.written--
			u.size -= info.Size()
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, u.root.RemoveAll(local))
}

// whiteout removes what an image's layer says is gone: one name, or all that a folder had.
func (u *unpacker) whiteout(folder, name string) error {
	if name != ".wh..opq" {
		if err := zarpa.ValidatePath(name); err != nil { // "." and ".."
			return err
		}
		return u.forget(filepath.Join(filepath.FromSlash(folder), name))
	}
	entries, err := fs.ReadDir(u.root.FS(), folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() == arriving {
			continue
		}
		if err := u.forget(filepath.Join(filepath.FromSlash(folder), e.Name())); err != nil {
			return err
		}
	}
	return err
}
