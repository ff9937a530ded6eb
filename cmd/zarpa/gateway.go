package main

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/zarpa-dev/zarpa"
	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
	"github.com/zarpa-dev/zarpa/gateway"
	"github.com/zarpa-dev/zarpa/internal/certs"
	"github.com/zarpa-dev/zarpa/internal/child"
)

// gatewayFlags are the flags of gateway.
type gatewayFlags struct {
	listen, grpc           string
	control, routes, label string
	certs                  certFlags
	acmeCache              string
	drain                  time.Duration
	insecure               bool
	requests, connections  int
	logLevel, accessLog    string
}

func (c *cli) gatewayCommand() *cobra.Command {
	var f gatewayFlags
	cmd := &cobra.Command{
		Use: "gateway --listen ADDR", Short: "Run a gateway by hand",
		Long: `Brings requests to replicas, by the routes that it was given last. zarpa up starts one by itself
and brings it routes over its control socket; it goes on when zarpa up ends.`,
		Example: "  zarpa gateway --listen 127.0.0.1:8080 --control /run/zarpa/gateway.sock --routes /var/lib/zarpa/routes.json\n" +
			"  zarpa gateway --listen 127.0.0.1:8080 --routes routes.json --access-log access.log",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.gateway(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8080", "HOST:PORT to take requests on")
	fl.StringVar(&f.grpc, "grpc", "", "HOST:PORT to take gRPC alone on; --listen takes it as well")
	fl.StringVar(&f.control, "control", "", "path of the control socket; routes come over it")
	fl.StringVar(&f.routes, "routes", "", "file that keeps the routes over a restart")
	fl.StringVar(&f.label, "label", "", "what GET /-/self of the control socket answers")
	f.certs.register(fl)
	fl.StringVar(&f.acmeCache, "acme-cache", "", "folder that keeps the account, keys and certificates of --acme-domain")
	fl.BoolVar(&f.insecure, "insecure", false, "allow plain HTTP on an address that other machines reach")
	fl.IntVar(&f.requests, "max-requests", gateway.DefaultMaxRequests, "requests at a time; then endpoints with more than their share are refused")
	fl.IntVar(&f.connections, "max-connections", gateway.DefaultMaxConnections, "connected clients; a further one is closed at once")
	fl.DurationVar(&f.drain, "drain-timeout", gateway.DefaultDrain, "wait for running requests at the end")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.StringVar(&f.accessLog, "access-log", "", "file that gets a line of JSON for each request, or - for standard output; opened again on SIGHUP")
	return cmd
}

// gatewayGC is how far a gateway's memory grows, in per cent, before it is cleaned up: it lives on a
// few megabytes, and the usual 100 would look them through every few hundred requests.
const gatewayGC = 200

func (c *cli) gateway(ctx context.Context, f gatewayFlags) error {
	if c.getenv("GOGC") == "" {
		debug.SetGCPercent(gatewayGC)
	}
	log, err := c.logger(f.logLevel)
	if err != nil {
		return err
	}
	if err := errors.Join(checkBounds("--", f.requests, f.connections), f.certs.validate()); err != nil {
		return err
	}
	safe := len(f.certs.certs) > 0 || len(f.certs.acme.domains) > 0 || f.insecure
	if err := scorecmd.CheckExposure("--listen", f.listen, safe); err != nil {
		return err
	}
	if f.grpc != "" {
		if err := scorecmd.CheckExposure("--grpc", f.grpc, safe); err != nil {
			return err
		}
	}
	access, closeAccess, err := c.openAccess(ctx, f.accessLog, log)
	if err != nil {
		return err
	}
	return errors.Join(c.serveGateway(ctx, f, gateway.Options{
		Log: log, Version: "zarpa/" + version, RoutesFile: f.routes, AccessLog: access,
		MaxRequests: f.requests, MaxConnections: f.connections,
		Self: child.Self{Label: f.label, PID: os.Getpid(), Started: time.Now()},
	}), closeAccess())
}

func (c *cli) serveGateway(ctx context.Context, f gatewayFlags, o gateway.Options) error {
	g, log := gateway.New(o), o.Log
	if f.routes != "" {
		if err := g.Restore(ctx); err != nil {
			log.Error("the routes of the last run cannot be read; waiting for new ones", "error", err)
		}
	}
	shown, err := f.certs.open(ctx, f.acmeCache, log)
	if err != nil {
		return err
	}
	listeners, err := f.listeners(ctx)
	if err != nil {
		return err
	}
	if shown.source != nil {
		listeners.TLS, listeners.CertificateExpires = certs.Config(shown.source), shown.source.Expires
	}
	attrs := []any{"listen", listeners.Public[0].Addr().String()}
	if listeners.GRPC != nil {
		attrs = append(attrs, "grpc", listeners.GRPC.Addr().String())
	}
	log.Info("the gateway takes requests", attrs...)
	parts, ctx := errgroup.WithContext(ctx)
	ctx, end := context.WithCancel(ctx)
	for _, run := range shown.parts(ctx, log) {
		parts.Go(run)
	}
	parts.Go(func() error {
		defer end() // without a gateway nobody needs certificates
		return g.Serve(ctx, listeners)
	})
	return parts.Wait()
}

// checkBounds refuses bounds of a gateway that are none; prefix begins the names of their flags.
func checkBounds(prefix string, requests, connections int) error {
	switch {
	case requests < 1:
		return zarpa.Errorf(zarpa.Invalid, "%smax-requests: %d is not 1 or more", prefix, requests)
	case connections < 1:
		return zarpa.Errorf(zarpa.Invalid, "%smax-connections: %d is not 1 or more", prefix, connections)
	}
	return nil
}

// listeners opens what the flags name, all or nothing.
func (f gatewayFlags) listeners(ctx context.Context) (l gateway.Listeners, err error) {
	var opened []net.Listener
	open := func(addr string) net.Listener {
		if addr == "" || err != nil {
			return nil
		}
		var ln net.Listener
		if ln, err = scorecmd.Listen(ctx, addr); err == nil {
			opened = append(opened, ln)
		}
		return ln
	}
	l = gateway.Listeners{Drain: f.drain}
	l.Public = []net.Listener{open(f.listen)}
	l.GRPC = open(f.grpc)
	if f.control != "" {
		l.Control = open("unix:" + f.control)
	}
	if err == nil {
		return l, nil
	}
	for _, ln := range opened {
		err = errors.Join(err, ln.Close())
	}
	return gateway.Listeners{}, err
}
