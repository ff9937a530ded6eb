package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/zarpa-dev/zarpa"
)

const (
	alpnChallenge = acme.ALPNProto
	// acmeTimeout bounds one request to the authority.
	acmeTimeout = 30 * time.Second
	// The first certificates are asked for at the start. A failure is followed by another try, after a
	// time that doubles up to the longest: authorities bound how often they are asked, and the library
	// itself asks again after a minute at the earliest.
	firstTry, longestTry = 65 * time.Second, 20 * time.Minute
	// acmeLook is how often certificates are asked for that are there: the library renews them by itself,
	// and this sees their new end.
	acmeLook = 12 * time.Hour
)

// ACMEOptions say which certificates to get, and where.
type ACMEOptions struct {
	// Domains are the names of the certificates; clients that ask for others get Fallback's.
	Domains []string
	// Email is where the authority writes when something is wrong; it may be empty.
	Email string
	// Directory is the authority's address; empty is Let's Encrypt's.
	Directory string
	// CA is a PEM file with the certificate by which the authority's own address is trusted; empty is the
	// system's.
	CA string
	// Cache is a folder for the account, keys and certificates.
	Cache string
	// Fallback is for names that are not Domains; nil refuses them.
	Fallback Source
	Log      *slog.Logger
}

// ACME gets certificates from an authority by RFC 8555, proves the names by TLS-ALPN-01 on the listener
// that shows them, or by HTTP-01 where [ACME.Challenges] is served, and renews them 30 days before their
// end. Who makes one accepts the authority's terms of service.
type ACME struct {
	o       ACMEOptions
	manager *autocert.Manager

	mu   sync.Mutex // guards ends
	ends map[string]time.Time
}

var _ Source = (*ACME)(nil)

// NewACME asks nobody yet: see [ACME.Run].
func NewACME(o ACMEOptions) (*ACME, error) {
	o.Domains = slices.Clone(o.Domains)
	for i, d := range o.Domains {
		o.Domains[i] = strings.ToLower(strings.TrimSuffix(d, "."))
	}
	client := &acme.Client{DirectoryURL: o.Directory, UserAgent: "zarpa", HTTPClient: &http.Client{Timeout: acmeTimeout}}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, zarpa.Errorf(zarpa.Invalid, "acme-ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, zarpa.Errorf(zarpa.Invalid, "acme-ca: %s holds no certificate", o.CA).WithHint("give a PEM file")
		}
		client.HTTPClient.Transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		}
	}
	return &ACME{o: o, ends: map[string]time.Time{}, manager: &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(o.Cache), Email: o.Email, Client: client,
		HostPolicy: autocert.HostWhitelist(o.Domains...),
	}}, nil
}

// GetCertificate shows the certificate of the name that the client asks for, and gets it first when it is
// not there yet.
func (a *ACME) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if !slices.Contains(a.o.Domains, name) && a.o.Fallback != nil {
		return a.o.Fallback.GetCertificate(hello)
	}
	return a.manager.GetCertificate(hello)
}

// Expires is the end of the first certificate to end.
func (a *ACME) Expires() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	var first time.Time
	for _, end := range a.ends {
		if first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first
}

// Challenges answers HTTP-01 and sends other requests to the same address by HTTPS. It belongs on port 80
// of the domains, and is asked for before [ACME.Run], which then offers to prove names in this way, too.
func (a *ACME) Challenges() http.Handler {
	answer := a.manager.HTTPHandler(nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, _, err := net.SplitHostPort(r.Host); err == nil {
			r.Host = host // the library compares it with names, and port 80 may be forwarded from another
		}
		answer.ServeHTTP(w, r)
	})
}

// Run gets the certificates that are not there, so that no client waits for them, and sees those that were
// renewed, until ctx ends. The listeners must be open: the authority comes to look.
func (a *ACME) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, d := range a.o.Domains {
		all.Go(func() { a.keep(ctx, d) })
	}
	all.Wait()
}

// keep gets one certificate until it is there, and then looks at it now and then.
func (a *ACME) keep(ctx context.Context, domain string) {
	for wait := firstTry; ; {
		pause := acmeLook
		if err := a.see(ctx, domain); err != nil {
			if ctx.Err() != nil {
				return
			}
			a.o.Log.Error("the certificate cannot be had; trying again", "domain", domain, "in", wait, "error", err)
			pause, wait = wait, min(2*wait, longestTry)
		} else {
			wait = firstTry
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// see asks for a certificate as a client with elliptic curves would, and notes its end.
func (a *ACME) see(ctx context.Context, domain string) error {
	type result struct {
		cert *tls.Certificate
		err  error
	}
	got := make(chan result, 1)
	go func() { // the library takes no context; it ends when the authority's answers do, each of which is bounded
		cert, err := a.manager.GetCertificate(&tls.ClientHelloInfo{
			ServerName: domain, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		})
		got <- result{cert, err}
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r := <-got:
		if r.err != nil {
			return r.err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if end := r.cert.Leaf.NotAfter; !end.Equal(a.ends[domain]) {
			a.ends[domain] = end
			a.o.Log.Info("a certificate is in use", "domain", domain, "expires", end)
		}
		return nil
	}
}
