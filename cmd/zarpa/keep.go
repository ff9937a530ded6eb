package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

const (
	// sweepEvery is how often content that nothing refers to is removed; the first time is at
	// the start.
	sweepEvery = 6 * time.Hour
	// sweepAge spares what was stored less long ago: it may be about to be registered.
	sweepAge = 24 * time.Hour
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

// sweep removes content and unpacked bundles that nothing refers to, now and then.
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
	keep := map[string]bool{}
	models, err := p.store.Nouns().Models.List(ctx, "")
	if err != nil {
		return err
	}
	for _, m := range models {
		for _, d := range bundle.ContentDigests(m.Content) {
			keep[d] = true
		}
		// The bundle of a registered model is made again from it, at the same digest.
		digest, err := bundle.Digest(describe(m))
		if err != nil {
			return err
		}
		keep[digest] = true
	}
	swept, err := bundle.Sweep(ctx, p.blobs, bundle.SweepRule{
		Keep: func(d string) bool { return keep[d] }, OlderThan: sweepAge, Now: time.Now(),
	})
	if swept.Blobs > 0 {
		p.log.Info("removed content that nothing refers to", "files", swept.Blobs, "bytes", swept.Bytes)
	}
	return errors.Join(err, p.sweepBundles(keep))
}

// sweepBundles removes unpacked bundles of models that are no more. A deployed model cannot be
// deleted, so that no running replica has its files there.
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

// tlsListener encrypts a listener with a certificate from files.
func tlsListener(ln net.Listener, cert, key string) (net.Listener, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "--tls-cert, --tls-key: %w", err)
	}
	return tls.NewListener(ln, &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	}), nil
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
