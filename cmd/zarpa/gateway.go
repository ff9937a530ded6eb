package main

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
	"github.com/zarpa-dev/zarpa/internal/child"
)

// gatewayFlags are the flags of gateway.
type gatewayFlags struct {
	listen, control, routes, label string
	cert, key                      string
	drain                          time.Duration
	insecure                       bool
	logLevel                       string
}

func (c *cli) gatewayCommand() *cobra.Command {
	var f gatewayFlags
	cmd := &cobra.Command{
		Use: "gateway --listen ADDR", Short: "Run a gateway by hand",
		Long: `Brings requests to replicas, by the routes that it was given last. zarpa up starts one by itself
and brings it routes over its control socket; it goes on when zarpa up ends.`,
		Example: "  zarpa gateway --listen 127.0.0.1:8080 --control /run/zarpa/gateway.sock --routes /var/lib/zarpa/routes.json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.gateway(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8080", "HOST:PORT to take requests on")
	fl.StringVar(&f.control, "control", "", "path of the control socket; routes come over it")
	fl.StringVar(&f.routes, "routes", "", "file that keeps the routes over a restart")
	fl.StringVar(&f.label, "label", "", "what GET /-/self of the control socket answers")
	fl.StringVar(&f.cert, "tls-cert", "", "certificate file (PEM); with --tls-key, requests come by HTTPS")
	fl.StringVar(&f.key, "tls-key", "", "key file (PEM)")
	fl.BoolVar(&f.insecure, "insecure", false, "allow plain HTTP on an address that other machines reach")
	fl.DurationVar(&f.drain, "drain-timeout", gateway.DefaultDrain, "wait for running requests at the end")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func (c *cli) gateway(ctx context.Context, f gatewayFlags) error {
	log, err := c.logger(f.logLevel)
	if err != nil {
		return err
	}
	if err := checkExposure("--listen", f.listen, f.cert != "" && f.key != "" || f.insecure); err != nil {
		return err
	}
	g := gateway.New(gateway.Options{
		Log: log, Version: version, RoutesFile: f.routes,
		Self: child.Self{Label: f.label, PID: os.Getpid(), Started: time.Now()},
	})
	if f.routes != "" {
		if err := g.Restore(ctx); err != nil {
			log.Error("the routes of the last run cannot be read; waiting for new ones", "error", err)
		}
	}
	listeners := gateway.Listeners{CertFile: f.cert, KeyFile: f.key, Drain: f.drain}
	public, err := listen(ctx, f.listen)
	if err != nil {
		return err
	}
	listeners.Public = []net.Listener{public}
	if f.control != "" {
		if listeners.Control, err = listen(ctx, "unix:"+f.control); err != nil {
			return errors.Join(err, public.Close())
		}
	}
	log.Info("the gateway takes requests", "listen", public.Addr().String())
	return g.Serve(ctx, listeners)
}

// checkExposure refuses an address that other machines reach, unless that was allowed.
func checkExposure(flag, addr string, allowed bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "%s: %q is not HOST:PORT", flag, addr)
	}
	ip := net.ParseIP(host)
	if allowed || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return zarpa.Errorf(zarpa.Invalid, "%s: other machines reach %s, and it is not encrypted", flag, addr).
		WithHint("use TLS (--tls-cert, --tls-key) where there is, or allow it with --insecure")
}
