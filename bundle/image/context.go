package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
)

// Build is what an engine makes an image from, by the Dockerfile of [Context].
type Build struct {
	Blobs zarpa.Blobs
	// Digest is the bundle's.
	Digest string
	// Base is the reference of the image to build on; empty is none, for which the files of this machine go
	// into the context. Options.Base is not looked at.
	Base string
	// Environment is the reference of an image that an engine made of [EnvironmentContext] on the base;
	// empty, with a base and a bundle that needs Python, lets [Context] install the packages itself.
	Environment string
	Options     Options
}

// The names that images have on the machine of an engine, in front of what they are made of.
const (
	environmentRepository = "zarpa.local/environment:"
	bundleRepository      = "zarpa.local/bundle:"
)

func named(repository string, all any) (string, error) {
	text, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return repository + hex.EncodeToString(sum[:12]), nil
}

// EnvironmentName is the name of the image that holds a bundle's Python environment on a base: another name
// for whatever would be installed otherwise. The base counts by its reference.
func EnvironmentName(b zarpa.Bundle, base string) (string, error) {
	if b.Environment == nil {
		return "", zarpa.Errorf(zarpa.Invalid, "the bundle needs no Python environment")
	}
	return named(environmentRepository, []any{1, b.Environment, base})
}

// BuildName is the name of a bundle's image: another name for whatever would be in it otherwise. The base
// counts by its reference.
func BuildName(b Build) (string, error) {
	o := b.Options
	files := []string{o.Runtime.Program}
	if o.Runtime.Library != "" {
		files = append(files, o.Runtime.Library)
	}
	var digests []string
	for _, file := range files {
		digest, err := digestFile(file)
		if err != nil {
			return "", err
		}
		digests = append(digests, digest)
	}
	return named(bundleRepository, []any{
		1, b.Digest, b.Base, b.Environment, o.Platform, o.Sysroot, digests, o.Runtime.Verb, o.Model, o.Args, o.Env, o.Version, o.Title, o.ModelVersion, o.Labels,
	})
}

// Name is the name of an image on the machine of an engine: another one for other content.
func Name(img v1.Image) (string, error) {
	digest, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("name the image: %w", err)
	}
	return bundleRepository + digest.Hex[:24], nil
}

const lockFile = "requirements.lock"

// EnvironmentContext writes the context, as a tar, from which an engine builds the image of a bundle's Python
// environment on a base: a virtual environment of the base's python3, with exactly the packages of the
// bundle's lock. The build fails, and says so, when the base has no python3 or one of another minor version.
// The build arguments PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_TRUSTED_HOST say where packages are.
func EnvironmentContext(ctx context.Context, w io.Writer, b Build) error {
	described, err := bundle.Describe(ctx, b.Blobs, b.Digest)
	if err != nil {
		return err
	}
	entries, text, err := environmentEntries(ctx, b.Blobs, described, b.Base)
	if err != nil {
		return err
	}
	text = fmt.Sprintf("FROM %s\n%s", b.Base, text)
	return writeContext(ctx, w, append(entries, fileOf("Dockerfile", []byte(text))))
}

// environmentEntries are the files and the instructions that install an environment on a base.
func environmentEntries(ctx context.Context, blobs zarpa.Blobs, b zarpa.Bundle, base string) ([]entry, string, error) {
	e := b.Environment
	if e == nil {
		return nil, "", zarpa.Errorf(zarpa.Invalid, "the bundle needs no Python environment")
	}
	if err := checkReference(base); err != nil {
		return nil, "", err
	}
	lock := strings.Join(e.Lock, "\n") + "\n"
	if strings.ContainsFunc(lock, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }) {
		return nil, "", zarpa.Errorf(zarpa.Invalid, "environment: its lock is damaged").WithHint("build the environment again")
	}
	entries := []entry{fileOf("environment/"+lockFile, []byte(lock))}
	for _, f := range e.Content.Files {
		if strings.HasPrefix(f.Path, "wheels/") {
			entries = append(entries, blobEntry(ctx, blobs, f, path.Join("environment", f.Path)))
		}
	}
	parts := strings.SplitN(e.Python, ".", 3)
	if len(parts) < 2 {
		return nil, "", zarpa.Errorf(zarpa.Invalid, "environment: python %.40q is not a version", e.Python)
	}
	minor := parts[0] + "." + parts[1]
	system := ""
	if e.SystemPackages {
		system = " --system-site-packages"
	}
	venv := "/" + environmentFolder
	install := "true"
	if len(e.Lock) > 0 {
		install = venv + "/bin/python -m pip install --no-deps --no-cache-dir --disable-pip-version-check --find-links /zarpa/build/wheels -r /zarpa/build/" + lockFile
	}
	text := fmt.Sprintf(`USER 0
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
RUN command -v python3 >/dev/null || { echo "zarpa: the base %[1]s has no python3: name one that has Python %[2]s" >&2; exit 1; }; \
    found="$(python3 -c 'import sys; print("%%d.%%d" %% sys.version_info[:2])')"; \
    [ "$found" = "%[2]s" ] || { echo "zarpa: the base %[1]s has Python $found, and the environment needs %[2]s: name another base" >&2; exit 1; }
COPY environment /zarpa/build
RUN mkdir -p /zarpa/build/wheels && python3 -m venv%[3]s %[4]s && %[5]s && rm -rf /zarpa/build
LABEL %[6]s=%[7]s
`, base, minor, system, venv, install, LabelEnvironment, quoted(e.ID))
	return entries, text, nil
}

