package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/seal"
	"github.com/zarpa-dev/zarpa/store/sqlite"
	"github.com/zarpa-dev/zarpa/target"
	"github.com/zarpa-dev/zarpa/target/process"
)

// upFlags are the flags of up.
type upFlags struct {
	api, gateway, onExit string
	gatewayURL           string
	cert, key            string
	insecure             bool
	logLevel             string
}

// stopTimeout bounds the stop of all replicas at the end: longer than the usual drain.
const stopTimeout = time.Minute

// apiDrain is how long calls may go on when the control plane ends; followed logs are cut off.
const apiDrain = 2 * time.Second

func (c *cli) upCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use: "up", Short: "Start Zarpa on this machine",
		Long: `Runs the control plane and keeps the gateway and the replicas running, until ^C. They are
processes of their own: when the control plane dies they go on, and the next zarpa up takes them
over. Everything is kept in the data directory.`,
		Example: "  zarpa up\n  zarpa up --data ./trial --api 127.0.0.1:7071 --gateway 127.0.0.1:8081",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.up(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.api, "api", "127.0.0.1:7070", "address of the control API; port 0 takes a free one")
	fl.StringVar(&f.gateway, "gateway", "127.0.0.1:8080", "address that takes predictions; port 0 takes a free one")
	fl.StringVar(&f.gatewayURL, "gateway-url", "", "URL under which clients reach the gateway; else made from its address")
	fl.StringVar(&f.onExit, "on-exit", "stop", "what happens to gateway and replicas at the end: stop or leave")
	fl.StringVar(&f.cert, "tls-cert", "", "certificate file (PEM) of both addresses; with --tls-key")
	fl.StringVar(&f.key, "tls-key", "", "key file (PEM)")
	fl.BoolVar(&f.insecure, "insecure", false, "allow plain HTTP on addresses that other machines reach")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func (f upFlags) validate() error {
	switch {
	case f.onExit != "stop" && f.onExit != "leave":
		return zarpa.Errorf(zarpa.Invalid, "--on-exit: %q is not known", f.onExit).WithHint("use stop or leave")
	case (f.cert == "") != (f.key == ""):
		return zarpa.Errorf(zarpa.Invalid, "--tls-cert and --tls-key: only one is given").WithHint("give both")
	}
	safe := f.cert != "" || f.insecure
	return errors.Join(checkExposure("--api", f.api, safe), checkExposure("--gateway", f.gateway, safe))
}

// plane is a running control plane.
type plane struct {
	flags    upFlags
	data     string
	log      *slog.Logger
	token    string
	lock     *os.File
	store    *sqlite.Store
	blobs    *dir.Blobs
	box      *seal.Box
	driver   *process.Driver
	keeper   *keeper
	recon    *target.Reconciler
	listener net.Listener
	scheme   string
	bundled  sync.Map // zarpa.ModelRef → digest of its bundle, which is stored
}

func (c *cli) up(ctx context.Context, f upFlags) error {
	if err := f.validate(); err != nil {
		return err
	}
	log, err := c.logger(f.logLevel)
	if err != nil {
		return err
	}
	data, err := c.dataDir()
	if err != nil {
		return err
	}
	p := &plane{flags: f, data: data, log: log, scheme: "http"}
	if f.cert != "" {
		p.scheme = "https"
	}
	if err := p.open(ctx); err != nil {
		return errors.Join(err, p.close())
	}
	p.banner(c.stderr)
	err = p.run(ctx)
	signal.Reset(os.Interrupt, syscall.SIGTERM) // a second ^C ends it at once
	return errors.Join(err, p.end(context.WithoutCancel(ctx)), p.close())
}

