package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
)

// Image is what a bundle runs in. Its entrypoint serves on port 5001 of every address, takes further arguments of
// `zarpa score`, and lets requests end when it gets SIGTERM. It writes to /tmp and /work alone.
type Image struct {
	// Name is its repository:tag in the engine; equal names are equal content.
	Name string
	// Platform is what it was made for, such as "linux/amd64"; empty is unknown.
	Platform string
	// Size is that of its layers, unpacked, in bytes; 0 is unknown.
	Size int64
	// Archive writes what `docker load` takes; nil when it is built.
	Archive func(ctx context.Context, w io.Writer) error
	// Build are the stages that the engine builds, in order, when Archive is nil; the last one's Name is the image's.
	Build []Stage
}

// Stage is one image that the engine builds. It is left out when its Name is there.
type Stage struct {
	// Name is its repository:tag in the engine; equal names are equal content.
	Name string
	// Base is the image that its Dockerfile begins with, for what is said when it cannot be had.
	Base string
	// Context writes a tar with a Dockerfile.
	Context func(ctx context.Context, w io.Writer) error
}

// Login is what a registry takes: a name with a password, or a token.
type Login struct {
	// Registry is its host, or https://index.docker.io/v1/ for Docker's own.
	Registry                                         string
	Username, Password, IdentityToken, RegistryToken string
}

// logins are what a stage's base may need.
func (r *runner) logins(ctx context.Context, stage Stage) (map[string]registry.AuthConfig, error) {
	if stage.Base == "" || r.o.Login == nil {
		return nil, nil
	}
	l, err := r.o.Login(ctx, stage.Base)
	if err != nil {
		return nil, fmt.Errorf("the login for base image %s cannot be had: %w", stage.Base, err)
	}
	if l.Registry == "" {
		return nil, nil
	}
	return map[string]registry.AuthConfig{l.Registry: {
		ServerAddress: l.Registry, Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken,
	}}, nil
}

// ready is an image that is in the engine.
type ready struct{ name, user string }

// Prepare is [zarpa.Preparer].Prepare: it makes the image and brings it to the engine.
func (d *Driver) Prepare(ctx context.Context, want zarpa.Deployment, progress func(line string)) error {
	a, err := d.runner.met(ctx)
	if err != nil {
		return err
	}
	_, err = d.runner.image(ctx, a, want.Bundle, progress)
	return err
}

// image brings the image of a bundle to the engine, unless it is there, and tells progress what takes time.
func (r *runner) image(ctx context.Context, a about, bundle string, progress func(line string)) (ready, error) {
	img, err := r.o.Images(ctx, bundle)
	if err != nil {
		return ready{}, fmt.Errorf("the image cannot be made: %w", err)
	}
	if err := r.fits(img, a); err != nil {
		return ready{}, err
	}
	unlock, err := r.images.lock(ctx, img.Name)
	if err != nil {
		return ready{}, err
	}
	defer unlock()
	got, there, err := r.has(ctx, img.Name)
	if err != nil {
		return ready{}, err
	}
	if !there {
		if got, err = r.bring(ctx, img, progress); err != nil {
			return ready{}, err
		}
	}
	if got.size > r.o.MaxImage {
		return ready{}, tooLarge(img.Name, got.size, r.o.MaxImage)
	}
	if got.platform != a.platform {
		return ready{}, mismatch(img.Name, got.platform, a.platform)
	}
	r.images.used(img)
	progress(fmt.Sprintf("%s, %.1f MB", img.Name, megabytes(got.size)))
	return ready{name: img.Name, user: got.user}, nil
}

// bring sends the image to the engine or has it built there, and tells what is held there then.
func (r *runner) bring(ctx context.Context, img Image, progress func(line string)) (held, error) {
	began := r.o.Now()
	if err := r.move(ctx, img, progress); err != nil {
		return held{}, err
	}
	got, there, err := r.has(ctx, img.Name)
	if err != nil {
		return held{}, err
	}
	if !there {
		return held{}, zarpa.Errorf(zarpa.Internal, "image %s is not in the engine after it was brought there: what was brought has another name", img.Name)
	}
	r.o.Log.Info("an image is in the engine", "image", img.Name, "bytes", got.size, "took", r.o.Now().Sub(began))
	return got, nil
}

