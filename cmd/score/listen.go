package scorecmd

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// CheckExposure refuses an address that other machines reach, unless that was allowed.
func CheckExposure(flag, addr string, allowed bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "%s: %q is not HOST:PORT", flag, addr)
	}
	ip := net.ParseIP(host)
	if allowed || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return zarpa.Errorf(zarpa.Invalid, "%s: other machines reach %s, and it is not encrypted", flag, addr).
		WithHint("use TLS (--tls-cert, --tls-self-signed, --acme-domain) where there is, or allow it with --insecure")
}

// Listen opens HOST:PORT or unix:PATH. A socket file that nobody listens on is replaced.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
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
