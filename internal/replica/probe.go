package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// Probes say how replicas are watched. Zero fields take the defaults.
type Probes struct {
	// First is the pause after the first look at a starting replica; it grows by half each time
	// up to Slowest, so that a start is seen late by a third of its length at most.
	First, Slowest time.Duration
	// Every is the time between two looks at a ready replica.
	Every time.Duration
	// Return is the time between two looks at an unready one, which should be back soon.
	Return time.Duration
	// Timeout bounds one look. A replica answers probes beside its requests, so that two seconds
	// mean that it hangs or that the machine is far overloaded.
	Timeout time.Duration
	// Deaf is how many liveness probes in a row, Every apart, may fail before the replica is
	// killed: one may be bad luck, three are not.
	Deaf int
}

func (p Probes) withDefaults() Probes {
	p.First = cmp.Or(p.First, 2*time.Millisecond)
	p.Slowest = cmp.Or(p.Slowest, 50*time.Millisecond)
	p.Every = cmp.Or(p.Every, 5*time.Second)
	p.Return = cmp.Or(p.Return, time.Second)
	p.Timeout = cmp.Or(p.Timeout, 2*time.Second)
	p.Deaf = cmp.Or(p.Deaf, 3)
	return p
}

// maxProbeBody is how much of an answer is read for its message.
const maxProbeBody = 4 << 10

// prober asks one replica how it is, over the protocol's health paths.
type prober struct {
	client  http.Client
	base    string
	timeout time.Duration
}

func newProber(address string, timeout time.Duration) *prober {
	t := &http.Transport{MaxIdleConns: 1, DisableCompression: true}
	p := &prober{base: address, timeout: timeout}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		p.base = "http://replica"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	p.client = http.Client{Transport: t, Timeout: timeout}
	return p
}

func (p *prober) ready(ctx context.Context) error { return p.get(ctx, "/v2/health/ready") }
func (p *prober) live(ctx context.Context) error  { return p.get(ctx, "/v2/health/live") }
func (p *prober) close()                          { p.client.CloseIdleConnections() }

// get returns nil for an answer of 200, else why there is none, in words.
func (p *prober) get(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("it does not listen")
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%s did not answer within %v", path, p.timeout)
	case err != nil:
		return fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody)) // for the message alone
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("%s answered %d %s", path, resp.StatusCode, strings.TrimSpace(string(body)))
}
