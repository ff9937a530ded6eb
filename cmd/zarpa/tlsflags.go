package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
	"github.com/zarpa-dev/zarpa/internal/certs"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// certFlags are the flags of up and gateway that say which certificate to show.
type certFlags struct {
	certs, keys []string // of the same length
	acme        acmeFlags
}

// acmeFlags say which certificates to get from an authority.
type acmeFlags struct {
	domains              []string
	email, directory, ca string
	http                 string
}

func (f *certFlags) register(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.certs, "tls-cert", nil, "certificate file (PEM), read again when it changes; with --tls-key. Repeat both for more: each is shown to who asks for its names, the first to all others")
	fl.StringArrayVar(&f.keys, "tls-key", nil, "key file (PEM) of the --tls-cert at the same place")
	fl.StringArrayVar(&f.acme.domains, "acme-domain", nil, "name for which the gateway gets a certificate by ACME, accepting the authority's terms; may be repeated")
	fl.StringVar(&f.acme.email, "acme-email", "", "where the authority writes to")
	fl.StringVar(&f.acme.directory, "acme-directory", "", "address of the authority's directory; Let's Encrypt's by default")
	fl.StringVar(&f.acme.ca, "acme-ca", "", "certificate file (PEM) by which the authority's own address is trusted")
	fl.StringVar(&f.acme.http, "acme-http", "", "address that answers the authority's HTTP-01 challenge, reached as port 80 of the domains; without it the gateway answers TLS-ALPN-01, reached as port 443")
}

func (f certFlags) validate() error {
	a := f.acme
	switch {
	case len(f.certs) != len(f.keys):
		return zarpa.Errorf(zarpa.Invalid, "--tls-cert and --tls-key: %d and %d are given", len(f.certs), len(f.keys)).WithHint("give a key with each certificate")
	case len(a.domains) == 0 && a.email+a.directory+a.ca+a.http != "":
		return zarpa.Errorf(zarpa.Invalid, "--acme-domain: not given").WithHint("name what the certificate is for: --acme-domain models.example.org")
	}
	for _, d := range a.domains {
		if net.ParseIP(d) != nil || strings.ContainsAny(d, "*/: ") || !strings.Contains(strings.Trim(d, "."), ".") {
			return zarpa.Errorf(zarpa.Invalid, "--acme-domain: %q is not the name of a host", d).WithHint("write a full name without wildcards, such as models.example.org")
		}
	}
	return nil
}

// absolute makes the files' names good in every folder: the gateway is started elsewhere.
func (f *certFlags) absolute() error {
	files := []*string{&f.acme.ca}
	for i := range f.certs {
		files = append(files, &f.certs[i], &f.keys[i])
	}
	for _, file := range files {
		if *file == "" {
			continue
		}
		abs, err := filepath.Abs(*file)
		if err != nil {
			return err
		}
		*file = abs
	}
	return nil
}

// pairs are the certificates with their keys.
func (f certFlags) pairs() []certs.Pair {
	var list []certs.Pair
	for i, cert := range f.certs {
		list = append(list, certs.Pair{Cert: cert, Key: f.keys[i]})
	}
	return list
}

// gatewayCerts are the certificates of a gateway.
type gatewayCerts struct {
	source certs.Source // nil for none
	files  *certs.Files
	acme   *certs.ACME
	http   net.Listener // of the challenges; nil for none
}

// open reads the certificate and makes what gets others, which are kept in the folder cache.
func (f certFlags) open(ctx context.Context, cache string, log *slog.Logger) (c gatewayCerts, err error) {
	if len(f.certs) > 0 {
		if c.files, err = certs.OpenFiles(f.pairs(), log); err != nil {
			return c, err
		}
		c.source = c.files
	}
	if len(f.acme.domains) == 0 {
		return c, nil
	}
	if cache == "" {
		return c, zarpa.Errorf(zarpa.Invalid, "--acme-cache: not given").WithHint("name a folder that is kept: authorities bound how often they give certificates")
	}
	o := certs.ACMEOptions{
		Domains: f.acme.domains, Email: f.acme.email, Directory: f.acme.directory, CA: f.acme.ca, Cache: cache, Log: log,
	}
	if c.files != nil {
		o.Fallback = c.files
	}
	if c.acme, err = certs.NewACME(o); err != nil {
		return c, err
	}
	c.source = c.acme
	if f.acme.http != "" {
		c.http, err = scorecmd.Listen(ctx, f.acme.http)
	}
	return c, err
}

// parts watch files, get certificates and answer challenges until ctx ends. An error is that of the
// challenges' address.
func (c gatewayCerts) parts(ctx context.Context, log *slog.Logger) []func() error {
	var parts []func() error
	if c.files != nil {
		parts = append(parts, func() error { c.files.Run(ctx); return nil })
	}
	if c.acme != nil {
		parts = append(parts, func() error { c.acme.Run(ctx); return nil })
	}
	if c.http != nil {
		handler := http.MaxBytesHandler(c.acme.Challenges(), 0)
		parts = append(parts, func() error {
			return httpx.Serve(ctx, c.http, httpx.ServerOptions{Handler: handler, ReadTimeout: challengeTimeout, DrainTimeout: apiDrain, Log: log})
		})
	}
	return parts
}

