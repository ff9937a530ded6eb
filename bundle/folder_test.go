package bundle_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, body := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, root string) zarpa.Content {
	t.Helper()
	var b bytes.Buffer
	if err := bundle.TarFiles(t.Context(), &b, root); err != nil {
		t.Fatal(err)
	}
	u := must[bundle.Upload](t)(bundle.Measure(t.Context(), root))
	if u.Stream != int64(b.Len()) {
		t.Fatalf("measured %d bytes of tar, sent %d", u.Stream, b.Len())
	}
	c := must[zarpa.Content](t)(bundle.WriteContent(t.Context(), blobs(t), &b, bundle.Limits{}))
	if c.Size != u.Bytes || len(c.Files) != u.Files {
		t.Fatalf("measured %+v, stored %d files, %d bytes", u, len(c.Files), c.Size)
	}
	return c
}

func paths(c zarpa.Content) string {
	var names []string
	for _, f := range c.Files {
		names = append(names, f.Path)
	}
	return strings.Join(names, " ")
}

func TestTarFilesSendsAFileUnderItsBaseName(t *testing.T) {
	t.Parallel()
	root := folder(t, map[string]string{"deep/model.onnx": "model"})
	if got := paths(send(t, filepath.Join(root, "deep", "model.onnx"))); got != "model.onnx" {
		t.Fatal(got)
	}
	link(t, filepath.Join(root, "deep", "model.onnx"), filepath.Join(root, "latest.onnx"))
	if got := paths(send(t, filepath.Join(root, "latest.onnx"))); got != "latest.onnx" {
		t.Fatal(got)
	}
}

func TestTarFilesSendsAllOfAFolder(t *testing.T) {
	t.Parallel()
	root := folder(t, map[string]string{
		"model.onnx": "m", ".git/HEAD": "h", "data/w.bin": strings.Repeat("w", 513), "data/ñ": "", "data/" + strings.Repeat("long", 40): "x", "z/y": "512",
	})
	link(t, "data", filepath.Join(root, "again"))
	link(t, filepath.Join(root, "model.onnx"), filepath.Join(root, "z", "m.onnx"))
	want := ".git/HEAD again/" + strings.Repeat("long", 40) + " again/w.bin again/ñ data/" + strings.Repeat("long", 40) + " data/w.bin data/ñ model.onnx z/m.onnx z/y"
	if got := paths(send(t, root)); got != want {
		t.Fatalf("sent %s\nwant %s", got, want)
	}
	link(t, root, filepath.Join(t.TempDir(), "link"))
	if got := paths(send(t, root)); got != want {
		t.Fatalf("through a link: %s", got)
	}
}

func TestTarFilesRefusesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(t *testing.T, root string)
		code zarpa.Code
		part string
	}{
		"LinkOut":       {func(t *testing.T, root string) { link(t, "../../etc/passwd", filepath.Join(root, "l")) }, zarpa.Invalid, `"l"`},
		"LinkOutDirect": {func(t *testing.T, root string) { link(t, t.TempDir(), filepath.Join(root, "l")) }, zarpa.Invalid, "leads out"},
		"LinkNowhere":   {func(t *testing.T, root string) { link(t, "nothing", filepath.Join(root, "l")) }, zarpa.Invalid, "nowhere"},
		"Loop":          {func(t *testing.T, root string) { link(t, ".", filepath.Join(root, "sub")) }, zarpa.Invalid, "leads back"},
		"Pipe": {func(t *testing.T, root string) {
			if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, zarpa.Invalid, "fifo"},
		"BackSlash": {func(t *testing.T, root string) {
			if err := os.WriteFile(filepath.Join(root, `a\b`), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, zarpa.Invalid, "clean"},
		"NotUTF8": {func(t *testing.T, root string) {
			if err := os.WriteFile(filepath.Join(root, "a\xff"), nil, 0o600); err != nil {
				t.Skip(err)
			}
		}, zarpa.Invalid, "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := folder(t, map[string]string{"model.onnx": "m"})
			c.make(t, root)
			_, err := bundle.Measure(t.Context(), root)
			expect(t, err, c.code, c.part)
			var b bytes.Buffer
			expect(t, bundle.TarFiles(t.Context(), &b, root), c.code, c.part)
			if b.Len() != 0 {
				t.Fatal("something was sent before the refusal")
			}
		})
	}
	_, err := bundle.Measure(t.Context(), filepath.Join(t.TempDir(), "none"))
	expect(t, err, zarpa.NotFound, "none")
	_, err = bundle.Measure(t.Context(), t.TempDir())
	expect(t, err, zarpa.Invalid, "no file")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	expect(t, bundle.TarFiles(ctx, &bytes.Buffer{}, folder(t, map[string]string{"a": "a"})), zarpa.Canceled)
}