// checkReference refuses what would not be a reference in a Dockerfile.
func checkReference(ref string) error {
	if ref == "" || strings.HasPrefix(ref, "-") || strings.ContainsFunc(ref, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`"'$\`+"`", r)
	}) {
		return zarpa.Errorf(zarpa.Invalid, "base %.200q: is not a reference of an image", ref).WithHint("write HOST/NAME:TAG, such as docker.io/library/python:3.11-slim")
	}
	return nil
}

// Context writes the context, as a tar, from which an engine builds the image of a bundle: a Dockerfile and a
// tar of each layer, with the same bytes for the same content, so that the engine's cache holds. On a base
// of none it holds this machine's files, as [Assemble] takes them.
func Context(ctx context.Context, w io.Writer, b Build) error {
	b.Options.Base = nil
	a, err := newAssembly(ctx, b)
	if err != nil {
		return err
	}
	if err := a.make(ctx); err != nil {
		return fmt.Errorf("image of bundle %s: %w", b.Digest, err)
	}
	from, install, entries := b.Base, "", []entry(nil)
	switch {
	case from == "":
		from = "scratch"
	case b.Environment != "":
		from = b.Environment
	case a.b.Environment != nil:
		if entries, install, err = environmentEntries(ctx, b.Blobs, a.b, b.Base); err != nil {
			return err
		}
	}
	if err := checkReference(from); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "FROM %s\n%s", from, install)
	for _, l := range a.layers {
		name := l.note.Kind + ".tar.gz"
		fmt.Fprintf(&text, "ADD %s /\n", name)
		entries = append(entries, entry{name: name, mode: 0o644, size: l.note.Size, open: l.Compressed})
	}
	if err := a.instructions(&text); err != nil {
		return err
	}
	return writeContext(ctx, w, append(entries, fileOf("Dockerfile", []byte(text.String()))))
}

// instructions are the configuration of the image as a Dockerfile says it.
func (a *assembly) instructions(text *strings.Builder) error {
	var c v1.ConfigFile
	if err := a.configure(&c); err != nil {
		return err
	}
	for _, e := range c.Config.Env {
		name, value, _ := strings.Cut(e, "=")
		if strings.ContainsFunc(value, unicode.IsControl) {
			return zarpa.Errorf(zarpa.Invalid, "env %s: a Dockerfile cannot hold its line breaks", name).WithHint("give it when the container is run")
		}
		fmt.Fprintf(text, "ENV %s=%s\n", name, quoted(value))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Config.Labels)) {
		fmt.Fprintf(text, "LABEL %s=%s\n", quoted(name), quoted(c.Config.Labels[name]))
	}
	for port := range c.Config.ExposedPorts {
		fmt.Fprintf(text, "EXPOSE %s\n", port)
	}
	fmt.Fprintf(text, "WORKDIR %s\nUSER %s\nSTOPSIGNAL %s\n", c.Config.WorkingDir, c.Config.User, c.Config.StopSignal)
	entrypoint, err := json.Marshal(c.Config.Entrypoint)
	if err != nil {
		return err
	}
	cmd, err := json.Marshal(append([]string{}, c.Config.Cmd...))
	if err != nil {
		return err
	}
	fmt.Fprintf(text, "ENTRYPOINT %s\nCMD %s\n", entrypoint, cmd)
	return nil
}

// quoted is a word of a Dockerfile in which nothing has a meaning.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}

// writeContext writes a tar without the folders around its files: engines need none.
func writeContext(ctx context.Context, w io.Writer, entries []entry) error {
	slices.SortFunc(entries, func(x, y entry) int { return strings.Compare(x.name, y.name) })
	if err := writeTar(ctx, w, entries); err != nil {
		return fmt.Errorf("write the build context: %w", err)
	}
	return nil
}

// UnpackContext writes the files of a context with write and hands each to put, with its path and size.
func UnpackContext(write func(io.Writer) error, put func(name string, r io.Reader) error) error {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends with write, whose pipe is closed below
		err := write(w)
		w.CloseWithError(err)
		done <- err
	}()
	err := func() error {
		tr := tar.NewReader(r)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = put(h.Name, tr)
			}
			if err != nil {
				return err
			}
		}
	}()
	_, drained := io.Copy(io.Discard, r) // the blocks behind the tar's end
	_ = r.Close()                        // never fails
	if written := <-done; written != nil && !errors.Is(written, io.ErrClosedPipe) {
		return written
	}
	return errors.Join(err, drained)
}
