// Package httpx holds what every HTTP face of Zarpa does in one way: errors, request ids, bodies
// with a limit, strict JSON, and a server with time limits that drains. It knows no routes.
package httpx

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// Style is the form of an error's body.
type Style uint8

// The styles, by who reads them.
const (
	// API is the whole [zarpa.Error]: code, message, hint, operation, request_id.
	API Style = iota
	// Inference is the Open Inference Protocol's {"error": "message (hint)"}.
	Inference
	// Score is the /score contract's {"message": "message (hint)"}.
	Score
)

// statusError is an error whose HTTP status is not the one of its code.
type statusError struct {
	err    *zarpa.Error
	status int
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// WithStatus gives an error a status that its code does not have in the error table, for what
// only HTTP knows: 405, 415, 431.
func WithStatus(err *zarpa.Error, status int) error { return &statusError{err, status} }

// Status is the HTTP status that answers err.
func Status(err error) int {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status
	}
	return zarpa.AsError(err).Code.HTTPStatus()
}

// jsonType is shared by all answers; nobody writes to it.
var jsonType = []string{"application/json"}

// WriteError answers a request with err in the given style, with Retry-After in whole seconds
// when the error says when to try again. Of an internal error with a cause nothing but the
// request id is shown. The cause of a failure (status 500 and above, and a failed model) goes
// to the log that [RequestID] was given, once; so the caller does not log it.
func WriteError(w http.ResponseWriter, r *http.Request, style Style, err error) {
	status := Status(err)
	e := shown(r, err, status)
	h := w.Header()
	h["Content-Type"] = jsonType
	delete(h, "Content-Length")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(status)
	// a client that has left does not get the body, and nothing can be done about it
	_, _ = w.Write(errorBody(style, &e))
}

// ErrorEvent is err as a server-sent event in the [Inference] style, for an answer that has begun:
// "data: {…}" and the end of the line, after which the caller ends the event. The cause goes to the
// log as in [WriteError].
func ErrorEvent(r *http.Request, err error) []byte {
	e := shown(r, err, Status(err))
	return append([]byte("data: "), errorBody(Inference, &e)...)
}

// shown is what a client sees of err, after the log got the rest.
func shown(r *http.Request, err error, status int) zarpa.Error {
	e := *zarpa.AsError(err)
	e.RequestID = ID(r.Context())
	report(r, &e, status)
	if e.Code == zarpa.Internal && e.Err != nil {
		e.Message, e.Hint = "an internal error happened", "see the server's log for the request id"
	}
	return e
}

func errorBody(style Style, e *zarpa.Error) []byte {
	key := `{"error":`
	switch style {
	case API:
		body, _ := json.Marshal(e) // strings only: cannot fail
		return append(body, '\n')
	case Score:
		key = `{"message":`
	default: // what is left follows
	}
	text := e.Error()
	body, ok := tensorjson.AppendString([]byte(key), text)
	if !ok { // names and numbers out of the request may be no UTF-8
		body, _ = tensorjson.AppendString([]byte(key), strconv.Quote(text))
	}
	return append(body, '}', '\n')
}

func report(r *http.Request, e *zarpa.Error, status int) {
	log := logger(r.Context())
	if log == nil || e.Code == zarpa.Canceled || e.Code == zarpa.Overloaded {
		return
	}
	level := slog.LevelWarn
	switch {
	case e.Code == zarpa.Internal:
		level = slog.LevelError
	case e.Code == zarpa.ModelError: // which is what the log is asked for
	case status < http.StatusInternalServerError, e.Err == nil:
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", e.RequestID), slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.Int("status", status), slog.String("message", e.Message),
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("cause", e.Err.Error()))
	}
	log.LogAttrs(r.Context(), level, "request failed", attrs...)
}

// Recover answers a panic of next as an internal error, whose log entry has the stack.
func Recover(style Style, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				WriteError(w, r, style, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		next.ServeHTTP(w, r)
	})
}
