package image_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle/image"
)

func TestEqualInputsGiveEqualDigests(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	first := s.assemble(s.model(1, "one"))
	s.opts.Layers = t.TempDir()
	if again := s.assemble(s.model(1, "one")); digestOf(t, again) != digestOf(t, first) {
		t.Errorf("%s and %s differ", digestOf(t, again), digestOf(t, first))
	}
	if err := validate.Image(first); err != nil {
		t.Error(err)
	}
}

// differing are the kinds of layers in which two images differ.
func differing(t *testing.T, a, b v1.Image) []string {
	t.Helper()
	was, is := layers(t, a), layers(t, b)
	var out []string
	for kind := range maps.Keys(is) {
		if was[kind] != is[kind] {
			out = append(out, kind)
		}
	}
	if len(was) != len(is) {
		t.Errorf("%v and %v have other layers", was, is)
	}
	slices.Sort(out)
	return out
}

func TestAChangeMovesItsOwnLayerAlone(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	if got := differing(t, s.assemble(s.model(1, "one")), s.assemble(s.model(2, "two"))); !slices.Equal(got, []string{"model"}) {
		t.Errorf("another model changes %v", got)
	}
	first := s.assemble(s.script("a = 1", "one"))
	if got := differing(t, first, s.assemble(s.script("a = 2", "one"))); !slices.Equal(got, []string{"code"}) {
		t.Errorf("another script changes %v", got)
	}
	if got := differing(t, first, s.assemble(s.script("a = 1", "two"))); !slices.Equal(got, []string{"model"}) {
		t.Errorf("another model beside a script changes %v", got)
	}
}

func TestImageRunsAsNobodyOnAPort(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.opts.Args, s.opts.Env, s.opts.Labels = []string{"--threads", "1"}, map[string]string{"KEY": "value"}, map[string]string{"own": "label"}
	b := s.model(3, "one")
	img := s.assemble(b)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if c.User != "65532:65532" || len(c.ExposedPorts) != 1 || config.Architecture != runtime.GOARCH || config.OS != "linux" {
		t.Errorf("user %q, ports %v, %s/%s", c.User, c.ExposedPorts, config.OS, config.Architecture)
	}
	want := []string{"/zarpa/bin/zarpa-score", "--listen", "0.0.0.0:5001", "--insecure", "--bundle", "/zarpa/bundle"}
	if !slices.Equal(c.Entrypoint, want) || !slices.Equal(c.Cmd, s.opts.Args) {
		t.Errorf("runs %q with %q", c.Entrypoint, c.Cmd)
	}
	if !slices.Contains(c.Env, "KEY=value") || c.Labels["own"] != "label" {
		t.Errorf("env %q, labels %q", c.Env, c.Labels)
	}
	var p image.Provenance
	if err := json.Unmarshal([]byte(c.Labels[image.LabelProvenance]), &p); err != nil {
		t.Fatal(err)
	}
	if p.Base != "none" || p.Zarpa != "1.2.3" || len(p.Models) != 1 || p.Models[0] != "iris:3:"+b.Models[0].Content.Digest {
		t.Errorf("provenance %+v", p)
	}
	if c.Labels["org.opencontainers.image.title"] != "iris" || c.Labels["org.opencontainers.image.version"] != "3" {
		t.Errorf("labels %q", c.Labels)
	}
	held := files(t, img)
	if held["zarpa/bundle/models/iris/3/iris.onnx"] != "one" || held["zarpa/bundle/bundle.json"] == "" || !strings.Contains(held["etc/passwd"], "65532") {
		t.Errorf("it holds %q", slices.Collect(maps.Keys(held)))
	}
}

func TestSeveralModelsHaveAMainOne(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	b := s.model(1, "one")
	b.Models = append(b.Models, zarpa.BundleModel{Name: "rank", Version: 1, Content: s.content(map[string]string{"m": "two"}), File: "m"})
	s.opts.Model = "rank"
	config, err := s.assemble(b).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(config.Config.Entrypoint[6:], []string{"--model", "rank"}) {
		t.Errorf("runs %q", config.Config.Entrypoint)
	}
}

