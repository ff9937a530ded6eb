package gateway

import (
	"errors"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// answer is the head of a replica's answer.
type answer struct {
	status  int
	fields  []field
	length  int64 // of the body; -1 when it is not said
	chunked bool
	last    bool // the connection ends with this answer
	old     bool // HTTP/1.0, which has no chunks
	shared  bool // the gateway says which origins may read it
}

type field struct{ name, value string } // the name in its canonical form

// The ways in which a head can be wrong.
var (
	errHead        = errors.New("the replica's answer is not HTTP/1.1")
	errHeadTooLong = errors.New("the head of the replica's answer is too long")
)

// parseHead reads the head of an answer: all up to and with the empty line. It is strict, because
// what two parsers read differently is how answers are smuggled: CRLF line ends, no folded lines,
// no space before a colon, one length only. RFC 9112, sections 4 to 6.
func parseHead(text string, a *answer) error {
	line, rest, ok := strings.Cut(text, "\r\n")
	if !ok || !a.statusLine(line) {
		return errHead
	}
	a.length, a.chunked = -1, false
	a.fields = a.fields[:0]
	for {
		line, rest, ok = strings.Cut(rest, "\r\n")
		if !ok {
			return errHead
		}
		if line == "" {
			break
		}
		f, ok := parseField(line)
		if !ok || !a.framing(f) {
			return errHead
		}
		a.fields = append(a.fields, f)
	}
	if rest != "" || a.chunked && a.length >= 0 {
		return errHead
	}
	return nil
}

func (a *answer) statusLine(line string) bool {
	// HTTP/1.1 200 OK; the reason and the space before it may be missing
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.") || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return false
	}
	if line[7] != '0' && line[7] != '1' || !plainValue(line) {
		return false
	}
	a.old = line[7] == '0'
	a.last = a.old
	a.status = 0
	for _, c := range []byte(line[9:12]) {
		if c < '0' || c > '9' {
			return false
		}
		a.status = a.status*10 + int(c-'0')
	}
	return a.status >= 100 && a.status < 600
}

// framing takes note of the fields that say where the body ends.
func (a *answer) framing(f field) bool {
	switch f.name {
	case "Content-Length":
		n, ok := parseLength(f.value)
		if !ok || a.length >= 0 && a.length != n {
			return false
		}
		a.length = n
	case "Transfer-Encoding":
		if a.chunked || a.old || !strings.EqualFold(f.value, "chunked") {
			return false
		}
		a.chunked = true
	case "Connection":
		for token := range strings.SplitSeq(f.value, ",") {
			if strings.EqualFold(strings.Trim(token, " \t"), "close") {
				a.last = true
			}
		}
	}
	return true
}

// bodyless tells answers that have no body whatever their fields say. RFC 9112, section 6.3.
func (a *answer) bodyless(method string) bool {
	return method == http.MethodHead || a.status < 200 || a.status == http.StatusNoContent || a.status == http.StatusNotModified
}

func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func parseField(line string) (field, bool) {
	i := strings.IndexByte(line, ':')
	if i <= 0 || !plainName(line[:i]) {
		return field{}, false
	}
	value := strings.Trim(line[i+1:], " \t")
	if !plainValue(value) {
		return field{}, false
	}
	return field{textproto.CanonicalMIMEHeaderKey(line[:i]), value}, true
}

// plainName reports whether s is a token of RFC 9110.
func plainName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letterOrDigit := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letterOrDigit && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// plainValue refuses control characters: CR and LF would begin another field.
func plainValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// hop reports whether a field is about one connection only, or is one that the gateway writes
// itself in both directions. The name is in its canonical form.
func hop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Proxy-Authentication-Info", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Content-Length",
		"X-Request-Id", "X-Ms-Request-Id", "X-Ms-Client-Request-Id":
		return true
	}
	return false
}

// ours reports whether a request's field is replaced or kept from replicas.
func ours(name string) bool {
	switch name {
	case "Authorization", "Host", "Expect", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Zarpa-Timeout-Ms", headerMirror:
		return true
	}
	return hop(name)
}

// named collects what Connection fields name as being about one connection; nil, at no cost, for
// the usual ones.
func named(connection []string) map[string]bool {
	var out map[string]bool
	for _, v := range connection {
		if strings.EqualFold(v, "keep-alive") || strings.EqualFold(v, "close") {
			continue
		}
		for token := range strings.SplitSeq(v, ",") {
			if out == nil {
				out = map[string]bool{}
			}
			out[textproto.CanonicalMIMEHeaderKey(strings.Trim(token, " \t"))] = true
		}
	}
	return out
}

// copyFields gives a client the fields that are for it.
func (a *answer) copyFields(h http.Header, status int) {
	var connection []string
	for _, f := range a.fields {
		if f.name == "Connection" {
			connection = append(connection, f.value)
		}
	}
	drop := named(connection)
	values := make([]string, len(a.fields)) // one allocation for all
	for i, f := range a.fields {
		if a.shared && strings.HasPrefix(f.name, "Access-Control-") {
			continue
		}
		if hop(f.name) || drop[f.name] || f.name == "Traceid" && h[f.name] != nil { // which was echoed here
			continue
		}
		if before := h[f.name]; before != nil {
			h[f.name] = append(before, f.value)
			continue
		}
		values[i] = f.value
		h[f.name] = values[i : i+1 : i+1]
	}
	if h["Content-Type"] == nil && status != http.StatusNoContent && status != http.StatusNotModified {
		h["Content-Type"] = nil // do not guess one
	}
}
