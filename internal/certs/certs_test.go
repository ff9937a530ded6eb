package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/certs"
)

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// signed makes a certificate for a name and returns the content of both files.
func signed(t *testing.T, name string, now time.Time) (cert, key []byte) {
	t.Helper()
	certFile, keyFile, err := certs.SelfSigned(t.TempDir(), []string{name}, now)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, certFile), read(t, keyFile)
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func shown(t *testing.T, s certs.Source) string {
	t.Helper()
	c, err := s.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.DNSNames[0]
}

func TestANewCertificateIsTakenAndABrokenOneIsNot(t *testing.T) {
	t.Parallel()
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	synctest.Test(t, func(t *testing.T) {
		oneCert, oneKey := signed(t, "one.example", time.Now())
		twoCert, twoKey := signed(t, "two.example", time.Now())
		write(t, cert, oneCert)
		write(t, key, oneKey)
		log := &lines{}
		r, err := certs.Open(cert, key, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		wait := func(d time.Duration) {
			timer := time.NewTimer(d)
			<-timer.C
			synctest.Wait()
		}
		write(t, cert, twoCert) // its key comes later
		wait(10 * time.Second)
		if got := shown(t, r); got != "one.example" {
			t.Errorf("half of a certificate: %s is shown", got)
		}
		if n := log.count("the old one goes on"); n != 1 {
			t.Errorf("it was said %d times, want once", n)
		}
		write(t, key, twoKey)
		wait(4 * time.Second)
		if n := log.count("a new certificate is in use"); n != 1 {
			t.Errorf("the new one was seen %d times without a client", n)
		}
		if got := shown(t, r); got != "two.example" {
			t.Errorf("%s is shown", got)
		}
		if err := os.Remove(cert); err != nil {
			t.Fatal(err)
		}
		wait(time.Hour)
		if got := shown(t, r); got != "two.example" || log.count("the old one goes on") != 2 {
			t.Errorf("without a file: %s is shown, said %d times", got, log.count("the old one goes on"))
		}
		cancel()
		running.Wait()
		// A client, too, makes the files be looked at.
		write(t, cert, oneCert)
		write(t, key, oneKey)
		wait(2 * time.Second)
		if got := shown(t, r); got != "one.example" {
			t.Errorf("after a client's look: %s is shown", got)
		}
	})
}

func TestACertificateThatEndsSoonIsWarnedOfOnceADay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		// It ends in 14 days and an hour.
		cert, key, err := certs.SelfSigned(dir, []string{"a.example"}, time.Now().Add(-351*24*time.Hour+time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		log := &lines{}
		r, err := certs.Open(cert, key, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 26*time.Hour)
		defer cancel()
		r.Run(ctx)
		if n := log.count("ends soon"); n != 2 {
			t.Errorf("warned %d times in 26 hours, want 2", n)
		}
	})
}

func TestSelfSignedCertificatesNeverEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cert, key, err := certs.SelfSigned(dir, []string{"a.example"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r, err := certs.Open(cert, key, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		first := r.Expires()
		ctx, cancel := context.WithDeadline(t.Context(), first.Add(-29*24*time.Hour))
		defer cancel()
		certs.KeepSelfSigned(ctx, dir, []string{"a.example"}, slog.New(slog.DiscardHandler))
		shown(t, r) // looks at the files
		if end := r.Expires(); !end.After(first.Add(300 * 24 * time.Hour)) {
			t.Errorf("29 days before %v the certificate in use ends at %v", first, end)
		}
	})
}

func TestWrongFilesAreNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, err := certs.SelfSigned(dir, []string{"a.example"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range [][2]string{{key, key}, {cert, cert}, {filepath.Join(dir, "none"), key}, {cert, filepath.Join(dir, "none")}} {
		_, err := certs.Open(files[0], files[1], slog.New(slog.DiscardHandler))
		if zarpa.AsError(err) == nil || zarpa.AsError(err).Code != zarpa.Invalid || !strings.Contains(err.Error(), files[0]) {
			t.Errorf("%v: %v", files, err)
		}
	}
}

func TestSelfSignedIsKeptUntilItMustBeRenewed(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	names := []string{"localhost", "127.0.0.1", "::1", "models.example"}
	serial := func(names []string, at time.Time) string {
		t.Helper()
		cert, key, err := certs.SelfSigned(dir, names, at)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(read(t, cert))
		for _, name := range names {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: at}); err != nil {
				t.Errorf("%s at %v: %v", name, at, err)
			}
		}
		return pair.Leaf.SerialNumber.String()
	}
	first := serial(names, now)
	if info, err := os.Stat(filepath.Join(dir, "self-signed.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v %v", info.Mode(), err)
	}
	const day = 24 * time.Hour
	for _, c := range []struct {
		what  string
		names []string
		at    time.Time
		keeps bool
	}{
		{"the next start", names, now.Add(time.Second), true},
		{"fewer names", names[:1], now.Add(time.Second), true},
		{"31 days before its end", names, now.Add(334 * day), true},
		{"29 days before its end", names, now.Add(336 * day), false},
		{"a further name", append(names[:3:3], "other.example"), now, false},
	} {
		before := first
		first = serial(c.names, c.at)
		if (before == first) != c.keeps {
			t.Errorf("%s: it was kept: %t, want %t", c.what, before == first, c.keeps)
		}
	}
	serial([]string{"localhost", "127.0.0.1", "localhost", "127.0.0.1", "new.example"}, now)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "self-signed.pem"), filepath.Join(dir, "self-signed.key"))
	if err != nil || len(pair.Leaf.DNSNames) != 2 || len(pair.Leaf.IPAddresses) != 1 {
		t.Errorf("names that are given twice: %v %v, %v", pair.Leaf.DNSNames, pair.Leaf.IPAddresses, err)
	}
	write(t, filepath.Join(dir, "self-signed.pem"), []byte("broken"))
	if serial(names, now) == first {
		t.Error("a broken file was kept")
	}
}

