package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/target/container"
)

// kindContainer is the kind of targets that are container engines.
const kindContainer = "container"

// option is a setting of a container target: text in the store, a flag on the command line.
type option struct {
	name, usage string
	set         func(o *containerTarget, text string) error
}

// containerTarget is a target of that kind, its options read.
type containerTarget struct {
	container.Options

	base string // the image that replicas' images are built on; empty for none
}

// containerOptions are all settings, as they are shown.
func containerOptions() []option {
	return []option{
		{"host", "engine: unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST; by default DOCKER_HOST, or the socket that is there", func(o *containerTarget, s string) error { o.Host = s; return nil }},
		{"tls_ca", "file with the authority that a tcp host's certificate is from", func(o *containerTarget, s string) error { o.TLS.CA = s; return nil }},
		{"tls_cert", "file with the certificate to show a tcp host", func(o *containerTarget, s string) error { o.TLS.Cert = s; return nil }},
		{"tls_key", "file with its key", func(o *containerTarget, s string) error { o.TLS.Key = s; return nil }},
		{"network", "network of the engine that containers join; its default one by default", func(o *containerTarget, s string) error { o.Network = s; return nil }},
		{"publish", "address of the engine's machine at which the gateway reaches replicas; 127.0.0.1 by default. Use one that only the gateway reaches", func(o *containerTarget, s string) error { o.Publish = s; return nil }},
		{"quota", "most replicas, 20 by default; what has no room waits", func(o *containerTarget, s string) error { return whole(&o.Quota, s) }},
		{"restart", "what the engine itself does when a container ends: no, or unless-stopped; Zarpa starts another one in any case", func(o *containerTarget, s string) error { o.Restart = s; return nil }},
		{"base", "image that replicas are built on; by default none: they hold what this machine has of what they need", func(o *containerTarget, s string) error { o.base = strings.TrimPrefix(s, "none"); return nil }},
		{"max_image", "largest image, unpacked, 10Gi by default", func(o *containerTarget, s string) error { return sized(&o.MaxImage, s) }},
		{"keep_images", "how long an image that nothing uses is kept in the engine, 24h by default", func(o *containerTarget, s string) (err error) {
			o.KeepImages, err = time.ParseDuration(s)
			return err
		}},
		{"scratch", "what a replica may write to /tmp, and again to its work folder: memory, 64Mi by default", func(o *containerTarget, s string) error { return sized(&o.Scratch, s) }},
		{"max_pids", "most processes and threads of a replica, 4096 by default", func(o *containerTarget, s string) error { return whole(&o.MaxPIDs, s) }},
	}
}

func whole[T int | int64](n *T, text string) error {
	v, err := strconv.ParseInt(text, 10, 31)
	if err != nil || v < 1 {
		return errors.New("is not a number from 1 on")
	}
	*n = T(v)
	return nil
}

func sized(n *int64, text string) error {
	var b zarpa.Bytes
	if err := b.UnmarshalText([]byte(text)); err != nil || b < 1 {
		return errors.New("is not a size such as 64Mi")
	}
	*n = int64(b)
	return nil
}

// targetDir is the state directory of a target's driver.
func (p *plane) targetDir(name string) string { return filepath.Join(p.data, "targets", name) }

// container reads the options of a target; invalid names the one that is wrong.
func (p *plane) container(t zarpa.Target) (containerTarget, error) {
	if t.Kind != kindContainer {
		return containerTarget{}, zarpa.Errorf(zarpa.Invalid, "target %q: kind: %.40q is not known", t.Name, t.Kind).WithHint("use container")
	}
	o := containerTarget{Options: container.Options{
		Dir: p.targetDir(t.Name), Instance: p.instance, Target: t.Name, Environ: os.Environ(), Log: p.log.With("target", t.Name),
		Secrets: api.SecretValues(p.store, p.box), Login: login,
	}}
	known := containerOptions()
	for _, name := range slices.Sorted(maps.Keys(t.Options)) {
		i := slices.IndexFunc(known, func(k option) bool { return k.name == name })
		if i < 0 {
			names := make([]string, 0, len(known))
			for _, k := range known {
				names = append(names, k.name)
			}
			return o, zarpa.Errorf(zarpa.Invalid, "target %q: options: %.40q is not known", t.Name, name).WithHint("these are: %s", strings.Join(names, ", "))
		}
		if err := known[i].set(&o, t.Options[name]); err != nil {
			return o, zarpa.Errorf(zarpa.Invalid, "target %q: %s: %.80q %w", t.Name, name, t.Options[name], err)
		}
	}
	o.Images = func(ctx context.Context, digest string) (container.Image, error) { return p.image(ctx, digest, o.base) }
	return o, o.Validate()
}

