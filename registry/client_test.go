package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/registry"
)

func pushIndex(ref string, index v1.ImageIndex) error {
	r, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	return remote.WriteIndex(r, index)
}

// hurried is a client that tries again soon.
func hurried(o registry.ClientOptions) *registry.Client {
	o.Pause = time.Millisecond
	if o.Credentials == nil {
		o.Credentials = authn.NewMultiKeychain() // nobody's
	}
	return registry.NewClient(o)
}

func image(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(50_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// wants ends the test unless err is of the code and says all the texts.
func wants(t *testing.T, err error, code zarpa.Code, texts ...string) {
	t.Helper()
	e := zarpa.AsError(err)
	if e == nil || e.Code != code {
		t.Fatalf("%v (%v), want %s", err, e, code)
	}
	for _, text := range texts {
		if !strings.Contains(e.Error(), text) {
			t.Errorf("%q does not say %q", e.Error(), text)
		}
	}
}

// faulty stands before a registry: for each request fault says what goes wrong, and true when it answered.
func faulty(t *testing.T, fault func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	s := serve(t, registry.Options{})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fault(w, r) {
			s.reg.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	return strings.TrimPrefix(front.URL, "http://")
}

func TestPushAndPull(t *testing.T) {
	t.Parallel()
	var patches atomic.Int64
	host := faulty(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			patches.Add(1)
		}
		return false
	})
	var mu sync.Mutex
	var last registry.Progress
	c := hurried(registry.ClientOptions{Progress: func(p registry.Progress) {
		mu.Lock()
		defer mu.Unlock()
		last = p
	}})
	img := image(t)
	digest, err := c.Push(t.Context(), host+"/a/b:1", img)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := img.Digest()
	if digest != host+"/a/b@"+want.String() {
		t.Errorf("pushed as %s", digest)
	}
	if last.Layers != 4 || last.LayersTotal != 4 || last.Bytes != last.BytesTotal || last.Bytes < 150_000 {
		t.Errorf("progress: %+v", last)
	}
	sent := patches.Load()
	if _, err := c.Push(t.Context(), host+"/a/b:2", img); err != nil || patches.Load() != sent {
		t.Errorf("%v, and %d blobs were sent again", err, patches.Load()-sent)
	}
	next, err := mutate.AppendLayers(img, layerOf(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Push(t.Context(), host+"/a/b:3", next); err != nil || patches.Load() != sent+2 { // the layer and the config
		t.Errorf("%v, and %d blobs were sent for one new layer", err, patches.Load()-sent)
	}
	back, err := c.Pull(t.Context(), digest, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := back.Digest(); got != want {
		t.Errorf("%v came back as %v", want, got)
	}
}

func layerOf(t *testing.T) v1.Layer {
	t.Helper()
	l, err := random.Layer(1000, "application/vnd.oci.image.layer.v1.tar")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPullFindsThePlatform(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	platform := func(os, arch string) (v1.Image, *v1.Platform) {
		img, err := mutate.ConfigFile(image(t), &v1.ConfigFile{OS: os, Architecture: arch, RootFS: v1.RootFS{Type: "layers"}})
		if err != nil {
			t.Fatal(err)
		}
		return img, &v1.Platform{OS: os, Architecture: arch}
	}
	amd, pa := platform("linux", "amd64")
	arm, pb := platform("linux", "arm64")
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: pa}}, mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: pb}})
	ref := s.host() + "/a:multi"
	if err := pushIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	c := hurried(registry.ClientOptions{})
	got, err := c.Pull(t.Context(), ref, "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	want, _ := arm.Digest()
	if d, _ := got.Digest(); d != want {
		t.Errorf("got %v, want %v", d, want)
	}
	_, err = c.Pull(t.Context(), ref, "windows/amd64")
	wants(t, err, zarpa.NotFound, "no image for windows/amd64", "linux/amd64, linux/arm64")
	if _, err := c.Push(t.Context(), s.host()+"/a:arm", arm); err != nil {
		t.Fatal(err)
	}
	_, err = c.Pull(t.Context(), s.host()+"/a:arm", "linux/amd64")
	wants(t, err, zarpa.NotFound, "no image for linux/amd64", "it has images for linux/arm64")
	_, err = c.Pull(t.Context(), ref, "amd64")
	wants(t, err, zarpa.Invalid, "platform")
}

// TestFailuresAreToldApart has a fault for each, and what the user is told.
func TestFailuresAreToldApart(t *testing.T) {
	t.Parallel()
	status := func(code int, header ...string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			registry.WriteError(w, code, "SOME_CODE", "says the registry")
			return true
		}
	}
	afterPing := func(then func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path != "/v2/" && then(w, r) }
	}
	for name, tc := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		code  zarpa.Code
		push  []string
		pull  []string
	}{
		"Unauthorized": {status(401, "WWW-Authenticate", `Basic realm="x"`), zarpa.Unauthenticated, []string{"docker login 127.0.0.1:"}, []string{"docker login 127.0.0.1:"}},
		"Forbidden":    {afterPing(status(403)), zarpa.Denied, []string{"does not allow it", "may push a/b"}, []string{"does not allow it: SOME_CODE says the registry", "may pull a/b"}},
		"Missing":      {afterPing(status(404)), zarpa.NotFound, []string{"some registries want a repository to be made first"}, []string{"no such repository, tag or digest"}},
		"TooLarge":     {afterPing(status(413)), zarpa.TooLarge, []string{"too large"}, nil},
		"Busy":         {afterPing(status(429, "Retry-After", "3600")), zarpa.Overloaded, []string{"too many requests", "in 1h0m0s"}, []string{"in 1h0m0s"}},
		"Broken":       {afterPing(status(503)), zarpa.Unavailable, []string{"status 503", "what was sent is kept"}, []string{"try again later"}},
		"Full":         {afterPing(status(507)), zarpa.Unavailable, []string{"no room left"}, nil},
		"Odd":          {afterPing(status(418)), zarpa.Invalid, []string{"status 418"}, nil},
		"CutOff": {
			afterPing(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }), zarpa.Unavailable,
			[]string{"broke off", "what was sent is kept"},
			[]string{"cannot be reached"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := faulty(t, tc.fault)
			c := hurried(registry.ClientOptions{Attempts: 2})
			_, err := c.Push(t.Context(), host+"/a/b:1", image(t))
			wants(t, err, tc.code, append(tc.push, "push "+host+"/a/b:1")...)
			_, err = c.Pull(t.Context(), host+"/a/b:1", "linux/amd64")
			wants(t, err, tc.code, append(tc.pull, "pull "+host+"/a/b:1")...)
		})
	}
}