func TestMetricTellsTheEnd(t *testing.T) {
	t.Parallel()
	end := time.Time{}
	reg := prometheus.NewRegistry()
	reg.MustRegister(certs.Metric(func() time.Time { return end }))
	value := func() float64 {
		t.Helper()
		families, err := reg.Gather()
		if err != nil || len(families) != 1 || families[0].GetName() != "zarpa_tls_certificate_expiry_seconds" {
			t.Fatalf("%v %v", families, err)
		}
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}
	if v := value(); v != 0 {
		t.Errorf("none: %v", v)
	}
	end = time.Unix(1_900_000_000, 0)
	if v := value(); v != 1.9e9 {
		t.Errorf("%v", v)
	}
}

func TestOtherNamesGetTheFallback(t *testing.T) {
	t.Parallel()
	cert, key, err := certs.SelfSigned(t.TempDir(), []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	own, err := certs.Open(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// The authority does not answer: a name of its own cannot be had.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	o := certs.ACMEOptions{
		Domains: []string{"Models.Example."}, Directory: fmt.Sprintf("http://%s/dir", ln.Addr()), Cache: t.TempDir(),
		Log: slog.New(slog.DiscardHandler), Fallback: own,
	}
	a, err := certs.NewACME(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "localhost", "else.example"} {
		if c, err := a.GetCertificate(&tls.ClientHelloInfo{ServerName: name}); err != nil || c.Leaf.DNSNames[0] != "localhost" {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := a.GetCertificate(&tls.ClientHelloInfo{ServerName: "models.example"}); err == nil {
		t.Error("a certificate came from nowhere")
	}
	if !a.Expires().IsZero() {
		t.Errorf("one ends at %v, and there is none", a.Expires())
	}
	o.Fallback = nil
	if a, err = certs.NewACME(o); err != nil {
		t.Fatal(err)
	}
	if _, err := a.GetCertificate(&tls.ClientHelloInfo{ServerName: "else.example"}); err == nil {
		t.Error("another name got a certificate")
	}
	if protos := certs.Config(a).NextProtos; protos[len(protos)-1] != "acme-tls/1" {
		t.Errorf("protocols %v", protos)
	}
	o.CA = key
	if _, err := certs.NewACME(o); err == nil || !strings.Contains(err.Error(), "acme-ca") {
		t.Errorf("a key as the authority's certificate: %v", err)
	}
}

// TestTheCertificateOfTheNameIsShown has two, the first of which is for all names that none is for.
func TestTheCertificateOfTheNameIsShown(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	var pairs []certs.Pair
	for i, name := range []string{"gateway.example.com", "iris.example.com"} {
		cert, key := signed(t, name, now.Add(time.Duration(-i)*time.Hour)) // the second one ends first
		p := certs.Pair{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem")}
		write(t, p.Cert, cert)
		write(t, p.Key, key)
		pairs = append(pairs, p)
	}
	f, err := certs.OpenFiles(pairs, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{
		"": "gateway.example.com", "gateway.example.com": "gateway.example.com", "iris.example.com": "iris.example.com",
		"IRIS.example.com": "iris.example.com", "other.example.com": "gateway.example.com",
	} {
		c, err := f.GetCertificate(&tls.ClientHelloInfo{ServerName: asked})
		if err != nil || c.Leaf.DNSNames[0] != want {
			t.Errorf("%q is shown %v, %v, want %s", asked, c.Leaf.DNSNames, err, want)
		}
	}
	second, err := certs.Open(pairs[1].Cert, pairs[1].Key, slog.New(slog.DiscardHandler))
	if err != nil || !f.Expires().Equal(second.Expires()) {
		t.Errorf("expires %v, want %v, %v", f.Expires(), second.Expires(), err)
	}
	if _, err := certs.OpenFiles(append(pairs, certs.Pair{Cert: pairs[0].Cert, Key: pairs[1].Key}), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a key that belongs to another certificate is taken")
	}
}
