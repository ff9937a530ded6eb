package httpx_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

func TestErrorsHaveThreeStyles(t *testing.T) {
	t.Parallel()
	full := &zarpa.Error{Code: zarpa.Conflict, Message: `busy "x"`, Hint: "wait", Operation: "op1", RetryAfter: 1200 * time.Millisecond}
	cases := []struct {
		style      httpx.Style
		err        error
		status     int
		body, log  string
		retryAfter string
	}{
		{httpx.API, full, 409, `{"code":"conflict","message":"busy \"x\"","hint":"wait","operation":"op1","request_id":"A"}`, "", "2"},
		{httpx.Inference, full, 409, `{"error":"busy \"x\" (wait)"}`, "", "2"},
		{httpx.Score, full, 409, `{"message":"busy \"x\" (wait)"}`, "", "2"},
		{httpx.Score, zarpa.Errorf(zarpa.Invalid, "x \xff"), 400, `{"message":"\"x \\xff\""}`, "", ""},
		{httpx.Score, httpx.WithStatus(zarpa.Errorf(zarpa.Invalid, "no"), 415), 415, `{"message":"no"}`, "", ""},
		{httpx.API, fmt.Errorf("wrapped: %w", errors.New("secret")), 500, `{"code":"internal","message":"an internal error happened","hint":"see the server's log for the request id","request_id":"A"}`, "secret", ""},
		{httpx.Score, zarpa.Errorf(zarpa.Internal, "read: %w", errors.New("secret")), 500, `{"message":"an internal error happened (see the server's log for the request id)"}`, "secret", ""},
		{httpx.Inference, zarpa.Errorf(zarpa.ModelError, "the model failed").Because(errors.New("secret")), 424, `{"error":"the model failed"}`, "secret", ""},
		{httpx.Score, zarpa.Errorf(zarpa.Overloaded, "full"), 503, `{"message":"full"}`, "", ""},
		{httpx.Score, context.Canceled, 499, `{"message":"the request was canceled"}`, "", ""},
	}
	for _, c := range cases {
		var log bytes.Buffer
		h := httpx.RequestID(c.style, slog.New(slog.NewTextHandler(&log, nil)), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			httpx.WriteError(w, r, c.style, c.err)
		}))
		req := httptest.NewRequest(http.MethodGet, "/p", nil)
		req.Header.Set("X-Request-Id", "A")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code != c.status || strings.TrimSpace(rec.Body.String()) != c.body || rec.Header().Get("Retry-After") != c.retryAfter {
			t.Errorf("%v: %d %s %v", c.err, rec.Code, rec.Body, rec.Header())
		}
		if lines := strings.Count(log.String(), "\n"); (c.log != "") != (lines == 1) || !strings.Contains(log.String(), c.log) || c.log != "" && !strings.Contains(log.String(), "request_id=A") {
			t.Errorf("%v: log %q", c.err, log.String())
		}
		if c.log != "" && strings.Contains(rec.Body.String(), c.log) {
			t.Errorf("%v: the cause is shown: %s", c.err, rec.Body)
		}
	}
}

