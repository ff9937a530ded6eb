package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/score"
)

// scoreFlags are the flags of score: the settings of one replica.
type scoreFlags struct {
	bundle, listen, label string
	endpoint              string
	maxConcurrency        int
	threads               int
	deployment            string
	timeout, drain        time.Duration
	maxBody               string
	queue                 int
	insecure              bool
	logLevel              string
}

func (c *cli) scoreCommand() *cobra.Command {
	var f scoreFlags
	cmd := &cobra.Command{
		Use: "score --bundle DIR --listen ADDR", Short: "Run one replica by hand",
		Long: `Serves the model of an unpacked bundle, without authentication, until it gets SIGTERM; then it
lets running requests end. It exits with 3 when the model cannot be loaded. zarpa up starts such
replicas by itself.`,
		Example: "  zarpa score --bundle ~/.local/share/zarpa/bundles/4f2a… --listen 127.0.0.1:5001",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.score(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.bundle, "bundle", "", "directory of an unpacked bundle")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:5001", "HOST:PORT, or unix:PATH")
	fl.StringVar(&f.endpoint, "endpoint", "", "another name that the model answers to")
	fl.IntVar(&f.maxConcurrency, "max-concurrency", zarpa.DefaultMaxConcurrency, "requests to work on at a time")
	fl.IntVar(&f.queue, "queue", 0, "requests that may wait for that, then 503; 0 is 128")
	fl.IntVar(&f.threads, "threads", 0, "threads that one run of the model may use; 0 is one per processor")
	fl.StringVar(&f.deployment, "deployment", "", "the deployment it belongs to, for the log")
	fl.DurationVar(&f.timeout, "request-timeout", time.Duration(zarpa.DefaultRequestTimeout), "time limit of one request, then 504")
	fl.DurationVar(&f.drain, "drain-timeout", time.Duration(zarpa.DefaultDrainTimeout), "wait for running requests at the end")
	fl.StringVar(&f.maxBody, "max-body", zarpa.DefaultMaxBody.String(), "largest request body, then 413")
	fl.StringVar(&f.label, "label", "", "what GET /-/self answers")
	fl.BoolVar(&f.insecure, "insecure", false, "allow an address that other machines reach: no key is asked for")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func (c *cli) score(ctx context.Context, f scoreFlags) error {
	log, err := c.logger(f.logLevel)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(f.listen, "unix:") {
		if err := checkExposure("--listen", f.listen, f.insecure); err != nil {
			return err
		}
	}
	var maxBody zarpa.Bytes
	if err := flagText("max-body", f.maxBody, &maxBody); err != nil {
		return err
	}
	if f.deployment != "" {
		log = log.With("endpoint", f.endpoint, "deployment", f.deployment)
	}
	if f.bundle == "" {
		return zarpa.Errorf(zarpa.Invalid, "--bundle: not given").WithHint("name the directory of an unpacked bundle")
	}
	b, err := bundle.Read(f.bundle)
	if err != nil {
		return notLoaded(log, err)
	}
	if len(b.Models) != 1 {
		return notLoaded(log, zarpa.Errorf(zarpa.Invalid, "the bundle holds %d models; one is served", len(b.Models)))
	}
	m := b.Models[0]
	server, err := score.New(score.Options{
		ModelName: m.Name, ModelVersion: strconv.Itoa(m.Version), Aliases: aliases(f.endpoint),
		MaxConcurrency: f.maxConcurrency, QueueLimit: f.queue, MaxBody: maxBody,
		RequestTimeout: f.timeout, DrainTimeout: f.drain, ServerVersion: "zarpa/" + version,
		Self: child.Self{Label: f.label, PID: os.Getpid(), Started: time.Now()}, Log: log,
	})
	if err != nil {
		return err
	}
	ln, err := listen(ctx, f.listen)
	if err != nil {
		return err
	}
	return c.serveModel(ctx, server, ln, loading{f.bundle, b.Engine, m, f.threads, log})
}

func aliases(endpoint string) []string {
	if endpoint == "" {
		return nil
	}
	return []string{endpoint}
}

// notLoaded says why in the log, where the supervisor and zarpa logs find it, and ends the
// process with the exit code that stands for it.
func notLoaded(log *slog.Logger, err error) error {
	log.Error("the model could not be loaded", "error", err)
	return &exitError{zarpa.ExitLoadFailed, err}
}

// loading is a model on its way into memory.
type loading struct {
	dir, engine string
	model       zarpa.BundleModel
	threads     int
	log         *slog.Logger
}

// serveModel answers probes at once, loads the model, and then answers predictions.
func (c *cli) serveModel(ctx context.Context, server *score.Server, ln net.Listener, l loading) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.getenv("GOMAXPROCS") == "" {
		// Calls into the model hold Go's processors while they run: as many again for the requests.
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	session, err := c.load(ctx, l)
	if err != nil {
		cancel()
		<-served //nolint:errcheck // the load's failure is the one to tell
		if ctx.Err() != nil && zarpa.AsError(err).Code == zarpa.Canceled {
			return nil
		}
		return notLoaded(l.log, err)
	}
	server.SetReady(session.Session, session.took)
	l.log.Info("ready", "model", l.model.Name, "version", l.model.Version, "took", session.took, "listen", ln.Addr().String())
	err = <-served
	if closeErr := session.Close(); err == nil {
		err = closeErr
	}
	return err
}

type loaded struct {
	zarpa.Session
	took time.Duration
}

func (c *cli) load(ctx context.Context, l loading) (loaded, error) {
	engine, ok := c.engines(l.log)[l.engine]
	if !ok {
		return loaded{}, zarpa.Errorf(zarpa.Invalid, "the bundle needs the engine %q, which this zarpa does not have", l.engine).
			WithHint("use a newer zarpa")
	}
	start := time.Now()
	dir := filepath.Join(l.dir, "models", l.model.Name, strconv.Itoa(l.model.Version))
	s, err := engine.Load(ctx, dir, zarpa.LoadOptions{File: l.model.File, Threads: l.threads})
	return loaded{s, time.Since(start)}, err
}

// listen opens HOST:PORT or unix:PATH. A socket file that nobody listens on is replaced.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	network, address := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, address = "unix", path
		if err := removeDeadSocket(ctx, path); err != nil {
			return nil, err
		}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Unavailable, "cannot listen on %s: %w", addr, err).
			WithHint("choose another address, or stop what uses this one")
	}
	return ln, nil
}

func removeDeadSocket(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil //nolint:nilerr // nothing to remove; listening tells the rest
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // it was only to see whether somebody answers
		return zarpa.Errorf(zarpa.Conflict, "cannot listen on unix:%s: somebody does", path)
	}
	if err := os.Remove(path); err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "cannot replace the socket %s: %w", path, err)
	}
	return nil
}
