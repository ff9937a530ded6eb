package registry_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/zarpa-dev/zarpa/registry"
)

// TestDocker pushes and pulls with a real Docker engine, that of DOCKER_HOST.
func TestDocker(t *testing.T) {
	if os.Getenv("DOCKER_HOST") == "" {
		t.Skip("DOCKER_HOST names no engine")
	}
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("there is no docker command")
	}
	s := serve(t, registry.Options{})
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	docker := func(args ...string) string {
		out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	docker("version") // the engine answers
	img := image(t)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	ref := s.host() + "/reg-test/app:1"
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	docker("load", "-i", file)
	t.Cleanup(func() { docker("rmi", "-f", ref) })
	pushed := docker("push", ref)
	docker("rmi", ref)
	pulled := docker("pull", ref)
	_, digest, ok := strings.Cut(pushed, "digest: ")
	digest, _, _ = strings.Cut(digest, " ")
	if !ok || !strings.Contains(pulled, digest) {
		t.Errorf("pushed:\n%s\npulled:\n%s", pushed, pulled)
	}
}
