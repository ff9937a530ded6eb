package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/bundle/image"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/target"
)

const (
	// sweepEvery is how often content that nothing refers to is removed; the first time is at
	// the start.
	sweepEvery = 6 * time.Hour
	// sweepAge spares what was stored less long ago: it may be about to be registered.
	sweepAge = 24 * time.Hour
	// keepLayers is how long layers of images are kept that no image was made of.
	keepLayers = 7 * 24 * time.Hour
)

// lockWait is how long to wait for the data directory: a process that was killed gives it back a
// moment later, when the kernel has taken it apart.
const lockWait = time.Second

// lockDir takes the data directory for this process until the file is closed.
func lockDir(ctx context.Context, data string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, dataError(data, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	for end := time.Now().Add(lockWait); errors.Is(err, syscall.EWOULDBLOCK) && time.Now().Before(end) && pause(ctx, 20*time.Millisecond); {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		who, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close() // nothing was written
		return nil, zarpa.Errorf(zarpa.Conflict, "another zarpa up (pid %s) uses the data directory %s", strings.TrimSpace(string(who)), data).
			WithHint("stop it, or give this one a directory of its own with --data")
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, dataError(data, err)
	}
	return f, nil
}

// sweep removes content and unpacked bundles that nothing refers to, and old entries of the audit log, now
// and then.
func (p *plane) sweep(ctx context.Context) error {
	for {
		if err := p.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("sweep", "error", err)
		}
		if !pause(ctx, sweepEvery) {
			return nil
		}
	}
}

func (p *plane) sweepOnce(ctx context.Context) error {
	if p.flags.selfSigned {
		if err := p.selfSigned(time.Now()); err != nil { // near its end, the next one
			return err
		}
	}
	if keep := p.flags.auditKeep; keep > 0 {
		if err := p.store.Nouns().Audits.Prune(ctx, time.Now().Add(-keep)); err != nil {
			return err
		}
	}
	keep, err := p.inUse(ctx)
	if err != nil {
		return err
	}
	swept, err := bundle.Sweep(ctx, p.blobs, bundle.SweepRule{
		Keep: func(d string) bool { return keep[d] }, OlderThan: sweepAge, Now: time.Now(),
	})
	if swept.Blobs > 0 {
		p.log.Info("removed content that nothing refers to", "files", swept.Blobs, "bytes", swept.Bytes)
	}
	_, layers := image.Sweep(filepath.Join(p.data, "layers"), time.Now().Add(-keepLayers))
	return errors.Join(err, p.sweepBundles(keep), p.sweepRegistry(ctx), layers)
}

// inUse are the digests of the content of registered models, and of the bundles that are made of
// them, wanted by an endpoint, or run by a replica of an earlier change.
func (p *plane) inUse(ctx context.Context) (map[string]bool, error) {
	keep := map[string]bool{}
	models, err := p.store.Nouns().Models.List(ctx, "")
	if err != nil {
		return nil, err
	}
	byName, groups := map[string]zarpa.Model{}, []target.Package{}
	for _, m := range models {
		for _, d := range bundle.ContentDigests(m.Content) {
			keep[d] = true
		}
		byName[m.Ref().String()] = m
		groups = append(groups, target.Package{Models: []zarpa.Model{m}})
	}
	endpoints, err := p.store.Nouns().Endpoints.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		for _, d := range e.Spec.Deployments {
			if err := p.keepCode(ctx, d, keep); err != nil {
				return nil, err
			}
			var group target.Package
			for _, name := range d.AllModels() {
				group.Models = append(group.Models, byName[name])
			}
			if len(group.Models) > 0 {
				groups = append(groups, group)
			}
		}
	}
	for _, group := range groups {
		b, err := describe(group)
		if err != nil {
			continue // nothing can have been made of it
		}
		if digest, err := bundle.Digest(b); err == nil {
			keep[digest] = true
		}
	}
	for _, digest := range p.usedBundles() {
		keep[digest] = true
		if err := p.keepBundle(ctx, digest, keep); err != nil {
			return nil, err
		}
	}
	p.bundled.Range(func(key, value any) bool {
		made := value.(*madeBundle) //nolint:forcetypeassert // bundle puts nothing else there
		if time.Since(time.Unix(0, made.used.Load())) > bundledFor {
			p.bundled.Delete(key)
		} else {
			keep[made.digest] = true
		}
		return true
	})
	return keep, nil
}

// keepCode adds what a deployment's code and environment are made of.
func (p *plane) keepCode(ctx context.Context, d zarpa.DeploymentSpec, keep map[string]bool) error {
	digests := []string{d.Code}
	if d.Environment != nil {
		digests = append(digests, d.Environment.Content)
	}
	for _, digest := range digests {
		if digest == "" {
			continue
		}
		content, err := bundle.ReadContent(ctx, p.blobs, digest)
		if errors.Is(err, zarpa.ErrNotFound) {
			continue // there is nothing left to keep
		}
		if err != nil {
			return err
		}
		for _, d := range bundle.ContentDigests(content) {
			keep[d] = true
		}
	}
	return nil
}

// keepBundle adds all that a replica needs when it is started again: also of code that the
// deployment does not have any more.
func (p *plane) keepBundle(ctx context.Context, digest string, keep map[string]bool) error {
	b, err := bundle.Describe(ctx, p.blobs, digest)
	if errors.Is(err, zarpa.ErrNotFound) {
		return nil
	}
	for _, c := range bundle.Contents(b) {
		for _, d := range bundle.ContentDigests(c) {
			keep[d] = true
		}
	}
	return err
}

// sweepBundles removes unpacked bundles that are not in use. No running replica has its files there.
func (p *plane) sweepBundles(keep map[string]bool) error {
	root := filepath.Join(p.data, "bundles")
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil //nolint:nilerr // nothing was unpacked yet
	}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || keep["sha256:"+e.Name()] || time.Since(info.ModTime()) < sweepAge {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(root, e.Name())))
	}
	return errors.Join(errs...)
}

// relay passes the answer of a GET on.
func relay(w http.ResponseWriter, r *http.Request, transport http.RoundTripper, url string) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		httpx.WriteError(w, r, httpx.API, err)
		return
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		httpx.WriteError(w, r, httpx.API, zarpa.Errorf(zarpa.Unavailable, "the gateway does not answer").Because(err))
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the caller left, or the gateway: either way there is nobody to tell
}
