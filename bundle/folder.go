package bundle

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// Upload is what a file or folder on this disk will be as a tar.
type Upload struct {
	Files  int
	Bytes  int64 // the sum of the files' sizes
	Stream int64 // the exact length of the tar that TarFiles writes
}

// Measure looks at a file or folder without reading the files. Its errors are those of TarFiles,
// so that what cannot be sent is known before anything was.
func Measure(ctx context.Context, root string) (Upload, error) {
	sources, err := walk(ctx, root)
	if err != nil {
		return Upload{}, err
	}
	u := Upload{Files: len(sources), Stream: 2 * 512} // a tar ends with two empty blocks
	for _, s := range sources {
		var headers counter
		if err := tar.NewWriter(&headers).WriteHeader(header(s.name, s.size)); err != nil {
			return Upload{}, fmt.Errorf("file %q: %w", s.name, err)
		}
		u.Bytes += s.size
		u.Stream += int64(headers) + (s.size+511)/512*512
	}
	return u, nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// TarFiles writes a file (under its base name) or all files of a folder (by their paths in it) as
// a tar that WriteContent takes, the same bytes for the same files. Links are followed within the
// folder; one that leaves it is refused, as are devices and sockets, naming the path.
func TarFiles(ctx context.Context, w io.Writer, root string) error {
	sources, err := walk(ctx, root)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, s := range sources {
		if err := s.write(ctx, tw); err != nil {
			return fmt.Errorf("send %q: %w", s.name, err)
		}
	}
	return tw.Close()
}

// source is one file to send.
type source struct {
	name string // in the tar
	disk string
	size int64
}

func (s source) write(ctx context.Context, tw *tar.Writer) error {
	f, err := os.Open(s.disk)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	if err := tw.WriteHeader(header(s.name, s.size)); err != nil {
		return err
	}
	n, err := io.Copy(tw, io.LimitReader(reader{ctx, f}, s.size+1))
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && n != s.size {
		return zarpa.Errorf(zarpa.Conflict, "it changed while it was read").WithHint("wait until it is written, then try again")
	}
	return err
}

// walk finds the files below root, in the order of their names in the tar.
func walk(ctx context.Context, root string) ([]source, error) {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, unreadable(root, err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return nil, unreadable(root, err)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, unreadable(root, err)
	}
	w := walker{ctx: ctx, root: real, names: newPathSet()}
	if info.IsDir() {
		err = w.folder("", real, []string{real})
	} else {
		err = w.file(filepath.Base(abs), real, info)
	}
	if err != nil {
		return nil, err
	}
	if len(w.found) == 0 {
		return nil, zarpa.Errorf(zarpa.Invalid, "%s: holds no file", root).WithHint("name the model's file or the folder with its files")
	}
	slices.SortFunc(w.found, func(x, y source) int { return strings.Compare(x.name, y.name) })
	return w.found, nil
}

func unreadable(root string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return zarpa.Errorf(zarpa.NotFound, "%s: there is no such file or folder", root).Because(err)
	}
	return zarpa.Errorf(zarpa.Invalid, "%s: cannot be read", root).Because(err).WithHint("check its permissions and links")
}

type walker struct {
	ctx   context.Context //nolint:containedctx // it lives as long as one walk
	root  string          // without links
	names pathSet
	found []source
}

// folder goes through a folder; above are the real paths of those around it, to find loops.
func (w *walker) folder(name, disk string, above []string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(disk)
	if err != nil {
		return unreadable(disk, err)
	}
	for _, e := range entries {
		inside, at := path.Join(name, e.Name()), filepath.Join(disk, e.Name())
		if e.Type()&fs.ModeSymlink != 0 {
			if at, err = w.follow(inside, at); err != nil {
				return err
			}
		}
		info, err := os.Stat(at)
		if err != nil {
			return unreadable(at, err)
		}
		switch {
		case !info.IsDir():
			err = w.file(inside, at, info)
		case slices.Contains(above, at):
			err = zarpa.Errorf(zarpa.Invalid, "link %q: leads back to a folder around it", inside).WithHint("remove it")
		default:
			err = w.folder(inside, at, append(slices.Clone(above), at))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// follow is the real path behind a link, which must be inside the root.
func (w *walker) follow(name, disk string) (string, error) {
	real, err := filepath.EvalSymlinks(disk)
	if err != nil {
		return "", zarpa.Errorf(zarpa.Invalid, "link %q: leads nowhere", name).Because(err).WithHint("remove it")
	}
	inside, err := filepath.Rel(w.root, real)
	if err != nil || inside == ".." || strings.HasPrefix(inside, ".."+string(filepath.Separator)) {
		return "", zarpa.Errorf(zarpa.Invalid, "link %q: leads out of the folder", name).WithHint("make a copy without links first: cp -rL")
	}
	return real, nil
}

func (w *walker) file(name, disk string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return zarpa.Errorf(zarpa.Invalid, "file %q: is not a regular file", name).WithHint("remove it, or name the model's file alone")
	}
	if err := w.names.add(name); err != nil {
		return err
	}
	w.found = append(w.found, source{name: name, disk: disk, size: info.Size()})
	return nil
}
