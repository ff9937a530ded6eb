package registry_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/registry"
)

// modelIn writes files and describes the model that they are.
func modelIn(t *testing.T, files map[string]string) (string, zarpa.Model) {
	t.Helper()
	dir := t.TempDir()
	m := zarpa.Model{Name: "iris", Version: 3, Format: "onnx", Tags: map[string]string{"stage": "trial"}, Description: "Fisher's iris", Folder: "iris_model"}
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, text)
		m.Content.Files = append(m.Content.Files, zarpa.File{Path: name, Digest: digestOf(text), Size: int64(len(text))})
	}
	return dir, m
}

// filesIn reads all files below a folder.
func filesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func equalFiles(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s holds %.60q, want %.60q", name, got[name], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d: %v", len(got), len(want), got)
	}
}

func TestAModelComesBackAsItWent(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	files := map[string]string{"model.onnx": strings.Repeat("weights", 50_000), "data/weights.bin": strings.Repeat("x", 1000), "empty": "", "same": strings.Repeat("x", 1000)}
	dir, m := modelIn(t, files)
	c, ref := hurried(registry.ClientOptions{}), s.host()+"/models/iris:3"
	pushed, err := c.PushModel(t.Context(), ref, dir, m)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.PushModel(t.Context(), ref+"-again", dir, m); err != nil || again != pushed {
		t.Errorf("pushed twice: %s %v, want %s", again, err, pushed)
	}
	s.ask(t, "GET", "/v2/models/iris/manifests/3", "").wants(t, 200, `"artifactType":"application/vnd.zarpa.model.v1+json"`).wants(t, 200, `"org.opencontainers.image.title":"data/weights.bin"`)
	var last registry.Progress
	into := t.TempDir()
	got, err := hurried(registry.ClientOptions{Progress: func(p registry.Progress) { last = p }}).PullModel(t.Context(), ref, into, registry.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	equalFiles(t, filesIn(t, into), files)
	if got.Reference != pushed || got.Files != 4 || got.Config.Name != "iris" || got.Config.Tags["stage"] != "trial" || got.Config.Folder != "iris_model" {
		t.Errorf("%+v", got)
	}
	if last.Layers != 4 || last.LayersTotal != 4 || last.Bytes != last.BytesTotal || last.Bytes != 352_000 {
		t.Errorf("progress %+v", last)
	}
	write(t, filepath.Join(dir, "model.onnx"), "other")
	_, err = c.PushModel(t.Context(), ref, dir, m)
	wants(t, err, zarpa.Invalid, "model.onnx", "not the one that was registered")
}

// entry is an entry of a tar archive.
type entry struct {
	name, text string
	kind       byte // 0 is a file
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o644, Size: int64(len(e.text))}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		} else if e.kind != tar.TypeDir {
			h.Linkname, h.Size = "/etc/passwd", 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(e.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// part is a layer of an artefact that others made.
type part struct {
	media   string
	content []byte
	title   string
	more    map[string]string
}

// others pushes an artefact as other tools make them.
func others(t *testing.T, s *subject, config types.MediaType, parts ...part) string {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for _, p := range parts {
		notes := map[string]string{}
		maps.Copy(notes, p.more)
		if p.title != "" {
			notes["org.opencontainers.image.title"] = p.title
		}
		var err error
		img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(p.content, types.MediaType(p.media)), MediaType: types.MediaType(p.media), Annotations: notes})
		if err != nil {
			t.Fatal(err)
		}
	}
	img = mutate.ConfigMediaType(img, config)
	ref := s.host() + "/others/model:1"
	if _, err := hurried(registry.ClientOptions{}).Push(t.Context(), ref, img); err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestArtefactsOfOthers(t *testing.T) {
	t.Parallel()
	const (
		tarType  = "application/vnd.oci.image.layer.v1.tar"
		gzipType = tarType + "+gzip"
		unknown  = "application/vnd.unknown.config.v1+json"
	)
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	files := archive(t, entry{"m/", "", tar.TypeDir}, entry{"m/a.bin", "aa", 0}, entry{"./m/b.bin", "bb", 0})
	abc := map[string]string{"m/a.bin": "aa", "m/b.bin": "bb"}
	docker := types.DockerConfigJSON
	for name, tc := range map[string]struct {
		config types.MediaType
		parts  []part
		want   map[string]string
		code   zarpa.Code
		says   string
	}{
		"ORASFiles":      {unknown, []part{{"application/octet-stream", []byte("aa"), "m/a.bin", nil}, {"x/y", []byte("bb"), "m/b.bin", nil}}, abc, "", ""},
		"ORASFolder":     {unknown, []part{{gzipType, zipped(t, files), "m", map[string]string{"io.deis.oras.content.unpack": "true"}}}, abc, "", ""},
		"TitledTar":      {unknown, []part{{tarType, files, "archive.tar", nil}}, map[string]string{"archive.tar": string(files)}, "", ""},
		"OneLayer":       {unknown, []part{{"application/octet-stream", []byte("aa"), "", nil}}, map[string]string{"model": "aa"}, "", ""},
		"Modelcar":       {docker, []part{{gzipType, zipped(t, archive(t, entry{"bin/sh", "", tar.TypeSymlink}, entry{"models/a.bin", "old", 0}, entry{"models/gone", "x", 0})), "", nil}, {tarType, archive(t, entry{"./models/a.bin", "aa", 0}, entry{"models/.wh.gone", "", 0}, entry{"/models/sub/b.bin", "bb", 0}), "", nil}}, map[string]string{"a.bin": "aa", "sub/b.bin": "bb"}, "", ""},
		"ModelPack":      {unknown, []part{{"application/vnd.cncf.model.weight.v1.tar", files, "", nil}, {"application/vnd.cncf.model.doc.v1.raw", []byte("# doc"), "", map[string]string{"org.cncf.model.filepath": "README.md"}}, {"application/vnd.cncf.model.weight.config.v1.raw", []byte("{}"), "", map[string]string{"org.cncf.model.filepath": "config.json"}}}, map[string]string{"m/a.bin": "aa", "m/b.bin": "bb", "config.json": "{}"}, "", ""},
		"KitOps":         {unknown, []part{{"application/vnd.kitops.modelkit.model.v1.tar+gzip", zipped(t, files), "", nil}, {"application/vnd.kitops.modelkit.dataset.v1.tar", []byte("no tar"), "", nil}}, abc, "", ""},
		"Zstandard":      {unknown, []part{{tarType + "+zstd", z.EncodeAll(files, nil), "", nil}}, abc, "", ""},
		"NoTitle":        {unknown, []part{{"x/y", []byte("aa"), "", nil}, {"x/z", []byte("bb"), "t", nil}}, nil, zarpa.Invalid, "has no title"},
		"TitleLeaves":    {unknown, []part{{"x/y", []byte("aa"), "../evil", nil}}, nil, zarpa.Invalid, "not a clean relative path"},
		"TitleAbsolute":  {unknown, []part{{"x/y", []byte("aa"), "/etc/evil", nil}}, nil, zarpa.Invalid, "not a clean relative path"},
		"TitleTwice":     {unknown, []part{{"x/y", []byte("aa"), "a", nil}, {"x/y", []byte("bb"), "a", nil}}, nil, zarpa.Invalid, "two layers are called so"},
		"FileAsFolder":   {unknown, []part{{"x/y", []byte("aa"), "a", nil}, {"x/y", []byte("bb"), "a/b", nil}}, nil, zarpa.Invalid, "cannot be written"},
		"TarLeaves":      {unknown, []part{{tarType, archive(t, entry{"a/../../evil", "x", 0}), "", nil}}, nil, zarpa.Invalid, "not a clean relative path"},
		"TarAbsolute":    {unknown, []part{{tarType, archive(t, entry{"/evil", "x", 0}), "", nil}}, nil, zarpa.Invalid, "not a clean relative path"},
		"Symlink":        {unknown, []part{{tarType, archive(t, entry{"a", "", tar.TypeSymlink}), "", nil}}, nil, zarpa.Invalid, "a link or a device"},
		"Hardlink":       {unknown, []part{{tarType, archive(t, entry{"a", "", tar.TypeLink}), "", nil}}, nil, zarpa.Invalid, "a link or a device"},
		"Device":         {unknown, []part{{tarType, archive(t, entry{"a", "", tar.TypeChar}), "", nil}}, nil, zarpa.Invalid, "a link or a device"},
		"LinkInModels":   {docker, []part{{tarType, archive(t, entry{"models/a", "", tar.TypeSymlink}), "", nil}}, nil, zarpa.Invalid, "a link or a device"},
		"WhiteoutLeaves": {docker, []part{{tarType, archive(t, entry{"models/a", "x", 0}, entry{"models/.wh...", "", 0}), "", nil}}, nil, zarpa.Invalid, "not a clean relative path"},
		"NoTar":          {unknown, []part{{tarType, []byte(strings.Repeat("no tar", 500)), "", nil}}, nil, zarpa.Invalid, "not a tar archive"},
		"NoModels":       {docker, []part{{tarType, archive(t, entry{"bin/sh", "x", 0}), "", nil}}, nil, zarpa.Invalid, "holds no files of a model"},
		"TooMany":        {unknown, []part{{tarType, archive(t, entry{"1", "", 0}, entry{"2", "", 0}, entry{"3", "", 0}, entry{"4", "", 0}, entry{"5", "", 0}), "", nil}}, nil, zarpa.TooLarge, "more than 4 files"},
		"Bomb":           {unknown, []part{{gzipType, zipped(t, archive(t, entry{"zeros", strings.Repeat("\x00", 3<<20), 0})), "", nil}}, nil, zarpa.TooLarge, "2097152 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outer := t.TempDir()
			dir := filepath.Join(outer, "into")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			ref := others(t, serve(t, registry.Options{}), tc.config, tc.parts...)
			_, err := hurried(registry.ClientOptions{}).PullModel(t.Context(), ref, dir, registry.Limits{Files: 4, Bytes: 2 << 20})
			if tc.code != "" {
				wants(t, err, tc.code, tc.says)
				if left, _ := os.ReadDir(outer); len(left) != 1 {
					t.Errorf("something left its folder: %v", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			equalFiles(t, filesIn(t, dir), tc.want)
		})
	}
}

func TestADamagedLayerIsNotTaken(t *testing.T) {
	t.Parallel()
	var damage atomic.Bool
	var asked atomic.Int64
	s := serve(t, registry.Options{})
	dir, m := modelIn(t, map[string]string{"model.onnx": "weights", "other": "more"})
	host := faulty(t, func(w http.ResponseWriter, r *http.Request) bool {
		if damage.Load() && strings.HasSuffix(r.URL.Path, digestOf("weights")) {
			if asked.Add(1) == 1 { // first it breaks off, which passes
				w.Header().Set("Content-Length", "7")
				_, _ = w.Write([]byte("wei"))
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write([]byte("WEIGHTS"))
			return true
		}
		s.reg.ServeHTTP(w, r)
		return true
	})
	c := hurried(registry.ClientOptions{})
	if _, err := c.PushModel(t.Context(), host+"/m:1", dir, m); err != nil {
		t.Fatal(err)
	}
	damage.Store(true)
	into := t.TempDir()
	_, err := c.PullModel(t.Context(), host+"/m:1", into, registry.Limits{})
	wants(t, err, zarpa.Invalid, "is damaged", digestOf("weights"))
	if _, err := os.Stat(filepath.Join(into, "model.onnx")); err == nil || asked.Load() != 2 {
		t.Errorf("the damaged file is there (%v), asked %d times", err, asked.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.PullModel(ctx, host+"/m:1", t.TempDir(), registry.Limits{})
	wants(t, err, zarpa.Canceled)
}
