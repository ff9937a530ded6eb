package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/zarpa-dev/zarpa"
)

// call is one push or pull: the transport of its requests, which remembers what errors do not tell, and
// its retries.
type call struct {
	verb    string
	ref     name.Reference
	host    string
	client  *Client
	inner   http.RoundTripper
	sending *sending // nil for a pull

	mu    sync.Mutex    // guards what follows
	after time.Duration // the last Retry-After
	cert  error         // a certificate that was not valid; of this machine's registries plain HTTP is tried next
}

// RoundTrip sends one request; it refuses plain HTTP to another machine, where passwords could be read.
func (k *call) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !local(r.URL.Hostname()) && !k.client.insecure(r.URL.Host) {
		return nil, http.ErrSchemeMismatch
	}
	if k.sending != nil {
		r = k.sending.watched(r)
	}
	resp, err := k.inner.RoundTrip(r)
	if err != nil {
		k.noteCert(err)
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable:
		k.note(retryAfter(resp.Header.Get("Retry-After"), time.Now()))
	case k.sending != nil:
		k.sending.answered(r, resp.StatusCode)
	}
	return resp, nil
}

func (k *call) note(after time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.after = after
}

func (k *call) noteCert(err error) {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.cert = err
	}
}

// instead is the certificate that was not valid, where err is what a server of TLS answers to plain HTTP.
func (k *call) instead(err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode == http.StatusBadRequest && k.cert != nil {
		return k.cert
	}
	return err
}

// noted takes what was noted since it was last asked.
func (k *call) noted() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	after := k.after
	k.after = 0
	return after
}

// local reports whether a host is this machine.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// retryAfter reads seconds or a date; 0 for nothing that it knows.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 && seconds < 1<<31 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// retried runs an attempt again while what fails is likely to pass. Its error says what failed at last.
func (k *call) retried(ctx context.Context, attempt func() error) error {
	pause := k.client.o.Pause
	for try := 1; ; try++ {
		err := attempt()
		if err == nil {
			return nil
		}
		after := k.noted()
		if ctx.Err() != nil {
			return k.ended(ctx.Err())
		}
		err = k.instead(err)
		if try >= k.client.o.Attempts || !transient(err) || after > k.client.o.MaxRetryAfter {
			e := k.explain(err)
			if e.RetryAfter = after; after > 0 {
				return e.WithHint("it takes requests again in %v", after)
			}
			return e
		}
		timer := time.NewTimer(max(pause, after))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return k.ended(ctx.Err())
		}
		pause *= 2
	}
}

// ended is the error of a call whose context did.
func (k *call) ended(err error) error {
	code, what := zarpa.Canceled, "was canceled"
	if errors.Is(err, context.DeadlineExceeded) {
		code, what = zarpa.Timeout, "took longer than its time limit"
	}
	e := zarpa.Errorf(code, "%s %s: it %s", k.verb, k.ref, what).Because(err)
	if k.verb == "push" {
		return e.WithHint("what was sent is kept: push again to go on")
	}
	return e
}

// transient reports whether a failure may pass by itself.
func transient(err error) bool {
	var answer *transport.Error
	var dns *net.DNSError
	var known *zarpa.Error
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &known), errors.As(err, &cert):
		return false
	case errors.Is(err, syscall.ECONNREFUSED): // before what follows: of a private address both are tried
		return true
	case errors.Is(err, http.ErrSchemeMismatch):
		return false
	case errors.As(err, &answer):
		switch answer.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	case errors.As(err, &dns):
		return dns.IsTemporary || dns.IsTimeout
	}
	return broken(err)
}

// broken reports whether a connection ended in the middle.
func broken(err error) bool {
	var timeout net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) || errors.As(err, &timeout) && timeout.Timeout()
}

