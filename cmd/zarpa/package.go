package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/bundle/image"
)

// packageFlags are the flags of package.
type packageFlags struct {
	file, deployment           string
	output, dockerfile         string
	base                       string
	platform, runtime, sysroot string
	name                       string
	sbom, sign                 string
	insecure                   []string
	pythonFlags
}

func (c *cli) packageCommand() *cobra.Command {
	var f packageFlags
	cmd := &cobra.Command{
		Use: "package MODEL|-f FILE", Short: "Make a container image of a model, without a container engine",
		Long: `Makes an OCI image that serves a model on port 5001, with no Zarpa around it: /score, /v2, gRPC and
the description of its API. MODEL is a file or folder, or a registered model, NAME or NAME:VERSION; -f
takes a deployment of an endpoint file, with its settings. No container engine is needed.

--output says where it goes; without it, to the archive NAME.tar:
  tar:PATH   an archive for docker load, podman load and ctr images import (also a PATH that ends so)
  dir:PATH   a folder in the layout of the OCI (also any other PATH)
  oci:REF    a registry, with the credentials of docker login

With the base none, the default, the image holds the libraries of this machine that it needs, and for
Python this machine's interpreter. The same model on the same libraries gives the same digest; another
version of the model changes one layer.`,
		Example: "  zarpa package iris.onnx --output iris.tar --name iris:1\n" +
			"  zarpa package iris:2 --output oci:registry.example.com/models/iris:2\n" +
			"  zarpa package --code ./src --requirements requirements.txt --output dir:image\n" +
			"  zarpa package -f endpoint.yaml --sbom iris.spdx.json",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := packaging{c: c, f: f, given: cmd.Flags().Changed}
			if len(args) == 1 {
				p.model = args[0]
			}
			return p.run(cmd.Context())
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "endpoint file with the deployment to package, - for standard input")
	fl.StringVar(&f.deployment, "deployment", "", "the deployment of the file; the only one by default")
	fl.StringVarP(&f.output, "output", "o", "", "tar:PATH, dir:PATH or oci:REF")
	fl.StringVar(&f.dockerfile, "dockerfile", "", "write a folder for docker build in place of an image")
	fl.StringVar(&f.base, "base", baseNone, "image to build on, by its reference, or none")
	fl.StringVar(&f.platform, "platform", "linux/"+runtime.GOARCH, "linux/amd64 or linux/arm64")
	fl.StringVar(&f.runtime, "runtime", "", "folder of a release for --platform, with zarpa-score and libonnxruntime; this one's by default")
	fl.StringVar(&f.sysroot, "sysroot", "", "folder with the system libraries of --platform; this machine's by default")
	fl.StringVar(&f.name, "name", "", "NAME:TAG of the image in the archive; the model's name and version by default")
	fl.StringVar(&f.sbom, "sbom", "", "write what the image holds to this file, as SPDX in JSON")
	fl.StringVar(&f.sign, "sign", "", "private key (PEM, or cosign's with COSIGN_PASSWORD) to sign the image with; the signature goes beside it")
	insecureFlag(cmd, &f.insecure)
	f.addFiles(fl)
	return cmd
}

const baseNone = "none"

// packaging is one run of package.
type packaging struct {
	c     *cli
	f     packageFlags
	model string
	given func(flag string) bool

	plane plane // what is packaged here is made as on a server
	temp  string
	made  source
}

func (p *packaging) run(ctx context.Context) (err error) {
	if err := p.check(); err != nil {
		return err
	}
	if p.temp, err = os.MkdirTemp("", "zarpa-package-"); err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "temporary folder: %w", err)
	}
	defer os.RemoveAll(p.temp) //nolint:errcheck // what is left in a temporary folder goes with it
	if err := p.open(ctx); err != nil {
		return err
	}
	if p.made, err = p.source(ctx); err != nil {
		return err
	}
	options, err := p.options(ctx)
	if err != nil {
		return err
	}
	if p.f.dockerfile != "" {
		return p.writeDockerfile(ctx, options)
	}
	img, err := image.Assemble(ctx, p.plane.blobs, p.made.digest, options)
	if err != nil {
		return err
	}
	where, err := p.write(ctx, img)
	if err == nil && p.f.sbom != "" {
		err = p.writeSBOM(ctx, img, options)
	}
	if err == nil && p.f.sign != "" {
		err = p.writeSignature(ctx, img)
	}
	if err != nil {
		return err
	}
	return p.show(img, where)
}

