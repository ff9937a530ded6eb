package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const (
	// lookEvery is how often the files are looked at without a client.
	lookEvery = 3 * time.Second
	// lookAgain is how often clients make them be looked at.
	lookAgain = time.Second
	// warnEvery is how often a certificate that ends soon is warned of.
	warnEvery = 24 * time.Hour
)

// Reloader shows the certificate in two files, and the next one when they change. Files that are
// broken, or do not belong together yet, leave the old one in use.
type Reloader struct {
	cert, key string
	log       *slog.Logger
	current   atomic.Pointer[tls.Certificate]

	mu      sync.Mutex // guards what follows, and is held while the files are read
	looked  time.Time
	content []byte // of both files, as they were when they were last read
	broken  bool   // they were, and it was said
	warned  time.Time
}

var _ Source = (*Reloader)(nil)

// Open reads the certificate and its key, both PEM. [Reloader.Run] watches them. Errors are invalid and
// name the files.
func Open(cert, key string, log *slog.Logger) (*Reloader, error) {
	r := &Reloader{cert: cert, key: key, log: log, looked: time.Now()}
	content, err := r.load()
	var pair tls.Certificate
	if err == nil {
		pair, err = parse(content)
	}
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "certificate %s, key %s: %w", cert, key, err).
			WithHint("give a certificate and the key that belongs to it, both PEM")
	}
	r.content = content
	r.current.Store(&pair)
	return r, nil
}

// GetCertificate shows the certificate, and looks at the files when that was a second ago.
func (r *Reloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.look(time.Now())
	return r.current.Load(), nil
}

// Expires is the end of the certificate in use.
func (r *Reloader) Expires() time.Time { return r.current.Load().Leaf.NotAfter }

// Run watches the files until ctx ends.
func (r *Reloader) Run(ctx context.Context) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			r.look(now)
			r.warn(now)
		}
	}
}

// look reads the files again, unless that was less than a second ago or somebody is at it.
func (r *Reloader) look(now time.Time) {
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	if now.Sub(r.looked) < lookAgain {
		return
	}
	r.looked = now
	content, err := r.load()
	if err == nil && bytes.Equal(content, r.content) {
		r.broken = false // the old files are back, or are there still
		return
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = parse(content)
	}
	switch {
	case err == nil:
		r.current.Store(&pair)
		r.content, r.broken, r.warned = content, false, time.Time{}
		r.log.Info("a new certificate is in use", "certificate", r.cert, "expires", pair.Leaf.NotAfter)
	case !r.broken:
		r.broken = true
		r.log.Error("the new certificate cannot be used; the old one goes on", "certificate", r.cert, "key", r.key, "error", err)
	default: // that was said
	}
}

// load reads both files, one after the other. They are compared by their content: times and sizes say
// too little of files that were replaced.
func (r *Reloader) load() ([]byte, error) {
	cert, err := os.ReadFile(r.cert)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(r.key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(cert, []byte("\n"), key), nil
}

// parse takes the certificates and the key out of one text: each is found by what it is.
func parse(content []byte) (tls.Certificate, error) { return tls.X509KeyPair(content, content) }

func (r *Reloader) warn(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end := r.Expires(); end.Sub(now) < WarnBefore && now.Sub(r.warned) >= warnEvery {
		r.warned = now
		r.log.Warn("the certificate ends soon", "certificate", r.cert, "expires", end)
	}
}
