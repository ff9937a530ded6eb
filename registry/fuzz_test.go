package registry

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLocate wants every path either refused, or to name a place that cannot leave its folder.
func FuzzLocate(f *testing.F) {
	for _, seed := range []string{"a/manifests/v1", "a/b/blobs/sha256:00", "a/blobs/uploads/", "a/blobs/uploads/x", "a/tags/list", "a/referrers/sha256:00", "../manifests/x", "a/../b/blobs/uploads/x", "manifests/manifests/manifests"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, err := locate(path)
		if err != nil {
			return
		}
		if strings.Contains(p.repo, "..") || strings.HasPrefix(p.repo, "/") || strings.Contains(p.repo, "/_") || strings.Contains(p.id, "/") {
			t.Errorf("%q is in %q the %s %q", path, p.repo, p.kind, p.id)
		}
	})
}

// FuzzDescribe wants manifests refused, or described by digests alone.
func FuzzDescribe(f *testing.F) {
	for _, seed := range []string{`{"schemaVersion":2,"config":{"digest":"x"}}`, `{"schemaVersion":2,"manifests":[{"digest":"sha256:"}],"subject":{}}`, `[]`, `{"schemaVersion":2,"layers":[{"urls":["x"]}]}`} {
		for _, media := range []string{ociManifest, ociIndex, dockerManifest, "x"} {
			f.Add(media, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, media string, raw []byte) {
		d, err := describe(media, raw)
		if err != nil {
			return
		}
		for _, digest := range append(append(d.blobs, d.children...), d.digest) {
			if _, err := hexOf(digest); err != nil {
				t.Errorf("%s in %q: %v", digest, raw, err)
			}
		}
	})
}

// FuzzUntar wants archives refused, or unpacked as regular files within their folder and the limits. It is given the
// names of the entries and their kinds, not the archive: a byte changed there is a checksum that does not fit, and
// inputs of many kilobytes keep the fuzzer busy with making them smaller.
func FuzzUntar(f *testing.F) {
	f.Add("a\n../b\nmodels/x", []byte("012"), false)
	f.Add("models/a\nmodels/.wh.a\nmodels/.wh..wh..opq\nmodels/sub/", []byte("0005"), true)
	f.Add("models/.wh...\n/models/../../x\nmodels/a/../b", []byte("000"), true)
	f.Add("models/a/b\nmodels/a\nmodels/a/b/c\n./models/.wh.", []byte("0"), true)
	f.Fuzz(func(t *testing.T, names string, kinds []byte, image bool) {
		only := ""
		if image {
			only = "models"
		}
		outer := t.TempDir()
		dir := filepath.Join(outer, "into")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		u := unpacker{root: root, files: 5, bytes: 1 << 10}
		err = u.untar(t.Context(), bytes.NewReader(packed(names, kinds)), only)
		files, size := 0, int64(0)
		walked := filepath.WalkDir(outer, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				info, _ := d.Info()
				files, size = files+1, size+info.Size()
				if !d.Type().IsRegular() || !strings.HasPrefix(path, dir+string(filepath.Separator)) {
					t.Errorf("%s is %v", path, d.Type())
				}
			}
			return err
		})
		if walked != nil || files > 5 || size > 1<<10 || err == nil && (files != u.written || size != u.size) {
			t.Errorf("%d files of %d bytes, %d of %d counted, %v, %v", files, size, u.written, u.size, walked, err)
		}
	})
}

// packed is an archive of entries with these names, one a line, and kinds; each file has as many bytes as its name.
func packed(names string, kinds []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, n := range strings.Split(names, "\n") {
		h := &tar.Header{Name: n, Typeflag: tar.TypeReg, Linkname: "/etc/passwd"}
		if i < len(kinds) {
			h.Typeflag = kinds[i]
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(n))
		}
		if w.WriteHeader(h) == nil { // it refuses kinds that are none
			_, _ = w.Write([]byte(n)[:h.Size])
		}
	}
	_ = w.Close()
	return b.Bytes()
}
