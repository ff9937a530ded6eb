package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
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
	mux.HandleFunc("GET /-/self", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, g.self)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.registry, promhttp.HandlerOpts{}))
	return mux
}

// ControlClient brings routes to a gateway over its control socket. It may be used by many
// goroutines.
type ControlClient struct {
	http *http.Client
}

var _ zarpa.Router = (*ControlClient)(nil)

// NewControlClient returns a client of the Unix socket at path; nothing is connected yet.
func NewControlClient(path string) *ControlClient {
	return &ControlClient{http: &http.Client{
		Timeout: 10 * time.Second, // a gateway takes routes in milliseconds; one that hangs is unavailable
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
	return c.do(ctx, http.MethodPut, "/-/routes", bytes.NewReader(b), nil)
}

// Routes are those that the gateway uses.
func (c *ControlClient) Routes(ctx context.Context) (zarpa.Routes, error) {
	var r zarpa.Routes
	return r, c.do(ctx, http.MethodGet, "/-/routes", nil, &r)
}

// Self decodes into v what the gateway says of itself.
func (c *ControlClient) Self(ctx context.Context, v any) error {
	return c.do(ctx, http.MethodGet, "/-/self", nil, v)
}

// Close closes unused connections.
func (c *ControlClient) Close() { c.http.CloseIdleConnections() }

func (c *ControlClient) do(ctx context.Context, method, path string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, body)
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