// challengeTimeout bounds a request of an authority, which has no body.
const challengeTimeout = 10 * time.Second

// args are the gateway's own flags for the same certificates.
func (f certFlags) args(cache string) []string {
	var args []string
	for _, p := range f.pairs() {
		args = append(args, "--tls-cert", p.Cert, "--tls-key", p.Key)
	}
	for _, a := range [][2]string{
		{"--acme-email", f.acme.email},
		{"--acme-directory", f.acme.directory},
		{"--acme-ca", f.acme.ca},
		{"--acme-http", f.acme.http},
	} {
		if a[1] != "" {
			args = append(args, a[0], a[1])
		}
	}
	for _, d := range f.acme.domains {
		args = append(args, "--acme-domain", d)
	}
	if len(f.acme.domains) > 0 {
		args = append(args, "--acme-cache", cache)
	}
	return args
}

// selfSignedNames are those of this machine, which its own certificate is for.
func (p *plane) selfSignedNames() []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, p.flags.tlsNames...)
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	for _, addr := range []string{p.flags.api, p.flags.gateway, p.flags.grpc} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			names = append(names, host)
		}
	}
	return names
}

// selfSigned makes sure that the data directory has a certificate for this machine's names, and gives its
// files to the flags.
func (p *plane) selfSigned(now time.Time) error {
	cert, key, err := certs.SelfSigned(p.tlsDir(), p.selfSignedNames(), now)
	if err != nil {
		return dataError(p.data, err)
	}
	p.flags.certs.certs, p.flags.certs.keys = []string{cert}, []string{key}
	return nil
}

func (p *plane) tlsDir() string { return filepath.Join(p.data, "tls") }

// keepCertificate watches the certificate of the control API, and renews it where it is our own.
func (p *plane) keepCertificate(ctx context.Context) {
	var both sync.WaitGroup
	if p.flags.selfSigned {
		both.Go(func() { certs.KeepSelfSigned(ctx, p.tlsDir(), p.selfSignedNames(), p.log) })
	}
	both.Go(func() { p.cert.Run(ctx) })
	both.Wait()
}

// openCertificate finds the certificate of the control API, which is the gateway's, too.
func (p *plane) openCertificate() (err error) {
	if p.flags.selfSigned {
		err = p.selfSigned(time.Now())
	} else {
		err = p.flags.certs.absolute()
	}
	if err == nil && len(p.flags.certs.certs) > 0 {
		p.cert, err = certs.OpenFiles(p.flags.certs.pairs(), p.log)
	}
	return err
}

func scheme(encrypted bool) string {
	if encrypted {
		return "https"
	}
	return "http"
}

// argSeparator stands between the arguments in [gatewayWant]: no file name has it.
const argSeparator = "\x00"

// validateTLS checks the flags of up that say how addresses are encrypted.
func (f upFlags) validateTLS() error {
	if err := f.certs.validate(); err != nil {
		return err
	}
	switch {
	case f.selfSigned && len(f.certs.certs) > 0:
		return zarpa.Errorf(zarpa.Invalid, "--tls-self-signed: there is --tls-cert").WithHint("give one of both")
	case len(f.tlsNames) > 0 && !f.selfSigned:
		return zarpa.Errorf(zarpa.Invalid, "--tls-name: without --tls-self-signed").WithHint("a certificate that is given has its names already")
	}
	for _, name := range f.tlsNames {
		if name == "" || strings.ContainsAny(name, "/: ") && net.ParseIP(name) == nil {
			return zarpa.Errorf(zarpa.Invalid, "--tls-name: %q is neither the name of a host nor an IP address", name)
		}
	}
	return nil
}

// apiEncrypted and gatewayEncrypted report which addresses speak TLS.
func (f upFlags) apiEncrypted() bool { return len(f.certs.certs) > 0 || f.selfSigned }

func (f upFlags) gatewayEncrypted() bool { return f.apiEncrypted() || len(f.certs.acme.domains) > 0 }

// certificateEnds is when the certificate of the control API ends; the zero time for none.
func (p *plane) certificateEnds() time.Time {
	if p.cert == nil {
		return time.Time{}
	}
	return p.cert.Expires()
}

// certificateLine warns in the banner of a certificate that ends soon.
func (p *plane) certificateLine(now time.Time) string {
	if w := certificateWarning(p.certificateEnds(), now); w != "" {
		return "  Warning       " + w + "\n"
	}
	return ""
}

// certificateWarning says that a certificate ends soon, when it does.
func certificateWarning(ends, now time.Time) string {
	if ends.IsZero() || ends.Sub(now) >= certs.WarnBefore {
		return ""
	}
	when := ends.Local().Format(time.DateTime)
	if now.After(ends) {
		return "the server's certificate ended " + when + ": clients refuse it"
	}
	return "the server's certificate ends " + when + ": replace its files, no restart is needed"
}

// warnOfCertificate tells on standard error that the server's certificate ends soon. A server that does not
// say is no failure: what was asked for is another thing.
func (c *cli) warnOfCertificate(ctx context.Context, api *client.Client) {
	server, err := api.Server(ctx)
	if err != nil {
		return
	}
	if w := certificateWarning(server.CertificateEnds, time.Now()); w != "" {
		fmt.Fprintln(c.stderr, "Warning: "+w)
	}
}
