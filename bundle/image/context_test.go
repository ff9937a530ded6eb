package image_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle/image"
)

// written is what a context holds.
func written(t *testing.T, write func(io.Writer) error) map[string]string {
	t.Helper()
	var one, two bytes.Buffer
	if err := write(&one); err != nil {
		t.Fatal(err)
	}
	if err := write(&two); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two contexts of the same differ: no engine's cache would hold")
	}
	out := map[string]string{}
	err := image.UnpackContext(write, func(name string, r io.Reader) error {
		text, err := io.ReadAll(r)
		out[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func withEnvironment(s shelf) zarpa.Bundle {
	b := s.script("a = 1", "one")
	b.Environment = &zarpa.BundleEnvironment{
		ID: "0123456789abcdef", Python: "3.11.2", Lock: []string{"numpy==2.0.0", "own==1.0"},
		Content: s.content(map[string]string{"requirements.txt": "numpy\nown\n", "wheels/own-1.0-py3-none-any.whl": "wheel"}),
	}
	return b
}

func TestContextHoldsTheLayers(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.opts.Env = map[string]string{"QUOTED": `a "b" $c \d`}
	build := image.Build{Blobs: s.blobs, Digest: s.build(s.model(1, "one")), Options: s.opts}
	got := written(t, func(w io.Writer) error { return image.Context(t.Context(), w, build) })
	for _, want := range []string{
		"FROM scratch\nADD system.tar.gz /\nADD runtime.tar.gz /\nADD model.tar.gz /\n", `ENV QUOTED="a \"b\" \$c \\d"`, "USER 65532:65532",
		"EXPOSE 5001/tcp", `ENTRYPOINT ["/zarpa/bin/zarpa-score","--listen"`, "CMD []",
	} {
		if !strings.Contains(got["Dockerfile"], want) {
			t.Errorf("the Dockerfile has no %q:\n%s", want, got["Dockerfile"])
		}
	}
	held := map[string]string{}
	readTar(t, gunzip(t, got["model.tar.gz"]), held)
	if held["zarpa/bundle/models/iris/1/iris.onnx"] != "one" {
		t.Errorf("model.tar.gz holds %q", held)
	}
	build.Base = "example.com/debian:12"
	got = written(t, func(w io.Writer) error { return image.Context(t.Context(), w, build) })
	if !strings.HasPrefix(got["Dockerfile"], "FROM example.com/debian:12\nADD runtime.tar.gz /\n") || got["system.tar.gz"] != "" {
		t.Errorf("on a base:\n%s", got["Dockerfile"])
	}
}

func TestEnvironmentIsInstalledFromItsLock(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	build := image.Build{Blobs: s.blobs, Digest: s.build(withEnvironment(s)), Base: "example.com/python:3.11", Options: s.opts}
	got := written(t, func(w io.Writer) error { return image.EnvironmentContext(t.Context(), w, build) })
	if got["environment/requirements.lock"] != "numpy==2.0.0\nown==1.0\n" || got["environment/wheels/own-1.0-py3-none-any.whl"] != "wheel" {
		t.Errorf("it holds %q", got)
	}
	for _, want := range []string{"FROM example.com/python:3.11\n", `"3.11"`, "--no-deps", `LABEL dev.zarpa.environment="0123456789abcdef"`} {
		if !strings.Contains(got["Dockerfile"], want) {
			t.Errorf("the Dockerfile has no %q:\n%s", want, got["Dockerfile"])
		}
	}
	whole := written(t, func(w io.Writer) error { return image.Context(t.Context(), w, build) })
	if !strings.Contains(whole["Dockerfile"], "pip install") || whole["environment/requirements.lock"] == "" || whole["code.tar.gz"] == "" {
		t.Errorf("all in one:\n%s", whole["Dockerfile"])
	}
	build.Environment = "zarpa.local/environment:1"
	apart := written(t, func(w io.Writer) error { return image.Context(t.Context(), w, build) })
	if !strings.HasPrefix(apart["Dockerfile"], "FROM zarpa.local/environment:1\nADD runtime.tar.gz /\n") || strings.Contains(apart["Dockerfile"], "pip") {
		t.Errorf("on an image that has it:\n%s", apart["Dockerfile"])
	}
}

func TestWrongContextsAreRefused(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	for _, base := range []string{"", "a b", "a\nRUN rm -rf /", "-x", "$HOME"} {
		build := image.Build{Blobs: s.blobs, Digest: s.build(withEnvironment(s)), Base: base, Options: s.opts}
		if err := image.EnvironmentContext(t.Context(), io.Discard, build); zarpa.AsError(err).Code != zarpa.Invalid {
			t.Errorf("base %q: %v", base, err)
		}
	}
	build := image.Build{Blobs: s.blobs, Digest: s.build(s.model(1, "one")), Base: "b", Options: s.opts}
	if err := image.EnvironmentContext(t.Context(), io.Discard, build); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("without an environment: %v", err)
	}
	build.Options.Env = map[string]string{"KEY": "a\nb"}
	if err := image.Context(t.Context(), io.Discard, build); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("a line break: %v", err)
	}
}

func TestNamesAreOfAllThatDecides(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	b := image.Build{Blobs: s.blobs, Digest: "sha256:1", Options: s.opts}
	name := func(b image.Build) string {
		n, err := image.BuildName(b)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	other, base, args, layers := b, b, b, b
	other.Digest, base.Base = "sha256:2", "debian"
	args.Options.Args, layers.Options.Layers = []string{"--threads", "1"}, "/elsewhere"
	names := []string{name(b), name(other), name(base), name(args)}
	slices.Sort(names)
	if len(slices.Compact(names)) != 4 || len(strings.TrimPrefix(name(b), "zarpa.local/bundle:")) != 24 {
		t.Errorf("names %q", names)
	}
	if name(b) != name(layers) {
		t.Error("where layers are kept changes the name")
	}
	e := withEnvironment(s)
	one, err := image.EnvironmentName(e, "a")
	if err != nil {
		t.Fatal(err)
	}
	e.Environment.Lock = []string{"numpy==2.0.1"}
	if two, err := image.EnvironmentName(e, "a"); err != nil || two == one || !strings.HasPrefix(one, "zarpa.local/environment:") {
		t.Errorf("%q and %q, %v", one, two, err)
	}
}
