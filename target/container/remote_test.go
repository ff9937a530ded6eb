package container_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa/target/container"
	"github.com/zarpa-dev/zarpa/target/targettest"
)

// runsOne starts a replica by a driver and calls it.
func runsOne(t *testing.T, o container.Options) {
	t.Helper()
	d := open(t, o)
	h := apply(t, d, deployment("far", "blue"))
	r := await(t, d, h, isReady).Replicas[0]
	if err := targettest.Call(t.Context(), r.Address, 0); err != nil {
		t.Error(err)
	}
	if err := d.StopAll(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRemoteEngineOverSSH is not parallel: it changes PATH. Its ssh runs what it is told on this machine.
func TestRemoteEngineOverSSH(t *testing.T) {
	host := os.Getenv("ZARPA_TEST_DOCKER")
	if host == "" {
		t.Skip("ZARPA_TEST_DOCKER names no engine")
	}
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("docker's command is not installed")
	}
	dir := t.TempDir()
	script := "#!/bin/sh\nprintf '%s\\n' \"$*\" >>" + dir + "/calls\nwhile [ \"$1\" != -- ]; do shift; done\n[ \"$2\" = 127.0.0.1 ] || { echo 'ssh: no such host' >&2; exit 255; }\nshift 2\nexec sh -c \"$*\"\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	o := options(t, host)
	o.Environ, o.Publish = os.Environ(), "127.0.0.1"
	o.Host = "ssh://me@127.0.0.1:2222" + strings.TrimPrefix(host, "unix://")
	runsOne(t, o)
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil || !strings.Contains(string(calls), "-o ConnectTimeout=10 -o BatchMode=yes -T -l me -p 2222 -- 127.0.0.1 ") {
		t.Errorf("ssh was called as %s, %v", calls, err)
	}
	o = nowhere(t, "ssh://me@nowhere.invalid")
	o.Environ, o.Publish = os.Environ(), "127.0.0.1"
	_, err = open(t, o).Describe(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ssh: no such host") || !strings.Contains(err.Error(), "`ssh nowhere.invalid` works") {
		t.Errorf("unknown host: %v", err)
	}
}

// certificate makes one, by an issuer or by itself, and writes it and its key.
func certificate(t *testing.T, dir, name string, ca *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	parent, signer := template, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for file, b := range map[string][]byte{name + ".pem": cert, name + "-key.pem": secret} {
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(cert, secret)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestRemoteEngineOverTLS(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		dir := t.TempDir()
		ca := certificate(t, dir, "ca", nil)
		server := certificate(t, dir, "server", &ca)
		certificate(t, dir, "client", &ca)
		pool := x509.NewCertPool()
		pool.AddCert(ca.Leaf)
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go forward(l, strings.TrimPrefix(host, "unix://")) // ends with the listener
		o := options(t, host)
		o.Host, o.Publish = "tcp://"+l.Addr().String(), "127.0.0.1"
		o.TLS = container.TLS{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "client.pem"), Key: filepath.Join(dir, "client-key.pem")}
		runsOne(t, o)
		stranger := nowhere(t, o.Host)
		stranger.TLS = container.TLS{CA: o.TLS.CA}
		if _, err := open(t, stranger).Describe(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("without a client's certificate: %v", err)
		}
	})
}

// forward hands connections on to a socket.
func forward(l net.Listener, socket string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			e, err := (&net.Dialer{}).DialContext(context.Background(), "unix", socket)
			if err != nil {
				return
			}
			defer e.Close()
			go func() {
				_, _ = io.Copy(e, c)
				_ = e.Close()
			}()
			_, _ = io.Copy(c, e)
		}()
	}
}
