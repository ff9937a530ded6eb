package dir_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/blob/blobtest"
	"github.com/zarpa-dev/zarpa/blob/dir"
)

func open(t *testing.T, root string) *dir.Blobs {
	t.Helper()
	b, err := dir.Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, b *dir.Blobs, content string) string {
	t.Helper()
	info, err := b.Put(t.Context(), strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return info.Digest
}

func temporary(t *testing.T, root string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func expect(t *testing.T, err error, code zarpa.Code, part string) {
	t.Helper()
	if err == nil || zarpa.AsError(err).Code != code || !strings.Contains(err.Error(), part) {
		t.Fatalf("error %v, want %s with %q", err, code, part)
	}
}

func TestBlobsKeepTheContract(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t *testing.T) zarpa.Blobs { return open(t, t.TempDir()) })
}

func TestContentLiesInShardsAndIsReadOnly(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "made", "as needed")
	digest := put(t, open(t, root), "hello")
	hex := strings.TrimPrefix(digest, "sha256:")
	info, err := os.Stat(filepath.Join(root, "sha256", hex[:2], hex[2:]))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o444 {
		t.Errorf("mode %v, want 0444", info.Mode())
	}
	if n := temporary(t, root); n != 0 {
		t.Errorf("%d files are left in tmp", n)
	}
}

func TestFailedPutLeavesNoTemporaryFile(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := open(t, root)
	broken := errors.New("broken")
	_, err := b.Put(t.Context(), io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if n := temporary(t, root); n != 0 {
		t.Fatalf("%d files are left in tmp", n)
	}
}

func TestOpenSweepsWhatIsOldInTmp(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	open(t, root)
	for name, age := range map[string]time.Duration{"put-old": 2 * time.Hour, "put-young": time.Minute} {
		path, then := filepath.Join(root, "tmp", name), time.Now().Add(-age)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	open(t, root)
	if _, err := os.Stat(filepath.Join(root, "tmp", "put-young")); err != nil || temporary(t, root) != 1 {
		t.Fatalf("want only the young one: %v, %d files", err, temporary(t, root))
	}
}

func TestPutHealsATruncatedFile(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := open(t, root)
	digest := put(t, b, "hello")
	hex := strings.TrimPrefix(digest, "sha256:")
	path := filepath.Join(root, "sha256", hex[:2], hex[2:])
	if err := errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 2)); err != nil { // kept read-only
		t.Fatal(err)
	}
	put(t, b, "hello")
	if got, err := os.ReadFile(path); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestListPassesOverStrangeFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := open(t, root)
	if err := os.WriteFile(filepath.Join(root, "sha256", "ab", "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.List(t.Context(), func(i zarpa.BlobInfo) bool { t.Errorf("listed %v", i); return true }); err != nil {
		t.Fatal(err)
	}
}

func TestLinkSharesTheFile(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir())
	digest, dst := put(t, b, "hello"), filepath.Join(t.TempDir(), "model.onnx")
	if err := b.Link(t.Context(), digest, dst); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	expect(t, b.Link(t.Context(), digest, dst+"2"), zarpa.NotFound, "there is none")
	expect(t, b.Link(t.Context(), "sha256:../x", dst+"2"), zarpa.Invalid, "digest")
	digest = put(t, b, "hello")
	expect(t, b.Link(t.Context(), digest, dst), zarpa.Conflict, "there already")
	if err := b.Link(t.Context(), digest, filepath.Join(dst, "x")); err == nil {
		t.Fatal("linked into a file")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	expect(t, b.Link(ctx, digest, dst+"3"), zarpa.Canceled, "")
}

func TestOpenTellsWhereItCannotWrite(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := dir.Open(t.Context(), file)
	expect(t, err, zarpa.Unavailable, "cannot be written")
	_, err = dir.Open(t.Context(), filepath.Join(file, "below"))
	expect(t, err, zarpa.Unavailable, "cannot be written")
}
