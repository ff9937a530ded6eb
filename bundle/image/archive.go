package image

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/zarpa-dev/zarpa"
)

// WriteArchive writes an image as docker load, podman load and ctr images import take it, under a name
// such as iris:3.
func WriteArchive(w io.Writer, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return badName(ref, err)
	}
	if err := tarball.Write(tag, img, w); err != nil {
		return fmt.Errorf("write the image %s: %w", ref, diskError(ref, err))
	}
	return nil
}

func badName(ref string, err error) error {
	return zarpa.Errorf(zarpa.Invalid, "image name %.200q: %w", ref, err).WithHint("write NAME:TAG or HOST/NAME:TAG, such as models/iris:3")
}

// refName is the annotation of an image's name in a layout's index.
const refName = "org.opencontainers.image.ref.name"

// WriteLayout writes an image as a folder in the layout of the OCI, under a name. The folder is made, or
// must be empty or hold a layout, in which the image becomes the only one; blobs that are there are kept.
func WriteLayout(dir, ref string, img v1.Image) error {
	if _, err := name.NewTag(ref); err != nil {
		return badName(ref, err)
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		if _, err := layout.FromPath(dir); err != nil {
			return zarpa.Errorf(zarpa.Conflict, "%s: the folder holds something else", dir).WithHint("name an empty folder, or one that does not exist yet")
		}
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: img, Descriptor: v1.Descriptor{Annotations: map[string]string{refName: ref}},
	})
	if _, err := layout.Write(dir, index); err != nil {
		return fmt.Errorf("write the image into %s: %w", dir, diskError(dir, err))
	}
	return nil
}

// Sizes are those of an image, in bytes.
type Sizes struct {
	Compressed, Unpacked int64
	Layers               []LayerSize
}

// LayerSize is the size of a layer, in bytes.
type LayerSize struct {
	// Kind is base, system, runtime, interpreter, environment, code or model.
	Kind                 string
	Digest               string
	Compressed, Unpacked int64
}

// Size measures an image: what its layers take as they travel, and the files in them. The unpacked size of
// a base is that of its tars.
func Size(img v1.Image) (Sizes, error) {
	var s Sizes
	layers, err := img.Layers()
	if err != nil {
		return s, fmt.Errorf("measure the image: %w", err)
	}
	for _, l := range layers {
		one, err := measure(l)
		if err != nil {
			return s, fmt.Errorf("measure a layer: %w", err)
		}
		s.Layers = append(s.Layers, one)
		s.Compressed += one.Compressed
		s.Unpacked += one.Unpacked
	}
	kinds, err := kindsOf(img)
	if err != nil {
		return s, err
	}
	for i := range s.Layers {
		if s.Layers[i].Kind = "base"; len(kinds) == len(s.Layers) && kinds[i] != "" {
			s.Layers[i].Kind = kinds[i]
		}
	}
	return s, nil
}

func measure(l v1.Layer) (LayerSize, error) {
	digest, err := l.Digest()
	if err != nil {
		return LayerSize{}, err
	}
	size := LayerSize{Digest: digest.String()}
	if size.Compressed, err = l.Size(); err != nil {
		return size, err
	}
	if own, ok := l.(*layer); ok {
		size.Unpacked = own.note.Unpacked
		return size, nil
	}
	r, err := l.Uncompressed()
	if err != nil {
		return size, err
	}
	size.Unpacked, err = io.Copy(io.Discard, r)
	return size, joinClose(err, r)
}

// kindsOf are the kinds of an image's layers as its history tells them, "" for those of others.
func kindsOf(img v1.Image) ([]string, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("measure the image: %w", err)
	}
	var kinds []string
	for _, h := range config.History {
		if !h.EmptyLayer {
			kind, ours := strings.CutPrefix(h.CreatedBy, createdBy)
			if !ours {
				kind = ""
			}
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}
