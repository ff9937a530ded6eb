// Package process is the driver of this machine: every replica is a child process of its own,
// behind a Unix socket, that outlives the control plane. A driver made anew over the same
// directory takes over what runs.
//
// The state directory holds:
//
//	deployments/…                     what the last Apply of each deployment asked for
//	replicas/ID/replica.json          what is known of a replica
//	replicas/ID/run.json              label, pid, start time and socket of its process
//	replicas/ID/current.log           what the newest run prints; previous.log of the one before
//	replicas/ID/work/                 what it writes
//	replicas/ID/secrets/              its secrets, for this user alone, written anew for each run
//	s/RUN.sock                        sockets, unless the path would be too long
//
// A service manager that starts the control plane must not end its whole control group with it
// (systemd: KillMode=process), or replicas do not survive.
package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// Options configure a driver. Dir, Executable and Bundles are needed; other zero fields take the
// defaults.
type Options struct {
	// Dir is the state directory. One process at a time may drive it: the caller holds the lock
	// of the data directory that it is in.
	Dir string
	// Executable is the program that is started for a replica: the zarpa binary.
	Executable string
	// Args makes its arguments; nil is [ScoreArgs].
	Args func(ReplicaStart) []string
	// Environ is the environment that Inherited names are taken from, as os.Environ returns it.
	Environ []string
	// Bundles returns the directory of a bundle by digest. It is called before every start; the
	// text of its error is shown to the user.
	Bundles func(ctx context.Context, digest string) (string, error)
	// Secrets returns the values of stored secrets by name. It is called before every start of a replica
	// that has secrets; the text of its error is shown to the user and holds no value. nil has none.
	Secrets func(ctx context.Context, names []string) (map[string][]byte, error)
	// LogLimit bounds the log of one run, in bytes; 0 is 16 MiB.
	LogLimit int64
	// MaxReplicas bounds the replicas of all deployments together; 0 is 256.
	MaxReplicas int
	Probes      replica.Probes
	Backoff     replica.Backoff
	Log         *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// ReplicaStart is what the arguments of a replica are made from.
type ReplicaStart struct {
	ID         string
	Deployment zarpa.Deployment
	// Label names this run; the process tells it at GET /-/self.
	Label string
	// Bundle is the directory of the bundle.
	Bundle string
	// Work is a directory of the replica's own for what it writes. It stays over its runs.
	Work string
	// Listen is where the process serves: "unix:/path".
	Listen string
}

// Driver runs replicas as processes. All its methods may be called from many goroutines.
type Driver struct{ set *replica.Set }

var (
	_ zarpa.Driver   = (*Driver)(nil)
	_ zarpa.Logger   = (*Driver)(nil)
	_ zarpa.Notifier = (*Driver)(nil)
	_ zarpa.Checker  = (*Driver)(nil)
	_ zarpa.Replacer = (*Driver)(nil)
)

// Open makes a driver over a state directory and takes over what runs. When it returns, every
// replica that serves is known as ready again. ctx bounds the taking over alone.
func Open(ctx context.Context, o Options) (*Driver, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("process driver: state directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unusable(dir, err)
	}
	sockets, err := child.SocketDir(dir, len(socketName("")))
	if err != nil {
		return nil, unusable(dir, err)
	}
	if o.Args == nil {
		o.Args = ScoreArgs
	}
	sum := sha256.Sum256([]byte(dir))
	groups := child.OpenCgroups("zarpa-" + hex.EncodeToString(sum[:6]))
	set, err := replica.Open(ctx, replica.Options{
		Runner: &runner{o: o, sockets: sockets, groups: groups, newest: map[string]*child.Child{}},
		Dir:    dir, Log: o.Log, Probes: o.Probes, Backoff: o.Backoff, MaxReplicas: o.MaxReplicas, Now: o.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("process driver: %w", err)
	}
	groups.Sweep()
	return &Driver{set: set}, nil
}

func unusable(dir string, err error) error {
	return zarpa.Errorf(zarpa.Unavailable, "process driver: directory %s cannot be used: %v", dir, err).Because(err).
		WithHint("make it writable for this user, or choose another data directory")
}

// Apply is [zarpa.Driver].Apply. overloaded when the machine's replica limit leaves some out,
// unavailable when the state directory cannot be written.
func (d *Driver) Apply(ctx context.Context, want zarpa.Deployment) (zarpa.Handle, error) {
	if want.Bundle == "" && want.Spec.Replicas > 0 {
		return zarpa.Handle{}, zarpa.Errorf(zarpa.Invalid, "deployment %s: bundle: empty", want.Key())
	}
	return d.set.Apply(ctx, want)
}

// Observe is [zarpa.Driver].Observe.
func (d *Driver) Observe(ctx context.Context, h zarpa.Handle) (zarpa.DeploymentStatus, error) {
	return d.set.Observe(ctx, h)
}

// Remove is [zarpa.Driver].Remove.
func (d *Driver) Remove(ctx context.Context, h zarpa.Handle) error { return d.set.Remove(ctx, h) }

// Replace is [zarpa.Replacer].Replace.
func (d *Driver) Replace(ctx context.Context, h zarpa.Handle, id string) error {
	return d.set.Replace(ctx, h, id)
}

// Logs is [zarpa.Logger].Logs. Followed files are looked at five times a second.
func (d *Driver) Logs(ctx context.Context, h zarpa.Handle, q zarpa.LogQuery) (io.ReadCloser, error) {
	return d.set.Logs(ctx, h, q)
}

// Notify is [zarpa.Notifier].Notify.
func (d *Driver) Notify(changed func(key string)) { d.set.Notify(changed) }

// Check is [zarpa.Checker].Check: more replicas than the machine may run are refused.
func (d *Driver) Check(spec zarpa.DeploymentSpec) error { return d.set.Check(spec) }

// Bundles are the digests of the bundles that its replicas were made for: those that must be there
// when one of them is started again. A digest may stand there more than once.
func (d *Driver) Bundles() []string { return d.set.Bundles() }

// Close stops watching; every process goes on.
func (d *Driver) Close() error { return d.set.Close() }

// StopAll removes every deployment and waits until no process is left or ctx ends.
func (d *Driver) StopAll(ctx context.Context) error { return d.set.StopAll(ctx) }
