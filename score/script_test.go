package score

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// scorer is a scoring script whose run() is a function.
type scorer struct {
	session

	score func(w http.ResponseWriter, r *http.Request, body []byte) error
}

var _ zarpa.Scorer = (*scorer)(nil)

func (s *scorer) Score(w http.ResponseWriter, r *http.Request, body []byte) error {
	return s.score(w, r, body)
}

func (s *scorer) Swagger(version string) ([]byte, error) {
	if version == "4" {
		return nil, zarpa.Errorf(zarpa.NotFound, "no version 4")
	}
	return []byte(`{"of":"the script","version":"` + version + `"}`), nil
}

func script(score func(http.ResponseWriter, *http.Request, []byte) error) *scorer {
	return &scorer{score: score}
}

func TestAScriptsBatchesAreNotTheServersConcern(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	newServer(t, script(nil), Options{MaxBatchRows: 8, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if strings.Contains(log.String(), "one by one") {
		t.Errorf("a script that may gather requests is said not to: %s", log.String())
	}
}

func TestAScriptAnswersScoreItself(t *testing.T) {
	t.Parallel()
	h := newServer(t, script(func(w http.ResponseWriter, r *http.Request, body []byte) error {
		w.Header().Set("X-Of-The-Script", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, err := fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RawQuery, body)
		return err
	}), Options{}).Handler()
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, _ = zip.Write([]byte("packed"))
	_ = zip.Close()
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/score", "not JSON", "POST  not JSON"},
		{"GET", "/score?a=1&a=2", "", "GET a=1&a=2 "},
		{"OPTIONS", "/score", "", "OPTIONS  "},
		{"DELETE", "/score", "", "DELETE  "},
	} {
		w := ask(h, c.method, c.path, c.body)
		if w.Code != http.StatusTeapot || w.Body.String() != c.want || w.Header().Get("X-Of-The-Script") != "yes" || w.Header().Get("X-Request-Id") == "" {
			t.Errorf("%s %s: %d %q %v", c.method, c.path, w.Code, w.Body, w.Header())
		}
	}
	if w := ask(h, "POST", "/score", packed.String(), "Content-Encoding", "gzip"); w.Body.String() != "POST  packed" {
		t.Errorf("gzip: %q", w.Body)
	}
	if w := ask(h, "GET", "/swagger.json?version=3.0", ""); w.Body.String() != `{"of":"the script","version":"3.0"}` || w.Header().Get("Content-Length") != "35" || w.Header().Get("X-Ms-Run-Function-Failed") != "False" {
		t.Errorf("swagger: %q", w.Body)
	}
	if w := ask(h, "GET", "/swagger.json?version=4", ""); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "no version 4") {
		t.Errorf("swagger 4: %d", w.Code)
	}
	for _, path := range []string{"/v2/models/iris/infer", "/invocations", "/v2/models/iris/generate"} {
		if w := ask(h, "POST", path, `{"inputs":[]}`); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "scoring script") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestAScriptsErrorIsAnsweredWhereNothingWas(t *testing.T) {
	t.Parallel()
	h := newServer(t, script(func(http.ResponseWriter, *http.Request, []byte) error {
		return zarpa.Errorf(zarpa.ModelError, "the worker died: signal: segmentation fault")
	}), Options{}).Handler()
	w := ask(h, "POST", "/score", "{}")
	if w.Code != http.StatusFailedDependency || w.Header().Get("X-Ms-Run-Function-Failed") != "True" || !strings.Contains(w.Body.String(), "segmentation") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestAScriptsTimeAndSizeHaveLimits(t *testing.T) {
	t.Parallel()
	h := newServer(t, script(func(_ http.ResponseWriter, r *http.Request, _ []byte) error {
		<-r.Context().Done()
		return r.Context().Err()
	}), Options{RequestTimeout: 10 * time.Millisecond, MaxBody: 10}).Handler()
	if w := ask(h, "POST", "/score", "{}"); w.Code != http.StatusGatewayTimeout {
		t.Errorf("late: %d %s", w.Code, w.Body)
	}
	if w := ask(h, "POST", "/score", "12345678901"); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("large: %d %s", w.Code, w.Body)
	}
}

func TestABrokenStreamCutsTheConnection(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(newServer(t, script(func(w http.ResponseWriter, _ *http.Request, _ []byte) error {
		if _, err := w.Write([]byte("first part\n")); err != nil {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		return errors.New("the generator raised")
	}), Options{}).Handler())
	defer srv.Close()
	resp, err := srv.Client().Post(srv.URL+"/score", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if string(body) != "first part\n" || err == nil {
		t.Errorf("got %q, and the end as if it were whole (%v)", body, err)
	}
}