// move does the part of bring that may take Options.ImageTimeout.
func (r *runner) move(ctx context.Context, img Image, progress func(line string)) (err error) {
	bringing, cancel := context.WithTimeout(ctx, r.o.ImageTimeout)
	defer cancel()
	if img.Archive != nil {
		progress(fmt.Sprintf("sending %s, %.1f MB", img.Name, megabytes(img.Size)))
		err = r.load(bringing, img)
	} else {
		err = r.build(bringing, img, progress)
	}
	switch {
	case err == nil:
		return nil
	case bringing.Err() != nil && ctx.Err() == nil:
		return zarpa.Errorf(zarpa.Timeout, "image %s was not in the engine within %v", img.Name, r.o.ImageTimeout).Because(err).
			WithHint("see whether the engine or the way to it is slow")
	}
	return r.failure("take image "+img.Name, err)
}

// megabytes are what images are measured in.
func megabytes(n int64) float64 { return float64(n) / 1e6 }

// fits refuses what can be refused before anything is moved.
func (r *runner) fits(img Image, a about) error {
	switch {
	case img.Archive == nil && (len(img.Build) == 0 || img.Build[len(img.Build)-1].Name != img.Name):
		return zarpa.Errorf(zarpa.Internal, "image %q has neither an archive nor a last stage of its name", img.Name)
	case img.Platform != "" && normal(img.Platform) != a.platform:
		return mismatch(img.Name, img.Platform, a.platform)
	case img.Size > r.o.MaxImage:
		return tooLarge(img.Name, img.Size, r.o.MaxImage)
	}
	return nil
}

// normal leaves out a variant ("linux/arm64/v8"): engines do not tell theirs.
func normal(platform string) string {
	parts := strings.SplitN(platform, "/", 3)
	if len(parts) < 2 {
		return platform
	}
	return parts[0] + "/" + architecture(parts[1])
}

func mismatch(name, is, wants string) error {
	return zarpa.Errorf(zarpa.Invalid, "image %s is for %s, and the engine's machine is %s", name, is, wants).
		WithHint("make the image for %s, or use a target of %s", wants, is)
}

func tooLarge(name string, size, limit int64) error {
	return zarpa.Errorf(zarpa.TooLarge, "image too large: %s is %.1f MB, and this target takes at most %v", name, megabytes(size), zarpa.Bytes(limit)).
		WithHint("make it smaller, or raise the target's max-image")
}

type held struct {
	size           int64
	user, platform string
}

// has tells of an image in the engine.
func (r *runner) has(ctx context.Context, name string) (held, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	res, err := r.engine.ImageInspect(ctx, name)
	if gone(err) {
		return held{}, false, nil
	}
	if err != nil {
		return held{}, false, r.failure("look for image "+name, err)
	}
	h := held{size: res.Size, platform: res.Os + "/" + architecture(res.Architecture)}
	if res.Config != nil {
		h.user = res.Config.User
	}
	return h, true, nil
}

// errTooMuch ends the sending of an image that is larger than it may be.
var errTooMuch = errors.New("more than the limit")

// piped has write write what the returned reader reads, at most limit bytes. done tells its error, once the reader
// is closed.
func piped(ctx context.Context, limit int64, write func(context.Context, io.Writer) error) (*io.PipeReader, <-chan error) {
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends when the reader is closed, at the latest
		err := write(ctx, &limited{w: out, left: limit})
		out.CloseWithError(err)
		done <- err
	}()
	return in, done
}

type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= int64(len(b)); l.left < 0 {
		return 0, errTooMuch
	}
	return l.w.Write(b)
}

// archiveSlack is what an archive may hold beyond its layers: its index and paddings.
const archiveSlack = 16 << 20

// load sends the archive.
func (r *runner) load(ctx context.Context, img Image) error {
	in, done := piped(ctx, r.o.MaxImage+archiveSlack, img.Archive)
	res, err := r.engine.ImageLoad(ctx, in, client.ImageLoadWithQuiet(true))
	if err == nil {
		_, err = messages(res, func(string) {})
		_ = res.Close() // read to its end
	}
	_ = in.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // the writer must end, whatever happened
	switch wrote := <-done; {
	case errors.Is(wrote, errTooMuch):
		return tooLarge(img.Name, max(img.Size, r.o.MaxImage+archiveSlack), r.o.MaxImage)
	case err != nil && wrote != nil && !errors.Is(wrote, io.ErrClosedPipe) && ctx.Err() == nil && !unreachable(wrote):
		return fmt.Errorf("the image cannot be made: %w", wrote)
	}
	return err
}

// build has the engine build the stages that are not there.
func (r *runner) build(ctx context.Context, img Image, progress func(line string)) error {
	for _, stage := range img.Build {
		if err := r.stage(ctx, img, stage, progress); err != nil {
			return err
		}
	}
	return nil
}

