package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// statusLeft is counted, not sent: the client left before its answer.
const statusLeft = 499

// serve answers one request that has its ids. The steps are in their order: nothing is read of a body before the
// key was checked, and no replica is taken before a small body is there.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	ex := &exchange{g: g, w: w, r: r, start: time.Now(), match: match{style: httpx.Score}}
	defer ex.finish()
	steps := [...]func(*exchange) *zarpa.Error{
		(*exchange).route,
		(*exchange).authenticate,
		(*exchange).receive,
		(*exchange).queue,
		(*exchange).forward,
	}
	for _, step := range steps {
		if err := step(ex); err != nil {
			ex.fail(err)
		}
		if ex.status != 0 {
			return
		}
	}
}

func (ex *exchange) route() *zarpa.Error {
	var err *zarpa.Error
	if ex.match, err = matchRequest(ex.r); err != nil {
		return err
	}
	switch ex.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		ex.refuse(http.StatusMethodNotAllowed, zarpa.Errorf(zarpa.Invalid, "method %.20q is not allowed", ex.r.Method))
		return nil
	}
	if ex.match.own != nil {
		ex.status = ex.match.own(ex.g, ex.w)
		return nil
	}
	ex.rule = ex.g.current.Load().rules[ex.match.endpoint]
	if ex.rule == nil {
		return unknownEndpoint(ex.match.style, ex.match.endpoint)
	}
	// Other protocols are offers (h2c from ordinary clients), which HTTP lets a server leave aside.
	if strings.EqualFold(ex.r.Header.Get("Upgrade"), "websocket") {
		ex.refuse(http.StatusNotImplemented, zarpa.Errorf(zarpa.Invalid, "WebSocket connections are not served here").
			WithHint("send the request without an Upgrade header"))
	}
	return nil
}

func (ex *exchange) authenticate() *zarpa.Error {
	err := ex.rule.authenticate(ex.r.Header, ex.w.Header())
	if err != nil {
		return ex.rule.pool.reject("unauthenticated", err)
	}
	return nil
}

// queue takes a replica, waiting for one as long as the endpoint allows.
func (ex *exchange) queue() *zarpa.Error {
	ex.wait.deployment = ex.r.Header.Get("Azureml-Model-Deployment")
	if ex.wait.deployment == "" {
		ex.wait.deployment = ex.r.Header.Get("Zarpa-Deployment")
	}
	ex.wait.until = time.Now().Add(ex.rule.wait)
	return ex.acquire()
}

func (ex *exchange) acquire() *zarpa.Error {
	a := ex.wait
	if a.until.After(ex.deadline) {
		a.until = ex.deadline
	}
	r, err := ex.rule.pool.acquire(ex.r.Context(), a)
	if err != nil {
		if err.Code != zarpa.NotFound && !time.Now().Before(ex.deadline) {
			return ex.timeoutError()
		}
		return err
	}
	ex.replica, ex.series = r, r.in.series
	return nil
}

func (ex *exchange) timeoutError() *zarpa.Error {
	return zarpa.Errorf(zarpa.Timeout, "Scoring timeout after %d ms", ex.rule.timeout.Milliseconds()).
		WithHint("the endpoint's request_timeout sets the limit")
}

// fail answers an error in the form of the route's protocol.
func (ex *exchange) fail(err *zarpa.Error) {
	switch err.Code {
	case zarpa.Canceled:
		ex.status, ex.cut = statusLeft, true
	case zarpa.ModelError:
		ex.refuse(http.StatusBadGateway, err) // the original's answer for a replica that broke
	case zarpa.TooLarge, zarpa.Timeout:
		ex.w.Header().Set("Connection", "close") // the rest of the body is not waited for
		fallthrough
	default:
		ex.refuse(err.Code.HTTPStatus(), err)
	}
}

// refuse answers an error with a status of its own.
func (ex *exchange) refuse(status int, err *zarpa.Error) {
	ex.status = status
	httpx.WriteError(ex.w, ex.r, ex.match.style, httpx.WithStatus(err, status))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"an internal error happened"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that left is seen by the server
}

func answerHealthy(_ *Gateway, w http.ResponseWriter) int {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("Healthy"))
	return http.StatusOK
}

func answerServer(g *Gateway, w http.ResponseWriter) int {
	writeJSON(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{"zarpa", g.version, []string{}})
	return http.StatusOK
}

func answerLive(_ *Gateway, w http.ResponseWriter) int {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return http.StatusOK
}

// answerReady is 503 before the first routes came and while the gateway drains.
func answerReady(g *Gateway, w http.ResponseWriter) int {
	ready := g.current.Load().routes.Revision > 0 && !g.draining.Load()
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]bool{"ready": ready})
	return status
}

// finish counts the request and gives back what it holds.
func (ex *exchange) finish() {
	ex.release()
	took := time.Since(ex.start)
	switch {
	case ex.series != nil:
		ex.series.count(ex.status, took)
	case ex.rule != nil:
		ex.g.metrics.requests.WithLabelValues(ex.rule.name, "", strconv.Itoa(ex.status)).Inc()
		if ex.status == statusLeft {
			ex.g.metrics.canceled.WithLabelValues(ex.rule.name, "").Inc()
		}
	case ex.match.own == nil:
		ex.g.metrics.requests.WithLabelValues("", "", strconv.Itoa(ex.status)).Inc()
	}
	if ex.g.debug {
		ex.log(took)
	}
	if ex.cut {
		panic(http.ErrAbortHandler) // what net/http wants for ending the connection without an answer's end
	}
}

func (ex *exchange) log(took time.Duration) {
	deployment := ""
	if ex.series != nil {
		deployment = ex.series.deployment
	}
	ex.g.log.LogAttrs(context.WithoutCancel(ex.r.Context()), slog.LevelDebug, "request", slog.String("request_id", httpx.ID(ex.r.Context())),
		slog.String("method", ex.r.Method), slog.String("path", ex.r.URL.Path), slog.Int("status", ex.status),
		slog.String("endpoint", ex.match.endpoint), slog.String("deployment", deployment), slog.Duration("took", took))
}
