package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// think is the pause of a caller between two requests: the load shall find gaps, not fill the machine.
const think = 8 * time.Millisecond

// callTimeout is longer than the gateway's own limit would ever be reached here.
const callTimeout = 30 * time.Second

// The classes of answers.
const (
	answered  = "ok"
	noGateway = "no gateway" // refused, or broken off
	noReplica = "503 no replica"
	brokeOff  = "502 replica died"
)

// failure is one prediction that failed.
type failure struct {
	endpoint   string
	start, end time.Time
	class      string
	detail     string
}

// caller is one endpoint under load: what to send, what must come back, and whether to.
type caller struct {
	endpoint string
	body     string
	right    func(answer []byte) bool

	// mu is held for reading while a request is under way, so that whoever holds it for writing
	// knows that none is.
	mu  sync.RWMutex
	key string
	on  bool
}

// set changes key and state once no request is under way.
func (c *caller) set(on bool, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on, c.key = on, key
}

// load sends predictions to all callers' endpoints until it is stopped.
type load struct {
	base string
	http *http.Client
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	count    map[string]int // by class
	failures []failure      // not yet explained
}

func newLoad(ctx context.Context, gateway string) (*load, context.Context) {
	l := &load{base: "http://" + gateway, count: map[string]int{}}
	l.http = &http.Client{Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	ctx, l.stop = context.WithCancel(ctx)
	return l, ctx
}

// run lets a number of workers call an endpoint.
func (l *load) run(ctx context.Context, c *caller, workers int) {
	for range workers {
		l.done.Go(func() {
			for pause(ctx, think) {
				l.once(ctx, c)
			}
		})
	}
}

func (l *load) once(ctx context.Context, c *caller) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.on {
		return
	}
	start := time.Now()
	class, detail := l.predict(ctx, l.http, c, c.key)
	end := time.Now()
	if ctx.Err() != nil {
		return // the end of the test cut it off
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count[class]++
	if class != answered {
		l.failures = append(l.failures, failure{c.endpoint, start, end, class, detail})
	}
}

// prediction is one request.
type prediction struct{ url, key, body string }

// post sends it and reads its answer to the end.
func (p prediction) post(ctx context.Context, via *http.Client) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, strings.NewReader(p.body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	resp, err := via.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// predict sends one request and classifies what came of it.
func (l *load) predict(ctx context.Context, via *http.Client, c *caller, key string) (class, detail string) {
	status, body, err := prediction{l.base + "/endpoints/" + c.endpoint + "/score", key, c.body}.post(ctx, via)
	switch {
	case err != nil:
		return classOf(err), err.Error()
	case status == http.StatusOK && c.right(body):
		return answered, ""
	case status == http.StatusOK:
		return "wrong answer", string(body)
	case status == http.StatusBadGateway, status == http.StatusFailedDependency:
		return brokeOff, http.StatusText(status) + " " + string(body)
	case status == http.StatusServiceUnavailable && strings.Contains(string(body), "No ready replicas"):
		return noReplica, string(body)
	}
	return fmt.Sprintf("status %d", status), string(body)
}

// classOf tells a connection that was refused or broke off, which only an absent gateway explains,
// from an answer that never came.
func classOf(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "timeout"
	}
	return noGateway
}

// counts are the predictions so far that were answered, and those that failed.
func (l *load) counts() (ok, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for class, n := range l.count {
		if class == answered {
			ok += n
		} else {
			failed += n
		}
	}
	return ok, failed
}

// take returns the failures since the last call.
func (l *load) take() []failure {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.failures
	l.failures = nil
	return f
}

// fresh is a client whose every request has a connection of its own.
func fresh() *http.Client {
	return &http.Client{Timeout: callTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
}

// same compares an answer with the wanted JSON, whatever its layout.
func same(want string) func([]byte) bool {
	normal := func(b []byte) string {
		var v any
		if json.Unmarshal(b, &v) != nil {
			return "not JSON: " + string(b)
		}
		out, _ := json.Marshal(v) // decoded a moment ago
		return string(out)
	}
	want = normal([]byte(want))
	return func(b []byte) bool { return normal(b) == want }
}