// stage has one stage built unless it is there. Images of several bundles may share it: it is built once.
func (r *runner) stage(ctx context.Context, img Image, stage Stage, progress func(line string)) error {
	if stage.Name != img.Name { // whose lock the caller has
		unlock, err := r.images.lock(ctx, stage.Name)
		if err != nil {
			return err
		}
		defer unlock()
	}
	_, there, err := r.has(ctx, stage.Name)
	if err != nil || there {
		return err
	}
	return r.buildStage(ctx, stage, progress)
}

func (r *runner) buildStage(ctx context.Context, stage Stage, progress func(line string)) error {
	logins, err := r.logins(ctx, stage)
	if err != nil {
		return err
	}
	in, done := piped(ctx, r.o.MaxImage, stage.Context)
	res, err := r.engine.ImageBuild(ctx, in, client.ImageBuildOptions{
		AuthConfigs: logins,
		Tags:        []string{stage.Name}, Remove: true, ForceRemove: true, Dockerfile: "Dockerfile", Version: build.BuilderV1,
		Labels: map[string]string{labelInstance: r.o.Instance, labelTarget: r.o.Target},
	})
	var said []string
	if err == nil {
		said, err = messages(res.Body, progress)
		_ = res.Body.Close()
	}
	_ = in.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	wrote := <-done
	switch {
	case errors.Is(wrote, errTooMuch):
		return tooLarge(stage.Name, r.o.MaxImage, r.o.MaxImage)
	case err == nil || ctx.Err() != nil || unreachable(err):
		return err
	case wrote != nil && !errors.Is(wrote, io.ErrClosedPipe) && !unreachable(wrote):
		return fmt.Errorf("the context of image %s cannot be made: %w", stage.Name, wrote)
	}
	return r.buildFailure(stage, err, said)
}

// noBase are the texts of engines that cannot get a base image.
var noBase = []string{
	"pull access denied", "no such host", "repository does not exist", "manifest unknown", "manifest for", "not found: manifest", "unable to copy from source",
	"initializing source", "error creating build container", "unable to pull", "short-name", "no such image", "failed to resolve reference", "i/o timeout", "connection refused", "tls handshake timeout",
}

// buildLines is how much of the log of a build goes into its error.
const buildLines = 5

func (r *runner) buildFailure(stage Stage, err error, said []string) error {
	text := plain(err)
	low := strings.ToLower(text)
	if len(said) <= 2 { // nothing was run yet: it is about the first line, FROM
		for _, part := range noBase {
			if stage.Base != "" && strings.Contains(low, part) {
				return zarpa.Errorf(zarpa.NotFound, "image %s cannot be built: its base image %s cannot be had: %s", stage.Name, stage.Base, text).Because(err).
					WithHint("load or pull %s into the engine, name another base image, or push it to a registry that the engine reaches", stage.Base)
			}
		}
	}
	last := strings.Join(said[max(0, len(said)-buildLines):], "; ")
	e := zarpa.AsError(r.answered("build image "+stage.Name, err))
	if last != "" {
		e.Message += "; the build said at last: " + last
	}
	if e.Hint == "" {
		e = e.WithHint("see what the build said: a package may be missing, or the engine may not reach where it is kept")
	}
	return e
}

// maxSaidLines is how much of what an engine says of a load or a build is kept.
const maxSaidLines = 100

// messages reads the stream of a load or a build to its end: the lines that it says, and its error.
func messages(r io.Reader, progress func(line string)) ([]string, error) {
	var said []string
	in := json.NewDecoder(r)
	for {
		var m jsonstream.Message
		err := in.Decode(&m)
		switch {
		case errors.Is(err, io.EOF):
			return said, nil
		case err != nil:
			return said, fmt.Errorf("read the engine's answer: %w", err)
		case m.Error != nil:
			return said, errors.New(m.Error.Message)
		}
		for line := range strings.SplitSeq(m.Stream, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				said = append(said, cut(line))
				if !strings.HasPrefix(line, "--->") && !strings.HasPrefix(line, "Removing intermediate container") {
					progress(cut(line)) // the rest is about the engine's own steps
				}
			}
		}
		if n := len(said) - maxSaidLines; n > 0 {
			said = said[n:]
		}
	}
}

// lockable is a lock that can be waited for with a context.
type lockable chan struct{}

func (l lockable) lock(ctx context.Context) (func(), error) {
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// olderThan tells whether a moment is so long ago.
func olderThan(at, now time.Time, d time.Duration) bool { return now.Sub(at) >= d }
