// Package image wraps a bundle as an OCI image, without an engine: layers for the base, the system's
// libraries, the runtime, the Python environment, the code and the model, one each and reproducible to
// the digest. It also writes what an engine builds an image from, where a base's own Python is to be used.
//
// Package registry brings images to registries; this package knows none. Package cmd calls it.
package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
)

// The labels of images, beside those of the OCI.
const (
	LabelBundle      = "dev.zarpa.bundle"      // the bundle's digest
	LabelLibraries   = "dev.zarpa.libraries"   // a JSON list of [Library]: what the image took from the machine
	LabelProvenance  = "dev.zarpa.provenance"  // a [Provenance] in JSON
	LabelEnvironment = "dev.zarpa.environment" // the identity of the Python environment
)

// Port is where a container listens, as the original service's did.
const Port = 5001

// user is who runs in a container: the number that images without a user of their own use by habit.
const user = "65532:65532"

const (
	binFolder         = "zarpa/bin"
	bundleFolder      = "zarpa/bundle"
	environmentFolder = "zarpa/environment"
	workFolder        = "/tmp/zarpa"
)

// Options say how an image is made.
type Options struct {
	// Platform is linux/amd64 or linux/arm64; empty is this machine's.
	Platform string
	// Runtime is what runs in the image.
	Runtime Runtime
	// Sysroot is the folder below which the platform's libraries are; empty is this machine itself.
	Sysroot string
	// Base is what the image builds on; nil is nothing but the libraries that the runtime needs. BaseName
	// is its reference, for the provenance.
	Base     v1.Image
	BaseName string
	// Environment is the folder of the bundle's Python environment, as it was built on this machine. It
	// must be there when the bundle has one, unless the base has it already.
	Environment string
	// Layers is a folder that keeps compressed layers for the next image; [Sweep] clears it. Several
	// processes may share it. The image reads its layers from there: it must stay as long as the image.
	Layers string
	// Uncompressed leaves the layers as large as they are, for an engine on this machine: that is soon made. The
	// image's own digest is another one then, and its identity in an engine the same.
	Uncompressed bool
	// Model is the name of the model that answers /score; empty is the bundle's first.
	Model string
	// Args are the container's arguments for zarpa-score unless it is given others.
	Args []string
	// Env is the environment of the container, by names.
	Env map[string]string
	// Version is zarpa's.
	Version string
	// Title and ModelVersion are told by the labels of the OCI; empty is what the bundle's model says.
	Title, ModelVersion string
	// Labels are further ones.
	Labels map[string]string
}

// Provenance says what an image was made of.
type Provenance struct {
	Zarpa  string   `json:"zarpa"`
	Bundle string   `json:"bundle"`
	Models []string `json:"models"` // NAME:VERSION:DIGEST
	Code   string   `json:"code,omitempty"`
	// Environment is the identity of the Python environment.
	Environment string `json:"environment,omitempty"`
	// Base is a reference, or "none".
	Base       string `json:"base"`
	BaseDigest string `json:"base_digest,omitempty"`
}

