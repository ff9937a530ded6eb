package container_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/container"
	"github.com/zarpa-dev/zarpa/target/targettest"
)

// nowhere are options that need no engine.
func nowhere(t *testing.T, host string) container.Options {
	return container.Options{
		Dir: t.TempDir(), Instance: "i", Target: "t", Host: host,
		Images: func(context.Context, string) (container.Image, error) {
			return container.Image{}, errors.New("never asked for")
		},
	}
}

func TestEngineThatCannotBeReachedIsNamed(t *testing.T) {
	t.Parallel()
	//nolint:usetesting // the name of a test's folder is long, and a socket's path has 107 bytes at most
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	refused := filepath.Join(dir, "refused.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: refused})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"unix://" + refused:        "nobody listens",
		"unix://" + dir + "/never": "the socket does not exist",
		"tcp://127.0.0.1:1":        "nobody listens",
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			d := open(t, nowhere(t, host))
			_, err := d.Describe(t.Context())
			if e := zarpa.AsError(err); e.Code != zarpa.Unavailable || !strings.Contains(e.Message, want) || !strings.Contains(e.Message, host) || e.Hint == "" {
				t.Errorf("%s: %v", host, err)
			}
			h := apply(t, d, deployment("far", "blue")) // the engine may come
			last := await(t, d, h, failed).Replicas[0].Last
			if !strings.Contains(last.Reason, want) {
				t.Errorf("%s: last = %+v", host, last)
			}
		})
	}
}

func TestSocketOfOthersIsRefusedWithTheGroup(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may use every socket")
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Skipf("no socket here: %v", err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err = open(t, nowhere(t, "unix://"+path)).Describe(t.Context())
	if e := zarpa.AsError(err); !strings.Contains(e.Message, "permission denied") || !strings.Contains(e.Hint, "group docker") {
		t.Errorf("%v", err)
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*container.Options){
		"is of an unknown kind":                 func(o *container.Options) { o.Host = "http://engine" },
		"names no host and port":                func(o *container.Options) { o.Host = "tcp://engine" },
		"without TLS":                           func(o *container.Options) { o.Host, o.Publish = "tcp://10.0.0.5:2375", "10.0.0.5" },
		"no address of it is named":             func(o *container.Options) { o.Host = "ssh://me@10.0.0.5" },
		"holds a password":                      func(o *container.Options) { o.Host, o.Publish = "ssh://me:pass@10.0.0.5", "10.0.0.5" },
		"names no user":                         func(o *container.Options) { o.Host, o.Publish = "ssh://-oProxyCommand=x@10.0.0.5", "10.0.0.5" },
		"names no socket":                       func(o *container.Options) { o.Host = "unix://" },
		"publish: \"0.0.0.0\" is not one":       func(o *container.Options) { o.Publish = "0.0.0.0" },
		"publish: \"engine\" is not one":        func(o *container.Options) { o.Publish = "engine" },
		"restart: \"always\" is neither":        func(o *container.Options) { o.Restart = "always" },
		"network: \"host\" publishes no ports":  func(o *container.Options) { o.Network = "host" },
		"network: \"container:x\" publishes no": func(o *container.Options) { o.Network = "container:x" },
		"quota: -1":                             func(o *container.Options) { o.Quota = -1 },
		"a limit is negative":                   func(o *container.Options) { o.Scratch = -1 },
		"the certificates for":                  func(o *container.Options) { o.Host, o.TLS.CA = "tcp://localhost:2376", "/nowhere/ca.pem" },
		"Dir, Instance, Target and Images are ": func(o *container.Options) { o.Instance = "" },
	} {
		o := nowhere(t, "unix:///nowhere.sock")
		change(&o)
		if d, err := container.Open(t.Context(), o); err == nil {
			_ = d.Close()
			t.Errorf("%s: opened", want)
		} else if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), ":pass") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestNetworkThatPublishesNothingIsNamed(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		if host == os.Getenv(engines["Podman"]) {
			t.Skip("Podman tells a port that leads nowhere: the start_timeout names it")
		}
		o := options(t, host)
		o.Network = "zarpa-" + o.Instance
		e := engine(t, host)
		if _, err := e.NetworkCreate(t.Context(), o.Network, client.NetworkCreateOptions{Internal: true}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := e.NetworkRemove(context.WithoutCancel(t.Context()), o.Network, client.NetworkRemoveOptions{}); err != nil {
				t.Error(err)
			}
		})
		d := open(t, o)
		h := apply(t, d, deployment("inside", "blue"))
		s := await(t, d, h, failed)
		if !strings.Contains(s.Replicas[0].Last.Reason, "publishes no port of containers in network") {
			t.Errorf("%+v", s.Replicas[0].Last)
		}
	})
}

