package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zarpa-dev/zarpa"
)

// The media types of a model as an OCI artefact: a manifest with this artifactType, a config of this type, and
// a layer of plain bytes for each file, whose title is the file's path. Other tools (ORAS) read and write such layers, too.
const (
	ModelArtifactType = "application/vnd.zarpa.model.v1+json"
	ModelConfigType   = "application/vnd.zarpa.model.config.v1+json"
	fileType          = "application/octet-stream"

	titleAnnotation       = "org.opencontainers.image.title"
	descriptionAnnotation = "org.opencontainers.image.description"
	versionAnnotation     = "org.opencontainers.image.version"
)

// ModelConfig is what an artefact tells of its model beside the files.
type ModelConfig struct {
	Name             string            `json:"name"`
	Version          int               `json:"version"`
	Format           string            `json:"format"`
	Framework        string            `json:"framework,omitempty"`
	FrameworkVersion string            `json:"framework_version,omitempty"`
	Folder           string            `json:"folder,omitempty"`
	Tags             map[string]string `json:"tags,omitempty"`
	Properties       map[string]string `json:"properties,omitempty"`
	Description      string            `json:"description,omitempty"`
	Signature        zarpa.Signature   `json:"signature"`
}

// configOf is the config of a registered model.
func configOf(m zarpa.Model) ModelConfig {
	return ModelConfig{
		Name: m.Name, Version: m.Version, Format: m.Format, Framework: m.Framework, FrameworkVersion: m.FrameworkVersion,
		Folder: m.Folder, Tags: m.Tags, Properties: m.Properties, Description: m.Description, Signature: m.Signature,
	}
}

// PushModel pushes a registered model, whose files are in dir, and returns the artefact's reference by
// digest. The same model gives the same digest. Files are checked against the model's digests first: invalid
// when one differs. Other errors are those of [Client.Push].
func (c *Client) PushModel(ctx context.Context, ref, dir string, m zarpa.Model) (string, error) {
	a, err := newArtefact(dir, m)
	if err != nil {
		return "", err
	}
	return c.Push(ctx, ref, a)
}

// artefact is a model as an image of the library's.
type artefact struct {
	manifest    v1.Manifest
	raw, config []byte
	layers      []v1.Layer
}

var _ v1.Image = (*artefact)(nil)

func newArtefact(dir string, m zarpa.Model) (*artefact, error) {
	config, err := json.Marshal(configOf(m))
	if err != nil {
		return nil, err
	}
	a := &artefact{config: config}
	a.manifest = v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: ModelArtifactType,
		Config:      v1.Descriptor{MediaType: ModelConfigType, Size: int64(len(config)), Digest: hashOf(config)},
		Annotations: map[string]string{titleAnnotation: m.Name, versionAnnotation: m.Ref().String()},
	}
	if m.Description != "" {
		a.manifest.Annotations[descriptionAnnotation] = m.Description
	}
	files := slices.Clone(m.Content.Files)
	for _, f := range files {
		l, err := newFileLayer(dir, f)
		if err != nil {
			return nil, err
		}
		a.layers = append(a.layers, l)
		a.manifest.Layers = append(a.manifest.Layers, v1.Descriptor{
			MediaType: fileType, Size: l.size, Digest: l.digest, Annotations: map[string]string{titleAnnotation: f.Path},
		})
	}
	a.raw, err = json.Marshal(a.manifest)
	return a, err
}

func hashOf(b []byte) v1.Hash {
	sum := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// The methods of v1.Image.

func (a *artefact) Layers() ([]v1.Layer, error)               { return a.layers, nil }
func (a *artefact) MediaType() (types.MediaType, error)       { return a.manifest.MediaType, nil }
func (a *artefact) Size() (int64, error)                      { return int64(len(a.raw)), nil }
func (a *artefact) ConfigName() (v1.Hash, error)              { return a.manifest.Config.Digest, nil }
func (a *artefact) ConfigFile() (*v1.ConfigFile, error)       { return &v1.ConfigFile{}, nil }
func (a *artefact) RawConfigFile() ([]byte, error)            { return a.config, nil }
func (a *artefact) Digest() (v1.Hash, error)                  { return hashOf(a.raw), nil }
func (a *artefact) Manifest() (*v1.Manifest, error)           { return &a.manifest, nil }
func (a *artefact) RawManifest() ([]byte, error)              { return a.raw, nil }
func (a *artefact) LayerByDiffID(h v1.Hash) (v1.Layer, error) { return a.LayerByDigest(h) }

func (a *artefact) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	for i, d := range a.manifest.Layers {
		if d.Digest == h {
			return a.layers[i], nil
		}
	}
	return nil, zarpa.Errorf(zarpa.NotFound, "the artefact has no layer %s", h)
}

// fileLayer is a file as a layer of its plain bytes.
type fileLayer struct {
	path   string
	digest v1.Hash
	size   int64
}

// newFileLayer checks a file against what its model says of it.
func newFileLayer(dir string, f zarpa.File) (*fileLayer, error) {
	if err := zarpa.ValidatePath(f.Path); err != nil {
		return nil, err
	}
	l := &fileLayer{path: filepath.Join(dir, filepath.FromSlash(f.Path))}
	in, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // it was only read
	sum := sha256.New()
	if l.size, err = io.Copy(sum, in); err != nil {
		return nil, err
	}
	l.digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	if l.digest.String() != f.Digest || l.size != f.Size {
		return nil, zarpa.Errorf(zarpa.Invalid, "file %s: it is not the one that was registered", f.Path).WithHint("try again: it may have been damaged on its way")
	}
	return l, nil
}

// The methods of v1.Layer.

func (l *fileLayer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error)  { return fileType, nil }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }
func (l *fileLayer) Compressed() (io.ReadCloser, error) {
	if l.size == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return os.Open(l.path)
}
