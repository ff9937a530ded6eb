package gateway

import (
	"net/http"
	"strconv"

	"github.com/zarpa-dev/zarpa"
)

// The headers of [zarpa.StatusV2].
const (
	headerErrorStatus = "Ms-Azureml-Model-Error-Statuscode"
	headerErrorReason = "Ms-Azureml-Model-Error-Reason"
)

// statuses is the mapping that holds for the request.
func (ex *exchange) statuses() zarpa.StatusCodes {
	if ex.rule == nil || !ex.match.original {
		return zarpa.StatusStandard
	}
	return ex.rule.statuses
}

// failureStatus is the status for a failure that the gateway itself answers.
func failureStatus(s zarpa.StatusCodes, err *zarpa.Error, h http.Header) int {
	if err.Code == zarpa.ModelError { // a replica that broke
		if s == zarpa.StatusV2 {
			return modelError(http.StatusBadGateway, err.Message, h)
		}
		return http.StatusBadGateway
	}
	if s == zarpa.StatusV2 {
		switch err.Code {
		case zarpa.Overloaded:
			return http.StatusTooManyRequests
		case zarpa.Timeout:
			return http.StatusRequestTimeout
		default:
		}
	}
	return err.Code.HTTPStatus()
}

// answerStatus is the status for what a replica answered. Its own overload and its own time limit
// are no errors of the model.
func answerStatus(s zarpa.StatusCodes, a *answer, h http.Header) int {
	switch {
	case s == zarpa.StatusV1 && (a.status == http.StatusFailedDependency || a.status == http.StatusInternalServerError):
		return http.StatusBadGateway // the original's front end did so with the 500 of a script
	case s != zarpa.StatusV2 || a.status < 300:
		return a.status
	case a.status == http.StatusServiceUnavailable && a.overload():
		return http.StatusTooManyRequests
	case a.status == http.StatusGatewayTimeout:
		return http.StatusRequestTimeout
	}
	return modelError(a.status, http.StatusText(a.status), h)
}

func modelError(status int, reason string, h http.Header) int {
	h.Set(headerErrorStatus, strconv.Itoa(status))
	h.Set(headerErrorReason, reason)
	return http.StatusFailedDependency
}

// overload tells a replica that is full from a model that says it is unavailable.
func (a *answer) overload() bool {
	retry, failed := false, false
	for _, f := range a.fields {
		switch f.name {
		case "Retry-After":
			retry = true
		case "X-Ms-Run-Function-Failed":
			failed = f.value != "False"
		}
	}
	return retry && !failed
}
