package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
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
	"github.com/zarpa-dev/zarpa/autoscale"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
	"github.com/zarpa-dev/zarpa/environment"
	"github.com/zarpa-dev/zarpa/gateway"
	"github.com/zarpa-dev/zarpa/internal/certs"
	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/replica"
	"github.com/zarpa-dev/zarpa/internal/seal"
	"github.com/zarpa-dev/zarpa/registry"
	"github.com/zarpa-dev/zarpa/store/sqlite"
	"github.com/zarpa-dev/zarpa/target"
	"github.com/zarpa-dev/zarpa/target/container"
	"github.com/zarpa-dev/zarpa/target/process"
)

// upFlags are the flags of up.
type upFlags struct {
	requests, connections int // of the gateway
	replicas              int
	api, gateway, onExit  string
	gatewayURL, grpc      string
	certs                 certFlags
	selfSigned            bool
	tlsNames              []string
	oidc                  oidcFlags
	insecure              bool
	logLevel, accessLog   string
	noPickle, noRegistry  bool
	dnsSuffix             string
	python                string
	buildTimeout          time.Duration
	auditKeep             time.Duration
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
	fl.StringVar(&f.grpc, "grpc", "", "address of the gateway that takes gRPC alone, besides --gateway; port 0 takes a free one")
	fl.IntVar(&f.requests, "gateway-max-requests", gateway.DefaultMaxRequests, "requests at a time in the gateway; then endpoints with more than their share are refused")
	fl.IntVar(&f.connections, "gateway-max-connections", gateway.DefaultMaxConnections, "clients connected to the gateway; a further one is closed at once")
	fl.IntVar(&f.replicas, "max-replicas", replica.DefaultMaxReplicas, "replicas of all endpoints together; what has no room waits")
	fl.StringVar(&f.onExit, "on-exit", "stop", "what happens to gateway and replicas at the end: stop or leave")
	f.oidc.register(fl)
	f.certs.register(fl)
	fl.BoolVar(&f.selfSigned, "tls-self-signed", false, "for trials: make a certificate that this machine's clients trust, and renew it")
	fl.StringArrayVar(&f.tlsNames, "tls-name", nil, "further host name or IP address in it; may be repeated")
	fl.BoolVar(&f.noPickle, "no-pickle", false, "refuse models that run code when they are loaded: pickle, joblib, MLflow, Keras")
	fl.StringVar(&f.dnsSuffix, "dns-suffix", "", "domain of the endpoints whose hostname is a single label: iris is then iris.DOMAIN, which must lead to the gateway")
	fl.BoolVar(&f.noRegistry, "no-registry", false, "do not serve a container registry under /v2/ of the control API's address")
	fl.StringVar(&f.python, "python", "", "interpreter that Python environments are made with; python3 of PATH by default")
	fl.DurationVar(&f.buildTimeout, "build-timeout", environment.DefaultBuildTimeout, "time limit of building one Python environment")
	fl.DurationVar(&f.auditKeep, "audit-keep", defaultAuditKeep, "how long entries of the audit log are kept; 0 for ever")
	fl.BoolVar(&f.insecure, "insecure", false, "allow plain HTTP on addresses that other machines reach")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.StringVar(&f.accessLog, "access-log", "", "file to which the gateway writes a line of JSON for each request")
	return cmd
}

func (f upFlags) validate() error {
	switch {
	case f.accessLog == "-":
		return zarpa.Errorf(zarpa.Invalid, "--access-log: the gateway is a process without standard output of its own").WithHint("name a file")
	case f.onExit != "stop" && f.onExit != "leave":
		return zarpa.Errorf(zarpa.Invalid, "--on-exit: %q is not known", f.onExit).WithHint("use stop or leave")
	case f.dnsSuffix != "" && (zarpa.EndpointSpec{Hostname: f.dnsSuffix}).Validate() != nil:
		return zarpa.Errorf(zarpa.Invalid, "--dns-suffix: %.260q is not the name of a domain", f.dnsSuffix).WithHint("write a name in small letters, such as models.example.com")
	case f.replicas < 1:
		return zarpa.Errorf(zarpa.Invalid, "--max-replicas: %d is less than 1", f.replicas)
	case f.auditKeep < 0:
		return zarpa.Errorf(zarpa.Invalid, "--audit-keep: %v is not a time to keep", f.auditKeep).WithHint("write --audit-keep 2160h, or 0 to keep all")
	}
	safe := f.gatewayEncrypted() || f.insecure
	err := errors.Join(f.validateTLS(), f.oidc.validate(), checkBounds("--gateway-", f.requests, f.connections),
		scorecmd.CheckExposure("--api", f.api, f.apiEncrypted() || f.insecure), scorecmd.CheckExposure("--gateway", f.gateway, safe))
	if f.grpc != "" {
		err = errors.Join(err, scorecmd.CheckExposure("--grpc", f.grpc, safe))
	}
	return err
}

