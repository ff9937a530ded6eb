package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// shown waits until the server at the address in a file shows the certificate in another: shown ADDRESS CERT.
func shown(ts *testscript.TestScript, _ bool, args []string) {
	want := certificate(ts, args[1])
	until(ts, func() bool {
		conn, err := tls.Dial("tcp", strings.TrimSpace(ts.ReadFile(args[0])), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is compared
		if err != nil {
			return false
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Equal(want)
	})
}

// names checks that a certificate is for hosts or addresses: names CERT NAME...
func names(ts *testscript.TestScript, _ bool, args []string) {
	c := certificate(ts, args[0])
	for _, name := range args[1:] {
		ts.Check(c.VerifyHostname(name))
	}
}

func certificate(ts *testscript.TestScript, file string) *x509.Certificate {
	block, _ := pem.Decode([]byte(ts.ReadFile(file)))
	if block == nil {
		ts.Fatalf("%s holds no certificate", file)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	ts.Check(err)
	return c
}
