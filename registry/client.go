// Package registry moves images and models to and from OCI registries, and is one: [Handler] serves what
// a control plane keeps. It knows nothing of bundles, and of models only their files.
package registry

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/zarpa-dev/zarpa"
)

// ClientOptions say how to speak to registries. The zero value is for the usual ones.
type ClientOptions struct {
	// Insecure are registries, as HOST or HOST:PORT, that may speak plain HTTP or have a certificate that
	// nobody signed. Those of this machine (localhost, 127.0.0.1, ::1) may speak plain HTTP by themselves.
	Insecure []string
	// Credentials know users and passwords; nil are the user's own, as docker login keeps them.
	Credentials authn.Keychain
	// Progress is told how far a push or a pull of files is, from one goroutine at a time; nil for nobody.
	Progress func(Progress)
	// Attempts is how often a push or pull is tried when what fails is likely to pass; 0 is [DefaultAttempts].
	Attempts int
	// Pause is how long the second attempt waits, each further one twice as long; 0 is [DefaultPause].
	Pause time.Duration
	// MaxRetryAfter bounds how long a registry may make an attempt wait by its Retry-After; 0 is
	// [DefaultMaxRetryAfter]. One that asks for more fails with overloaded at once.
	MaxRetryAfter time.Duration
}

// The defaults of [ClientOptions], and the time limits of a connection: to connect, to agree on TLS, and from
// a request's end to the answer's beginning. Bodies have none: layers are large, and lines slow.
const (
	DefaultAttempts      = 4
	DefaultPause         = 500 * time.Millisecond
	DefaultMaxRetryAfter = 30 * time.Second

	dialTimeout   = 10 * time.Second
	tlsTimeout    = 10 * time.Second
	answerTimeout = 2 * time.Minute
)

// Progress is how far a push or pull is. Layers that the registry has already count as done.
type Progress struct {
	Layers, LayersTotal int
	Bytes, BytesTotal   int64
}

// Client speaks to registries. It may be used from many goroutines.
type Client struct {
	o                ClientOptions
	checked, trusted *http.Transport
}

// NewClient makes a client; it does not connect yet.
func NewClient(o ClientOptions) *Client {
	if o.Credentials == nil {
		o.Credentials = authn.DefaultKeychain
	}
	if o.Attempts == 0 {
		o.Attempts = DefaultAttempts
	}
	if o.Pause == 0 {
		o.Pause = DefaultPause
	}
	if o.MaxRetryAfter == 0 {
		o.MaxRetryAfter = DefaultMaxRetryAfter
	}
	checked := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		DialContext:     (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: tlsTimeout, ResponseHeaderTimeout: answerTimeout, ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
	}
	trusted := checked.Clone()
	trusted.TLSClientConfig.InsecureSkipVerify = true //nolint:gosec // the user named the registry as insecure
	return &Client{o: o, checked: checked, trusted: trusted}
}

// Push is [Client.Push] with the usual options.
func Push(ctx context.Context, ref string, img v1.Image) (string, error) {
	return NewClient(ClientOptions{}).Push(ctx, ref, img)
}

// Pull is [Client.Pull] with the usual options.
func Pull(ctx context.Context, ref, platform string) (v1.Image, error) {
	return NewClient(ClientOptions{}).Pull(ctx, ref, platform)
}

// insecure reports whether the user named the registry as such.
func (c *Client) insecure(host string) bool {
	bare, _, err := net.SplitHostPort(host)
	return slices.Contains(c.o.Insecure, host) || err == nil && slices.Contains(c.o.Insecure, bare)
}

// parse reads a reference, HOST/REPOSITORY:TAG or HOST/REPOSITORY@DIGEST.
func (c *Client) parse(ref string) (name.Reference, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "reference %.200q: not one of a registry: %w", ref, err).
			WithHint("write HOST[:PORT]/REPOSITORY:TAG in small letters, such as registry.example.com/models/iris:1")
	}
	if !c.insecure(r.Context().RegistryStr()) {
		return r, nil
	}
	return name.ParseReference(ref, name.Insecure)
}