// open opens what is kept, takes over what runs, and starts the gateway.
func (p *plane) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(p.data, 0o700); err != nil {
		return dataError(p.data, err)
	}
	if p.lock, err = lockDir(ctx, p.data); err != nil {
		return err
	}
	for _, name := range []string{"blobs", "bundles"} { // models are nobody else's business
		private := filepath.Join(p.data, name)
		if err := errors.Join(os.MkdirAll(private, 0o700), os.Chmod(private, 0o700)); err != nil {
			return dataError(p.data, err)
		}
	}
	if err := child.SweepFiles(p.data); err != nil {
		return dataError(p.data, err)
	}
	if p.store, err = sqlite.Open(ctx, filepath.Join(p.data, "zarpa.db")); err != nil {
		return err
	}
	if p.blobs, err = dir.Open(ctx, filepath.Join(p.data, "blobs")); err != nil {
		return err
	}
	if p.box, err = seal.Open(filepath.Join(p.data, "secret.key")); err != nil {
		return dataError(p.data, err)
	}
	if p.token, err = adminToken(filepath.Join(p.data, tokenFile)); err != nil {
		return dataError(p.data, err)
	}
	if err := p.ensureTarget(ctx); err != nil {
		return err
	}
	if p.listener, err = listen(ctx, p.flags.api); err != nil {
		return err
	}
	return p.openParts(ctx)
}

func (p *plane) openParts(ctx context.Context) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	want := gatewayWant{Listen: p.flags.gateway, Insecure: p.flags.insecure, Version: version}
	if p.flags.cert != "" {
		if want.Cert, err = filepath.Abs(p.flags.cert); err != nil {
			return err
		}
		if want.Key, err = filepath.Abs(p.flags.key); err != nil {
			return err
		}
	}
	if p.keeper, err = newKeeper(filepath.Join(p.data, "gateway"), executable, want, p.log); err != nil {
		return err
	}
	bundles := filepath.Join(p.data, "bundles")
	p.driver, err = process.Open(ctx, process.Options{
		Dir: filepath.Join(p.data, "replicas"), Executable: executable, Environ: os.Environ(), Log: p.log,
		Bundles: func(ctx context.Context, digest string) (string, error) {
			return bundle.Unpack(ctx, p.blobs, digest, bundles)
		},
	})
	if err != nil {
		return err
	}
	p.recon = target.New(target.Options{
		Store: p.store, Drivers: map[string]zarpa.Driver{zarpa.DefaultTarget: p.driver},
		Bundle: p.bundle, KeyDigests: api.KeyDigests(p.store, p.box), Router: p.keeper.client, Log: p.log,
	})
	p.keeper.started = func(ctx context.Context) {
		if err := p.recon.Republish(ctx); err != nil {
			p.log.Warn("the gateway goes on with the routes of its last run", "error", err)
		}
	}
	return p.keeper.open(ctx)
}

// bundle packages a registered model, once: a version never changes.
func (p *plane) bundle(ctx context.Context, m zarpa.Model) (string, error) {
	if digest, ok := p.bundled.Load(m.Ref()); ok {
		return digest.(string), nil //nolint:forcetypeassert // the next lines put nothing else there
	}
	digest, err := bundle.Build(ctx, p.blobs, describe(m))
	if err == nil {
		p.bundled.Store(m.Ref(), digest)
	}
	return digest, err
}

// describe is the bundle of one model.
func describe(m zarpa.Model) zarpa.Bundle {
	file := ""
	if len(m.Content.Files) == 1 {
		file = m.Content.Files[0].Path
	}
	return zarpa.Bundle{
		Format: bundle.Format, Engine: m.Format,
		Models: []zarpa.BundleModel{{Name: m.Name, Version: m.Version, Content: m.Content, Signature: m.Signature, File: file}},
	}
}

// ensureTarget makes the target that every server has.
func (p *plane) ensureTarget(ctx context.Context) error {
	targets := p.store.Nouns().Targets
	_, err := targets.Get(ctx, zarpa.DefaultTarget)
	if !errors.Is(err, zarpa.ErrNotFound) {
		return err
	}
	return targets.Put(ctx, zarpa.Target{Name: zarpa.DefaultTarget, Kind: "process", Created: time.Now().UTC()})
}

// run serves until ctx ends or a part fails.
func (p *plane) run(ctx context.Context) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	handler := api.New(api.Options{
		Store: p.store, Blobs: p.blobs, Reconciler: p.recon, Seal: p.box, Token: p.token, Log: p.log,
		Server: zarpa.Server{
			Version: version, GatewayURL: p.gatewayURL(), DataDir: p.data, Engines: []string{"onnx"}, Started: time.Now().UTC(),
		},
		Metrics:        promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		GatewayMetrics: p.keeper.metrics(),
	})
	if err := p.writeServerInfo(); err != nil {
		return dataError(p.data, err)
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return p.recon.Run(ctx) })
	parts.Go(func() error { return p.keeper.run(ctx) })
	parts.Go(func() error { return p.serve(ctx, handler) })
	parts.Go(func() error { return p.sweep(ctx) })
	return parts.Wait()
}

