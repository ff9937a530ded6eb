package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
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
	if g.access != nil {
		ex.counted.ResponseWriter = w
		ex.w = &ex.counted
	}
	defer ex.finish()
	steps := [...]func(*exchange) *zarpa.Error{
		(*exchange).route,
		(*exchange).authenticate,
		(*exchange).enter,
		(*exchange).receive,
		(*exchange).deliver,
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

// deliver sends the request to one replica, or to every one.
func (ex *exchange) deliver() *zarpa.Error {
	ex.trace.read = ex.lap() - ex.trace.auth
	if ex.match.everywhere && ex.r.Method == http.MethodPost {
		return ex.broadcast()
	}
	if err := ex.queue(); err != nil {
		return err
	}
	ex.mirror()
	return ex.forward()
}

func (ex *exchange) route() *zarpa.Error {
	var err *zarpa.Error
	current := ex.g.current.Load()
	if ex.match, err = matchRequest(ex.r, current.hosts); err != nil {
		return err
	}
	switch ex.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		ex.refuse(http.StatusMethodNotAllowed, zarpa.Errorf(zarpa.Invalid, "method %.20q is not allowed", ex.r.Method))
		return nil
	}
	if ex.match.own != nil {
		ex.match.own(ex)
		return nil
	}
	ex.rule = current.rules[ex.match.endpoint]
	if ex.rule == nil {
		return unknownEndpoint(ex.match.style, ex.match.endpoint)
	}
	ex.upgrade = upgrade(ex.r)
	ex.share()
	return nil
}

func (ex *exchange) authenticate() *zarpa.Error {
	var err *zarpa.Error
	if ex.who, err = ex.rule.authenticate(ex.r.Header, ex.w.Header(), ex.start); err != nil {
		return ex.rule.pool.reject("unauthenticated", err)
	}
	ex.trace.auth = ex.lap()
	return nil
}

// queue takes a replica, waiting for one as long as the endpoint allows.
func (ex *exchange) queue() *zarpa.Error {
	ex.wait = ask{
		deployment: ex.pinned(), since: time.Now(), wait: ex.rule.wait, deadline: ex.deadline,
		spot: ex.rule.spot(ex.who, ex.r.Header.Get),
	}
	return ex.acquire()
}

// pinned is the deployment that the request names.
func (ex *exchange) pinned() string {
	if name := ex.r.Header.Get("Azureml-Model-Deployment"); name != "" {
		return name
	}
	return ex.r.Header.Get("Zarpa-Deployment")
}

func (ex *exchange) acquire() *zarpa.Error {
	began := ex.lap()
	r, err := ex.rule.pool.acquire(ex.r.Context(), ex.wait)
	ex.trace.queue += ex.lap() - began
	if err != nil {
		ex.ending = refused
		if err.Code == zarpa.Timeout {
			return ex.rule.timeoutError()
		}
		return err
	}
	ex.replica, ex.series = r, r.in.series
	return nil
}

func (ru *rule) timeoutError() *zarpa.Error {
	return zarpa.Errorf(zarpa.Timeout, "Scoring timeout after %d ms", ru.timeout.Milliseconds()).
		WithHint("the endpoint's request_timeout sets the limit")
}

// fail answers an error in the form of the route's protocol.
func (ex *exchange) fail(err *zarpa.Error) {
	ex.blame(err.Code)
	if err.Code == zarpa.Canceled {
		ex.status, ex.cut = statusLeft, true
		return
	}
	if (err.Code == zarpa.TooLarge || err.Code == zarpa.Timeout) && ex.r.ProtoMajor == 1 { // HTTP/2 ends the one request; its connection has others
		ex.w.Header().Set("Connection", "close") // the rest of the body is not waited for
	}
	ex.refuse(failureStatus(ex.statuses(), err, ex.w.Header()), err)
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

func answerHealthy(ex *exchange) {
	ex.status = http.StatusOK
	ex.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = ex.w.Write([]byte("Healthy")) // as in writeJSON
}

func answerServer(ex *exchange) {
	ex.status = http.StatusOK
	writeJSON(ex.w, ex.status, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{"zarpa", ex.g.version, extensions()})
}

func answerLive(ex *exchange) {
	ex.status = http.StatusOK
	writeJSON(ex.w, ex.status, map[string]bool{"live": true})
}

// answerReady is 503 before the first routes came and while the gateway drains.
func answerReady(ex *exchange) {
	ready := ex.g.ready()
	ex.status = http.StatusOK
	if !ready {
		ex.status = http.StatusServiceUnavailable
	}
	writeJSON(ex.w, ex.status, map[string]bool{"ready": ready})
}

// finish counts the request and gives back what it holds.
func (ex *exchange) finish() {
	ex.release()
	took := time.Since(ex.start)
	ex.count(took)
	if ex.g.debug {
		ex.log(took)
	}
	if ex.g.access != nil {
		ex.logAccess(took)
	}
	if ex.cut {
		panic(http.ErrAbortHandler) // what net/http wants for ending the connection without an answer's end
	}
}

// count counts a request that ended, once.
func (ex *exchange) count(took time.Duration) {
	switch {
	case ex.series != nil:
		ex.series.count(ex.status, took)
		switch {
		case ex.status == statusLeft && ex.ending != refused:
			ex.ending = gaveUp
		case ex.status == http.StatusSwitchingProtocols && ex.ending == served:
			ex.ending = talked
		}
		ex.series.counts.settle(ex.ending, took)
	case ex.rule != nil:
		ex.g.metrics.requests.WithLabelValues(ex.rule.name, "", strconv.Itoa(ex.status)).Inc()
		if ex.status == statusLeft {
			ex.g.metrics.canceled.WithLabelValues(ex.rule.name, "").Inc()
		}
	case ex.match.own == nil:
		ex.g.metrics.requests.WithLabelValues("", "", strconv.Itoa(ex.status)).Inc()
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
