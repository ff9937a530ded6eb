package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/zarpa-dev/zarpa/internal/grpcx"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

const (
	// accessBuffer is how much of the access log waits to be written, in bytes; further lines are
	// dropped and counted, because no request waits for a disk.
	accessBuffer = 1 << 20
	// accessEvery is how long lines are gathered before they are written in one piece.
	accessEvery = 100 * time.Millisecond
	// accessEnd is how long the last lines may take at the gateway's end.
	accessEnd = time.Second
	// maxLoggedPath bounds what a client's path may take of a line.
	maxLoggedPath = 1 << 10
)

// accessLog gathers the lines of the access log. A request appends its line to memory; run writes them.
type accessLog struct {
	out     io.Writer
	log     *slog.Logger
	dropped prometheus.Counter
	scratch sync.Pool     // of *[]byte, lines in the making
	begun   chan struct{} // of one: a line waits
	hurry   chan struct{} // of one: the buffer is half full

	mu    sync.Mutex
	lines []byte
}

// newAccessLog is nil for a nil out.
func newAccessLog(out io.Writer, log *slog.Logger, dropped prometheus.Counter) *accessLog {
	if out == nil {
		return nil
	}
	return &accessLog{
		out: out, log: log, dropped: dropped, begun: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		scratch: sync.Pool{New: func() any { return new([]byte) }},
	}
}

// run writes lines until ctx ends, and then those that are left. It is called once.
func (l *accessLog) run(ctx context.Context) {
	var spare []byte
	failing := false
	timer := time.NewTimer(accessEvery)
	defer timer.Stop()
	for over := false; !over; {
		select {
		case <-l.begun:
			timer.Reset(accessEvery)
			select {
			case <-timer.C:
			case <-l.hurry:
			case <-ctx.Done():
			}
		case <-ctx.Done():
			over = true
		}
		l.mu.Lock()
		batch := l.lines
		l.lines = spare[:0]
		l.mu.Unlock()
		spare = batch
		if len(batch) == 0 {
			continue
		}
		_, err := l.out.Write(batch)
		if err != nil {
			l.dropped.Add(float64(bytes.Count(batch, []byte("\n"))))
			if !failing {
				l.log.LogAttrs(ctx, slog.LevelWarn, "the access log cannot be written; lines are lost", slog.Any("error", err))
			}
		}
		failing = err != nil
	}
}

// add appends a request's line, or drops it.
func (l *accessLog) add(e entry) {
	scratch, _ := l.scratch.Get().(*[]byte)
	*scratch = e.append((*scratch)[:0])
	l.mu.Lock()
	before := len(l.lines)
	fits := before+len(*scratch) <= accessBuffer
	if fits {
		l.lines = append(l.lines, *scratch...)
	}
	after := len(l.lines)
	l.mu.Unlock()
	l.scratch.Put(scratch)
	switch {
	case !fits:
		l.dropped.Inc()
	case before == 0:
		signal(l.begun)
	case before < accessBuffer/2 && after >= accessBuffer/2:
		signal(l.hurry)
	}
}

// signal leaves a sign in a channel of one, if there is none.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// trace is what a request's line tells of its way. queue and upstream are sums over all tries.
type trace struct {
	auth, read, queue, upstream time.Duration
	replica                     string // the last one that it was sent to
	tries                       int
}

// entry is one line.
type entry struct {
	at                     time.Time // of the arrival
	requestID              string
	endpoint, deployment   string
	method, path, protocol string
	status                 int
	code                   string // gRPC's; status is 0 then
	in, out                int64
	trace                  trace
	total                  time.Duration
	mirrored               bool
	client                 string
	key                    string
}

