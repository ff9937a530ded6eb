// Package api serves the control API that openapi.yaml describes: one handler file per noun over
// the generated server interface. It writes what is wanted; what is observed is the reconciler's.
package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/seal"
	"github.com/zarpa-dev/zarpa/target"
)

// Options are the parts that the API works with.
type Options struct {
	Store      zarpa.Store
	Blobs      zarpa.Blobs
	Reconciler *target.Reconciler
	// Seal encrypts the endpoints' keys.
	Seal *seal.Box
	// Token opens every call.
	Token string
	// Server is what GET /v1/server answers.
	Server zarpa.Server
	// Metrics answers GET /metrics, GatewayMetrics GET /metrics/gateway, both in Prometheus's format.
	Metrics, GatewayMetrics http.Handler
	Log                     *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

const (
	// maxJSON bounds a JSON request body, in bytes.
	maxJSON = 1 << 20
	// maxWait bounds how long one call waits for an operation.
	maxWait = 60 * time.Second
)

// server implements the generated interface.
type server struct{ Options }

var _ StrictServerInterface = (*server)(nil)

// New answers the whole API. It may serve many requests at a time.
func New(o Options) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &server{o}
	strict := NewStrictHandlerWithOptions(s, nil, StrictHTTPServerOptions{
		RequestErrorHandlerFunc: func(w http.ResponseWriter, r *http.Request, err error) {
			fail(w, r, zarpa.Errorf(zarpa.Invalid, "request body: %w", err))
		},
		ResponseErrorHandlerFunc: fail,
	})
	mux := http.NewServeMux()
	HandlerWithOptions(strict, StdHTTPServerOptions{
		BaseRouter: mux,
		ErrorHandlerFunc: func(w http.ResponseWriter, r *http.Request, err error) {
			fail(w, r, zarpa.Errorf(zarpa.Invalid, "%w", err))
		},
	})
	mux.Handle("GET /metrics", o.Metrics)
	mux.Handle("GET /metrics/gateway", o.GatewayMetrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, r, zarpa.Errorf(zarpa.NotFound, "no such call: %s %s", r.Method, r.URL.Path).WithHint("api/openapi.yaml lists them all"))
	})
	var chain http.Handler = mux
	chain = sending(chain)
	chain = s.strictJSON(chain)
	chain = s.authenticate(chain)
	return httpx.RequestID(httpx.API, s.Log, httpx.Recover(httpx.API, chain))
}

// authenticate lets calls through that carry the token. The digests are compared, so that
// neither time nor length tells anything.
func (s *server) authenticate(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			next.ServeHTTP(w, r)
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="zarpa"`)
			httpx.WriteError(w, r, httpx.API, zarpa.Errorf(zarpa.Unauthenticated, "the token is missing or wrong").
				WithHint("pass --token or ZARPA_TOKEN; the server keeps it in the file admin-token of its data directory"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// sending notes whether an answer has begun, and sends logs at once: they are followed as they
// come.
func sending(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&answer{ResponseWriter: w, flush: strings.HasSuffix(r.URL.Path, "/logs")}, r)
	})
}

// answer is a response under way.
type answer struct {
	http.ResponseWriter
	flush bool // after every write
	begun bool
}

func (a *answer) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	a.begun = true
	n, err := a.ResponseWriter.Write(b)
	if err == nil && a.flush {
		err = http.NewResponseController(a.ResponseWriter).Flush()
	}
	return n, err
}

// Unwrap serves http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// fail answers with an error; an answer that has begun is cut off, so that nobody takes a part
// for the whole.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	if a, ok := w.(*answer); ok && a.begun {
		panic(http.ErrAbortHandler)
	}
	httpx.WriteError(w, r, httpx.API, err)
}

// GetHealth answers without a token.
func (s *server) GetHealth(context.Context, GetHealthRequestObject) (GetHealthResponseObject, error) {
	return GetHealth200JSONResponse{Status: "ok"}, nil
}

// GetServer describes this server.
func (s *server) GetServer(context.Context, GetServerRequestObject) (GetServerResponseObject, error) {
	return GetServer200JSONResponse(s.Server), nil
}
