// Package grpcx holds what every gRPC face of Zarpa does in one way: the table between error codes
// and gRPC's, the form of an error, and messages that are handed on as bytes. It knows no methods.
package grpcx

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
)

// table is the one table between the codes. For either direction the first row that fits counts.
//
// UNAVAILABLE is what clients of the field send again, so it stands only for requests that no model
// has worked on. UNKNOWN is what servers written with gRPC's libraries say when their code raised.
var table = []struct {
	code zarpa.Code
	grpc codes.Code
}{
	{zarpa.Invalid, codes.InvalidArgument},
	{zarpa.Invalid, codes.FailedPrecondition},
	{zarpa.Invalid, codes.OutOfRange},
	{zarpa.Invalid, codes.Unimplemented},
	{zarpa.Unauthenticated, codes.Unauthenticated},
	{zarpa.Denied, codes.PermissionDenied},
	{zarpa.NotFound, codes.NotFound},
	{zarpa.Conflict, codes.Aborted},
	{zarpa.Conflict, codes.AlreadyExists},
	{zarpa.TooLarge, codes.ResourceExhausted},
	{zarpa.Unavailable, codes.Unavailable},
	{zarpa.Overloaded, codes.Unavailable},
	{zarpa.Timeout, codes.DeadlineExceeded},
	{zarpa.ModelError, codes.Unknown},
	{zarpa.Canceled, codes.Canceled},
	{zarpa.Internal, codes.Internal},
	{zarpa.Internal, codes.DataLoss},
}

// Code is the gRPC code that answers a failure of class c.
func Code(c zarpa.Code) codes.Code {
	for _, row := range table {
		if row.code == c {
			return row.grpc
		}
	}
	return codes.Internal
}

// FromCode is the class of a failure that a gRPC peer answered with c; not for OK.
func FromCode(c codes.Code) zarpa.Code {
	for _, row := range table {
		if row.grpc == c {
			return row.code
		}
	}
	return zarpa.Internal
}

// Status turns an error of a handler, unary or of a stream, into what gRPC sends: the code of the
// table and "message (hint)". What is a gRPC status already stays as it is, and nil stays nil. Of
// an internal error with a cause nothing is shown; the caller logs it.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if !errors.As(err, new(*zarpa.Error)) {
		var s interface{ GRPCStatus() *status.Status }
		if errors.As(err, &s) {
			return s.GRPCStatus().Err()
		}
	}
	e := zarpa.AsError(err)
	text := e.Error()
	if e.Code == zarpa.Internal && e.Err != nil {
		text = "an internal error happened (see the server's log for the request id)"
	}
	return status.Error(Code(e.Code), text)
}

// FromStatus turns what a gRPC call returned into an error of the class that its code stands for;
// the message is the peer's. nil stays nil.
func FromStatus(err error) *zarpa.Error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return zarpa.AsError(err)
	}
	return zarpa.Errorf(FromCode(s.Code()), "%s", s.Message()).Because(err)
}

// names are the codes as the gRPC specification spells them.
var names = [...]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE",
	codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE",
	codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
}

// Name is a gRPC code as the specification spells it, for labels of metrics: NOT_FOUND. A number
// that is no code is UNKNOWN.
func Name(c codes.Code) string {
	if int(c) < len(names) {
		return names[c]
	}
	return names[codes.Unknown]
}