// append writes the entry as one line of JSON.
func (e *entry) append(b []byte) []byte {
	text := func(name, value string) {
		b = append(b, `","`...)
		b = append(b, name...)
		b = append(b, `":"`...)
		b = appendText(b, value)
	}
	number := func(name string, n int64) {
		b = append(b, `,"`...)
		b = append(b, name...)
		b = append(b, `":`...)
		b = strconv.AppendInt(b, n, 10)
	}
	millis := func(name string, d time.Duration) {
		b = append(b, `,"`...)
		b = append(b, name...)
		b = append(b, `_ms":`...)
		b = strconv.AppendFloat(b, float64(d.Microseconds())/1000, 'f', -1, 64)
	}
	b = append(b, `{"time":"`...)
	b = e.at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	text("request_id", e.requestID)
	text("endpoint", e.endpoint)
	text("deployment", e.deployment)
	text("replica", e.trace.replica)
	text("method", e.method)
	text("path", e.path[:min(len(e.path), maxLoggedPath)])
	text("protocol", e.protocol)
	text("client", e.client)
	text("key", e.key)
	if e.code != "" {
		text("code", e.code)
	}
	b = append(b, '"')
	if e.code == "" {
		number("status", int64(e.status))
	}
	number("bytes_in", e.in)
	number("bytes_out", e.out)
	millis("auth", e.trace.auth)
	millis("read", e.trace.read)
	millis("queue", e.trace.queue)
	millis("upstream", e.trace.upstream)
	millis("total", e.total)
	number("retries", int64(max(0, e.trace.tries-1)))
	b = append(b, `,"mirrored":`...)
	b = strconv.AppendBool(b, e.mirrored)
	return append(b, "}\n"...)
}

// appendText writes the inside of a JSON string. Nearly all are plain.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string: cannot fail
			return append(b, quoted[1:len(quoted)-1]...)
		}
	}
	return append(b, s...)
}

// lap is the time since the arrival, for the access log; 0 when there is none.
func (ex *exchange) lap() time.Duration {
	if ex.g.access == nil {
		return 0
	}
	return time.Since(ex.start)
}

// logAccess writes the request's line.
func (ex *exchange) logAccess(took time.Duration) {
	e := entry{
		at: ex.start, requestID: httpx.ID(ex.r.Context()), endpoint: ex.match.endpoint,
		method: ex.r.Method, path: ex.r.URL.Path, protocol: ex.r.Proto, status: ex.status,
		in: ex.size, out: ex.counted.n, trace: ex.trace, total: took, mirrored: ex.mirrored, client: host(ex.r.RemoteAddr),
	}
	if ex.series != nil {
		e.deployment = ex.series.deployment
	}
	if ex.rule != nil {
		e.key = ex.rule.keyName(ex.who, ex.r.Header["Authorization"])
	}
	ex.g.access.add(e)
}

func host(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
}

// counting is a response writer that counts the bytes of the body.
type counting struct {
	http.ResponseWriter
	n int64
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}

// Unwrap is for [http.ResponseController].
func (c *counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *call) lap() time.Duration {
	if c.g.access == nil {
		return 0
	}
	return time.Since(c.start)
}

func (c *call) logAccess(code codes.Code, took time.Duration) {
	e := entry{
		at: c.start, requestID: c.ids.request, method: http.MethodPost, path: c.path, protocol: "grpc", code: grpcx.Name(code),
		in: c.received.Load(), out: c.sent.Load(), trace: c.trace, total: took, mirrored: c.mirrored,
	}
	if p, ok := peer.FromContext(c.stream.Context()); ok {
		e.client = host(p.Addr.String())
	}
	if c.series != nil {
		e.deployment = c.series.deployment
	}
	if c.rule != nil {
		e.endpoint, e.key = c.rule.name, c.rule.keyName(c.who, c.in[metaKey])
	}
	c.g.access.add(e)
}

// keyName says which of an endpoint's keys a caller has, or whose token; empty for neither. It is no
// secret, and never the key.
func (ru *rule) keyName(who identity, authorization []string) string {
	if ru.open || who == (identity{}) {
		return ""
	}
	for i, name := range [...]string{"primary", "secondary"} {
		if i < len(ru.keys) && who == ru.keys[i] {
			return name
		}
	}
	return ru.tokenSubject(authorization)
}
