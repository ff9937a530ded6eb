package zarpa

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Code names a class of failure. One table maps every code to its HTTP status and to the exit
// code of the command line, and back.
type Code string

// The codes, in the order of the table in ARCHITECTURE.md.
const (
	Invalid         Code = "invalid"         // the input is wrong; sending it again will not help
	Unauthenticated Code = "unauthenticated" // no credentials, or wrong ones
	Denied          Code = "denied"          // known, but not allowed
	NotFound        Code = "not_found"       // the named thing does not exist
	Conflict        Code = "conflict"        // another operation, or another version, is in the way
	TooLarge        Code = "too_large"       // over a stated limit
	Overloaded      Code = "overloaded"      // try again after Error.RetryAfter
	Timeout         Code = "timeout"         // a stated time limit passed
	ModelError      Code = "model_error"     // the model or its code failed
	Unavailable     Code = "unavailable"     // a part that is needed is not there now
	Canceled        Code = "canceled"        // the caller left
	Internal        Code = "internal"        // a defect or a broken machine
)

// codes is the one error table: code, HTTP status, exit code.
var codes = []struct {
	code   Code
	status int
	exit   int
}{
	{Invalid, http.StatusBadRequest, 2},
	{Unauthenticated, http.StatusUnauthorized, 3},
	{Denied, http.StatusForbidden, 4},
	{NotFound, http.StatusNotFound, 5},
	{Conflict, http.StatusConflict, 6},
	{TooLarge, http.StatusRequestEntityTooLarge, 7},
	{Overloaded, http.StatusServiceUnavailable, 8},
	{Overloaded, http.StatusTooManyRequests, 8},
	{Timeout, http.StatusGatewayTimeout, 9},
	{Timeout, http.StatusRequestTimeout, 9},
	{ModelError, http.StatusFailedDependency, 10},
	{ModelError, http.StatusBadGateway, 10},
	{Unavailable, http.StatusServiceUnavailable, 11},
	{Canceled, 499, 130},
	{Internal, http.StatusInternalServerError, 1},
}

// Codes lists every code once, in the order of the table.
func Codes() []Code {
	var out []Code
	for i, row := range codes {
		if i == 0 || codes[i-1].code != row.code {
			out = append(out, row.code)
		}
	}
	return out
}

// HTTPStatus is the status that answers a failure of this class. The canceled code answers 499,
// which nobody reads: the caller has left.
func (c Code) HTTPStatus() int {
	for _, row := range codes {
		if row.code == c {
			return row.status
		}
	}
	return http.StatusInternalServerError
}

// ExitCode is the process exit code of the command line for a failure of this class.
func (c Code) ExitCode() int {
	for _, row := range codes {
		if row.code == c {
			return row.exit
		}
	}
	return 1
}

// CodeFromHTTP is the code for an HTTP status of 400 or more, for answers of which no more is known:
// [CodeFromAnswer] tells the two meanings of 503 apart.
func CodeFromHTTP(status int) Code {
	for _, row := range codes {
		if row.status == status {
			return row.code
		}
	}
	if status >= 400 && status < 500 {
		return Invalid
	}
	return Internal
}

// CodeFromAnswer is the code for an HTTP answer of 400 or more whose body carries none. A 503 that
// says when to try again (Retry-After) is overloaded, another one unavailable.
func CodeFromAnswer(status int, header http.Header) Code {
	if status == http.StatusServiceUnavailable && header.Get("Retry-After") == "" {
		return Unavailable
	}
	return CodeFromHTTP(status)
}

// Error is the failure that users see. Message says what was wrong and names the field; Hint
// says what to do about it, and is empty where there is no way out. Err is the cause: it goes to
// the log, never to a remote user.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// Operation is the identity of the operation in the way of a conflict.
	Operation string `json:"operation,omitempty"`
	// RequestID is filled in where an error is written to a client.
	RequestID string `json:"request_id,omitempty"`
	// RetryAfter is how long to wait before trying again; zero says nothing.
	RetryAfter time.Duration `json:"-"`
	Err        error         `json:"-"`
}

// Errorf makes an Error. A %w verb in the format sets the cause and, as in fmt.Errorf, its text
// is part of the message: leave the cause out of the format and use [Error.Because] when its
// text is not for the user.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint returns a copy with a hint: what the reader can do now.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Because returns a copy with a cause that is logged but not shown.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Error is the message, with the hint behind it.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an Error of the same code, so that
// errors.Is(err, zarpa.ErrNotFound) holds for every not_found.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// ErrNotFound and ErrConflict are for errors.Is: they match any Error of their code.
var (
	ErrNotFound error = &Error{Code: NotFound}
	ErrConflict error = &Error{Code: Conflict}
)

// AsError finds the Error in err. What has none becomes one: a passed deadline is a timeout, a
// canceled context is canceled, and anything else is internal, its text kept as the cause only.
// AsError(nil) is nil.
func AsError(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Timeout, Message: "the time limit passed", Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Message: "the request was canceled", Err: err}
	}
	return &Error{Code: Internal, Message: "an internal error happened", Hint: "see the server's log for the request id", Err: err}
}