// explain says what a failure means for who pushes or pulls.
func (k *call) explain(err error) *zarpa.Error {
	var known *zarpa.Error
	var answer *transport.Error
	var file *fs.PathError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &file):
		return zarpa.Errorf(zarpa.Unavailable, "%s %s: a file of this machine is in the way: %v", k.verb, k.ref, file).Because(err)
	case errors.As(err, &answer):
		return k.answered(answer).Because(err)
	}
	return k.unreached(err).Because(err)
}

// answered explains an answer of the registry.
func (k *call) answered(a *transport.Error) *zarpa.Error {
	what := func(code zarpa.Code, format string, args ...any) *zarpa.Error {
		return zarpa.Errorf(code, "%s %s: %s", k.verb, k.ref, fmt.Sprintf(format, args...))
	}
	var diagnoses strings.Builder
	for _, d := range a.Errors {
		fmt.Fprintf(&diagnoses, ": %.200s %.300s", d.Code, d.Message)
	}
	said := diagnoses.String()
	switch {
	case a.StatusCode == http.StatusUnauthorized:
		return what(zarpa.Unauthenticated, "%s wants other credentials%s", k.host, said).WithHint("docker login %s stores them", k.host)
	case a.StatusCode == http.StatusForbidden:
		return what(zarpa.Denied, "%s does not allow it%s", k.host, said).
			WithHint("log in as somebody who may %s %s: docker login %s", k.verb, k.ref.Context().RepositoryStr(), k.host)
	case a.StatusCode == http.StatusNotFound && k.verb == "pull":
		return what(zarpa.NotFound, "%s has no such repository, tag or digest%s", k.host, said).WithHint("see that repository and tag are spelled as they were pushed")
	case a.StatusCode == http.StatusNotFound:
		return what(zarpa.NotFound, "%s has no such repository, or no registry at /v2/%s", k.host, said).WithHint("some registries want a repository to be made first")
	case a.StatusCode == http.StatusRequestEntityTooLarge:
		return what(zarpa.TooLarge, "%s refuses a part as too large%s", k.host, said)
	case a.StatusCode == http.StatusTooManyRequests:
		return what(zarpa.Overloaded, "%s has too many requests%s", k.host, said).WithHint("try again later")
	case a.StatusCode == http.StatusInsufficientStorage:
		return what(zarpa.Unavailable, "%s has no room left%s", k.host, said).WithHint("free some space on the registry's disk, then push again")
	case a.StatusCode >= http.StatusInternalServerError:
		e := what(zarpa.Unavailable, "%s failed with status %d%s", k.host, a.StatusCode, said)
		if k.verb == "push" {
			return e.WithHint("what was sent is kept: push again to go on")
		}
		return e.WithHint("try again later")
	}
	return what(zarpa.Invalid, "%s refused it with status %d%s", k.host, a.StatusCode, said)
}

// unreached explains what kept an answer from coming.
func (k *call) unreached(err error) *zarpa.Error {
	what := func(format string, args ...any) *zarpa.Error {
		return zarpa.Errorf(zarpa.Unavailable, "%s %s: %s", k.verb, k.ref, fmt.Sprintf(format, args...))
	}
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &dns):
		return what("the host %s is not known", dns.Name).WithHint("see that the registry's name is right and that this machine can look names up")
	case errors.Is(err, syscall.ECONNREFUSED):
		return what("nothing listens at %s", k.host).WithHint("see that the registry runs, and which port it has")
	case errors.As(err, &cert):
		return what("the certificate of %s is not valid here: %v", k.host, cert.Err).
			WithHint("have this machine trust it (on Linux SSL_CERT_FILE=FILE does), or allow it with --insecure-registry %s", k.host)
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return what("%s speaks plain HTTP", k.host).WithHint("give it a certificate, or allow it with --insecure-registry %s", k.host)
	case broken(err) && k.verb == "push":
		return what("the connection to %s broke off", k.host).WithHint("what was sent is kept: push again to go on")
	}
	return what("%s cannot be reached", k.host).WithHint("see that this machine reaches the registry, then try again")
}