func TestFilesOfAnotherPlatformAreRefused(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	program, arch := foreign(t)
	s.opts.Runtime.Program = program
	e := s.fails(s.model(1, "one"), zarpa.Invalid)
	for _, word := range []string{program, arch, runtime.GOARCH} {
		if !strings.Contains(e.Message, word) {
			t.Errorf("%q does not name %s", e.Message, word)
		}
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*image.Options)
		code   zarpa.Code
		says   string
	}{
		"platform": {func(o *image.Options) { o.Platform = "windows/amd64" }, zarpa.Invalid, "windows/amd64"},
		"layers":   {func(o *image.Options) { o.Layers = "" }, zarpa.Invalid, "layers"},
		"sysroot":  {func(o *image.Options) { o.Sysroot = "/no/such" }, zarpa.NotFound, "/no/such"},
		"library":  {func(o *image.Options) { o.Runtime.Library = "" }, zarpa.NotFound, "ONNX Runtime"},
		"program":  {func(o *image.Options) { o.Runtime.Program = text }, zarpa.Invalid, text},
		"missing":  {func(o *image.Options) { o.Runtime.Program = text + "-" }, zarpa.NotFound, text + "-"},
	} {
		one := s
		test.change(&one.opts)
		if e := one.fails(s.model(1, "one"), test.code); !strings.Contains(e.Message, test.says) || e.Hint == "" && name != "missing" && name != "library" {
			t.Errorf("%s: %q, hint %q", name, e.Message, e.Hint)
		}
	}
	if _, err := image.Assemble(t.Context(), s.blobs, "sha256:"+strings.Repeat("0", 64), s.opts); !errors.Is(err, zarpa.ErrNotFound) {
		t.Errorf("a bundle that is not there: %v", err)
	}
	if _, err := image.Assemble(canceled(), s.blobs, s.build(s.model(1, "x")), s.opts); zarpa.AsError(err).Code != zarpa.Canceled {
		t.Errorf("canceled: %v", err)
	}
}

func TestBaseIsBelowEverything(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	below, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	config, err := below.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	config.Config.Env = []string{"PATH=/base", "OWN=1"}
	s.opts.BaseName = "example.com/base:1"
	if s.opts.Base, err = mutate.ConfigFile(below, config); err != nil {
		t.Fatal(err)
	}
	img := s.assemble(s.model(1, "one"))
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	sizes, err := image.Size(img)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, l := range sizes.Layers {
		kinds = append(kinds, l.Kind)
	}
	if !slices.Equal(kinds, []string{"base", "base", "runtime", "model"}) {
		t.Errorf("layers %q", kinds)
	}
	got, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Config.Env, []string{"PATH=/base", "OWN=1"}) || !strings.Contains(got.Config.Labels[image.LabelProvenance], "example.com/base:1") {
		t.Errorf("env %q, labels %q", got.Config.Env, got.Config.Labels)
	}
	b := s.script("a", "one")
	b.Environment = &zarpa.BundleEnvironment{ID: "0123456789abcdef", Python: "3.11.2", Lock: []string{}}
	if e := s.fails(b, zarpa.Invalid); !strings.Contains(e.Message, "0123456789abcdef") {
		t.Error(e)
	}
	config.Architecture = "riscv64"
	if s.opts.Base, err = mutate.ConfigFile(below, config); err != nil {
		t.Fatal(err)
	}
	if e := s.fails(s.model(1, "one"), zarpa.Invalid); !strings.Contains(e.Message, "riscv64") {
		t.Error(e)
	}
}

func TestManyAtOnceShareTheLayers(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	digest := s.build(s.model(1, "one"))
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[v1.Hash]bool{}
	for range 4 {
		all.Go(func() {
			img, err := image.Assemble(t.Context(), s.blobs, digest, s.opts)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := img.Digest()
			mu.Lock()
			defer mu.Unlock()
			if seen[got] = true; err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(seen) != 1 {
		t.Errorf("digests %v", seen)
	}
	if left, _ := filepath.Glob(filepath.Join(s.opts.Layers, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSweepSparesWhatIsYoung(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	img := s.assemble(s.model(1, "one"))
	if freed, err := image.Sweep(s.opts.Layers, time.Now().Add(-time.Hour)); err != nil || freed != 0 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	if freed, err := image.Sweep(s.opts.Layers, time.Now().Add(time.Hour)); err != nil || freed == 0 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if left, err := os.ReadDir(s.opts.Layers); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if again := s.assemble(s.model(1, "one")); digestOf(t, again) != digestOf(t, img) {
		t.Error("it is another image after a sweep")
	}
}

func TestADamagedBlobIsNotPackaged(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	b := s.model(1, "one")
	digest := s.build(b)
	s.damage(b.Models[0].Content.Files[0].Digest)
	if _, err := image.Assemble(t.Context(), s.blobs, digest, s.opts); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("the damage was not seen: %v", err)
	}
}

func TestArchiveAndLayoutHoldTheImage(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	img := s.assemble(s.model(1, "one"))
	var archive, again bytes.Buffer
	if err := errors.Join(image.WriteArchive(&archive, "models/iris:1", img), image.WriteArchive(&again, "models/iris:1", img)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Error("two archives differ")
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(loaded); err != nil {
		t.Error(err)
	}
	folder := filepath.Join(t.TempDir(), "layout")
	for range 2 { // the second finds the first
		if err := image.WriteLayout(folder, "models/iris:1", img); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	stored, err := index.Image(digestOf(t, img))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := layers(t, stored), layers(t, img); !maps.Equal(got, want) {
		t.Errorf("layers %v, want %v", got, want)
	}
	if err := image.WriteLayout(filepath.Dir(path), "iris:1", img); !errors.Is(err, zarpa.ErrConflict) {
		t.Errorf("a folder of something else: %v", err)
	}
	if err := image.WriteArchive(&again, "NOT A NAME", img); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("a wrong name: %v", err)
	}
}
