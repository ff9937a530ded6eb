package gateway

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// appendHead writes the head of the request to a replica. Names and values that could begin
// another field are left out: HTTP/2 and later readers are not trusted to have refused them.
// length is that of the body; -1 sends it in chunks. There is never both a length and chunks.
func (ex *exchange) appendHead(b []byte, length int64, now time.Time) []byte {
	r := ex.r
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, ex.match.path...)
	if r.URL.RawQuery != "" {
		b = append(b, '?')
		b = append(b, r.URL.RawQuery...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, ex.host()...)
	drop := named(r.Header["Connection"])
	for name, values := range r.Header {
		if ours(name) || drop[name] || !plainName(name) {
			continue
		}
		for _, v := range values {
			if plainValue(v) {
				b = appendField(b, name, v)
			}
		}
	}
	// The ids of the gateway's log are those of the replica's.
	b = appendField(b, "X-Request-Id", httpx.ID(r.Context()))
	for _, name := range [...]string{"X-Ms-Request-Id", "X-Ms-Client-Request-Id"} {
		if v := r.Header[name]; len(v) == 1 && plainValue(v[0]) {
			b = appendField(b, name, v[0])
		}
	}
	if ex.copied {
		b = appendField(b, headerMirror, "true")
	}
	b = ex.appendForwarded(b)
	b = append(b, "\r\nZarpa-Timeout-Ms: "...)
	b = strconv.AppendInt(b, max(1, ex.deadline.Sub(now).Milliseconds()), 10)
	switch {
	case ex.upgrade:
		b = append(b, "\r\nConnection: Upgrade\r\nUpgrade: websocket"...)
	case length < 0:
		b = append(b, "\r\nTransfer-Encoding: chunked"...)
	case length > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		b = append(b, "\r\nContent-Length: "...)
		b = strconv.AppendInt(b, length, 10)
	}
	return append(b, "\r\n\r\n"...)
}

// appendField begins with the line end of the field before.
func appendField(b []byte, name, value string) []byte {
	b = append(b, "\r\n"...)
	b = append(b, name...)
	b = append(b, ": "...)
	return append(b, value...)
}

// appendForwarded tells who asked and how. What a client says in X-Forwarded-For stays to the left
// of its own address: only the last entry is the gateway's word.
func (ex *exchange) appendForwarded(b []byte) []byte {
	peer, _, err := net.SplitHostPort(ex.r.RemoteAddr)
	if err != nil {
		peer = ""
	}
	before := ex.r.Header["X-Forwarded-For"]
	if peer != "" || len(before) > 0 {
		b = append(b, "\r\nX-Forwarded-For: "...)
		for _, v := range before {
			if plainValue(v) {
				b = append(append(b, v...), ", "...)
			}
		}
		if peer == "" {
			peer = "unknown"
		}
		b = append(b, peer...)
	}
	proto := "http"
	if ex.r.TLS != nil {
		proto = "https"
	}
	b = appendField(b, "X-Forwarded-Proto", proto)
	return appendField(b, "X-Forwarded-Host", ex.host())
}

func (ex *exchange) host() string {
	h := ex.r.Host
	if h == "" || strings.ContainsAny(h, " ,/\\") || !plainValue(h) {
		return ex.match.endpoint
	}
	return h
}
