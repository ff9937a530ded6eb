package oip

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestRunTellsWhyAServerCannotBeAsked(t *testing.T) {
	t.Parallel()
	locked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(locked.Close)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	for name, test := range map[string]struct {
		target Target
		code   zarpa.Code
	}{
		"nobody there":      {Target{URL: "http://127.0.0.1:1"}, zarpa.Unavailable},
		"a key is wanted":   {Target{URL: locked.URL}, zarpa.Unauthenticated},
		"no answer":         {Target{URL: silent.URL, Timeout: 50 * time.Millisecond}, zarpa.Unavailable},
		"no URL":            {Target{URL: "127.0.0.1:8000"}, zarpa.Invalid},
		"no address":        {Target{URL: locked.URL, GRPC: "nowhere"}, zarpa.Invalid},
		"no pattern":        {Target{URL: locked.URL, Only: "["}, zarpa.Invalid},
		"unknown extension": {Target{URL: locked.URL, Extensions: []string{"fly"}}, zarpa.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Run(t.Context(), test.target)
			if zarpa.AsError(err) == nil || zarpa.AsError(err).Code != test.code {
				t.Errorf("%v, want %s", err, test.code)
			}
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	server := newReference("")
	var n atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 20 { // one request at a time
			cancel()
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	if _, err := Run(ctx, Target{URL: web.URL}); zarpa.AsError(err) == nil || zarpa.AsError(err).Code != zarpa.Canceled {
		t.Errorf("%v, want canceled", err)
	}
}

func TestTLSHeadersAndPrefix(t *testing.T) {
	t.Parallel()
	server := newReference("")
	web := httptest.NewTLSServer(http.StripPrefix("/endpoints/x", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer key" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		server.ServeHTTP(w, r)
	})))
	t.Cleanup(web.Close)
	trust := web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	target := Target{
		URL: web.URL + "/endpoints/x/v2/", Header: http.Header{"Authorization": {"Bearer key"}}, Models: []string{"texts"}, Only: "rest.*",
		TLS: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12},
	}
	report, err := Run(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	if got := failures(report); len(got) > 0 || report.Count(REST, Pass) < 30 {
		t.Errorf("failed: %q, %d kept", got, report.Count(REST, Pass))
	}
}

func TestReportTellsDifferencesAndChoices(t *testing.T) {
	t.Parallel()
	report := ask(t, "rest.infer.id", checks())
	var short, long bytes.Buffer
	if err := errors.Join(report.WriteText(&short), report.WriteVerbose(&long)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"server  reference 1", "models  numbers, texts, halves", "fail  must       rest.infer.id [numbers]", "expected  conformance: 42",
		"rest.server.slash          200", "2 differ: 2 must, 0 should, 0 of extensions",
	} {
		if !strings.Contains(short.String(), want) {
			t.Errorf("no %q in:\n%s", want, &short)
		}
	}
	if strings.Contains(short.String(), "pass ") || !strings.Contains(long.String(), "pass  must       rest.health.live") {
		t.Error("the short report tells what was kept, or the long one does not")
	}
	if report.Failed(Must) != 2 {
		t.Errorf("%d failures", report.Failed(Must))
	}
}

// FuzzReply reads whatever a server might answer: an error is fine, a panic is not.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1,[2]]}]}`), "")
	f.Add([]byte(`{"outputs":[{"name":"y","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}a\x01\x00\x00\x00a`), "91")
	f.Add([]byte(`{"outputs":[{"datatype":"UINT4","shape":[-1,0],"data":[]}]}`), "-1")
	f.Fuzz(func(_ *testing.T, body []byte, length string) {
		a := answer{status: http.StatusOK, header: http.Header{}, body: body}
		if length != "" {
			a.header.Set(lengthHeader, length)
		}
		r, err := readReply(a)
		if err != nil {
			return
		}
		list, err := r.tensors()
		if err == nil {
			_ = sameTensors(list, list)
		}
	})
}