// engines are the open drivers of container targets, by the target's name.
type engines struct {
	p *plane

	mu   sync.Mutex
	open map[string]*openEngine
}

type openEngine struct {
	target zarpa.Target
	driver *container.Driver
}

// Open implements the API's targets. Two drivers over one directory cannot be: the one before is closed
// first, and opened again when its successor cannot be.
func (e *engines) Open(ctx context.Context, t zarpa.Target, check bool) (zarpa.Target, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t = pinned(t, os.Environ())
	o, err := e.p.container(t)
	if err != nil {
		return t, err
	}
	was := e.open[t.Name]
	if was != nil && check && was.target.Options["host"] != t.Options["host"] {
		if err := container.CheckMove(ctx, o.Options); err != nil {
			return t, err
		}
	}
	if was != nil {
		if err := was.driver.Close(); err != nil {
			return t, err
		}
	}
	d, err := container.Open(ctx, o.Options)
	if err == nil && check {
		if _, err = d.Describe(ctx); err != nil {
			err = errors.Join(err, d.Close())
		}
	}
	if err != nil {
		return t, errors.Join(err, e.back(ctx, was))
	}
	e.use(&openEngine{t, d})
	return t, nil
}

// pinned names the local socket that is there for a target whose engine nothing names: another one that is there
// first after a restart is another engine.
func pinned(t zarpa.Target, environ []string) zarpa.Target {
	if host := container.Found(environ); t.Options["host"] == "" && host != "" {
		options := map[string]string{}
		maps.Copy(options, t.Options)
		options["host"], t.Options = host, options
	}
	return t
}

// back opens again what was open; nil was nothing.
func (e *engines) back(ctx context.Context, was *openEngine) error {
	if was == nil {
		return nil
	}
	d, err := e.openOne(context.WithoutCancel(ctx), was.target)
	if err != nil {
		return err
	}
	e.use(&openEngine{was.target, d})
	return nil
}

func (e *engines) use(o *openEngine) {
	e.open[o.target.Name] = o
	e.p.recon.SetDriver(o.target.Name, o.driver)
}

// Close implements the API's targets.
func (e *engines) Close(name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var err error
	if o := e.open[name]; o != nil {
		e.p.recon.DropDriver(name)
		delete(e.open, name)
		err = o.driver.Close()
	}
	return errors.Join(err, container.Abandon(e.p.targetDir(name)))
}

// openStored opens the targets that are stored. One that cannot be opened is logged: the others, and this
// machine, serve.
func (e *engines) openStored(ctx context.Context) error {
	list, err := e.p.store.Nouns().Targets.List(ctx)
	if err != nil {
		return err
	}
	if err := e.p.abandonTargets(list); err != nil {
		e.p.log.Warn("what is kept of a target that is gone cannot be removed", "error", err)
	}
	var all sync.WaitGroup // one that does not answer keeps no other waiting
	for _, t := range list {
		if t.Kind != kindContainer {
			continue
		}
		all.Go(func() {
			d, err := e.openOne(ctx, t)
			if err != nil {
				e.p.log.Error("a target cannot be opened: its deployments cannot be changed", "target", t.Name, "error", err)
				return
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.use(&openEngine{t, d})
		})
	}
	all.Wait()
	return ctx.Err()
}

// abandonTargets forgets the replicas of targets that are not stored any more: a process that died while it deleted
// one left them, and one added later under the name must not run them.
func (p *plane) abandonTargets(stored []zarpa.Target) error {
	folders, err := filepath.Glob(p.targetDir("*"))
	errs := []error{err}
	for _, folder := range folders {
		if !slices.ContainsFunc(stored, func(t zarpa.Target) bool { return t.Name == filepath.Base(folder) }) {
			errs = append(errs, container.Abandon(folder))
		}
	}
	return errors.Join(errs...)
}

func (e *engines) openOne(ctx context.Context, t zarpa.Target) (*container.Driver, error) {
	o, err := e.p.container(t)
	if err != nil {
		return nil, err
	}
	return container.Open(ctx, o.Options)
}

// each calls f with every open driver, with all at once, and joins the errors: an engine that is away keeps no other
// one waiting.
func (e *engines) each(f func(d *container.Driver) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return eachOf(slices.Collect(maps.Values(e.open)), func(o *openEngine) error { return f(o.driver) })
}

// eachOf calls f with all at once, and joins the errors.
func eachOf[T any](all []T, f func(T) error) error {
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, one := range all {
		wait.Go(func() { errs[i] = f(one) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// usedBundles are the digests of what replicas were made from, on all targets.
func (p *plane) usedBundles() []string {
	all := p.driver.Bundles()
	p.engines.mu.Lock()
	defer p.engines.mu.Unlock()
	for _, o := range p.engines.open {
		all = append(all, o.driver.Bundles()...)
	}
	return all
}