func TestRequestIDTable(t *testing.T) {
	t.Parallel()
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	cases := []struct {
		name string
		sent http.Header
		want [3]string // * is a new id, the same wherever it stands
	}{
		{"none", nil, [3]string{"*", "*", ""}},
		{"own", http.Header{"X-Request-Id": {"A"}}, [3]string{"A", "A", ""}},
		{"server", http.Header{"X-Ms-Request-Id": {"B"}}, [3]string{"*", "B", "B"}},
		{"client", http.Header{"X-Ms-Client-Request-Id": {"C"}}, [3]string{"*", "C", "C"}},
		{"both", http.Header{"X-Ms-Request-Id": {"B"}, "X-Ms-Client-Request-Id": {"C"}}, [3]string{"*", "B", "C"}},
		{"empty", http.Header{"X-Request-Id": {""}}, [3]string{"*", "*", ""}},
		{"twice", http.Header{"X-Request-Id": {"one", "two"}}, [3]string{"one,two", "one,two", ""}},
		{"odd", http.Header{"X-Request-Id": {"é\t"}}, [3]string{"%C3%A9%09", "%C3%A9%09", ""}},
		{"long enough", http.Header{"X-Request-Id": {strings.Repeat("x", 100)}}, [3]string{strings.Repeat("x", 100), strings.Repeat("x", 100), ""}},
	}
	for _, c := range cases {
		var seen string
		h := httpx.RequestID(httpx.Score, nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = httpx.ID(r.Context()) }))
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		maps.Copy(req.Header, c.sent)
		req.Header.Set("TraceId", "T")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		got := [3]string{rec.Header().Get("x-request-id"), rec.Header().Get("x-ms-request-id"), rec.Header().Get("x-ms-client-request-id")}
		if got[0] != seen || rec.Header().Get("TraceId") != "T" {
			t.Errorf("%s: context has %q, headers %v", c.name, seen, rec.Header())
		}
		for i := range c.want {
			want := c.want[i]
			if want == "*" {
				want = seen
				if !uuid.MatchString(seen) {
					t.Errorf("%s: %q is no UUID", c.name, seen)
				}
			}
			if got[i] != want {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	}
	for _, name := range []string{"X-Request-Id", "X-Ms-Request-Id", "X-Ms-Client-Request-Id"} {
		h := httpx.RequestID(httpx.Score, nil, http.NotFoundHandler())
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set(name, strings.Repeat("x", 101))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code != 431 || rec.Header().Get("x-request-id") != "" || !strings.Contains(rec.Body.String(), strings.ToLower(name)) {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
}

func TestReadBodyKeepsTheLimit(t *testing.T) {
	t.Parallel()
	read := func(body io.Reader, announced int64, limit int64, buf []byte) ([]byte, error) {
		r := httptest.NewRequest(http.MethodPost, "/", body)
		r.ContentLength = announced
		return httpx.ReadBody(httptest.NewRecorder(), r, limit, buf)
	}
	buf := make([]byte, 0, 64)
	got, err := read(strings.NewReader("hello"), 5, 5, buf)
	if string(got) != "hello" || err != nil || &got[:1][0] != &buf[:1][0] {
		t.Errorf("%q, %v: not in the buffer given", got, err)
	}
	if got, err = read(strings.NewReader("hello"), -1, 5, nil); string(got) != "hello" || err != nil {
		t.Errorf("chunked: %q, %v", got, err)
	}
	for _, announced := range []int64{6, -1, 5} {
		_, err = read(strings.NewReader("hello!"), announced, 5, nil)
		if zarpa.AsError(err).Code != zarpa.TooLarge || !strings.Contains(err.Error(), "limit of 5 bytes") {
			t.Errorf("announced %d: %v", announced, err)
		}
	}
	if got, err = read(strings.NewReader("x"), 1<<40, 1<<41, nil); err != nil || cap(got) > 2<<20 {
		t.Errorf("announced 1 TiB: %v, took %d bytes", err, cap(got))
	}
	if _, err = read(io.MultiReader(strings.NewReader("x"), iotestErr{}), 9, 10, nil); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("broken off: %v", err)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestDecodeJSONIsStrict(t *testing.T) {
	t.Parallel()
	type inner struct {
		Port  int            `json:"port"`
		Limit zarpa.Duration `json:"limit"`
	}
	type outer struct {
		Name  string           `json:"name"`
		Parts []inner          `json:"parts"`
		By    map[string]inner `json:"by"`
		CPU   *zarpa.CPU       `json:"cpu"`
		Any   any              `json:"any"`
	}
	cases := []struct{ body, want, hint string }{
		{`{"name":"x","parts":[{"port":1,"limit":"1s"}],"by":{"k":{"port":2}},"cpu":0.5,"any":{"z":[1]}}`, "", ""},
		{` `, "request body: empty", ""},
		{`{"nmae":"x"}`, "nmae: unknown field", "did you mean name?"},
		{`{"NAME":"x"}`, "NAME: unknown field", "did you mean name?"},
		{`{"parts":[{},{"ports":1}]}`, "parts[1].ports: unknown field", "did you mean port?"},
		{`{"by":{"k":{"completely":1}}}`, "by.k.completely: unknown field", "known are limit, port"},
		{`{"name":1}`, "name: a JSON number where a string is expected", ""},
		{`{"parts":[{"port":"1"}]}`, "port: a JSON string where a whole number", ""},
		{`{"parts":[{"limit":"soon"}]}`, `parts[0].limit: duration "soon"`, "write a number with a unit"},
		{`{"cpu":"many"}`, `cpu "many"`, "number"},
		{`{"name":"x","name":"y"}`, "name: stands there twice", ""},
		{`{"name":"x"} {}`, "the end of the text is expected", ""},
		{`[1]`, "request body: a JSON array where an object is expected", ""},
		{`{"any":` + strings.Repeat("[", 1000), "nested deeper than 100", ""},
		{`{"name":"` + strings.Repeat("x", 3000) + `"}`, "larger than the limit", ""},
	}
	for _, c := range cases {
		var v outer
		err := httpx.DecodeJSON(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body)), 2000, &v)
		if c.want == "" {
			if err != nil || v.Name != "x" || v.Parts[0].Limit == 0 || *v.CPU != 0.5 {
				t.Errorf("%+v, %v", v, err)
			}
			continue
		}
		if e := zarpa.AsError(err); err == nil || !strings.Contains(e.Message, c.want) || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%.50s: %v, want %q (%q)", c.body, err, c.want, c.hint)
		}
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	httpx.Recover(httpx.API, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret") })).
		ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	if rec.Code != 500 || strings.Contains(rec.Body.String(), "secret") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func TestServeDrains(t *testing.T) {
	t.Parallel()
	for _, drain := range []time.Duration{time.Minute, 0} {
		ln := listen(t)
		entered, leave := make(chan struct{}), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- httpx.Serve(ctx, ln, httpx.ServerOptions{DrainTimeout: drain, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(entered)
				select {
				case <-leave:
					_, _ = io.WriteString(w, "ended")
				case <-r.Context().Done():
					_, _ = io.WriteString(w, "canceled")
				}
			})})
		}()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		<-entered
		cancel()
		want := "canceled"
		if drain > 0 {
			want = "ended"
			close(leave)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(body) != want {
			t.Errorf("drain %v: %q, want %q", drain, body, want)
		}
		if err := <-done; (err == nil) != (drain > 0) {
			t.Errorf("drain %v: Serve: %v", drain, err)
		}
		if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
			t.Error("still listens")
		}
	}
}

func BenchmarkRequestID(b *testing.B) {
	h := httpx.RequestID(httpx.Score, nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	rec := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(rec, req)
	}
}
