// Package certs has the certificates that servers show: from files that may change while they run,
// self-signed for trials, or from a certificate authority by ACME. It listens nowhere by itself.
package certs

import (
	"crypto/tls"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source shows a certificate to each client. Its methods may be called from many goroutines.
type Source interface {
	// GetCertificate is for [tls.Config].
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Expires is when the first of the certificates in use ends; the zero time when there is none yet.
	Expires() time.Time
}

// WarnBefore is how long before a certificate's end it is warned of: time enough to get another.
const WarnBefore = 14 * 24 * time.Hour

// Config is what a server that speaks HTTP needs to show the certificates of a source.
func Config(s Source) *tls.Config {
	c := &tls.Config{GetCertificate: s.GetCertificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if _, ok := s.(*ACME); ok {
		c.NextProtos = append(c.NextProtos, alpnChallenge)
	}
	return c
}

// Metric tells when the certificates of a source end.
func Metric(expires func() time.Time) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zarpa_tls_certificate_expiry_seconds", Help: "When the certificate in use ends, in seconds since 1970; 0 while there is none.",
	}, func() float64 {
		if t := expires(); !t.IsZero() {
			return float64(t.Unix())
		}
		return 0
	})
}