// check refuses flags that do not go together.
func (p *packaging) check() error {
	f := p.f
	switch {
	case p.model != "" && f.file != "":
		return zarpa.Errorf(zarpa.Invalid, "--file: a model is given, too").WithHint("give one of both")
	case p.model == "" && f.file == "" && f.code == "":
		return zarpa.Errorf(zarpa.Invalid, "nothing to package is given").WithHint("name a model's file, a registered model, an endpoint file with -f, or a script's folder with --code")
	case f.file != "" && f.code != "":
		return zarpa.Errorf(zarpa.Invalid, "--code: the endpoint file says what code there is").WithHint("write code: into the file")
	case f.dockerfile != "" && (f.output != "" || f.sbom != "" || f.sign != ""):
		return zarpa.Errorf(zarpa.Invalid, "--dockerfile: --output, --sbom and --sign are for images, and docker build makes the image").WithHint("give one of both")
	case f.platform != "linux/"+runtime.GOARCH && f.runtime == "":
		return zarpa.Errorf(zarpa.Invalid, "--platform: %s is not this machine's, and no --runtime is given", f.platform).
			WithHint("unpack a release for it and name its folder: --runtime DIR, and its libraries: --sysroot DIR")
	}
	return nil
}

// runtimeFiles are what runs in the image: those of --runtime, or those beside this program.
func (p *packaging) runtimeFiles() (image.Runtime, error) {
	if p.f.runtime != "" {
		return image.FindRuntime(p.f.runtime)
	}
	r, err := ownRuntime(p.c.getenv("ZARPA_ONNXRUNTIME"))
	if r.Verb != nil {
		fmt.Fprintln(p.c.stderr, "Note: zarpa-score is not beside this program: the image holds all of zarpa, and is larger for it")
	}
	return r, err
}

func (p *packaging) options(ctx context.Context) (image.Options, error) {
	files, err := p.runtimeFiles()
	if err != nil {
		return image.Options{}, err
	}
	o := image.Options{
		Platform: p.f.platform, Runtime: files, Sysroot: p.f.sysroot, Layers: filepath.Join(p.plane.data, "layers"),
		Model: p.made.main, Args: p.made.args, Env: p.made.env, Version: version,
	}
	b, err := bundle.Describe(ctx, p.plane.blobs, p.made.digest)
	if err != nil {
		return o, err
	}
	if b.Environment != nil {
		o.Environment = filepath.Join(p.plane.data, "environments", b.Environment.ID)
	}
	if p.f.base != baseNone && p.f.base != "" && p.f.dockerfile == "" {
		o.BaseName = p.f.base
		rc, clear := p.c.registryClient(p.f.insecure, "pulling "+p.f.base)
		defer clear()
		if o.Base, err = rc.Pull(ctx, p.f.base, p.f.platform); err != nil {
			return o, err
		}
	}
	return o, nil
}

// write brings the image to where it is wanted, and says where that is.
func (p *packaging) write(ctx context.Context, img v1.Image) (string, error) {
	kind, at := p.where()
	var err error
	switch kind {
	case "oci":
		at, err = p.push(ctx, at, img)
	case "tar":
		err = writeFile(at, func(w io.Writer) error { return image.WriteArchive(w, p.reference(), img) })
	default:
		err = image.WriteLayout(at, p.reference(), img)
	}
	return at, err
}

