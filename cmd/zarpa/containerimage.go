package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/bundle/image"
	"github.com/zarpa-dev/zarpa/engine/onnx"
	"github.com/zarpa-dev/zarpa/target/container"
)

// ownRuntime is what runs in images for this machine's platform: zarpa-score beside this program, or this
// program itself where that is missing, and the library that is named or found.
func ownRuntime(library string) (image.Runtime, error) {
	program, err := os.Executable()
	if err != nil {
		return image.Runtime{}, zarpa.Errorf(zarpa.Unavailable, "this program's own file: %w", err)
	}
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	r := image.Runtime{Program: filepath.Join(filepath.Dir(program), "zarpa-score")}
	if _, err := os.Stat(r.Program); err != nil {
		r.Program, r.Verb = program, []string{"score"}
	}
	r.Library, err = onnx.Library(library)
	if library == "" {
		err = nil // a model that needs it will say so
	}
	return r, err
}

// image is the image of a bundle: on no base put together here, on a base built by the engine, where the
// base's own interpreter and libraries serve.
func (p *plane) image(ctx context.Context, digest, base string) (container.Image, error) {
	b, err := bundle.Describe(ctx, p.blobs, digest)
	if err != nil {
		return container.Image{}, err
	}
	files, err := ownRuntime(os.Getenv("ZARPA_ONNXRUNTIME"))
	if err != nil {
		return container.Image{}, err
	}
	o := image.Options{Platform: "linux/" + runtime.GOARCH, Runtime: files, Layers: filepath.Join(p.data, "layers"), Version: version, Uncompressed: true}
	if base != "" {
		return builtImage(b, image.Build{Blobs: p.blobs, Digest: digest, Base: base, Options: o})
	}
	if b.Environment != nil {
		o.Environment = filepath.Join(p.data, "environments", b.Environment.ID)
	}
	img, err := image.Assemble(ctx, p.blobs, digest, o)
	if err != nil {
		return container.Image{}, err
	}
	return archivedImage(img, o.Platform)
}

// archivedImage is one that was put together here.
func archivedImage(img v1.Image, platform string) (container.Image, error) {
	name, err := image.Name(img)
	if err != nil {
		return container.Image{}, err
	}
	size, err := image.Size(img)
	if err != nil {
		return container.Image{}, err
	}
	return container.Image{Name: name, Platform: platform, Size: size.Unpacked, Archive: func(_ context.Context, w io.Writer) error {
		return image.WriteArchive(w, name, img)
	}}, nil
}

// dockerHub is what engines call Docker's own registry in logins.
const dockerHub = "https://index.docker.io/v1/"

// login is what this user's docker or podman login has stored for the registry of a base image.
func login(ctx context.Context, base string) (container.Login, error) {
	ref, err := name.ParseReference(base)
	if err != nil {
		return container.Login{}, zarpa.Errorf(zarpa.Invalid, "base: %.260q is no name of an image", base).Because(err)
	}
	who, err := authn.Resolve(ctx, authn.DefaultKeychain, ref.Context())
	if err != nil || who == authn.Anonymous {
		return container.Login{}, err
	}
	auth, err := authn.Authorization(ctx, who)
	if err != nil {
		return container.Login{}, err
	}
	registry := ref.Context().RegistryStr()
	if registry == name.DefaultRegistry {
		registry = dockerHub
	}
	return container.Login{Registry: registry, Username: auth.Username, Password: auth.Password, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}, nil
}

// builtImage is one that the engine builds: the environment, where there is one, once for all bundles that need it.
func builtImage(b zarpa.Bundle, build image.Build) (container.Image, error) {
	var stages []container.Stage
	if b.Environment != nil {
		name, err := image.EnvironmentName(b, build.Base)
		if err != nil {
			return container.Image{}, err
		}
		environment := build
		stages = append(stages, container.Stage{Name: name, Base: build.Base, Context: func(ctx context.Context, w io.Writer) error {
			return image.EnvironmentContext(ctx, w, environment)
		}})
		build.Environment = name
	}
	name, err := image.BuildName(build)
	if err != nil {
		return container.Image{}, err
	}
	stages = append(stages, container.Stage{Name: name, Base: build.Base, Context: func(ctx context.Context, w io.Writer) error {
		return image.Context(ctx, w, build)
	}})
	return container.Image{Name: name, Platform: build.Options.Platform, Build: stages}, nil
}
