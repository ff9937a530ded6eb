package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// maxRoutes is the largest body of PUT /-/routes.
const maxRoutes = 64 << 20

// ControlHandler serves the control socket, which only the gateway's owner may reach:
//
//	PUT /-/routes   routes as JSON; 204 when they are in use
//	GET /-/routes   those in use
//	GET /-/load     [zarpa.Load] as JSON; ?wake=N&wait=DURATION as in [Gateway.Load], at most [MaxLoadWait]
//	GET /-/self     Options.Self as JSON
//	GET /metrics    Prometheus
func (g *Gateway) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /-/routes", func(w http.ResponseWriter, r *http.Request) {
		var routes zarpa.Routes
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRoutes)).Decode(&routes)
		if err != nil {
			err = zarpa.Errorf(zarpa.Invalid, "routes: %w", err)
		} else {
			err = g.SetRoutes(r.Context(), routes)
		}
		if err != nil {
			httpx.WriteError(w, r, httpx.API, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /-/routes", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, g.Routes())
	})
	mux.HandleFunc("GET /-/load", g.serveLoad)
	mux.HandleFunc("GET /-/self", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, g.self)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.registry, promhttp.HandlerOpts{}))
	return mux
}

func (g *Gateway) serveLoad(w http.ResponseWriter, r *http.Request) {
	load, err := func() (zarpa.Load, error) {
		q := r.URL.Query()
		wake, err := strconv.ParseInt(cmp.Or(q.Get("wake"), "0"), 10, 64)
		if err != nil {
			return zarpa.Load{}, zarpa.Errorf(zarpa.Invalid, "wake: %.40q is not a number", q.Get("wake"))
		}
		wait, err := time.ParseDuration(cmp.Or(q.Get("wait"), "0"))
		if err != nil {
			return zarpa.Load{}, zarpa.Errorf(zarpa.Invalid, "wait: %.40q is not a duration", q.Get("wait")).WithHint("write 500ms or 10s")
		}
		return g.Load(r.Context(), wake, min(wait, MaxLoadWait))
	}()
	if err != nil {
		httpx.WriteError(w, r, httpx.API, err)
		return
	}
	writeJSON(w, http.StatusOK, load)
}

// ControlClient speaks to a gateway over its control socket. It may be used by many goroutines.
type ControlClient struct {
	http *http.Client
}

var (
	_ zarpa.Router = (*ControlClient)(nil)
	_ zarpa.Loader = (*ControlClient)(nil)
)

// controlTimeout bounds an answer: a gateway takes routes in milliseconds; one that hangs is
// unavailable.
const controlTimeout = 10 * time.Second

// NewControlClient returns a client of the Unix socket at path; nothing is connected yet.
func NewControlClient(path string) *ControlClient {
	return &ControlClient{http: &http.Client{
		Transport: &http.Transport{
			MaxIdleConns: 1, IdleConnTimeout: 10 * time.Second,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// SetRoutes returns when the gateway uses the routes. Errors: unavailable when it cannot be
// reached; those of [Gateway.SetRoutes].
func (c *ControlClient) SetRoutes(ctx context.Context, r zarpa.Routes) error {
	b, err := json.Marshal(r)
	if err != nil {
		return zarpa.AsError(err)
	}
	return c.do(ctx, question{method: http.MethodPut, path: "/-/routes", body: b}, nil)
}

// Routes are those that the gateway uses.
func (c *ControlClient) Routes(ctx context.Context) (zarpa.Routes, error) {
	var r zarpa.Routes
	return r, c.do(ctx, question{method: http.MethodGet, path: "/-/routes"}, &r)
}

// Self decodes into v what the gateway says of itself.
func (c *ControlClient) Self(ctx context.Context, v any) error {
	return c.do(ctx, question{method: http.MethodGet, path: "/-/self"}, v)
}

// Load is [Gateway.Load] of the gateway, which waits [MaxLoadWait] at most. Errors: unavailable when it
// cannot be reached.
func (c *ControlClient) Load(ctx context.Context, wake int64, wait time.Duration) (zarpa.Load, error) {
	q := url.Values{"wake": {strconv.FormatInt(wake, 10)}, "wait": {wait.String()}}
	var l zarpa.Load
	return l, c.do(ctx, question{method: http.MethodGet, path: "/-/load?" + q.Encode(), wait: max(0, wait)}, &l)
}

// Close closes unused connections.
func (c *ControlClient) Close() { c.http.CloseIdleConnections() }

// question is one that the gateway is asked.
type question struct {
	method, path string
	body         []byte
	wait         time.Duration // that the gateway may take beside [controlTimeout]
}

func (c *ControlClient) do(ctx context.Context, q question, out any) error {
	within, cancel := context.WithTimeout(ctx, controlTimeout+q.wait)
	defer cancel()
	req, err := http.NewRequestWithContext(within, q.method, "http://gateway"+q.path, bytes.NewReader(q.body))
	if err != nil {
		return zarpa.AsError(err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return zarpa.AsError(ctx.Err())
		}
		return zarpa.Errorf(zarpa.Unavailable, "the gateway cannot be reached").Because(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxRoutes))
	if err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "the gateway's answer broke off").Because(err)
	}
	if res.StatusCode >= 400 {
		e := &zarpa.Error{}
		if json.Unmarshal(b, e) != nil || e.Message == "" {
			return zarpa.Errorf(zarpa.CodeFromHTTP(res.StatusCode), "the gateway answered %s", res.Status)
		}
		return e
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return zarpa.Errorf(zarpa.Internal, "the gateway's answer cannot be read").Because(err)
	}
	return nil
}
