package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/zarpa-dev/zarpa/internal/child"
)

const (
	// selfSignedFor is how long a certificate of ours is valid, and renewBefore how long before its end
	// the next one is made.
	selfSignedFor = 365 * 24 * time.Hour
	renewBefore   = 30 * 24 * time.Hour
	// clockSkew is how far the clocks of clients may be behind.
	clockSkew = time.Hour
	// renewEvery is how often the end of one of ours is looked at.
	renewEvery = 12 * time.Hour
)

// SelfSigned makes sure that dir has a certificate that signs itself, for all the names, which are of hosts
// or IP addresses, and returns its file and that of its key. One that is there is kept until 30 days before
// its end. Clients trust it when they are given the file.
func SelfSigned(dir string, names []string, now time.Time) (cert, key string, err error) {
	cert, key = filepath.Join(dir, "self-signed.pem"), filepath.Join(dir, "self-signed.key")
	if good(cert, key, names, now) {
		return cert, key, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	certPEM, keyPEM, err := sign(names, now)
	if err != nil {
		return "", "", err
	}
	// Who reads in between finds two that do not belong together, and waits for the second.
	return cert, key, errors.Join(child.WriteFile(key, keyPEM), child.WriteFile(cert, certPEM))
}

// KeepSelfSigned makes what [SelfSigned] has made anew in time, until ctx ends. A failure is logged, and
// followed by another try: there are 30 days for it. Who shows the files sees them change.
func KeepSelfSigned(ctx context.Context, dir string, names []string, log *slog.Logger) {
	t := time.NewTicker(renewEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			if _, _, err := SelfSigned(dir, names, now); err != nil {
				log.Error("the self-signed certificate cannot be made anew; trying again", "in", renewEvery, "error", err)
			}
		}
	}
}

// good reports whether the files have a certificate that can be kept.
func good(cert, key string, names []string, now time.Time) bool {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return false
	}
	return now.After(pair.Leaf.NotBefore) && now.Before(pair.Leaf.NotAfter.Add(-renewBefore)) &&
		!slices.ContainsFunc(names, func(name string) bool { return pair.Leaf.VerifyHostname(name) != nil })
}

func sign(names []string, now time.Time) (certPEM, keyPEM []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	const serialBits = 120
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Zarpa, self-signed"},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(selfSignedFor),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true, // clients take it for the authority that signed it
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue // an address that both are listened on, or the host's name that is given, too
		}
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}