// push brings an image to a registry.
func (p *packaging) push(ctx context.Context, ref string, img v1.Image) (string, error) {
	rc, clear := p.c.registryClient(p.f.insecure, "pushing "+ref)
	defer clear()
	return rc.Push(ctx, ref, img)
}

// writeSBOM tells what is in the image.
func (p *packaging) writeSBOM(ctx context.Context, img v1.Image, o image.Options) error {
	text, err := image.SBOM(ctx, img, image.Build{Blobs: p.plane.blobs, Digest: p.made.digest, Options: o})
	if err != nil {
		return err
	}
	return writeFile(p.f.sbom, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// writeSignature signs the image. In a registry the signature is where cosign looks for it; beside an archive
// or folder are what was signed and the signature.
func (p *packaging) writeSignature(ctx context.Context, img v1.Image) error {
	key, err := os.ReadFile(p.f.sign)
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "--sign: %w", err)
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	kind, at := p.where()
	ref := p.reference()
	if kind == "oci" {
		ref = at
	}
	repository, err := image.Identity(ref)
	if err != nil {
		return err
	}
	signature, err := image.Sign(digest, repository, key, func() ([]byte, error) { return []byte(p.c.getenv("COSIGN_PASSWORD")), nil })
	if err != nil {
		return err
	}
	if kind == "oci" {
		_, err := p.push(ctx, repository+":"+image.SignatureTag(digest), signature)
		return err
	}
	text, raw, err := image.SignatureParts(signature)
	if err != nil {
		return err
	}
	err = writeFile(at+".payload.json", func(w io.Writer) error { _, err := w.Write(text); return err })
	if err != nil {
		return err
	}
	return writeFile(at+".sig", func(w io.Writer) error { _, err := io.WriteString(w, raw+"\n"); return err })
}

// where is the kind of the output, and its place.
func (p *packaging) where() (kind, at string) {
	kind, at, ok := strings.Cut(p.f.output, ":")
	switch {
	case ok && kind == "oci" && strings.TrimPrefix(at, "//") != "":
		return kind, strings.TrimPrefix(at, "//") // as models are pushed to oci://
	case ok && at != "" && (kind == "tar" || kind == "dir"):
		return kind, at
	case p.f.output == "":
		return "tar", p.made.name + ".tar"
	case strings.HasSuffix(p.f.output, ".tar"):
		return "tar", p.f.output
	}
	return "dir", p.f.output
}

// reference is the name of the image in an archive.
func (p *packaging) reference() string {
	if p.f.name != "" {
		return p.f.name
	}
	return p.made.name + ":" + p.made.version
}

// writeFile writes a file at once or not at all.
func writeFile(to string, write func(io.Writer) error) error {
	temp, err := os.CreateTemp(filepath.Dir(to), ".zarpa-")
	if err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "write %s: %w", to, err).WithHint("name a file in a folder that is there and may be written to")
	}
	err = errors.Join(write(temp), temp.Chmod(0o644), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// show tells what was made.
func (p *packaging) show(img v1.Image, where string) error {
	sizes, err := image.Size(img)
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	return p.c.show(sizes, func(w io.Writer) {
		row(w, "LAYER", "COMPRESSED", "UNPACKED", "DIGEST")
		for _, l := range sizes.Layers {
			row(w, l.Kind, size(l.Compressed), size(l.Unpacked), l.Digest)
		}
		row(w, "image", size(sizes.Compressed), size(sizes.Unpacked), digest)
		fmt.Fprintln(w)
		kind, _ := p.where()
		switch kind {
		case "tar":
			fmt.Fprintf(w, "Load it:  docker load -i %s\n", where)
			where = p.reference()
		case "dir": // no engine has it yet
			fmt.Fprintf(w, "Written:  %s\nLoad it:  podman pull oci:%s\n", where, where)
			return
		}
		fmt.Fprintf(w, "Run it:   docker run --read-only --tmpfs /tmp -p %d:%d %s\n", image.Port, image.Port, where)
	})
}