func (p *plane) serve(ctx context.Context, handler http.Handler) error {
	ln := p.listener
	if p.flags.cert != "" {
		var err error
		if ln, err = tlsListener(ln, p.flags.cert, p.flags.key); err != nil {
			return err
		}
	}
	err := httpx.Serve(ctx, ln, httpx.ServerOptions{Handler: handler, DrainTimeout: apiDrain, Log: p.log})
	if err != nil && ctx.Err() != nil {
		p.log.Info("calls that were still running were cut off", "reason", err)
		err = nil
	}
	return err
}

// end stops what was started, or leaves it running.
func (p *plane) end(ctx context.Context) error {
	if err := os.Remove(filepath.Join(p.data, serverFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log.Warn("remove "+serverFile, "error", err)
	}
	if p.flags.onExit == "leave" {
		p.log.Info("the gateway and the replicas go on")
		return nil
	}
	p.log.Info("stopping the gateway and the replicas; ^C again leaves them")
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := p.keeper.stop(ctx)
	return errors.Join(err, p.driver.StopAll(ctx))
}

// close gives everything back that this process holds.
func (p *plane) close() error {
	var errs []error
	if p.driver != nil {
		errs = append(errs, p.driver.Close())
	}
	if p.keeper != nil {
		p.keeper.client.Close()
		if p.keeper.current != nil {
			p.keeper.current.Release()
		}
	}
	if p.listener != nil {
		_ = p.listener.Close() // closed by the server before, unless it never ran
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.lock != nil {
		errs = append(errs, p.lock.Close())
	}
	return errors.Join(errs...)
}

func (p *plane) apiURL() string { return p.scheme + "://" + reachable(p.listener.Addr().String()) }

func (p *plane) gatewayURL() string {
	if p.flags.gatewayURL != "" {
		return strings.TrimRight(p.flags.gatewayURL, "/")
	}
	return p.scheme + "://" + reachable(p.keeper.address)
}

// reachable is an address that a client on this machine can use where a server listens on all.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

func (p *plane) writeServerInfo() error {
	info := serverInfo{API: p.apiURL(), PID: os.Getpid()}
	if p.flags.cert != "" {
		info.CA, _ = filepath.Abs(p.flags.cert)
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return child.WriteFile(filepath.Join(p.data, serverFile), append(b, '\n'))
}

func (p *plane) banner(w io.Writer) {
	fmt.Fprintf(w, `
  Zarpa %s
  Control API   %s
  Gateway       %s
  Data          %s
  Admin token   %s

  Deploy a model from another terminal:
    zarpa deploy NAME --model FILE.onnx%s

`, version, p.apiURL(), p.gatewayURL(), p.data, filepath.Join(p.data, tokenFile), p.dataHint())
}

// dataHint is the flag that the next command needs when the data directory is not the usual one.
func (p *plane) dataHint() string {
	usual, err := (&cli{getenv: func(name string) string {
		if name == "ZARPA_DATA" {
			return ""
		}
		return os.Getenv(name)
	}}).dataDir()
	if err == nil && usual == p.data {
		return ""
	}
	return " --data " + p.data
}

// adminToken reads the token, or makes one that only this user can read.
func adminToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		random := make([]byte, 32)
		_, _ = rand.Read(random)
		b = []byte(hex.EncodeToString(random) + "\n")
		err = child.WriteFile(file, b)
	}
	return strings.TrimSpace(string(b)), err
}

// dataError says what is wrong with the data directory.
func dataError(dir string, err error) error {
	e := zarpa.Errorf(zarpa.Unavailable, "the data directory %s cannot be used: %w", dir, err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return e.WithHint("make it writable for this user, or choose another with --data")
	case errors.Is(err, syscall.ENOSPC):
		return e.WithHint("the disk is full: free some space, or choose another with --data")
	case errors.Is(err, syscall.EROFS):
		return e.WithHint("it is on a read-only file system: choose another with --data")
	}
	return e.WithHint("choose another with --data")
}
