package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// run runs a command of the product on a host; it must succeed.
func (h *host) run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, h.binary, append(args, "--data", h.data)...).CombinedOutput()
	if err != nil {
		t.Fatalf("zarpa %s: %v\n%s\n%s", strings.Join(args, " "), err, out, h.tail())
	}
	return string(out)
}

// primary is an endpoint's key.
func (h *host) primary(t *testing.T, endpoint string) string {
	t.Helper()
	var keys zarpa.KeyPair
	if err := json.Unmarshal([]byte(h.run(t, "keys", endpoint, "-o", "json")), &keys); err != nil {
		t.Fatal(err)
	}
	return keys.Primary
}

// patient lets an endpoint's requests wait: a machine that is shared with other tests may stand still
// for longer than the usual half a second.
func (h *host) patient(t *testing.T, endpoint string) {
	t.Helper()
	h.run(t, "endpoint", "set", endpoint, "--queue-wait", "10s", "--max-queue", "10000")
}

// nothingFailed looks at what a flood met.
func nothingFailed(t *testing.T, f *flood, what string) {
	t.Helper()
	took, failures := f.take()
	for _, bad := range failures[:min(5, len(failures))] {
		t.Errorf("%s: %s after %v: %.300s", what, bad.class, bad.end.Sub(bad.start), bad.detail)
	}
	if len(took) == 0 {
		t.Errorf("%s: nothing was answered", what)
	}
	t.Log(newTally(what, took, failures))
}

// TestACertificateIsReplacedUnderLoad: new connections get the new one, and no request fails.
func TestACertificateIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	dir, a := t.TempDir(), newAuthority(t)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.issue(cert, key)
	h := newSecureHost(t, a, cert, key)
	iris := example(t, "iris")
	h.run(t, "deploy", "iris", "--model", iris.file)
	h.patient(t, "iris")
	transport := func() *http.Transport {
		return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool(), MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: most}
	}
	f := newFlood("https://"+h.gateway+"/endpoints/iris/score", iris.body, h.primary(t, "iris"), iris.right)
	f.http.Transport = transport()
	f.begin(t.Context(), int64(setting(t, faultRateVariable, defaultFaultRate)))
	defer f.end()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 3 {
		want := a.issue(cert, key)
		err := await(ctx, func() error {
			fresh := &http.Client{Transport: transport(), Timeout: callTimeout}
			defer fresh.CloseIdleConnections()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.gateway+"/v2/health/live", nil)
			if err != nil {
				return err
			}
			resp, err := fresh.Do(req)
			if err != nil {
				return fatal{err}
			}
			defer resp.Body.Close()
			if got := resp.TLS.PeerCertificates[0].SerialNumber; got.Cmp(want) != 0 {
				return fmt.Errorf("the certificate is still %v, not %v", got, want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	nothingFailed(t, f, "certificate replaced three times")
}

// failing is a script whose first process fails once a file is there: one replica of several.
const failing = `
import os
here = os.path.dirname(os.path.abspath(os.environ["FAULT_DIR"] + "/x"))
def init():
    global bad
    try:
        os.mkdir(os.path.join(here, "first"))
        bad = True
    except FileExistsError:
        bad = False
def run(raw):
    if bad and os.path.exists(os.path.join(here, "fail")):
        raise RuntimeError("this replica is broken")
    return {"ok": 1}
`

// TestAReplicaThatFailsIsLeftOut: one of three replicas begins to answer with errors, and after a few of them
// gets no more requests.
func TestAReplicaThatFailsIsLeftOut(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3")
	}
	h := newHost(t, rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)))
	code, faulty := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(code, "score.py"), []byte(failing), 0o600); err != nil {
		t.Fatal(err)
	}
	h.run(t, "deploy", "sick", "--code", code, "--entry", "score.py", "--replicas", "3", "--workers", "1", "--env", "FAULT_DIR="+faulty)
	h.patient(t, "sick")
	h.run(t, "endpoint", "set", "sick", "--eject-time", "1m")
	f := newFlood("http://"+h.gateway+"/endpoints/sick/score", `{}`, h.primary(t, "sick"), same(`{"ok":1}`))
	f.begin(t.Context(), 100)
	defer f.end()
	pause(t.Context(), time.Second)
	nothingFailed(t, f, "three replicas are well")
	if err := os.WriteFile(filepath.Join(faulty, "fail"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pause(t.Context(), time.Second)
	took, failures := f.take()
	t.Log(newTally("one of three begins to fail", took, failures))
	// Those in a row that eject it, those under way then; it may be back for as many once within the time.
	if most := 2 * (zarpa.DefaultEjectionFailures + zarpa.DefaultMaxConcurrency); len(failures) == 0 || len(failures) > most {
		t.Errorf("%d of %d requests failed, at most %d are explained\n%s", len(failures), len(failures)+len(took), most, h.tail())
	}
	pause(t.Context(), 2*time.Second)
	nothingFailed(t, f, "it is left out")
}

// TestLoadRisesFromZero: an endpoint without a replica gets more and more requests, and none fails.
func TestLoadRisesFromZero(t *testing.T) {
	t.Parallel()
	top := int64(setting(t, "ZARPA_FAULT_TOP", 300))
	h := newHost(t, rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2)))
	iris := example(t, "iris")
	h.run(t, "deploy", "iris", "--model", iris.file, "--min", "0", "--max", "3", "--idle", "1s", "--hold", "20s")
	h.patient(t, "iris")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	replicas := func() int {
		n := 0
		all, err := h.processes()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if p.role == "score" {
				n++
			}
		}
		return n
	}
	if err := await(ctx, func() error {
		if n := replicas(); n > 0 {
			return fmt.Errorf("%d replicas are there without a request", n)
		}
		return nil
	}); err != nil {
		t.Fatalf("%v\n%s", err, h.tail())
	}
	f := newFlood("http://"+h.gateway+"/endpoints/iris/score", iris.body, h.primary(t, "iris"), iris.right)
	f.begin(t.Context(), top/20)
	defer f.end()
	for _, share := range []int64{20, 10, 5, 2, 1} {
		f.rate.Store(top / share)
		pause(t.Context(), 2*time.Second)
		nothingFailed(t, f, fmt.Sprintf("%d requests/s, %d replicas", top/share, replicas()))
	}
}
