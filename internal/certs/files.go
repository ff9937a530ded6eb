package certs

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"time"
)

// Pair names the two files of a certificate, both PEM.
type Pair struct{ Cert, Key string }

// Files show each client the certificate that is for the name it asks for, of several; the first one is for all
// other names. Each is read again as a [Reloader] does.
type Files struct{ list []*Reloader }

var _ Source = (*Files)(nil)

// OpenFiles reads certificates, at least one. [Files.Run] watches them. Errors are those of [Open].
func OpenFiles(pairs []Pair, log *slog.Logger) (*Files, error) {
	f := &Files{}
	for _, p := range pairs {
		r, err := Open(p.Cert, p.Key, log)
		if err != nil {
			return nil, err
		}
		f.list = append(f.list, r)
	}
	return f, nil
}

// GetCertificate is for [tls.Config].
func (f *Files) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName != "" && len(f.list) > 1 {
		for _, r := range f.list {
			c, err := r.GetCertificate(hello)
			if err == nil && c.Leaf.VerifyHostname(hello.ServerName) == nil {
				return c, nil
			}
		}
	}
	return f.list[0].GetCertificate(hello)
}

// Expires is the end of the one that ends first.
func (f *Files) Expires() time.Time {
	first := f.list[0].Expires()
	for _, r := range f.list[1:] {
		if e := r.Expires(); e.Before(first) {
			first = e
		}
	}
	return first
}

// Run watches the files until ctx ends.
func (f *Files) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, r := range f.list {
		all.Go(func() { r.Run(ctx) })
	}
	all.Wait()
}