// Assemble makes the image of a stored bundle. Equal inputs give an equal digest; another version of the
// model changes the model's layer alone, and other code the code's alone. Nothing is left to read
// but the files in [Options.Layers].
//
// Errors: invalid for files of another platform, naming the file and both architectures, and for options
// that do not go together; not_found for a missing bundle, program or library; unavailable when the disk
// is full; canceled.
func Assemble(ctx context.Context, blobs zarpa.Blobs, digest string, o Options) (v1.Image, error) {
	a, err := newAssembly(ctx, Build{Blobs: blobs, Digest: digest, Options: o})
	if err == nil {
		err = a.make(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("image of bundle %s: %w", digest, err)
	}
	return a.image()
}

// assembly is an image on its way.
type assembly struct {
	o      Options
	from   string // a base that only an engine knows, by its reference
	b      zarpa.Bundle
	blobs  zarpa.Blobs
	digest string
	arch   string
	system *system
	cache  cache
	links  []entry

	layers    []*layer
	have      map[string]string // files from the machine that lower layers hold, by their paths in the image
	libraries []Library
	env       map[string]string
}

func newAssembly(ctx context.Context, build Build) (*assembly, error) {
	b, err := bundle.Describe(ctx, build.Blobs, build.Digest)
	if err != nil {
		return nil, err
	}
	o := build.Options
	if o.Platform == "" {
		o.Platform = "linux/" + runtime.GOARCH
	}
	arch, ok := strings.CutPrefix(o.Platform, "linux/")
	if _, known := machines[arch]; !ok || !known {
		return nil, zarpa.Errorf(zarpa.Invalid, "platform: %q is not known", o.Platform).WithHint("use linux/amd64 or linux/arm64")
	}
	if o.Layers == "" {
		return nil, zarpa.Errorf(zarpa.Invalid, "layers: no folder is named").WithHint("name the folder that layers are kept in")
	}
	a := &assembly{o: o, from: build.Base, b: b, blobs: build.Blobs, digest: build.Digest, arch: arch, cache: cache{o.Layers}, have: map[string]string{}, env: map[string]string{}}
	if err := a.checkBase(); err != nil {
		return nil, err
	}
	if a.system, err = newSystem(o.Sysroot, arch); err != nil {
		return nil, err
	}
	a.links = a.system.links()
	return a, nil
}

// make makes the layers.
func (a *assembly) make(ctx context.Context) error {
	for _, step := range []func(context.Context) error{a.systemLayer, a.runtimeLayer, a.environmentLayers, a.codeLayer, a.modelLayer} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// based reports whether something is below our own layers.
func (a *assembly) based() bool { return a.o.Base != nil || a.from != "" }

// checkBase refuses a base that the bundle cannot run on.
func (a *assembly) checkBase() error {
	if a.o.Base == nil {
		return nil
	}
	config, err := a.o.Base.ConfigFile()
	if err != nil {
		return fmt.Errorf("base %s: %w", a.o.BaseName, err)
	}
	if config.Architecture != a.arch || config.OS != "linux" {
		return zarpa.Errorf(zarpa.Invalid, "base %s: is for %s/%s, and the image is for %s", a.o.BaseName, config.OS, config.Architecture, a.o.Platform).
			WithHint("name a base of that platform")
	}
	if e := a.b.Environment; e != nil && config.Config.Labels[LabelEnvironment] != e.ID {
		return zarpa.Errorf(zarpa.Invalid, "base %s: does not hold the bundle's Python environment %s", a.o.BaseName, e.ID).
			WithHint("let an engine build the environment on that base, or use the base none, which takes this machine's Python")
	}
	return nil
}

// add makes a layer, or finds it.
func (a *assembly) add(ctx context.Context, r recipe) (*layer, error) {
	r.bare = a.o.Uncompressed
	r.key += "\x00" + a.arch
	l, err := a.cache.layer(ctx, r)
	if err != nil {
		return nil, err
	}
	a.layers = append(a.layers, l)
	a.libraries = append(a.libraries, l.note.Libraries...)
	for _, library := range l.note.Libraries {
		a.have[library.Path] = a.o.Sysroot + library.Path
	}
	return l, nil
}

// needsONNX reports whether the image needs ONNX Runtime.
func (a *assembly) needsONNX() bool { return a.b.Engine == "onnx" && a.b.Code == nil }

// binaries are the files of the runtime.
func (a *assembly) binaries() []string {
	if a.needsONNX() {
		return []string{a.o.Runtime.Program, a.o.Runtime.Library}
	}
	return []string{a.o.Runtime.Program}
}

// systemLayer holds the shared libraries that the runtime needs, and a user.
func (a *assembly) systemLayer(ctx context.Context) error {
	for _, file := range a.binaries() {
		if file == "" {
			return zarpa.Errorf(zarpa.NotFound, "runtime: the library of ONNX Runtime is not there").WithHint(runtimeHint)
		}
		if _, err := a.system.read(file); err != nil {
			return notFor(err, file)
		}
	}
	if a.based() {
		return nil
	}
	found, err := a.system.closure(closing{start: a.binaries()})
	if err != nil {
		return err
	}
	entries, list, err := libraries(found, a.links)
	if err != nil {
		return err
	}
	key, err := json.Marshal([]any{list, linkKey(a.links)})
	if err != nil {
		return err
	}
	_, err = a.add(ctx, recipe{kind: "system", key: string(key), make: func(context.Context) ([]entry, []Library, error) {
		entries = append(entries, a.links...)
		entries = append(entries, fileOf("etc/passwd", []byte("root:x:0:0:root:/:/sbin/nologin\nzarpa:x:65532:65532:zarpa:/tmp:/sbin/nologin\n")),
			fileOf("etc/group", []byte("root:x:0:\nzarpa:x:65532:\n")))
		for _, l := range a.links { // what a link leads to is a folder, if an empty one
			entries = append(entries, entry{name: l.link, mode: 0o755, dir: true})
		}
		return entries, list, nil
	}})
	return err
}

func linkKey(links []entry) []string {
	var out []string
	for _, l := range links {
		out = append(out, l.name+"="+l.link)
	}
	return out
}

// runtimeLayer holds zarpa-score and, for ONNX models, ONNX Runtime.
func (a *assembly) runtimeLayer(ctx context.Context) error {
	entries := []entry{{name: "tmp", mode: 0o1777, dir: true}} // also where a base keeps it for root
	var keys []string
	for _, file := range a.binaries() {
		name := path.Join(binFolder, path.Base(file))
		if file == a.o.Runtime.Program {
			name = path.Join(binFolder, "zarpa-score")
		}
		e, err := fromDisk(name, file)
		if err != nil {
			return err
		}
		digest, err := digestFile(file)
		if err != nil {
			return err
		}
		e.mode = 0o755
		entries, keys = append(entries, e), append(keys, name, digest)
	}
	_, err := a.add(ctx, recipe{kind: "runtime", key: strings.Join(keys, "\x00"), make: func(context.Context) ([]entry, []Library, error) {
		return entries, nil, nil
	}})
	return err
}

func (a *assembly) codeLayer(ctx context.Context) error {
	if a.b.Code == nil {
		return nil
	}
	return a.bundleLayer(ctx, "code", false)
}

// modelLayer holds the models and, where no script stands for them, what the bundle says of itself.
func (a *assembly) modelLayer(ctx context.Context) error {
	if len(a.b.Models) == 0 {
		return nil
	}
	return a.bundleLayer(ctx, "model", a.b.Code == nil)
}

// bundleLayer holds a folder of the bundle.
func (a *assembly) bundleLayer(ctx context.Context, kind string, described bool) error {
	entries, key, err := bundleEntries(ctx, a.blobs, bundlePart{a.b, kind, a.digest, described})
	if err != nil {
		return err
	}
	_, err = a.add(ctx, recipe{kind: kind, key: key, fast: kind == "model", make: func(context.Context) ([]entry, []Library, error) {
		return entries, nil, nil
	}})
	return err
}

// bundlePart is a folder of a bundle: its code or its models.
type bundlePart struct {
	b            zarpa.Bundle
	kind, digest string
	described    bool // with bundle.json
}

// bundleEntries are the files of a part of a bundle, with a key of their content.
func bundleEntries(ctx context.Context, blobs zarpa.Blobs, p bundlePart) ([]entry, string, error) {
	prefix := map[string]string{"code": "code/", "model": "models/"}[p.kind]
	var entries []entry
	var key strings.Builder
	add := func(f zarpa.File) {
		name := path.Join(bundleFolder, f.Path)
		fmt.Fprintf(&key, "%s %d %s\n", f.Digest, f.Size, name)
		entries = append(entries, blobEntry(ctx, blobs, f, name))
	}
	for _, f := range bundle.Files(p.b) {
		if strings.HasPrefix(f.Path, prefix) {
			add(f)
		}
	}
	if p.described {
		r, err := blobs.Open(ctx, p.digest)
		if err != nil {
			return nil, "", err
		}
		size, err := r.Seek(0, io.SeekEnd)
		if err := joinClose(err, r); err != nil {
			return nil, "", err
		}
		add(zarpa.File{Path: "bundle.json", Digest: p.digest, Size: size})
	}
	return entries, key.String(), nil
}

// blobEntry is a file of the blobs, checked as it is read.
func blobEntry(ctx context.Context, blobs zarpa.Blobs, f zarpa.File, name string) entry {
	return entry{name: name, mode: 0o644, size: f.Size, open: func() (io.ReadCloser, error) {
		r, err := blobs.Open(ctx, f.Digest)
		if err != nil {
			return nil, err
		}
		return newChecked(r, f), nil
	}}
}

// image puts the layers together.
func (a *assembly) image() (v1.Image, error) {
	base, layerType := a.o.Base, types.OCILayer
	if base == nil {
		base = mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	} else if kind, err := base.MediaType(); err == nil && kind == types.DockerManifestSchema2 {
		layerType = types.DockerLayer // one kind in one manifest
	}
	adds := make([]mutate.Addendum, 0, len(a.layers))
	for _, l := range a.layers {
		l.mediaType = layerType
		adds = append(adds, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: createdBy + l.note.Kind, Created: v1.Time{Time: made}}})
	}
	img, err := mutate.Append(base, adds...)
	if err != nil {
		return nil, fmt.Errorf("append layers: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	config = config.DeepCopy()
	if err := a.configure(config); err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, config)
}

// createdBy stands before the kind of each of our layers in the history.
const createdBy = "zarpa package: "

// configure says how the image is run and what it is.
func (a *assembly) configure(c *v1.ConfigFile) error {
	c.Architecture, c.OS, c.Created = a.arch, "linux", v1.Time{Time: made}
	if !a.based() {
		dirs, err := unsearched(a.have, a.links)
		if err != nil {
			return err
		}
		if len(dirs) > 0 {
			a.env["LD_LIBRARY_PATH"] = strings.Join(dirs, ":")
		}
		a.env["PATH"] = "/usr/local/bin:/usr/bin:/bin:/" + binFolder
	}
	if a.b.Environment != nil {
		a.env["PATH"] = "/" + environmentFolder + "/bin:" + first(a.env["PATH"], "/usr/local/bin:/usr/bin:/bin")
	}
	maps.Copy(a.env, a.o.Env)
	for _, name := range slices.Sorted(maps.Keys(a.env)) {
		c.Config.Env = append(slices.DeleteFunc(c.Config.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") }), name+"="+a.env[name])
	}
	c.Config.User = user
	c.Config.WorkingDir = "/tmp"
	c.Config.ExposedPorts = map[string]struct{}{strconv.Itoa(Port) + "/tcp": {}}
	c.Config.Entrypoint = Entrypoint(a.b, a.o)
	c.Config.Cmd = a.o.Args
	c.Config.StopSignal = "SIGTERM"
	labels, err := a.labels()
	if err != nil {
		return err
	}
	if c.Config.Labels == nil {
		c.Config.Labels = map[string]string{}
	}
	maps.Copy(c.Config.Labels, labels)
	return nil
}