func TestImageThatCannotRunSaysWhy(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		good := image(t)
		for name, tc := range map[string]struct {
			change func(*container.Options, *container.Image)
			reason string
		}{
			"OtherPlatform": {func(_ *container.Options, i *container.Image) { i.Platform = "linux/s390x" }, "is for linux/s390x, and the engine's machine is linux/"},
			"TooLarge":      {func(o *container.Options, _ *container.Image) { o.MaxImage = 1 << 20 }, "image too large: "},
			"CannotBeMade": {func(_ *container.Options, i *container.Image) {
				i.Name = "zarpa.local/never:1"
				i.Archive = func(context.Context, io.Writer) error { return errors.New("bundle sha256:1 is damaged") }
			}, "bundle sha256:1 is damaged"},
			"NoArchive": {func(_ *container.Options, i *container.Image) {
				i.Name = "zarpa.local/never:2"
				i.Archive = func(_ context.Context, w io.Writer) error { _, err := w.Write(pack(file{"a", 0o644, nil})); return err }
			}, "zarpa.local/never:2"},
			"NoNetwork":     {func(o *container.Options, _ *container.Image) { o.Network = "nowhere-net" }, "make the target's network"},
			"NotOurAddress": {func(o *container.Options, _ *container.Image) { o.Publish = "192.0.2.77" }, "assign requested address"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o, img := options(t, host), good
				tc.change(&o, &img)
				o.Images = func(context.Context, string) (container.Image, error) { return img, nil }
				d := open(t, o)
				last := await(t, d, apply(t, d, deployment("bad", "blue")), failed).Replicas[0].Last
				t.Log(last.Reason)
				if !strings.Contains(last.Reason, tc.reason) || last.Code != -1 {
					t.Errorf("last = %+v, want %q", last, tc.reason)
				}
				if left := containers(t, o, ""); len(left) != 0 {
					t.Errorf("containers that stay: %v", left)
				}
			})
		}
	})
}

// built is an image that the engine builds in two stages.
func built(t *testing.T, name, dockerfile string) container.Image {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	base := name + "-base"
	stage := func(name, from, text string, more ...file) container.Stage {
		b := pack(append(more, file{"Dockerfile", 0o644, []byte(text)})...)
		return container.Stage{Name: name, Base: from, Context: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(b)
			return err
		}}
	}
	return container.Image{Name: name, Build: []container.Stage{
		stage(base, "scratch", "FROM scratch\nCOPY replica /replica\n", file{"replica", 0o755, bin}),
		stage(name, base, strings.ReplaceAll(dockerfile, "BASE", base)),
	}}
}

func TestImagesAreBuiltInStagesAndRemovedWhenUnused(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		img := built(t, "zarpa.local/built-"+o.Instance+":1", "FROM BASE\nUSER 65532:65532\nENTRYPOINT [\"/replica\"]\n")
		o.Images = func(context.Context, string) (container.Image, error) { return img, nil }
		o.KeepImages = time.Nanosecond
		d := open(t, o)
		h := apply(t, d, deployment("built", "blue"))
		r := await(t, d, h, isReady).Replicas[0]
		if err := targettest.Call(t.Context(), r.Address, 0); err != nil {
			t.Error(err)
		}
		there := func() int {
			n := 0
			for _, s := range img.Build {
				if _, err := engine(t, host).ImageInspect(t.Context(), s.Name); err == nil {
					n++
				}
			}
			return n
		}
		if err := d.Sweep(t.Context()); err != nil || there() != 2 {
			t.Errorf("%d images of 2 are there after a sweep (%v)", there(), err)
		}
		if err := d.StopAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 { // an image goes before the one that it was built on
			if err := d.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := there(); n != 0 {
			t.Errorf("%d images stay though nothing uses them", n)
		}
	})
}

func TestBuildThatFailsSaysWhy(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		for name, tc := range map[string]struct{ dockerfile, base, reason, hint string }{
			"UnknownBase": {"FROM registry.invalid/python:3.12\nENTRYPOINT [\"/replica\"]\n", "registry.invalid/python:3.12", "its base image registry.invalid/python:3.12 cannot be had", "name another base image"},
			"FailingStep": {"FROM BASE\nENV REPLICA=broken\nRUN [\"/replica\"]\n", "", "iris.onnx: not an ONNX file", "see what the build said"},
			"NoCommand":   {"FROM BASE\nCOPY nothing /\n", "", "nothing", ""},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o := options(t, host)
				img := built(t, "zarpa.local/fails-"+o.Instance+":1", tc.dockerfile)
				if tc.base != "" {
					img.Build[1].Base = tc.base
				}
				o.Images = func(context.Context, string) (container.Image, error) { return img, nil }
				d := open(t, o)
				t.Cleanup(func() {
					_, _ = engine(t, host).ImageRemove(context.WithoutCancel(t.Context()), img.Build[0].Name, client.ImageRemoveOptions{Force: true})
				})
				last := await(t, d, apply(t, d, deployment("fails", "blue")), failed).Replicas[0].Last
				t.Log(last.Reason)
				if !strings.Contains(last.Reason, tc.reason) || !strings.Contains(last.Reason, tc.hint) {
					t.Errorf("last = %+v, want %q and %q", last, tc.reason, tc.hint)
				}
			})
		}
	})
}

func TestLimitsThatNoContainerCanHaveAreRefused(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		d := open(t, options(t, host))
		if _, err := d.Describe(t.Context()); err != nil { // it knows what its machine has
			t.Fatal(err)
		}
		for want, change := range map[string]func(*zarpa.DeploymentSpec){
			"memory: 1Mi is less than":    func(s *zarpa.DeploymentSpec) { s.Memory = 1 << 20 },
			"cpu: 0.001 is less than":     func(s *zarpa.DeploymentSpec) { s.CPU = 0.001 },
			"cpu: 4096 is more than":      func(s *zarpa.DeploymentSpec) { s.CPU = 4096 },
			"memory: 1024Ti is more than": func(s *zarpa.DeploymentSpec) { s.Memory = 1 << 50 },
			"replicas: 21 is not":         func(s *zarpa.DeploymentSpec) { s.Replicas = 21 },
		} {
			bad := deployment("limits", "blue")
			change(&bad.Spec)
			if _, err := d.Apply(t.Context(), bad); zarpa.AsError(err).Code != zarpa.Invalid || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	})
}
