package bundle_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
)

func TestConcurrentUnpackMakesOne(t *testing.T) {
	t.Parallel()
	b, to := blobs(t), t.TempDir()
	digest := must[string](t)(bundle.Build(t.Context(), b, sample(t, b)))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := bundle.Unpack(t.Context(), b, digest, to)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := bundle.Verify(t.Context(), dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if entries := must[[]fs.DirEntry](t)(os.ReadDir(to)); len(entries) != 1 || "sha256:"+entries[0].Name() != digest {
		t.Fatalf("there is %v", entries)
	}
}

func TestUnpackHealsWhatIsDamagedAndNeverShowsHalf(t *testing.T) {
	t.Parallel()
	store := blobs(t)
	digest := must[string](t)(bundle.Build(t.Context(), store, sample(t, store)))
	for name, b := range map[string]zarpa.Blobs{"linked": store, "copied": plain{store}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := t.TempDir()
			dir := must[string](t)(bundle.Unpack(t.Context(), b, digest, to))
			model := filepath.Join(dir, "models", "rose", "2", "data", "weights.bin")
			if info := must[fs.FileInfo](t)(os.Stat(model)); info.Mode().Perm() != 0o444 {
				t.Errorf("mode %v", info.Mode())
			}
			if err := os.Remove(model); err != nil {
				t.Fatal(err)
			}
			_, err := bundle.Verify(t.Context(), dir)
			expect(t, err, zarpa.NotFound, "weights.bin")
			must[string](t)(bundle.Unpack(t.Context(), b, digest, to))
			must[string](t)(bundle.Verify(t.Context(), dir))
			if entries := must[[]fs.DirEntry](t)(os.ReadDir(to)); len(entries) != 1 {
				t.Fatalf("there is %v", entries)
			}
		})
	}
}

func TestUnpackLeavesNothingAfterAFailure(t *testing.T) {
	t.Parallel()
	b, to := blobs(t), t.TempDir()
	bu := sample(t, b)
	digest := must[string](t)(bundle.Build(t.Context(), b, bu))
	if err := b.Delete(t.Context(), bu.Models[0].Content.Files[1].Digest); err != nil {
		t.Fatal(err)
	}
	_, err := bundle.Unpack(t.Context(), b, digest, to)
	expect(t, err, zarpa.NotFound)
	_, err = bundle.Unpack(t.Context(), b, "sha256:../../x", to)
	expect(t, err, zarpa.Invalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = bundle.Unpack(ctx, b, digest, to)
	expect(t, err, zarpa.Canceled)
	if entries := must[[]fs.DirEntry](t)(os.ReadDir(to)); len(entries) != 0 {
		t.Fatalf("there is %v", entries)
	}
}

func TestVerifyFindsWhatChanged(t *testing.T) {
	t.Parallel()
	store := blobs(t)
	digest := must[string](t)(bundle.Build(t.Context(), store, sample(t, store)))
	for name, c := range map[string]struct {
		change func(dir string) error
		code   zarpa.Code
		part   string
	}{
		"Changed": {func(dir string) error {
			name := filepath.Join(dir, "models/iris/10/iris.onnx")
			return errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, []byte("IRIS"), 0o600))
		}, zarpa.Internal, "iris.onnx"},
		"Extra":         {func(dir string) error { return os.WriteFile(filepath.Join(dir, "models/extra"), nil, 0o600) }, zarpa.Invalid, "models/extra"},
		"ExtraLink":     {func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "models/iris/10/etc")) }, zarpa.Invalid, "etc"},
		"NoDescription": {func(dir string) error { return os.Remove(filepath.Join(dir, "bundle.json")) }, zarpa.NotFound, "bundle.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := must[string](t)(bundle.Unpack(t.Context(), plain{store}, digest, t.TempDir()))
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			_, err := bundle.Verify(t.Context(), dir)
			expect(t, err, c.code, c.part)
		})
	}
}

func FuzzWriteContent(f *testing.F) {
	f.Add(tarOf(f, file("a", "a"), file("b/c", "cc")))
	f.Add(tarOf(f, file("../a", "a"), entry{name: "x", kind: tar.TypeSymlink, link: "y"}))
	f.Add([]byte("no tar"))
	b := blobs(f)
	f.Fuzz(func(t *testing.T, stream []byte) {
		c, err := bundle.WriteContent(t.Context(), b, bytes.NewReader(stream), bundle.Limits{Files: 20, Bytes: 1 << 20})
		if err != nil {
			return
		}
		again, err := bundle.ReadContent(t.Context(), b, c.Digest)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(c) {
			t.Fatalf("%v: stored\n%v, read\n%v", err, c, again)
		}
	})
}
