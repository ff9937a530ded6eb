// Package api serves the control API that openapi.yaml describes: one handler file per noun over
// the generated server interface. It writes what is wanted; what is observed is the reconciler's.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
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
	// Token is the admin's own: it opens every call. The store has the named ones.
	Token string
	// Identifier knows the tokens of another party; nil for none.
	Identifier Identifier
	// Signing signs scoring tokens.
	Signing *Signing
	// Server is what GET /v1/server answers.
	Server zarpa.Server
	// DNSSuffix follows hostnames of endpoints that are a single label: iris becomes iris.SUFFIX. Empty
	// leaves them as they are.
	DNSSuffix string
	// CertificateEnds is when the certificate in use does; nil for none.
	CertificateEnds func() time.Time
	// Convert brings a model into ONNX and registers the result.
	Convert func(ctx context.Context, m zarpa.Model, spec zarpa.ConversionSpec, progress func(line string)) (zarpa.Conversion, error)
	// EnvironmentUsers are who needs each environment, by its ID: deployments, and what runs.
	EnvironmentUsers func(ctx context.Context) (map[string][]string, error)
	// Conversions bounds those under way at one time; 0 is [DefaultConversions].
	Conversions int
	// Environments are the Python environments of this machine.
	Environments environments
	// Targets opens the drivers of targets that users add; nil for none.
	Targets targets
	// Metrics answers GET /metrics, GatewayMetrics GET /metrics/gateway, both in Prometheus's format.
	Metrics, GatewayMetrics http.Handler
	// Registry answers /v2/, for callers whose token and role allow it; nil for none.
	Registry http.Handler
	// Load tells what the gateway counts.
	Load zarpa.Loader
	// RolloutChanged is told of an endpoint whose rollout began or was steered; nil for nobody.
	RolloutChanged func(endpoint string)
	Log            *slog.Logger
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
type server struct {
	Options
	// conversions has an element for each that is under way.
	conversions chan struct{}
	accesses    accessTable
	targeting   sync.Mutex // orders changes of targets
	refusals    refusals
}

var _ StrictServerInterface = (*server)(nil)

// New answers the whole API. It may serve many requests at a time.
func New(o Options) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.RolloutChanged == nil {
		o.RolloutChanged = func(string) {}
	}
	if o.Conversions == 0 {
		o.Conversions = DefaultConversions
	}
	s := &server{Options: o, conversions: make(chan struct{}, o.Conversions), accesses: accessTable{store: o.Store}}
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
	chain = s.authorize(mux, chain)
	chain = s.authenticate(chain)
	return httpx.RequestID(httpx.API, s.Log, httpx.Recover(httpx.API, s.besideRegistry(chain)))
}

// besideRegistry sends what is a registry's to it.
func (s *server) besideRegistry(chain http.Handler) http.Handler {
	guarded := http.Handler(http.HandlerFunc(noRegistry))
	if s.Registry != nil {
		guarded = s.guardRegistry(s.Registry)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/") || r.URL.Path == "/v2" {
			guarded.ServeHTTP(w, r)
			return
		}
		chain.ServeHTTP(w, r)
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
	answer := s.Server
	if s.CertificateEnds != nil {
		answer.CertificateEnds = s.CertificateEnds()
	}
	return GetServer200JSONResponse(answer), nil
}
