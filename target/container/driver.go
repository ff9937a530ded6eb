// Package container is the driver of Docker and Podman: every run of a replica is a container, made through
// the Engine API (1.40 or newer) of a local or remote engine. Replicas are planned, probed, restarted and
// drained by this process (internal/replica); the engine only runs them, so that Docker and Podman, which
// differ in health checks and restarts, behave alike.
//
// All that is made carries the labels dev.zarpa.instance and dev.zarpa.target. What carries those of this
// driver and belongs to no replica is removed when the driver is opened, when the engine comes back, and
// every ten minutes; what carries others' is left alone.
//
// An engine that does not answer is no dead replica: those known from before keep their address, their probes
// decide, and the engine is looked at again every second.
//
// The state directory holds, beside what internal/replica keeps:
//
//	replicas/ID/run.json   container, address and start time of the newest run
//	images.json            the images that this driver has brought to the engine, and when they were last used
package container

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// Options configure a driver. Dir, Instance, Target and Images are needed; other zero fields take the defaults.
type Options struct {
	// Dir is the state directory. One process at a time may drive it.
	Dir string
	// Instance identifies the data of this control plane, and Target is the target's name; both go into labels.
	Instance, Target string
	// Host is the engine: unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT][/SOCKET]. Empty is DOCKER_HOST
	// of Environ, or the first local socket of Docker or Podman that is there.
	Host string
	// TLS are the files for a tcp host; DOCKER_TLS_VERIFY and DOCKER_CERT_PATH of Environ count where Host is empty.
	TLS TLS
	// Environ is the environment, as os.Environ returns it: of it DOCKER_HOST, DOCKER_CERT_PATH, DOCKER_TLS_VERIFY
	// and XDG_RUNTIME_DIR are read, and ssh gets all of it.
	Environ []string
	// Network is the network that containers join; empty is the engine's default.
	Network string
	// Publish is the IP address of the engine's machine that ports are published on, and that the gateway calls. Empty
	// is 127.0.0.1, for local engines alone. Whoever reaches it reaches replicas without a key: on another machine name
	// an address of a private network.
	Publish string
	// Quota bounds the replicas of all deployments together; 0 is 20.
	Quota int
	// Restart is what the engine does with a container that ends: "no" (the default; this driver starts another one), or
	// "unless-stopped", which also brings replicas back after a restart of the engine while no control plane runs.
	Restart string
	// Images makes the image of a bundle, by its digest. It is called before every start; the text of its error is
	// shown to the user.
	Images func(ctx context.Context, bundle string) (Image, error)
	// Secrets returns the values of secrets by name; nil has none.
	Secrets func(ctx context.Context, names []string) (map[string][]byte, error)
	// Login tells the engine how to log in to the registry that a base image is pulled from; nil, or no Registry, is
	// without. The engine does not know what the user of this process has stored.
	Login func(ctx context.Context, base string) (Login, error)
	// MaxImage bounds an image, unpacked, in bytes; 0 is 10 GiB.
	MaxImage int64
	// KeepImages is how long an image that nothing uses stays in the engine; 0 is 24 hours.
	KeepImages time.Duration
	// Scratch bounds what a replica may write to /tmp, and again to its work folder, in bytes; both are memory, and
	// count against its memory limit. 0 is 64 MiB.
	Scratch int64
	// MaxPIDs bounds the processes and threads of a replica; 0 is 4096.
	MaxPIDs int64
	// LogLimit bounds the log of one run, in bytes; 0 is 16 MiB.
	LogLimit int64
	// CallTimeout bounds one call of the engine that is not about moving an image; 0 is 30 s.
	CallTimeout time.Duration
	// ImageTimeout bounds loading one image, or building one stage; 0 is 30 minutes.
	ImageTimeout time.Duration
	Probes       replica.Probes
	Backoff      replica.Backoff
	Log          *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// The defaults of Options.
const (
	DefaultQuota        = 20
	DefaultPublish      = "127.0.0.1"
	DefaultMaxImage     = 10 << 30
	DefaultKeepImages   = 24 * time.Hour
	DefaultScratch      = 64 << 20
	DefaultMaxPIDs      = 4096
	DefaultLogLimit     = 16 << 20
	DefaultCallTimeout  = 30 * time.Second
	DefaultImageTimeout = 30 * time.Minute
)

// The restart policies.
const (
	RestartNo            = "no"
	RestartUnlessStopped = "unless-stopped"
)

func (o Options) withDefaults() Options {
	o.Quota = cmp.Or(o.Quota, DefaultQuota)
	o.Restart = cmp.Or(o.Restart, RestartNo)
	o.MaxImage = cmp.Or(o.MaxImage, DefaultMaxImage)
	o.KeepImages = cmp.Or(o.KeepImages, DefaultKeepImages)
	o.Scratch = cmp.Or(o.Scratch, DefaultScratch)
	o.MaxPIDs = cmp.Or(o.MaxPIDs, DefaultMaxPIDs)
	o.LogLimit = cmp.Or(o.LogLimit, DefaultLogLimit)
	o.CallTimeout = cmp.Or(o.CallTimeout, DefaultCallTimeout)
	o.ImageTimeout = cmp.Or(o.ImageTimeout, DefaultImageTimeout)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Validate tells what is wrong with the options, as invalid; it asks no engine.
func (o Options) Validate() error {
	switch {
	case o.Instance == "" || o.Target == "" || o.Dir == "" || o.Images == nil:
		return zarpa.Errorf(zarpa.Internal, "container driver: Dir, Instance, Target and Images are needed")
	case o.Quota < 0:
		return zarpa.Errorf(zarpa.Invalid, "target %q: quota: %d is negative", o.Target, o.Quota).WithHint("name how many replicas it may run, 20 by default")
	case o.Restart != "" && o.Restart != RestartNo && o.Restart != RestartUnlessStopped:
		return zarpa.Errorf(zarpa.Invalid, "target %q: restart: %q is neither no nor unless-stopped", o.Target, o.Restart).
			WithHint("with no, the default, Zarpa starts replicas again itself")
	case !isNetwork(o.Network):
		return zarpa.Errorf(zarpa.Invalid, "target %q: network: %q publishes no ports", o.Target, o.Network).
			WithHint("make one with `docker network create`, or leave it out for the engine's default")
	case o.MaxImage < 0 || o.Scratch < 0 || o.MaxPIDs < 0 || o.LogLimit < 0 || o.CallTimeout < 0 || o.ImageTimeout < 0 || o.KeepImages < 0:
		return zarpa.Errorf(zarpa.Invalid, "target %q: a limit is negative", o.Target).WithHint("leave it out for its default")
	}
	h, err := o.endpoint()
	if err != nil {
		return err
	}
	_, err = o.publish(h)
	return err
}

// isNetwork tells whether a network's name is one: with the other modes that engines take for it, replicas would share
// an address, or have none.
func isNetwork(name string) bool {
	return name != "host" && name != "none" && !strings.Contains(name, ":")
}

// Driver runs replicas as containers. All its methods may be called from many goroutines.
type Driver struct {
	set    *replica.Set
	runner *runner
	stop   context.CancelFunc
	wait   sync.WaitGroup
}

var (
	_ zarpa.Driver    = (*Driver)(nil)
	_ zarpa.Logger    = (*Driver)(nil)
	_ zarpa.Notifier  = (*Driver)(nil)
	_ zarpa.Checker   = (*Driver)(nil)
	_ zarpa.Replacer  = (*Driver)(nil)
	_ zarpa.Capacity  = (*Driver)(nil)
	_ zarpa.Describer = (*Driver)(nil)
	_ zarpa.Preparer  = (*Driver)(nil)
)

// Open makes a driver over a state directory and takes over what runs; the engine may be away. ctx bounds the
// taking over alone. invalid when the options are wrong, unavailable when the directory cannot be used.
func Open(ctx context.Context, o Options) (*Driver, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	dir, err := filepath.Abs(o.Dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Unavailable, "container driver: directory %s cannot be used: %v", o.Dir, err).Because(err).
			WithHint("make it writable for this user, or choose another data directory")
	}
	o.Dir = dir
	h, err := o.endpoint()
	if err != nil {
		return nil, err
	}
	address, err := o.publish(h)
	if err != nil {
		return nil, err
	}
	engine, err := dial(o, h)
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &runner{o: o, host: h, publish: address, engine: engine, ctx: running, watched: map[string]*run{}, newest: map[string]string{}, changed: make(chan struct{}), back: make(chan struct{}, 1), slack: stopSlack, sweeps: make(lockable, 1), images: newImages(o)}
	d := &Driver{runner: r, stop: stop}
	d.set, err = replica.Open(ctx, replica.Options{
		Runner: r, Dir: dir, Log: o.Log, Probes: o.Probes, Backoff: o.Backoff, MaxReplicas: o.Quota, Now: o.Now,
	})
	if err != nil {
		stop()
		_ = engine.Close()
		return nil, fmt.Errorf("container driver: %w", err)
	}
	d.wait.Go(func() { r.watchEvents(running) })
	d.wait.Go(func() { r.sweepEvery(running, d.set) })
	return d, nil
}

// Apply is [zarpa.Driver].Apply. overloaded when the quota leaves some out.
func (d *Driver) Apply(ctx context.Context, want zarpa.Deployment) (zarpa.Handle, error) {
	if want.Bundle == "" && want.Spec.Replicas > 0 {
		return zarpa.Handle{}, zarpa.Errorf(zarpa.Invalid, "deployment %s: bundle: empty", want.Key())
	}
	if err := d.Check(want.Spec); err != nil && want.Spec.Replicas > 0 {
		return zarpa.Handle{}, err
	}
	return d.set.Apply(ctx, want)
}

// Observe is [zarpa.Driver].Observe. While the engine is away its message says so.
func (d *Driver) Observe(ctx context.Context, h zarpa.Handle) (zarpa.DeploymentStatus, error) {
	s, err := d.set.Observe(ctx, h)
	if err == nil && s.Message == "" {
		if away := d.runner.away(); away != nil {
			s.Message = away.Error()
		}
	}
	return s, err
}

// Remove is [zarpa.Driver].Remove. While the engine is away what runs cannot be stopped: Observe tells of it until
// the engine is back.
func (d *Driver) Remove(ctx context.Context, h zarpa.Handle) error { return d.set.Remove(ctx, h) }

// Replace is [zarpa.Replacer].Replace.
func (d *Driver) Replace(ctx context.Context, h zarpa.Handle, id string) error {
	return d.set.Replace(ctx, h, id)
}

// Logs is [zarpa.Logger].Logs.
func (d *Driver) Logs(ctx context.Context, h zarpa.Handle, q zarpa.LogQuery) (io.ReadCloser, error) {
	return d.set.Logs(ctx, h, q)
}

// Notify is [zarpa.Notifier].Notify.
func (d *Driver) Notify(changed func(key string)) { d.set.Notify(changed) }

// minMemory is the least that both engines accept as a limit.
const minMemory = 6 << 20

// Check is [zarpa.Checker].Check: more replicas than the quota, and limits that no engine accepts, are refused. What
// the engine's machine has counts once the engine has told it.
func (d *Driver) Check(spec zarpa.DeploymentSpec) error {
	if spec.Memory > 0 && spec.Memory < minMemory {
		return zarpa.Errorf(zarpa.Invalid, "deployment %q: memory: %v is less than %v, the least that a container can have",
			spec.Name, spec.Memory, zarpa.Bytes(minMemory)).WithHint("ask for more memory, or leave the limit out")
	}
	if spec.CPU > 0 && spec.CPU < 0.01 {
		return zarpa.Errorf(zarpa.Invalid, "deployment %q: cpu: %v is less than 0.01, the least that a container can have", spec.Name, spec.CPU).
			WithHint("ask for more, or leave the limit out")
	}
	if e := d.runner.known(); e.cpus > 0 && spec.CPU > zarpa.CPU(e.cpus) {
		return zarpa.Errorf(zarpa.Invalid, "deployment %q: cpu: %v is more than the %d processors of the engine's machine", spec.Name, spec.CPU, e.cpus).
			WithHint("ask for at most %d, or use another target", e.cpus)
	}
	if e := d.runner.known(); e.memory > 0 && spec.Memory > zarpa.Bytes(e.memory) {
		return zarpa.Errorf(zarpa.Invalid, "deployment %q: memory: %v is more than the %v of the engine's machine", spec.Name, spec.Memory, zarpa.Bytes(e.memory>>20<<20)).
			WithHint("ask for less, or use another target")
	}
	return d.set.Check(spec)
}

// Bundles are the digests of the bundles that its replicas were made for. A digest may stand there more than once.
func (d *Driver) Bundles() []string { return d.set.Bundles() }

// Close stops watching; every container goes on.
func (d *Driver) Close() error {
	err := d.set.Close()
	d.stop()
	d.wait.Wait()
	d.runner.wait.Wait()
	if closing := d.runner.engine.Close(); err == nil {
		err = closing
	}
	return err
}

// Abandon forgets the replicas of a state directory that no driver has open. What still runs is a leftover, which the
// next driver over it sweeps; which images are its own stays known.
func Abandon(dir string) error { return replica.Abandon(dir) }

// StopAll removes every deployment and waits until no container is left or ctx ends.
func (d *Driver) StopAll(ctx context.Context) error { return d.set.StopAll(ctx) }
