package oip

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// wire sends requests byte by byte as they are written: paths that no library would let through, bodies without a
// length. Each request has a connection of its own.
type wire struct {
	secure  *tls.Config // nil without TLS
	address string      // HOST:PORT to connect to
	host    string      // of the Host header
	prefix  string      // path before /v2
	header  http.Header // sent with every request
	timeout time.Duration
}

// framing is how the end of a body is told.
type framing int

const (
	sized   framing = iota // Content-Length, where there is a body
	chunked                // Transfer-Encoding: chunked, in pieces of a few bytes
	bare                   // neither: the request has no body
)

// request is one request. The path begins with /v2 and is sent as it is.
type request struct {
	method  string
	path    string
	header  []string // name, value, name, value
	body    []byte
	framing framing
}

// answer is one answer, its body unpacked.
type answer struct {
	status   int
	header   http.Header
	body     []byte
	encoding string // what the body came in: "", "gzip" or "deflate"
}

func newWire(t Target) (*wire, error) {
	u, err := url.Parse(t.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, zarpa.Errorf(zarpa.Invalid, "url: %q is no http URL", t.URL).WithHint("write where /v2 is, such as http://127.0.0.1:8000")
	}
	prefix := strings.TrimSuffix(u.EscapedPath(), "/")
	w := &wire{host: u.Host, address: u.Host, prefix: strings.TrimSuffix(prefix, "/v2"), header: t.Header, timeout: t.Timeout}
	port := "80"
	if u.Scheme == "https" {
		port = "443"
		w.secure = t.TLS.Clone()
		if w.secure == nil {
			w.secure = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if w.secure.ServerName == "" {
			w.secure.ServerName = u.Hostname()
		}
	}
	if u.Port() == "" {
		w.address = net.JoinHostPort(u.Hostname(), port)
	}
	return w, nil
}

func (w *wire) dial(ctx context.Context) (net.Conn, error) {
	if w.secure != nil {
		return (&tls.Dialer{Config: w.secure}).DialContext(ctx, "tcp", w.address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", w.address)
}

// do sends a request and reads its answer.
func (w *wire) do(ctx context.Context, r request) (answer, error) {
	list, err := w.doAll(ctx, []request{r})
	if err != nil {
		return answer{}, err
	}
	return list[0], nil
}

// doAll sends requests over one connection, each after the answer to the one before.
func (w *wire) doAll(ctx context.Context, requests []request) ([]answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	conn, err := w.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }() // all was read, or the reading failed
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	in := bufio.NewReader(io.LimitReader(conn, int64(len(requests))*maxAnswer))
	var list []answer
	for i, r := range requests {
		sent := make(chan error, 1)
		text := w.text(r, i == len(requests)-1)
		go func() { // an early refusal is read while the body is still on its way
			_, err := conn.Write(text)
			sent <- err
		}()
		a, err := w.read(in, r.method)
		if err != nil {
			_ = conn.Close() // lets the writer end
			err = errors.Join(err, <-sent)
			if ctx.Err() != nil {
				err = fmt.Errorf("no answer within %v", w.timeout)
			}
			return nil, err
		}
		if i < len(requests)-1 {
			if err := <-sent; err != nil {
				return nil, err
			}
		}
		list = append(list, a)
	}
	return list, nil
}

// text is the request as it goes over the wire.
func (w *wire) text(r request, last bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s%s HTTP/1.1\r\nHost: %s\r\n", r.method, w.prefix, r.path, w.host)
	for name, values := range w.header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	for i := 0; i+1 < len(r.header); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", r.header[i], r.header[i+1])
	}
	if last {
		b.WriteString("Connection: close\r\n")
	}
	switch {
	case r.framing == chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		writeChunks(&b, r.body)
	case r.framing == sized && (r.body != nil || r.method == http.MethodPost):
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(r.body))
		b.Write(r.body)
	default:
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

func writeChunks(b *bytes.Buffer, body []byte) {
	const size = 61 // no multiple of anything
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(b, "%x\r\n", n)
		b.Write(body[:n])
		b.WriteString("\r\n")
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
}

// read reads one answer, past those that only say to go on.
func (w *wire) read(in *bufio.Reader, method string) (answer, error) {
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return answer{}, errors.New("the connection was closed without an answer")
		} else if err != nil {
			return answer{}, fmt.Errorf("the answer is no HTTP: %w", err)
		}
		if resp.StatusCode >= 100 && resp.StatusCode < 200 {
			continue
		}
		a := answer{status: resp.StatusCode, header: resp.Header}
		a.body, err = readLimited(resp.Body)
		resp.Body.Close()
		if err != nil {
			return answer{}, fmt.Errorf("the answer broke off: %w", err)
		}
		return a, a.unpack()
	}
}

func readLimited(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("more than %v", zarpa.Bytes(maxAnswer))
	}
	return b, err
}

// unpack undoes the answer's Content-Encoding.
func (a *answer) unpack() error {
	a.encoding = strings.ToLower(a.header.Get("Content-Encoding"))
	var in io.Reader
	var err error
	switch a.encoding {
	case "", "identity":
		a.encoding = ""
		return nil
	case "gzip", "x-gzip":
		in, err = gzip.NewReader(bytes.NewReader(a.body))
	case "deflate":
		in, err = zlib.NewReader(bytes.NewReader(a.body))
		if err != nil { // some servers send it without zlib's frame
			in, err = flate.NewReader(bytes.NewReader(a.body)), nil
		}
	default:
		return fmt.Errorf("the answer came in the unknown encoding %q", a.encoding)
	}
	if err == nil {
		a.body, err = readLimited(in)
	}
	if err != nil {
		return fmt.Errorf("the answer cannot be unpacked from %s: %w", a.encoding, err)
	}
	return nil
}

// packed is a body in an encoding.
func packed(encoding string, body []byte) []byte {
	var b bytes.Buffer
	var out io.WriteCloser = gzip.NewWriter(&b)
	if encoding == "deflate" {
		out = zlib.NewWriter(&b)
	}
	_, _ = out.Write(body) // to memory
	_ = out.Close()
	return b.Bytes()
}

// said is the answer in one line: its status and the begin of its body.
func (a answer) said() string {
	s := strconv.Itoa(a.status)
	if body := strings.TrimSpace(string(a.body)); body != "" {
		s += " " + body
	}
	return clip(s)
}
