package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/zarpa-dev/zarpa"
)

// PulledModel is what an artefact held.
type PulledModel struct {
	// Reference is that of the artefact by digest.
	Reference string
	// Config is what the artefact tells of its model; the zero value for artefacts that others made.
	Config ModelConfig
	Files  int
	Size   int64
}

// Limits bound what is unpacked. Zero fields are the defaults.
type Limits struct {
	Files int   // [DefaultMaxFiles]
	Bytes int64 // the sum of their sizes, [DefaultMaxBytes]
}

// The defaults of [Limits], and the most that a config may have.
const (
	DefaultMaxFiles = 10_000
	DefaultMaxBytes = 64 << 30
	maxConfig       = 16 << 20
)

// PullModel writes the files of an artefact into dir, which must be empty. It takes models that PushModel
// pushed; artefacts whose layers have titles (ORAS); ModelPack's and KitOps's weights; images with their files in
// /models (KServe's modelcars); and single layers. Each layer is checked against its digest before it is
// unpacked. Errors are those of [Client.Pull], invalid for what is no model, and too_large beyond the limits; dir
// may then hold some files.
func (c *Client) PullModel(ctx context.Context, ref, dir string, limits Limits) (PulledModel, error) {
	r, err := c.parse(ref)
	if err != nil {
		return PulledModel{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return PulledModel{}, err
	}
	defer root.Close() //nolint:errcheck // it was only a place
	k := c.call("pull", r)
	var img v1.Image
	err = k.retried(ctx, func() error {
		d, err := remote.Get(r, append(k.options(ctx), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))...)
		if err != nil {
			return err
		}
		img, err = d.Image()
		return err
	})
	if err != nil {
		return PulledModel{}, err
	}
	p := &puller{call: k, img: img, out: unpacker{root: root, files: cmp.Or(limits.Files, DefaultMaxFiles), bytes: cmp.Or(limits.Bytes, DefaultMaxBytes)}}
	if err := p.run(ctx); err != nil {
		return PulledModel{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return PulledModel{}, err
	}
	return PulledModel{Reference: r.Context().Digest(digest.String()).Name(), Config: p.config, Files: p.out.written, Size: p.out.size}, nil
}

// puller is one pull of a model.
type puller struct {
	*call
	img    v1.Image
	config ModelConfig
	out    unpacker
	told   Progress
}

// content is a layer with files of a model, and how they are in it.
type content struct {
	v1.Descriptor
	name string // of the one file; "" for a tar archive
	only string // what of an archive is taken: what is below this folder
}

func (p *puller) run(ctx context.Context) error {
	var manifest *v1.Manifest
	err := p.retried(ctx, func() (err error) { manifest, err = p.img.Manifest(); return err })
	if err != nil {
		return err
	}
	if manifest.Config.MediaType == ModelConfigType {
		if err := p.readConfig(ctx, manifest.Config); err != nil {
			return err
		}
	}
	contents, err := contentsOf(p.ref.Context().RepositoryStr(), manifest)
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "pull %s: %s", p.ref, err.Error()).WithHint("push a model with zarpa model push, or with oras push")
	}
	p.told.LayersTotal = len(contents)
	for _, c := range contents {
		p.told.BytesTotal += c.Size
	}
	for _, c := range contents {
		if c.Size > p.out.bytes {
			return p.out.tooLarge()
		}
		if err := p.take(ctx, c); err != nil {
			return err
		}
		p.told.Layers++
		p.tell(0)
	}
	if p.out.written == 0 {
		return zarpa.Errorf(zarpa.Invalid, "pull %s: it holds no files of a model", p.ref).WithHint("an image has them in /models, another artefact in its layers")
	}
	return nil
}

func (p *puller) tell(n int64) {
	p.told.Bytes += n
	if p.client.o.Progress != nil {
		p.client.o.Progress(p.told)
	}
}

// readConfig reads what the artefact tells.
func (p *puller) readConfig(ctx context.Context, d v1.Descriptor) error {
	if d.Size > maxConfig {
		return zarpa.Errorf(zarpa.TooLarge, "pull %s: its config has %d bytes, at most %d", p.ref, d.Size, maxConfig)
	}
	var text []byte
	if err := p.retried(ctx, func() (err error) { text, err = p.img.RawConfigFile(); return err }); err != nil {
		return err
	}
	if err := json.Unmarshal(text, &p.config); err != nil {
		return zarpa.Errorf(zarpa.Invalid, "pull %s: its config is not that of a model: %w", p.ref, err)
	}
	return nil
}