// call is one push or pull.
func (c *Client) call(verb string, ref name.Reference) *call {
	host := ref.Context().RegistryStr()
	inner := c.checked
	if c.insecure(host) {
		inner = c.trusted
	}
	return &call{verb: verb, ref: ref, host: host, client: c, inner: inner}
}

// options are those of every request of a call. Retries are the call's own: those of the library wait
// without listening to the context, and know no Retry-After.
func (k *call) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(k.client.o.Credentials), remote.WithTransport(k), remote.WithUserAgent("zarpa"),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryStatusCodes(), remote.WithRetryPredicate(func(error) bool { return false }),
	}
}

// Push brings an image to ref and returns its reference by digest. Layers that the registry has already
// are not sent, so that a push that was interrupted goes on when it is called again. Errors are zarpa.Error:
// invalid (the reference), unauthenticated, denied, not_found, too_large, overloaded with RetryAfter, unavailable.
func (c *Client) Push(ctx context.Context, ref string, img v1.Image) (string, error) {
	r, err := c.parse(ref)
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", zarpa.Errorf(zarpa.Invalid, "push %s: the image cannot be read: %w", ref, err)
	}
	k := c.call("push", r)
	if k.sending, err = newSending(img, c.o.Progress); err != nil {
		return "", zarpa.Errorf(zarpa.Invalid, "push %s: the image cannot be read: %w", ref, err)
	}
	err = k.retried(ctx, func() error {
		k.sending.again()
		return remote.Write(r, img, k.options(ctx)...)
	})
	k.sending.end(err)
	if err != nil {
		return "", err
	}
	return r.Context().Digest(digest.String()).Name(), nil
}

// Pull finds the image of ref for a platform ("linux/amd64"); its layers are read when they are used, within
// ctx. not_found when ref has no image for the platform, naming those that it has.
func (c *Client) Pull(ctx context.Context, ref, platform string) (v1.Image, error) {
	r, err := c.parse(ref)
	if err != nil {
		return nil, err
	}
	want, err := v1.ParsePlatform(platform)
	if err != nil || want.OS == "" || want.Architecture == "" {
		return nil, zarpa.Errorf(zarpa.Invalid, "platform %.80q: not OS/ARCHITECTURE", platform).WithHint("write linux/amd64 or linux/arm64")
	}
	var img v1.Image
	k := c.call("pull", r)
	err = k.retried(ctx, func() error {
		d, err := remote.Get(r, append(k.options(ctx), remote.WithPlatform(*want))...)
		if err != nil {
			return err
		}
		if d.MediaType.IsIndex() {
			if err := offers(ref, d, *want); err != nil {
				return err
			}
		}
		if img, err = d.Image(); err != nil {
			return err
		}
		return suits(ref, img, *want)
	})
	return img, err
}

// offers wants an index to have an image of the platform.
func offers(ref string, d *remote.Descriptor, want v1.Platform) error {
	index, err := d.ImageIndex()
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	var has []string
	for _, m := range manifest.Manifests {
		if m.Platform == nil {
			continue
		}
		if m.Platform.Satisfies(want) {
			return nil
		}
		if m.Platform.OS != "unknown" { // attestations stand there as unknown/unknown
			has = append(has, m.Platform.String())
		}
	}
	return noPlatform(ref, want, has)
}

// suits wants a single image to be of the platform; one that says nothing is taken.
func suits(ref string, img v1.Image, want v1.Platform) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	if !m.Config.MediaType.IsConfig() {
		return nil // an artefact
	}
	f, err := img.ConfigFile()
	if err != nil {
		return err
	}
	have := v1.Platform{OS: f.OS, Architecture: f.Architecture, Variant: f.Variant, OSVersion: f.OSVersion}
	if f.OS == "" || f.Architecture == "" || have.Satisfies(want) {
		return nil
	}
	return noPlatform(ref, want, []string{have.String()})
}

func noPlatform(ref string, want v1.Platform, has []string) error {
	e := zarpa.Errorf(zarpa.NotFound, "pull %s: there is no image for %s", ref, want.String())
	if len(has) == 0 {
		return e.WithHint("it says for no image which platform it is for")
	}
	return e.WithHint("it has images for %s", strings.Join(has, ", "))
}