func TestWhatCannotBeReached(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	ln.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	c := hurried(registry.ClientOptions{Attempts: 2})
	for ref, tc := range map[string]struct {
		code  zarpa.Code
		texts []string
	}{
		nobody + "/a:1":                          {zarpa.Unavailable, []string{"nothing listens at " + nobody}},
		"registry.invalid/a:1":                   {zarpa.Unavailable, []string{"registry.invalid", "is not known"}},
		secure.Listener.Addr().String() + "/a:1": {zarpa.Unavailable, []string{"certificate", "--insecure-registry " + secure.Listener.Addr().String()}},
		"UPPER/case:1":                           {zarpa.Invalid, []string{"small letters"}},
		"host/a:b:c":                             {zarpa.Invalid, []string{"HOST[:PORT]/REPOSITORY:TAG"}},
		"":                                       {zarpa.Invalid, []string{"reference"}},
		nobody + "/a@sha256:" + strings.Repeat("x", 64): {zarpa.Invalid, []string{"reference"}},
	} {
		_, err := c.Pull(t.Context(), ref, "linux/amd64")
		wants(t, err, tc.code, tc.texts...)
	}
}

// TestPlainHTTPToOtherMachinesIsAsked uses this machine's own address that is no loopback.
func TestPlainHTTPToOtherMachinesIsAsked(t *testing.T) {
	t.Parallel()
	address := ownAddress(t)
	s := serve(t, registry.Options{})
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Skipf("cannot listen on %s: %v", address, err)
	}
	front := &http.Server{Handler: s.reg, ReadHeaderTimeout: time.Minute}
	go front.Serve(ln) // ends when it is closed
	t.Cleanup(func() { front.Close() })
	ref := ln.Addr().String() + "/a:1"
	_, err = hurried(registry.ClientOptions{}).Push(t.Context(), ref, image(t))
	wants(t, err, zarpa.Unavailable, "speaks plain HTTP", "--insecure-registry "+ln.Addr().String())
	for _, named := range []string{ln.Addr().String(), address} {
		if _, err := hurried(registry.ClientOptions{Insecure: []string{named}}).Push(t.Context(), ref, image(t)); err != nil {
			t.Errorf("named %s: %v", named, err)
		}
	}
}

