package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/bundle/image"
)

// shelf is a place for bundles, with a runtime of two ELF files that hold nothing but their header.
type shelf struct {
	t     *testing.T
	blobs *dir.Blobs
	root  string // of the blobs
	opts  image.Options
}

func newShelf(t *testing.T) shelf {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("images hold programs of Linux on amd64 or arm64, as this test's own")
	}
	root := t.TempDir()
	blobs, err := dir.Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	program, library := filepath.Join(folder, "zarpa-score"), filepath.Join(folder, "libonnxruntime.so.1.2")
	if err := errors.Join(os.WriteFile(program, header(runtime.GOARCH), 0o700), os.WriteFile(library, header(runtime.GOARCH), 0o600)); err != nil {
		t.Fatal(err)
	}
	return shelf{t, blobs, root, image.Options{Runtime: image.Runtime{Program: program, Library: library}, Layers: t.TempDir(), Version: "1.2.3"}}
}

// content stores files.
func (s shelf) content(files map[string]string) zarpa.Content {
	s.t.Helper()
	var packed bytes.Buffer
	tw := tar.NewWriter(&packed)
	for name, text := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			s.t.Fatal(err)
		}
		if _, err := io.WriteString(tw, text); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		s.t.Fatal(err)
	}
	c, err := bundle.WriteContent(s.t.Context(), s.blobs, &packed, bundle.Limits{})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// model is a bundle with one model of a version.
func (s shelf) model(version int, text string) zarpa.Bundle {
	return zarpa.Bundle{Format: bundle.Format, Engine: "onnx", Models: []zarpa.BundleModel{
		{Name: "iris", Version: version, Content: s.content(map[string]string{"iris.onnx": text}), File: "iris.onnx"},
	}}
}

// script is a bundle of code and a model.
func (s shelf) script(code, model string) zarpa.Bundle {
	b := s.model(1, model)
	b.Engine = "python"
	b.Code = &zarpa.BundleCode{Content: s.content(map[string]string{"score.py": code}), Entry: "score.py"}
	return b
}

func (s shelf) build(b zarpa.Bundle) string {
	s.t.Helper()
	digest, err := bundle.Build(s.t.Context(), s.blobs, b)
	if err != nil {
		s.t.Fatal(err)
	}
	return digest
}

func (s shelf) assemble(b zarpa.Bundle) v1.Image {
	s.t.Helper()
	img, err := image.Assemble(s.t.Context(), s.blobs, s.build(b), s.opts)
	if err != nil {
		s.t.Fatal(err)
	}
	return img
}

// fails assembles what must not be possible, and returns the error of the wanted code.
func (s shelf) fails(b zarpa.Bundle, want zarpa.Code) *zarpa.Error {
	s.t.Helper()
	_, err := image.Assemble(s.t.Context(), s.blobs, s.build(b), s.opts)
	if err == nil {
		s.t.Fatal("the image was made")
	}
	e := zarpa.AsError(err)
	if e.Code != want {
		s.t.Fatalf("%v has the code %s, want %s", err, e.Code, want)
	}
	return e
}

// layers are the digests of an image's layers by their kinds.
func layers(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	sizes, err := image.Size(img)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, l := range sizes.Layers {
		out[l.Kind] = l.Digest
	}
	return out
}

func digestOf(t *testing.T, img v1.Image) v1.Hash {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// files are what an image's layers hold, by their paths; links are "-> TARGET".
func files(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	all, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, l := range all {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		readTar(t, r, out)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func readTar(t *testing.T, r io.Reader, out map[string]string) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			out[h.Name] = "-> " + h.Linkname
		case tar.TypeReg:
			out[h.Name] = string(text)
		}
	}
}

func gunzip(t *testing.T, text string) io.Reader {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// machines are the numbers of architectures in ELF.
var machines = map[string]byte{"amd64": 62, "arm64": 183}

// header is an ELF file without anything in it, for an architecture.
func header(arch string) []byte {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")             // 64 bits, little endian
	h[16], h[18], h[20] = 3, machines[arch], 1 // shared, version 1
	h[52], h[54], h[58] = 64, 56, 64           // the sizes of headers
	return h
}

// foreign is a program for the other architecture, with the name of that.
func foreign(t *testing.T) (path, arch string) {
	t.Helper()
	arch = "arm64"
	if runtime.GOARCH == "arm64" {
		arch = "amd64"
	}
	path = filepath.Join(t.TempDir(), "zarpa-score")
	if err := os.WriteFile(path, header(arch), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, arch
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// damage overwrites the first byte of a blob's file.
func (s shelf) damage(digest string) {
	s.t.Helper()
	found := false
	err := filepath.WalkDir(s.root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.Contains(path, strings.TrimPrefix(digest, "sha256:")[2:]) {
			return err
		}
		found = true
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{'!'}, 0)
		return errors.Join(err, f.Close())
	})
	if err != nil || !found {
		s.t.Fatalf("damage %s: found %t, %v", digest, found, err)
	}
}
