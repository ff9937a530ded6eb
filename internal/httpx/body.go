package httpx

import (
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/zarpa-dev/zarpa"
)

// firstRead bounds the memory taken for a body before any of it has arrived.
const firstRead = 1 << 20

// ReadBody reads the whole body into buf's memory, which grows as needed, and returns it; buf may
// be nil. Errors: too_large for more than limit bytes, whether announced or sent (the connection
// closes then), timeout when the client was too slow for the server's time limit, canceled when
// it left, invalid when the body broke off.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, buf []byte) ([]byte, error) {
	return ReadBodyAt(w, r, limit, Grow(buf, min(r.ContentLength, limit)))
}

// ReadBodyAt is ReadBody behind the bytes that buf has, which are kept and do not count.
func ReadBodyAt(w http.ResponseWriter, r *http.Request, limit int64, buf []byte) ([]byte, error) {
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close")
		return buf, tooLarge(limit)
	}
	lead := len(buf)
	buf, err := ReadAll(r.Body, limit, buf)
	if err == nil {
		return buf, nil
	}
	var network net.Error
	switch {
	case errors.As(err, new(*zarpa.Error)):
		w.Header().Set("Connection", "close")
		return buf, err
	case r.Context().Err() != nil:
		return buf, zarpa.AsError(r.Context().Err())
	case errors.As(err, &network) && network.Timeout():
		return buf, WithStatus(zarpa.Errorf(zarpa.Timeout, "request body: did not arrive in time"), http.StatusRequestTimeout)
	}
	return buf, zarpa.Errorf(zarpa.Invalid, "request body: broke off after %d bytes", len(buf)-lead).Because(err)
}

// Grow is buf, emptied, with room for an announced number of bytes (-1: unknown) and one more,
// so that the end is seen without growing again; never for more than 1 MiB, because an
// announcement costs its sender nothing.
func Grow(buf []byte, announced int64) []byte {
	if want := min(announced, firstRead) + 1; int64(cap(buf)) < want {
		return make([]byte, 0, want)
	}
	return buf[:0]
}

// ReadAll appends what src holds to buf; more than limit bytes of it is too_large.
func ReadAll(src io.Reader, limit int64, buf []byte) ([]byte, error) {
	most := int64(len(buf)) + limit
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > most:
			return buf, tooLarge(limit)
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

func tooLarge(limit int64) error {
	return zarpa.Errorf(zarpa.TooLarge, "request body: larger than the limit of %v bytes", zarpa.Bytes(limit)).
		WithHint("send less at a time, or raise max_body")
}
