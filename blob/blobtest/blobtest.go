// Package blobtest is the executable contract of zarpa.Blobs: every implementation runs it in its
// own tests.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Run proves the contract. open makes an empty store of blobs that no other test sees and cares
// for its end. Tests run in parallel.
func Run(t *testing.T, open func(*testing.T) zarpa.Blobs) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, zarpa.Blobs)
	}{
		{"ReadsBackWhatWasPut", readBack},
		{"OpenSeeks", seeks},
		{"EqualContentIsStoredOnce", storedOnce},
		{"PutAgainMakesYoung", young},
		{"FailingReaderLeavesNothing", failingReader},
		{"CancelLeavesNothing", cancelled},
		{"AbsentIsNotFound", absent},
		{"DigestsAreValidated", digests},
		{"DeleteLeavesOpenReadersAlone", deleteOpen},
		{"ListEndsWhenToldTo", listEnds},
		{"ListGoesOnDuringPutAndDelete", listMeanwhile},
		{"SameContentFromManyGoroutines", sameContent},
		{"ManyContentsFromManyGoroutines", manyContents},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, open(t))
		})
	}
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func put(t *testing.T, b zarpa.Blobs, content []byte) zarpa.BlobInfo {
	t.Helper()
	info, err := b.Put(t.Context(), bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if info.Digest != digestOf(content) || info.Size != int64(len(content)) {
		t.Fatalf("Put gave %+v for %d bytes of digest %s", info, len(content), digestOf(content))
	}
	return info
}

func get(ctx context.Context, b zarpa.Blobs, digest string) ([]byte, error) {
	r, err := b.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	return content, errors.Join(err, r.Close())
}

func list(t *testing.T, b zarpa.Blobs) map[string]zarpa.BlobInfo {
	t.Helper()
	found := map[string]zarpa.BlobInfo{}
	err := b.List(t.Context(), func(i zarpa.BlobInfo) bool {
		if _, twice := found[i.Digest]; twice {
			t.Errorf("%s is listed twice", i.Digest)
		}
		found[i.Digest] = i
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func expect(t *testing.T, err error, code zarpa.Code) {
	t.Helper()
	if err == nil || zarpa.AsError(err).Code != code {
		t.Fatalf("error %v, want %s", err, code)
	}
}

func readBack(t *testing.T, b zarpa.Blobs) {
	if n := len(list(t, b)); n != 0 {
		t.Fatalf("a new store has %d blobs", n)
	}
	for _, content := range [][]byte{nil, []byte("a"), []byte("ñ\x00\n"), bytes.Repeat([]byte("0123456789abcde\n"), 300_000)} {
		before := time.Now().Add(-2 * time.Second)
		info := put(t, b, content)
		got, err := get(t.Context(), b, info.Digest)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("read back %d bytes of %d: %v", len(got), len(content), err)
		}
		listed := list(t, b)[info.Digest]
		if listed.Size != info.Size || listed.Stored.Before(before) || listed.Stored.After(time.Now().Add(2*time.Second)) {
			t.Fatalf("listed as %+v, put %+v", listed, info)
		}
	}
}

func seeks(t *testing.T, b zarpa.Blobs) {
	info := put(t, b, []byte("0123456789"))
	r, err := b.Open(t.Context(), info.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, c := range []struct {
		offset int64
		whence int
		at     int64
		rest   string
	}{{7, io.SeekStart, 7, "789"}, {-2, io.SeekEnd, 8, "89"}, {-10, io.SeekCurrent, 0, "0123456789"}} {
		at, err := r.Seek(c.offset, c.whence)
		if err != nil || at != c.at {
			t.Fatalf("Seek(%d, %d) = %d, %v", c.offset, c.whence, at, err)
		}
		rest, err := io.ReadAll(r)
		if err != nil || string(rest) != c.rest {
			t.Fatalf("after Seek(%d, %d): %q, %v", c.offset, c.whence, rest, err)
		}
	}
}

func storedOnce(t *testing.T, b zarpa.Blobs) {
	one, two := put(t, b, []byte("same")), put(t, b, []byte("same"))
	if one.Digest != two.Digest || len(list(t, b)) != 1 {
		t.Fatalf("equal content is there %d times", len(list(t, b)))
	}
}

func young(t *testing.T, b zarpa.Blobs) {
	digest := put(t, b, []byte("same")).Digest
	first := list(t, b)[digest].Stored
	for range 1_000_000 { // the clock of some file systems is coarse
		put(t, b, []byte("same"))
		if list(t, b)[digest].Stored.After(first) {
			return
		}
		if t.Context().Err() != nil {
			break
		}
	}
	t.Fatal("putting content again does not make it young")
}

func failingReader(t *testing.T, b zarpa.Blobs) {
	broken := errors.New("the client left")
	for _, n := range []int{0, 10, 3 << 20} {
		r := io.MultiReader(strings.NewReader(strings.Repeat("x", n)), iotest.ErrReader(broken))
		if _, err := b.Put(t.Context(), r); !errors.Is(err, broken) {
			t.Fatalf("Put ended with %v, want the reader's error", err)
		}
	}
	if all := list(t, b); len(all) != 0 {
		t.Fatalf("a failed Put left %v", all)
	}
}

func cancelled(t *testing.T, b zarpa.Blobs) {
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(strings.NewReader("begin"), readerFunc(func(p []byte) (int, error) {
		cancel() // the caller leaves half-way; the reader itself would go on for ever
		return len(p), nil
	}))
	_, err := b.Put(ctx, r)
	expect(t, err, zarpa.Canceled)
	digest := put(t, b, []byte("there")).Digest
	_, err = b.Put(ctx, strings.NewReader("late"))
	expect(t, err, zarpa.Canceled)
	_, err = b.Open(ctx, digest)
	expect(t, err, zarpa.Canceled)
	expect(t, b.List(ctx, func(zarpa.BlobInfo) bool { return true }), zarpa.Canceled)
	expect(t, b.Delete(ctx, digest), zarpa.Canceled)
	if all := list(t, b); len(all) != 1 {
		t.Fatalf("there are %d blobs, want the one", len(all))
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func absent(t *testing.T, b zarpa.Blobs) {
	digest := digestOf([]byte("never put"))
	_, err := b.Open(t.Context(), digest)
	expect(t, err, zarpa.NotFound)
	if err := b.Delete(t.Context(), digest); err != nil {
		t.Fatalf("deleting what is not there: %v", err)
	}
	put(t, b, []byte("never put"))
	for range 2 {
		if err := b.Delete(t.Context(), digest); err != nil {
			t.Fatal(err)
		}
	}
	_, err = b.Open(t.Context(), digest)
	expect(t, err, zarpa.NotFound)
}

func digests(t *testing.T, b zarpa.Blobs) {
	good := put(t, b, []byte("x")).Digest
	for _, bad := range []string{
		"", "sha256:", "sha256", good[7:], good + "0", good[:70], "sha512:" + good[7:], "SHA256:" + good[7:], strings.ToUpper(good),
		"sha256:../../../../../../../../../../../../../../../../../etc/passwd___", "sha256:" + strings.Repeat(".", 64),
		"sha256:" + strings.Repeat("/", 64), "sha256:" + strings.Repeat("\x00", 64), " " + good, good + "\n", strings.Repeat("é", 35),
	} {
		_, err := b.Open(t.Context(), bad)
		expect(t, err, zarpa.Invalid)
		expect(t, b.Delete(t.Context(), bad), zarpa.Invalid)
	}
}

func deleteOpen(t *testing.T, b zarpa.Blobs) {
	content := bytes.Repeat([]byte("open "), 100_000)
	digest := put(t, b, content).Digest
	r, err := b.Open(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := b.Delete(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("an open reader read %d of %d bytes after the delete: %v", len(got), len(content), err)
	}
}

func listEnds(t *testing.T, b zarpa.Blobs) {
	for i := range 10 {
		put(t, b, fmt.Append(nil, i))
	}
	n := 0
	if err := b.List(t.Context(), func(zarpa.BlobInfo) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Fatalf("%d calls, %v, want 3", n, err)
	}
	if err := b.List(t.Context(), func(i zarpa.BlobInfo) bool { return b.Delete(t.Context(), i.Digest) == nil }); err != nil {
		t.Fatalf("deleting while listing: %v", err)
	}
	if n := len(list(t, b)); n != 0 {
		t.Fatalf("%d are left after deleting all that was listed", n)
	}
}

func listMeanwhile(t *testing.T, b zarpa.Blobs) {
	kept := put(t, b, []byte("kept")).Digest
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				info, err := b.Put(t.Context(), strings.NewReader(fmt.Sprint(w, "/", i%5)))
				if err == nil {
					err = b.Delete(t.Context(), info.Digest)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		if _, there := list(t, b)[kept]; !there {
			t.Error("a blob that nobody touched was not listed")
		}
	}
	stop()
	wg.Wait()
}

func sameContent(t *testing.T, b zarpa.Blobs) {
	content := bytes.Repeat([]byte("same"), 50_000)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			info, err := b.Put(t.Context(), bytes.NewReader(content))
			if err != nil || info.Digest != digestOf(content) {
				t.Errorf("%+v, %v", info, err)
				return
			}
			if got, err := get(t.Context(), b, info.Digest); err != nil || !bytes.Equal(got, content) {
				t.Errorf("read back %d bytes: %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := len(list(t, b)); n != 1 {
		t.Fatalf("%d blobs, want 1", n)
	}
}

func manyContents(t *testing.T, b zarpa.Blobs) {
	const workers, each = 8, 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				content := fmt.Appendf(nil, "worker %d, content %d", w, i)
				if _, err := b.Put(t.Context(), bytes.NewReader(content)); err != nil {
					t.Error(err)
					return
				}
				if got, err := get(t.Context(), b, digestOf(content)); err != nil || !bytes.Equal(got, content) {
					t.Errorf("read back %q: %v", got, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(list(t, b)); n != workers*each {
		t.Fatalf("%d blobs, want %d", n, workers*each)
	}
}