// plane is a running control plane.
type plane struct {
	flags upFlags
	data  string
	log   *slog.Logger
	token string
	lock  *os.File
	store *sqlite.Store
	blobs *dir.Blobs
	box   *seal.Box
	// signing has the keys of scoring tokens.
	signing *api.Signing
	driver  *process.Driver
	// engines are the drivers of targets that were added, and instance is the label of what they make.
	engines  *engines
	instance string
	// environments are those that scripts and Python models run in
	environments *environment.Cache
	registry     *registry.Server // nil for none
	builds       chan struct{}    // holds one for each that is being built
	keeper       *keeper
	recon        *target.Reconciler
	scaler       *autoscale.Scaler
	metrics      *prometheus.Registry
	listener     net.Listener
	cert         *certs.Files // of the control API, and of the gateway when it gets no other; nil for none
	bundled      sync.Map     // what a bundle is made of → its digest, which is stored
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
	p := &plane{flags: f, data: data, log: log, builds: make(chan struct{}, maxBuilds), metrics: prometheus.NewRegistry()}
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
	if p.token, err = randomFile(filepath.Join(p.data, tokenFile)); err != nil {
		return dataError(p.data, err)
	}
	if p.signing, err = api.OpenSigning(ctx, p.store, p.box); err != nil {
		return err
	}
	if err := p.ensureTarget(ctx); err != nil {
		return err
	}
	if err := p.openCertificate(); err != nil {
		return err
	}
	if p.listener, err = scorecmd.Listen(ctx, p.flags.api); err != nil {
		return err
	}
	return p.openParts(ctx)
}

func (p *plane) openParts(ctx context.Context) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	want := gatewayWant{
		Listen: p.flags.gateway, GRPC: p.flags.grpc, Insecure: p.flags.insecure, Version: version, Requests: p.flags.requests, Connections: p.flags.connections,
		TLS: strings.Join(p.flags.certs.args(filepath.Join(p.data, "tls", "acme")), argSeparator),
	}
	if p.flags.accessLog != "" {
		if want.AccessLog, err = filepath.Abs(p.flags.accessLog); err != nil {
			return err
		}
	}
	if p.keeper, err = newKeeper(filepath.Join(p.data, "gateway"), executable, want, p.log); err != nil {
		return err
	}
	if err := p.openRegistry(ctx); err != nil {
		return err
	}
	bundles := filepath.Join(p.data, "bundles")
	p.environments, err = environment.Open(ctx, environment.Options{
		Dir: filepath.Join(p.data, "environments"), Python: p.flags.python, Path: filepath.SplitList(os.Getenv("PATH")),
		Env: os.Environ(), BuildTimeout: p.flags.buildTimeout, Log: p.log,
	})
	if err != nil {
		return err
	}
	p.driver, err = process.Open(ctx, process.Options{
		Dir: filepath.Join(p.data, "replicas"), Executable: executable, Environ: os.Environ(), Log: p.log, Args: p.scoreArgs, MaxReplicas: p.flags.replicas,
		Secrets: api.SecretValues(p.store, p.box),
		Bundles: func(ctx context.Context, digest string) (string, error) {
			return bundle.Unpack(ctx, p.blobs, digest, bundles)
		},
	})
	if err != nil {
		return err
	}
	if err := p.openScaler(ctx); err != nil {
		return err
	}
	p.recon = target.New(target.Options{
		Store: p.store, Drivers: map[string]zarpa.Driver{zarpa.DefaultTarget: p.driver},
		Bundle: p.bundle, Environment: p.environment, Present: p.present, KeyDigests: api.KeyDigests(p.store, p.box),
		VerifyKeys: p.signing.VerifyKeys, Router: p.keeper.client, Log: p.log, Wanted: p.scaler.Wanted,
	})
	if p.instance, err = randomFile(filepath.Join(p.data, "instance")); err != nil {
		return dataError(p.data, err)
	}
	p.engines = &engines{p: p, open: map[string]*openEngine{}}
	if err := p.engines.openStored(ctx); err != nil {
		return err
	}
	p.keeper.started = func(ctx context.Context) {
		if err := p.recon.Republish(ctx); err != nil {
			p.log.Warn("the gateway goes on with the routes of its last run", "error", err)
		}
	}
	return p.keeper.open(ctx)
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
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	identifier, err := p.flags.oidc.identifier()
	if err != nil {
		return err
	}
	rollouts := p.rollouts()
	p.metrics.MustRegister(rolloutMetrics{rollouts})
	handler := api.New(api.Options{
		Registry:       p.registryHandler(),
		RolloutChanged: rollouts.Wake, Identifier: identifier,
		Store: p.store, Blobs: p.blobs, Reconciler: p.recon, Seal: p.box, Signing: p.signing, Token: p.token, Log: p.log,
		Server: zarpa.Server{
			Version: version, GatewayURL: p.gatewayURL(), DataDir: p.data, Engines: []string{scorecmd.EngineONNX, scorecmd.EnginePython}, Started: time.Now().UTC(),
			NoPickle: p.flags.noPickle,
		},
		CertificateEnds: p.certificateEnds, DNSSuffix: p.flags.dnsSuffix, Targets: p.engines,
		Environments: p.environments, EnvironmentUsers: p.environmentUsers,
		Convert:        p.convert,
		Metrics:        promhttp.HandlerFor(p.metrics, promhttp.HandlerOpts{}),
		GatewayMetrics: p.keeper.metrics(),
		Load:           p.keeper.client,
	})
	if err := p.writeServerInfo(); err != nil {
		return dataError(p.data, err)
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return p.recon.Run(ctx) })
	parts.Go(func() error { return rollouts.Run(ctx) })
	parts.Go(func() error { return p.scaler.Run(ctx) })
	parts.Go(func() error { return p.keeper.run(ctx) })
	parts.Go(func() error { return p.serve(ctx, handler) })
	parts.Go(func() error { return p.sweep(ctx) })
	if p.cert != nil {
		p.metrics.MustRegister(certs.Metric(p.cert.Expires))
		parts.Go(func() error { p.keepCertificate(ctx); return nil })
	}
	return parts.Wait()
}

