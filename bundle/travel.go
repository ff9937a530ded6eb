package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/zarpa-dev/zarpa"
)

// WriteBundleTar writes a bundle as one tar, laid out as Unpack does, bundle.json first: the same
// bytes every time and everywhere.
func WriteBundleTar(ctx context.Context, blobs zarpa.Blobs, digest string, w io.Writer) error {
	b, text, err := load(ctx, blobs, digest)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(header(descriptor, int64(len(text)))); err != nil {
		return fmt.Errorf("write bundle %s: %w", digest, err)
	}
	if _, err := tw.Write(text); err != nil {
		return fmt.Errorf("write bundle %s: %w", digest, err)
	}
	for _, f := range Files(b) {
		if err := writeEntry(ctx, blobs, tw, f); err != nil {
			return fmt.Errorf("write bundle %s: file %q: %w", digest, f.Path, err)
		}
	}
	return tw.Close()
}

// ReadBundleTar stores all that is in a bundle's tar and returns the bundle's digest. The tar must
// hold what its bundle.json names, in full, unchanged, and nothing else. The bundle's own blob is
// stored last: when it is there, all of it is.
func ReadBundleTar(ctx context.Context, blobs zarpa.Blobs, r io.Reader, limits Limits) (string, error) {
	a := arrival{ctx: ctx, blobs: blobs}
	if err := eachFile(ctx, r, limits, a.take); err != nil {
		return "", fmt.Errorf("read a bundle: %w", err)
	}
	if a.text == nil {
		return "", zarpa.Errorf(zarpa.Invalid, "bundle: the tar is empty").WithHint("send a tar that zarpa wrote")
	}
	for _, missing := range a.wanted {
		return "", zarpa.Errorf(zarpa.Invalid, "bundle: file %q: missing", missing.Path).WithHint("the tar was cut short; send it again")
	}
	for _, p := range parts(&a.bundle) {
		if _, err := putBytes(ctx, blobs, manifest(p.content.Files)); err != nil {
			return "", fmt.Errorf("read a bundle: %w", err)
		}
	}
	digest, err := putBytes(ctx, blobs, a.text)
	if err != nil {
		return "", fmt.Errorf("read a bundle: %w", err)
	}
	return digest, nil
}

// arrival is a bundle on its way in.
type arrival struct {
	ctx    context.Context //nolint:containedctx // it lives as long as one call
	blobs  zarpa.Blobs
	bundle zarpa.Bundle
	text   []byte
	wanted map[string]zarpa.File // those that have not come yet, by their path in the tar
}

func (a *arrival) take(name string, size int64, r io.Reader) error {
	if a.text == nil {
		return a.describe(name, size, r)
	}
	f, ok := a.wanted[name]
	if !ok {
		return zarpa.Errorf(zarpa.Invalid, "not named in %s", descriptor)
	}
	if f.Size != size {
		return zarpa.Errorf(zarpa.Invalid, "%d bytes, %s says %d", size, descriptor, f.Size)
	}
	delete(a.wanted, name)
	info, err := a.blobs.Put(a.ctx, r)
	if err == nil && info.Digest != f.Digest {
		return zarpa.Errorf(zarpa.Invalid, "its digest is %s, %s says %s", info.Digest, descriptor, f.Digest).WithHint("it was changed on its way; send it again")
	}
	return err
}

// describe takes the first file, which says what follows.
func (a *arrival) describe(name string, size int64, r io.Reader) error {
	if name != descriptor {
		return zarpa.Errorf(zarpa.Invalid, "a bundle begins with %s", descriptor).WithHint("send a tar that zarpa wrote")
	}
	if size > maxDescriptor {
		return zarpa.Errorf(zarpa.TooLarge, "over %d bytes", maxDescriptor)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if a.bundle, err = parse(text); err != nil {
		return err
	}
	canonical, err := encode(a.bundle)
	if err != nil {
		return err
	}
	if !bytes.Equal(canonical, text) {
		return zarpa.Errorf(zarpa.Invalid, "not in the form that zarpa writes").WithHint("send a tar that zarpa wrote")
	}
	a.text, a.wanted = text, map[string]zarpa.File{}
	for _, f := range Files(a.bundle) {
		a.wanted[f.Path] = f
	}
	return nil
}
