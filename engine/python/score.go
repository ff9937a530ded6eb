package python

import (
	"bytes"
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// scriptSession is a loaded scoring script.
type scriptSession struct {
	*session
	batches *gatherer // nil for a script that takes one request at a time
}

var (
	_ zarpa.Session = (*scriptSession)(nil)
	_ zarpa.Scorer  = (*scriptSession)(nil)
)

func newScriptSession(s *session) *scriptSession {
	script := &scriptSession{session: s}
	if s.hello.Batch && s.opts.MaxBatch > 1 {
		script.batches = &gatherer{s: s}
	}
	return script
}

// Signature is empty: a script takes what it likes.
func (s *scriptSession) Signature() zarpa.Signature { return zarpa.Signature{} }

// Run is invalid: a script answers requests of /score, not tensors.
func (s *scriptSession) Run(ctx context.Context, _ []zarpa.Tensor, _ []string) ([]zarpa.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, zarpa.AsError(err)
	}
	return nil, zarpa.Errorf(zarpa.Invalid, "the model is a scoring script, which takes no tensors").
		WithHint("send the request to /score")
}

// Swagger is the description that the script's decorators, or its own files, give.
func (s *scriptSession) Swagger(version string) ([]byte, error) {
	known := map[string]string{"2": "2", "2.0": "2", "3": "3", "3.0": "3", "3.1": "3.1"}[version]
	if text, ok := s.hello.Swagger[known]; ok {
		return []byte(text), nil
	}
	there := strings.Join(slices.Sorted(maps.Keys(s.hello.Swagger)), ", ")
	if known != "" {
		return nil, zarpa.Errorf(zarpa.NotFound, "Swagger version [%s] is not supported for the scoring script. Supported swagger versions: [%s].", version, there)
	}
	return nil, zarpa.Errorf(zarpa.NotFound, "Swagger version [%.40s] is not valid. Supported versions: [%s].", version, there)
}

// Score answers a request as [zarpa.Scorer] says.
func (s *scriptSession) Score(w http.ResponseWriter, r *http.Request, body []byte) error {
	ctx := r.Context()
	q := request{timeoutMS: remaining(ctx, time.Now()), method: r.Method, query: r.URL.RawQuery, body: body}
	if s.hello.Headers {
		q.headers = appendHeaders(nil, r)
	} else if t := r.Header.Get("Content-Type"); t != "" {
		q.headers = appendHeader(nil, "Content-Type", t)
	}
	if err := q.check(); err != nil {
		return err
	}
	a := &answer{w: w, method: r.Method}
	if s.batches != nil {
		result, err := s.batches.ask(ctx, &q, requestID(r))
		if err != nil {
			return err
		}
		return a.whole(result)
	}
	err := s.ask(ctx, question{
		kind: kindScore, request: requestID(r), stream: a.part, check: a.last,
		parts: net.Buffers{q.appendScore(make([]byte, 0, q.size()-len(body))), body},
	})
	if err != nil || a.streamed {
		return err
	}
	return a.whole(a.result)
}

// requestID is the request's id, for the log.
func requestID(r *http.Request) string {
	if id := httpx.ID(r.Context()); id != "" {
		return id
	}
	return r.Header.Get("X-Request-Id")
}

// remaining is the time until ctx's deadline in whole milliseconds, rounded up; 0 is no deadline.
func remaining(ctx context.Context, now time.Time) uint32 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	left := max(deadline.Sub(now)+time.Millisecond-1, time.Millisecond) / time.Millisecond
	return uint32(min(left, 1<<32-1))
}

// appendHeaders writes all headers of a request, in an order that does not change, Host first.
func appendHeaders(b []byte, r *http.Request) []byte {
	b = appendHeader(b, "Host", r.Host)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range r.Header[name] {
			b = appendHeader(b, name, value)
		}
	}
	return b
}

// appendHeader writes one header. Its bytes are the wire's latin-1 as they came.
func appendHeader(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	if strings.ContainsAny(value, "\r\n") { // net/http lets none in
		value = strings.NewReplacer("\r", " ", "\n", " ").Replace(value)
	}
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// answer writes what a worker answered to the client.
type answer struct {
	w      http.ResponseWriter
	method string
	// streamed says that the answer comes in parts, and has begun; else it is result.
	streamed bool
	result   result
}

// whole writes a result that came in one piece.
func (a *answer) whole(r result) error {
	if err := a.head(r); err != nil {
		return err
	}
	if mayHaveBody(r.status) {
		a.w.Header()["Content-Length"] = []string{strconv.Itoa(len(r.body))}
	}
	a.w.WriteHeader(r.status)
	if a.method != http.MethodHead && mayHaveBody(r.status) {
		_, _ = a.w.Write(r.body) // a client that has left needs no answer
	}
	return nil
}

func mayHaveBody(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// ours are headers that the connection has, not the answer.
var ours = map[string]bool{"Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Keep-Alive": true, "Upgrade": true, "Trailer": true}

// head fills the headers in: those of the script, and the run headers of the scoring contract.
func (a *answer) head(r result) error {
	if r.status < 200 || r.status > 599 {
		return zarpa.Errorf(zarpa.ModelError, "the script answered with status %d", r.status).
			WithHint("use a status from 200 to 599")
	}
	h := a.w.Header()
	set := map[string]bool{}
	for line := range bytes.SplitSeq(r.headers, []byte("\r\n")) {
		name, value, ok := bytes.Cut(line, []byte(": "))
		if !ok {
			continue
		}
		key := http.CanonicalHeaderKey(string(name))
		switch {
		case ours[key]:
		case set[key]:
			h[key] = append(h[key], string(value))
		default:
			set[key] = true
			h[key] = []string{string(value)}
		}
	}
	if r.flags&flagNoRunHeaders == 0 {
		failed := "False"
		if r.flags&flagRunFailed != 0 {
			failed = "True"
		}
		h["X-Ms-Run-Function-Failed"] = []string{failed}
	}
	if r.flags&flagExecTime != 0 {
		h["X-Ms-Run-Fn-Exec-Ms"] = []string{strconv.FormatFloat(r.execMS, 'f', 3, 64)}
	}
	return nil
}

// part takes the parts of a streamed answer: the result first, then pieces of its body. Each leaves at
// once: somebody may wait for it.
func (a *answer) part(f frame) error {
	if f.kind == kindResult {
		r, err := parseResult(f.payload)
		if err != nil {
			return err
		}
		if err := a.head(r); err != nil {
			return err
		}
		a.streamed = true
		a.w.WriteHeader(r.status)
	} else if a.method != http.MethodHead {
		if _, err := a.w.Write(f.payload); err != nil {
			return err
		}
	}
	return http.NewResponseController(a.w).Flush()
}

// last reads the answer, or the end of a streamed one: the script may have failed in the middle of it.
func (a *answer) last(f frame) (err error) {
	if f.kind != kindEnd {
		a.result, err = parseResult(f.payload)
		return err
	}
	var end failed
	if err := decodeJSON(f.payload, &end); err != nil {
		return err
	}
	if end.Error == "" {
		return nil
	}
	return zarpa.Errorf(zarpa.ModelError, "the script failed in the middle of its answer: %s", bounded(end.Error)).
		Because(pythonError(end.Traceback))
}