func (p *plane) serve(ctx context.Context, handler http.Handler) error {
	ln := p.listener
	if p.cert != nil {
		ln = tls.NewListener(ln, certs.Config(p.cert))
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
	return errors.Join(err, eachOf([]func() error{
		func() error { return p.driver.StopAll(ctx) },
		func() error { return p.engines.each(func(d *container.Driver) error { return d.StopAll(ctx) }) },
	}, func(stop func() error) error { return stop() }))
}

// close gives everything back that this process holds.
func (p *plane) close() error {
	var errs []error
	if p.driver != nil {
		errs = append(errs, p.driver.Close())
	}
	if p.engines != nil {
		errs = append(errs, p.engines.each((*container.Driver).Close))
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

func (p *plane) apiURL() string {
	return scheme(p.cert != nil) + "://" + reachable(p.listener.Addr().String())
}

func (p *plane) gatewayURL() string {
	if p.flags.gatewayURL != "" {
		return strings.TrimRight(p.flags.gatewayURL, "/")
	}
	addr := reachable(p.keeper.address)
	if d := p.flags.certs.acme.domains; len(d) > 0 {
		if _, port, err := net.SplitHostPort(addr); err == nil {
			addr = net.JoinHostPort(d[0], port)
		}
	}
	return scheme(p.flags.gatewayEncrypted()) + "://" + strings.TrimSuffix(addr, ":443")
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
	if list := p.flags.certs.certs; len(list) > 0 {
		info.CA = list[0]
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
%s  Data          %s
  Admin token   %s
%s
  Deploy a model from another terminal:
    zarpa deploy NAME --model FILE.onnx%s

`, version, p.apiURL(), p.gatewayURL(), p.grpcLine(), p.data, filepath.Join(p.data, tokenFile), p.certificateLine(time.Now()), p.dataHint())
}

// grpcLine tells where gRPC alone is taken, when it is.
func (p *plane) grpcLine() string {
	if p.keeper.grpc == "" {
		return ""
	}
	return "  gRPC          " + reachable(p.keeper.grpc) + "\n"
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

// randomFile reads what the file holds, or makes something random that only this user can read.
func randomFile(file string) (string, error) {
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