func ownAddress(t *testing.T) string {
	t.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Skip(err)
	}
	for _, a := range list {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

// TestWhatPassesIsTriedAgain breaks every blob's first upload in the middle and refuses some requests.
func TestWhatPassesIsTriedAgain(t *testing.T) {
	t.Parallel()
	var broken, busy atomic.Int64
	host := faulty(t, func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPatch && broken.Add(1) <= 2:
			panic(http.ErrAbortHandler)
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") && busy.Add(1) == 1:
			w.Header().Set("Retry-After", "0")
			registry.WriteError(w, 429, "TOOMANYREQUESTS", "slow down")
			return true
		}
		return false
	})
	if _, err := hurried(registry.ClientOptions{Attempts: 6}).Push(t.Context(), host+"/a:1", image(t)); err != nil {
		t.Fatal(err)
	}
	if broken.Load() < 3 || busy.Load() != 2 {
		t.Errorf("%d uploads, %d manifests", broken.Load(), busy.Load())
	}
}

// TestAnInterruptedPushGoesOn gives up after the first blob; the next push sends the others alone.
func TestAnInterruptedPushGoesOn(t *testing.T) {
	t.Parallel()
	var commits atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	host := faulty(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") && ctx.Err() == nil {
			cancel()
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") {
			commits.Add(1)
		}
		return false
	})
	c, img := hurried(registry.ClientOptions{}), image(t)
	_, err := c.Push(ctx, host+"/a:1", img)
	wants(t, err, zarpa.Canceled, "what was sent is kept: push again")
	sent := commits.Load()
	if sent != 4 {
		t.Fatalf("%d blobs were sent", sent)
	}
	if _, err := c.Push(t.Context(), host+"/a:1", img); err != nil || commits.Load() != sent {
		t.Errorf("%v, %d blobs were sent twice", err, commits.Load()-sent)
	}
}

// TestACanceledCallDoesNotWait is canceled while it waits for what the registry asked for.
func TestACanceledCallDoesNotWait(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	host := faulty(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		w.Header().Set("Retry-After", "3000")
		registry.WriteError(w, 429, "TOOMANYREQUESTS", "slow down")
		time.AfterFunc(10*time.Millisecond, cancel)
		return true
	})
	_, err := hurried(registry.ClientOptions{MaxRetryAfter: time.Hour}).Pull(ctx, host+"/a:1", "linux/amd64")
	wants(t, err, zarpa.Canceled, "was canceled")
	ended, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer stop()
	_, err = hurried(registry.ClientOptions{}).Pull(ended, host+"/a:1", "linux/amd64")
	wants(t, err, zarpa.Timeout, "time limit")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v has no cause", err)
	}
}

// TestCredentialsAreTheUsers reads them as docker login writes them.
func TestCredentialsAreTheUsers(t *testing.T) {
	var got atomic.Value
	host := faulty(t, func(w http.ResponseWriter, r *http.Request) bool {
		user, password, ok := r.BasicAuth()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="zarpa"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		got.Store(user + ":" + password)
		return false
	})
	dir := t.TempDir()
	write(t, dir+"/config.json", fmt.Sprintf(`{"auths": {%q: {"auth": "YW5hOmh1bnRlcjI="}}}`, host))
	t.Setenv("DOCKER_CONFIG", dir)
	if _, err := registry.Push(t.Context(), host+"/a:1", image(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Pull(t.Context(), host+"/a:1", "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	if got.Load() != "ana:hunter2" {
		t.Errorf("the registry got %v", got.Load())
	}
}
