package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/store/sqlite"
	"github.com/zarpa-dev/zarpa/target"
	"github.com/zarpa-dev/zarpa/target/process"
)

// newPlane is a control plane that does not run; its replicas end at once.
func newPlane(t *testing.T) *plane {
	t.Helper()
	ctx, data := t.Context(), t.TempDir()
	store, err := sqlite.Open(ctx, filepath.Join(data, "zarpa.db"))
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := dir.Open(ctx, filepath.Join(data, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	driver, err := process.Open(ctx, process.Options{
		Dir: filepath.Join(data, "replicas"), Executable: "/bin/false",
		Bundles: func(context.Context, string) (string, error) { return data, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.StopAll(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &plane{data: data, store: store, blobs: blobs, driver: driver, engines: &engines{}}
}

func TestBundlesInUseAreNotSwept(t *testing.T) {
	t.Parallel()
	p, ctx := newPlane(t), t.Context()
	var models []zarpa.Model
	for _, name := range []string{"iris", "rank", "rose"} {
		var files bytes.Buffer
		if err := bundle.TarFiles(ctx, &files, filepath.Join("..", "..", "examples", "iris", "iris.onnx")); err != nil {
			t.Fatal(err)
		}
		content, err := bundle.WriteContent(ctx, p.blobs, &files, bundle.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.store.Nouns().Models.Create(ctx, zarpa.Model{Name: name, Format: "onnx", Content: content, Created: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, m)
	}
	err := p.store.Nouns().Endpoints.Put(ctx, zarpa.Endpoint{Name: "iris", Generation: 1, Spec: zarpa.EndpointSpec{
		Deployments: []zarpa.DeploymentSpec{{Name: "blue", Model: "rank:1", Models: []string{"iris:1"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	digest := func(models ...zarpa.Model) string {
		t.Helper()
		b, err := describe(target.Package{Models: models})
		if err != nil {
			t.Fatal(err)
		}
		d, err := bundle.Digest(b)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	packaged, err := p.bundle(ctx, target.Package{Models: []zarpa.Model{models[1], models[2]}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.driver.Apply(ctx, zarpa.Deployment{
		Endpoint: "old", Bundle: "sha256:" + strings.Repeat("01", 32), Spec: zarpa.DeploymentSpec{Name: "blue", Model: "rose:1"}.WithDefaults(),
	}); err != nil {
		t.Fatal(err)
	}
	keep, err := p.inUse(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]string{
		"a registered model's": digest(models[2]), "an endpoint's": digest(models[0], models[1]),
		"packaged since the start": packaged, "a replica's": "sha256:" + strings.Repeat("01", 32),
	} {
		if !keep[d] {
			t.Errorf("the bundle %s, %s, would be swept", d, name)
		}
	}
	if keep[digest(models...)] {
		t.Error("a bundle that nobody asked for is kept")
	}
}

func TestModelsOfDifferentFormatsAreNoBundle(t *testing.T) {
	t.Parallel()
	_, err := describe(target.Package{Models: []zarpa.Model{{Name: "a", Version: 1, Format: "onnx"}, {Name: "b", Version: 1, Format: "other"}}})
	if zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("%v, want invalid", err)
	}
}