// contentsOf says which layers hold files of the model.
func contentsOf(repo string, m *v1.Manifest) ([]content, error) {
	var list []content
	image := m.Config.MediaType.IsConfig()
	for _, d := range m.Layers {
		kind := string(d.MediaType)
		name := cmp.Or(d.Annotations[titleAnnotation], d.Annotations["org.cncf.model.filepath"])
		c := content{Descriptor: d, name: name}
		switch {
		case kind == "application/vnd.oci.empty.v1+json":
			continue
		case image:
			c.name, c.only = "", "models"
		case strings.HasPrefix(kind, "application/vnd.kitops."):
			if !strings.HasPrefix(kind, "application/vnd.kitops.modelkit.model.") && !strings.HasPrefix(kind, "application/vnd.kitops.modelkit.modelpart.") {
				continue // data sets, code and documents
			}
			c.name = ""
		case strings.HasPrefix(kind, "application/vnd.cncf.model."):
			if !strings.HasPrefix(kind, "application/vnd.cncf.model.weight.") {
				continue
			}
			if isTar(kind) {
				c.name = ""
			}
		case d.Annotations["io.deis.oras.content.unpack"] == "true": // a folder that ORAS packed
			c.name = ""
		case name == "" && isTar(kind):
		case name == "" && len(m.Layers) == 1:
			c.name = path.Base(repo)
		case name == "":
			return nil, errors.New("a layer of the type " + cmp.Or(kind, "(none)") + " has no title, so that its file has no name")
		}
		if c.name != "" {
			if err := zarpa.ValidatePath(c.name); err != nil || c.name == arriving {
				return nil, cmp.Or(err, errors.New("no file of a model may be called "+arriving))
			}
		}
		list = append(list, c)
	}
	return list, nil
}

// isTar tells the media types of archives.
func isTar(mediaType string) bool {
	return strings.HasSuffix(mediaType, ".tar") || strings.Contains(mediaType, ".tar+") || strings.Contains(mediaType, ".tar.") ||
		mediaType == "application/tar" || mediaType == "application/x-tar" || mediaType == "application/tar+gzip"
}

// arriving is the name of a layer on its way in: no file of a model has it.
const arriving = ".zarpa-layer"

// take brings one layer, checks it, and then puts its files in their places.
func (p *puller) take(ctx context.Context, c content) error {
	if err := p.retried(ctx, func() error { return p.fetch(c) }); err != nil {
		return err
	}
	defer p.out.root.Remove(arriving) //nolint:errcheck // moved, for single files
	if c.name != "" {
		return p.out.place(c.name, c.Size)
	}
	f, err := p.out.root.Open(arriving)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	if err := p.out.untar(ctx, f, c.only); err != nil {
		e := *zarpa.AsError(err)
		e.Message = "pull " + p.ref.String() + ": layer " + c.Digest.String() + ": " + e.Message
		return &e
	}
	return nil
}

// fetch writes a layer into a file and checks its digest.
func (p *puller) fetch(c content) error {
	l, err := p.img.LayerByDigest(c.Digest)
	if err != nil {
		return err
	}
	in, err := l.Compressed()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := p.out.root.OpenFile(arriving, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum, before := sha256.New(), p.told.Bytes
	n, err := io.Copy(io.MultiWriter(out, sum, progressWriter{p}), io.LimitReader(in, c.Size+1))
	err = errors.Join(err, out.Close())
	if got := hex.EncodeToString(sum.Sum(nil)); n >= c.Size && (n > c.Size || got != c.Digest.Hex) {
		err = zarpa.Errorf(zarpa.Invalid, "pull %s: layer %s is damaged: its content has the digest sha256:%s", p.ref, c.Digest, got).
			WithHint("push it again, or see whether something between changes what it transports")
	}
	if err == nil && n < c.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		p.told.Bytes = before
	}
	return err
}

type progressWriter struct{ p *puller }

func (w progressWriter) Write(b []byte) (int, error) {
	w.p.tell(int64(len(b)))
	return len(b), nil
}

// place moves the layer that has arrived to its file.
func (u *unpacker) place(name string, size int64) error {
	if err := u.count(size); err != nil {
		return err
	}
	if err := u.root.MkdirAll(filepath.Dir(filepath.FromSlash(name)), 0o700); err != nil {
		return occupied(name, err)
	}
	if _, err := u.root.Lstat(filepath.FromSlash(name)); err == nil {
		return zarpa.Errorf(zarpa.Invalid, "file %.200q: two layers are called so", name)
	}
	if err := u.root.Rename(arriving, filepath.FromSlash(name)); err != nil {
		return occupied(name, err)
	}
	return nil
}

func occupied(name string, err error) error {
	return zarpa.Errorf(zarpa.Invalid, "file %.200q cannot be written: %w", name, err)
}
