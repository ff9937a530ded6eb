package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/replica"
	"github.com/zarpa-dev/zarpa/target/container"
)

// engines are the variables that name real engines, as e2e/engines.sh sets them.
var engines = map[string]string{"Docker": "ZARPA_TEST_DOCKER", "Podman": "ZARPA_TEST_PODMAN"}

// onEngines runs a test on every engine that is there.
func onEngines(t *testing.T, test func(t *testing.T, host string)) {
	t.Parallel()
	for name, variable := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := os.Getenv(variable)
			if host == "" {
				t.Skipf("%s names no engine: run e2e/engines.sh docker podman -- go test ./target/container", variable)
			}
			test(t, host)
		})
	}
}

// program is the replica of the tests, built once.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "zarpa-replica")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "replica")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./testdata/replica")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// imageName is the tests' image, "" when its program cannot be built.
func imageName() string {
	bin, err := program()
	if err != nil {
		return ""
	}
	return "zarpa.local/test:" + sum(bin)[:12]
}

type file struct {
	name string
	mode int64
	data []byte
}

func pack(files ...file) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data))}); err != nil {
			panic(err)
		}
		if _, err := w.Write(f.data); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// saved is an image of one layer, as `docker save` writes it.
func saved(name, arch string, layer []byte, size *int64) []byte {
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux",
		"config": map[string]any{"User": "65532:65532", "Entrypoint": []string{"/replica"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
	})
	if err != nil {
		panic(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": sum(config) + ".json", "RepoTags": []string{name}, "Layers": []string{sum(layer) + ".tar"}}})
	if err != nil {
		panic(err)
	}
	*size = int64(len(layer))
	return pack(file{sum(config) + ".json", 0o644, config}, file{sum(layer) + ".tar", 0o644, layer}, file{"manifest.json", 0o644, manifest})
}

// image is the tests' image: equal name, equal content.
func image(t testing.TB) container.Image {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	img := container.Image{Name: imageName(), Platform: "linux/" + runtime.GOARCH}
	archive := saved(img.Name, runtime.GOARCH, pack(file{"replica", 0o755, bin}), &img.Size)
	img.Archive = func(_ context.Context, w io.Writer) error {
		_, err := w.Write(archive)
		return err
	}
	return img
}

func options(t testing.TB, host string) container.Options {
	t.Helper()
	img := image(t)
	dir := t.TempDir()
	return container.Options{
		Dir: dir, Instance: sum([]byte(dir + time.Now().String()))[:12], Target: "test", Host: host,
		Images: func(context.Context, string) (container.Image, error) { return img, nil },
		Probes: replica.Probes{First: 20 * time.Millisecond},
	}
}

func deployment(endpoint, name string) zarpa.Deployment {
	spec := zarpa.DeploymentSpec{Name: name, Model: "m:1", Env: map[string]string{"REPLICA": "serve"}}
	return zarpa.Deployment{Endpoint: endpoint, Bundle: "sha256:1", Spec: spec.WithDefaults()}
}

func with(d zarpa.Deployment, name, value string) zarpa.Deployment {
	env := map[string]string{}
	maps.Copy(env, d.Spec.Env)
	env[name] = value
	d.Spec.Env = env
	return d
}

// opened is a driver that remembers its options, to be opened again.
type opened struct {
	*container.Driver
	o container.Options
}

// open opens a driver and, at the test's end, removes all that it made.
func open(t *testing.T, o container.Options) opened {
	t.Helper()
	d, err := container.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := d.StopAll(ctx); err != nil && zarpa.AsError(err).Code != zarpa.Unavailable {
			t.Error(err) // unavailable: the test closed it and opened another
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return opened{d, o}
}

// engine is a client of the engine, for what only an outsider does.
func engine(t *testing.T, host string) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost(host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// containers are the IDs of all containers of a driver, and of one replica unless its ID is empty.
func containers(t *testing.T, o container.Options, id string) []string {
	t.Helper()
	f := make(client.Filters).Add("label", "dev.zarpa.instance="+o.Instance)
	if id != "" {
		f.Add("label", "dev.zarpa.replica="+id)
	}
	res, err := engine(t, o.Host).ContainerList(context.WithoutCancel(t.Context()), client.ContainerListOptions{All: true, Filters: f})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range res.Items {
		ids = append(ids, c.ID)
	}
	return ids
}

// crash kills a replica's running container from outside.
func crash(t *testing.T, o container.Options, r zarpa.Replica) {
	t.Helper()
	c := engine(t, o.Host)
	f := make(client.Filters).Add("label", "dev.zarpa.instance="+o.Instance, "dev.zarpa.replica="+r.ID)
	res, err := c.ContainerList(t.Context(), client.ContainerListOptions{Filters: f})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Items) != 1 {
		t.Fatalf("%d containers of %s run", len(res.Items), r.ID)
	}
	if _, err := c.ContainerKill(t.Context(), res.Items[0].ID, client.ContainerKillOptions{Signal: "SIGKILL"}); err != nil {
		t.Fatal(err)
	}
}

// await waits until the deployment's status is as ok says.
func await(t *testing.T, d zarpa.Driver, h zarpa.Handle, ok func(zarpa.DeploymentStatus) bool) zarpa.DeploymentStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	changed := make(chan struct{}, 1)
	d.(zarpa.Notifier).Notify(func(string) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s, err := d.Observe(ctx, h)
		if err == nil && ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("last seen: %+v, %v", s, err)
		}
	}
}

func apply(t *testing.T, d zarpa.Driver, want zarpa.Deployment) zarpa.Handle {
	t.Helper()
	h, err := d.Apply(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func failed(s zarpa.DeploymentStatus) bool { return len(s.Replicas) == 1 && s.Replicas[0].Last != nil }

func isReady(s zarpa.DeploymentStatus) bool { return s.Ready("") == 1 }

func logs(t *testing.T, d zarpa.Logger, h zarpa.Handle, q zarpa.LogQuery) string {
	t.Helper()
	r, err := d.Logs(t.Context(), h, q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
