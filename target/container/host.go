package container

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
)

// TLS names the PEM files of a connection to an engine.
type TLS struct {
	CA, Cert, Key string
	// Insecure does not verify the engine's certificate, as Docker's own client does without DOCKER_TLS_VERIFY.
	Insecure bool
}

// dialTimeout bounds the making of a connection to an engine: an answer from the other end of the world takes less.
const dialTimeout = 10 * time.Second

// host is where an engine is.
type host struct {
	url *url.URL
	tls TLS
	why *lastError // of dialing: the client keeps it to itself
}

// lastError keeps an error; it may be used from many goroutines.
type lastError struct {
	mu  sync.Mutex
	err error
}

func (l *lastError) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *lastError) get() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// String is the host as users know it; it holds no password.
func (h host) String() string { return h.url.Redacted() }

// local tells whether the engine is on this machine.
func (h host) local() bool { return h.url.Scheme == "unix" }

func (o Options) env(name string) string {
	for _, v := range o.Environ {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// endpoint finds the engine's host.
func (o Options) endpoint() (host, error) {
	text, files := o.Host, o.TLS
	if text == "" {
		if text = o.env("DOCKER_HOST"); text != "" {
			if dir := o.env("DOCKER_CERT_PATH"); dir != "" && files == (TLS{}) {
				files = TLS{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Insecure: o.env("DOCKER_TLS_VERIFY") == ""}
			}
		}
	}
	text = cmp.Or(text, o.socket())
	bad := func(why string) error {
		return zarpa.Errorf(zarpa.Invalid, "target %q: host: %q %s", o.Target, text, why).
			WithHint("name it as unix:///var/run/docker.sock, tcp://HOST:2376 or ssh://USER@HOST")
	}
	u, err := url.Parse(text)
	if err != nil {
		return host{}, bad("is no URL")
	}
	switch {
	case u.User != nil && u.Scheme != "ssh":
		return host{}, bad("names a user, which ssh alone takes")
	case u.RawQuery != "" || u.Fragment != "":
		return host{}, bad("has more than an address")
	case u.Scheme == "unix" && u.Path == "":
		return host{}, bad("names no socket")
	case u.Scheme == "tcp" && (u.Hostname() == "" || u.Port() == ""):
		return host{}, bad("names no host and port")
	case u.Scheme == "ssh" && (u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-")):
		return host{}, bad("names no host")
	case u.Scheme == "ssh" && strings.HasPrefix(u.User.Username(), "-"):
		return host{}, bad("names no user")
	case u.Scheme != "unix" && u.Scheme != "tcp" && u.Scheme != "ssh":
		return host{}, bad("is of an unknown kind")
	}
	if _, password := u.User.Password(); password {
		return host{}, zarpa.Errorf(zarpa.Invalid, "target %q: host: it holds a password", o.Target).WithHint("use a key that ssh finds by itself")
	}
	if u.Scheme == "tcp" && files == (TLS{}) && !isLoopback(u.Hostname()) {
		return host{}, bad("is reached without TLS: whoever listens could run anything there")
	}
	return host{u, files, &lastError{}}, nil
}

func isLoopback(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// socket is the first local socket that is there, or Docker's.
func (o Options) socket() string {
	paths := []string{"/var/run/docker.sock", "/run/podman/podman.sock"}
	if dir := o.env("XDG_RUNTIME_DIR"); dir != "" {
		paths = append(paths, filepath.Join(dir, "docker.sock"), filepath.Join(dir, "podman", "podman.sock"))
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			return "unix://" + path
		}
	}
	return client.DefaultDockerHost
}

// Found is the host that a driver takes in an environment when none is named, and DOCKER_HOST names none either: the
// first local socket that is there. "" when DOCKER_HOST does.
func Found(environ []string) string {
	o := Options{Environ: environ}
	if o.env("DOCKER_HOST") != "" {
		return ""
	}
	return o.socket()
}

// publish is the address that ports are published on.
func (o Options) publish(h host) (netip.Addr, error) {
	text := o.Publish
	if text == "" {
		if !h.local() && !isLoopback(h.url.Hostname()) || h.url.Scheme == "ssh" {
			return netip.Addr{}, zarpa.Errorf(zarpa.Invalid, "target %q: publish: the engine at %v is on another machine, and no address of it is named", o.Target, h).
				WithHint("name the IP address of that machine on a private network that this one reaches: replicas ask for no key there")
		}
		text = DefaultPublish
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		return netip.Addr{}, zarpa.Errorf(zarpa.Invalid, "target %q: publish: %q is not one IP address", o.Target, text).
			WithHint("name the one address of the engine's machine that the gateway calls, such as 10.0.0.5")
	}
	return addr, nil
}

// dial makes the client of the engine; it does not connect yet.
func dial(o Options, h host) (*client.Client, error) {
	connect := (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	transport := &http.Transport{MaxIdleConns: 6, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: dialTimeout, DisableCompression: true}
	proto, address, scheme := "tcp", h.url.Host, "http"
	switch h.url.Scheme {
	case "unix":
		proto, address = "unix", h.url.Path
	case "ssh":
		connect = sshDialer(h, o.Environ)
	case "tcp":
		if h.tls != (TLS{}) {
			config, err := h.tls.config()
			if err != nil {
				return nil, zarpa.Errorf(zarpa.Invalid, "target %q: the certificates for %v cannot be used: %v", o.Target, h, err).Because(err).
					WithHint("see that the files of ca, cert and key are there, readable, and in PEM")
			}
			transport.TLSClientConfig, scheme = config, "https"
		}
	}
	c, err := client.New(
		client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}),
		client.WithHost(proto+"://"+address), client.WithScheme(scheme), client.WithUserAgent("zarpa"),
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := connect(ctx, proto, address)
			h.why.set(err)
			return c, err
		}),
	)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "target %q: the engine at %v cannot be called: %v", o.Target, h, err).Because(err)
	}
	return c, nil
}

// config reads the files. Without a CA the system's are believed.
func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.Insecure} //nolint:gosec // as the user says
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
