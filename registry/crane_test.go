package registry_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/zarpa-dev/zarpa/registry"
)

// TestCrane works with the client of others: images, indexes, copies between repositories, catalogue.
func TestCrane(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	img, err := random.Image(100_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	ref := s.host() + "/team/app:1"
	if err := crane.Push(img, ref); err != nil {
		t.Fatal(err)
	}
	if err := crane.Copy(ref, s.host()+"/other/app:2"); err != nil {
		t.Fatal(err)
	}
	back, err := crane.Pull(s.host() + "/other/app:2")
	if err != nil {
		t.Fatal(err)
	}
	want, _ := img.Digest()
	if got, _ := back.Digest(); got != want {
		t.Errorf("%v came back as %v", want, got)
	}
	var tarball bytes.Buffer
	if err := crane.Export(back, &tarball); err != nil { // reads all layers
		t.Error(err)
	}
	if repos, err := crane.Catalog(s.host()); err != nil || strings.Join(repos, " ") != "other/app team/app" {
		t.Errorf("%q %v", repos, err)
	}
	if err := crane.Tag(ref, "stable"); err != nil {
		t.Error(err)
	}
	if tags, err := crane.ListTags(s.host() + "/team/app"); err != nil || strings.Join(tags, " ") != "1 stable" {
		t.Errorf("%q %v", tags, err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})
	if err := pushIndex(s.host()+"/team/app:multi", index); err != nil {
		t.Error(err)
	}
	if err := crane.Delete(s.host() + "/team/app@" + want.String()); err != nil {
		t.Error(err)
	}
}
