package bundle

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// WriteContent stores the regular files of a tar and returns them as a content, whose manifest it
// stores as well. Times, owners and modes in the tar make no difference, nor does the order.
//
// Errors: invalid for links, devices, paths that leave the folder or cannot lie beside each other
// (naming the path) and for what is no tar; too_large beyond the limits. Files that were stored
// before an error stay, unreferenced.
func WriteContent(ctx context.Context, blobs zarpa.Blobs, tarStream io.Reader, limits Limits) (zarpa.Content, error) {
	var files []zarpa.File
	err := eachFile(ctx, tarStream, limits, func(name string, size int64, r io.Reader) error {
		info, err := blobs.Put(ctx, r)
		if err != nil {
			return err
		}
		files = append(files, zarpa.File{Path: name, Digest: info.Digest, Size: info.Size})
		return nil
	})
	if err != nil {
		return zarpa.Content{}, err
	}
	if len(files) == 0 {
		return zarpa.Content{}, zarpa.Errorf(zarpa.Invalid, "upload: holds no file").WithHint("send the model's file, or its folder, as a tar")
	}
	c := contentOf(files)
	if _, err := putBytes(ctx, blobs, manifest(c.Files)); err != nil {
		return zarpa.Content{}, err
	}
	return c, nil
}

// eachFile reads a tar as something hostile may have written it.
func eachFile(ctx context.Context, stream io.Reader, limits Limits, fn func(name string, size int64, r io.Reader) error) error {
	limits = limits.withDefaults()
	tr := tar.NewReader(reader{ctx, stream})
	names, files, left := newPathSet(), 0, limits.Bytes
	for entries := 0; ; entries++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return explainTar(err)
		}
		if entries > 2*limits.Files+1000 {
			return zarpa.Errorf(zarpa.TooLarge, "upload: too many folders").WithHint("send fewer")
		}
		name := strings.TrimPrefix(h.Name, "./")
		if skip, err := checkEntry(h, name); skip || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if err := names.add(name); err != nil {
			return err
		}
		if files++; files > limits.Files {
			return zarpa.Errorf(zarpa.TooLarge, "upload: over %d files", limits.Files).WithHint("pack the small files into fewer large ones")
		}
		if h.Size > left {
			return zarpa.Errorf(zarpa.TooLarge, "file %q: the upload is over %v", name, zarpa.Bytes(limits.Bytes)).WithHint("send less, or raise the server's limit")
		}
		left -= h.Size
		if err := fn(name, h.Size, tr); err != nil {
			return fmt.Errorf("file %q: %w", name, explainTar(err))
		}
	}
}

// checkEntry refuses what is neither a file nor a folder; folders are passed over.
func checkEntry(h *tar.Header, name string) (skip bool, err error) {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return false, zarpa.Errorf(zarpa.Invalid, "file %q: is a sparse file", name).WithHint("make the tar without --sparse")
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return false, nil
	case tar.TypeXGlobalHeader:
		return true, nil
	case tar.TypeDir:
		if name = strings.TrimSuffix(name, "/"); name == "" || name == "." {
			return true, nil
		}
		return true, checkPath(name)
	case tar.TypeSymlink, tar.TypeLink:
		return false, zarpa.Errorf(zarpa.Invalid, "file %q: is a link", name).WithHint("send the file that it points to in its place")
	}
	return false, zarpa.Errorf(zarpa.Invalid, "file %q: is not a regular file", name).WithHint("send regular files and folders alone")
}

// explainTar tells a broken tar from a broken connection.
func explainTar(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, tar.ErrInsecurePath) {
		return zarpa.Errorf(zarpa.Invalid, "upload: is not a tar, or was cut short").Because(err).WithHint("send it again")
	}
	return err
}

// WriteTar writes the files of a content as a tar: the same bytes every time. A file that its
// blob store damaged ends it with an error before the tar's end.
func WriteTar(ctx context.Context, blobs zarpa.Blobs, c zarpa.Content, w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, f := range c.Files {
		if err := writeEntry(ctx, blobs, tw, f); err != nil {
			return fmt.Errorf("write file %q: %w", f.Path, err)
		}
	}
	return tw.Close()
}

// writeEntry writes one blob under the path of f, and checks its digest on the way.
func writeEntry(ctx context.Context, blobs zarpa.Blobs, tw *tar.Writer, f zarpa.File) error {
	r, err := blobs.Open(ctx, f.Digest)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // it was only read
	if err := tw.WriteHeader(header(f.Path, f.Size)); err != nil {
		return err
	}
	digest, n, err := copyDigest(tw, io.LimitReader(reader{ctx, r}, f.Size+1))
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && (n != f.Size || digest != f.Digest) {
		return damaged("blob " + f.Digest)
	}
	return err
}

// header has nothing in it that differs from one machine or moment to the next.
func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
}
