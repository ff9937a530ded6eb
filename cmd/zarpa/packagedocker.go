package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle/image"
)

// writeDockerfile writes a folder on which docker build makes the image.
func (p *packaging) writeDockerfile(ctx context.Context, o image.Options) error {
	folder := p.f.dockerfile
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return zarpa.Errorf(zarpa.Invalid, "--dockerfile: %w", err)
	}
	if _, err := os.Stat(filepath.Join(folder, "Dockerfile")); err != nil && len(entries) > 0 {
		return zarpa.Errorf(zarpa.Conflict, "--dockerfile %s: the folder holds something else", folder).WithHint("name an empty folder, or one that does not exist yet")
	}
	build := image.Build{Blobs: p.plane.blobs, Digest: p.made.digest, Options: o}
	if p.f.base != baseNone {
		build.Base = p.f.base
	}
	err = image.UnpackContext(func(w io.Writer) error { return image.Context(ctx, w, build) }, func(name string, r io.Reader) error {
		to := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return zarpa.Errorf(zarpa.Unavailable, "--dockerfile: %w", err)
		}
		return writeFile(to, func(w io.Writer) error {
			_, err := io.Copy(w, r)
			return err
		})
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.c.stdout, "Build it:  docker build -t %s %s\nRun it:    docker run --read-only --tmpfs /tmp -p %d:%d %s\n",
		p.reference(), folder, image.Port, image.Port, p.reference())
	return nil
}
