package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// The repository extension of the inference protocol. The gateway lists endpoints by itself, and
// hands what loads or unloads a model on to every replica of an endpoint: each holds its own models.

const (
	// maxIndex is the longest body of a question for the index.
	maxIndex = 64 << 10
	// indexTimeout bounds its arrival.
	indexTimeout = 10 * time.Second
	// abreast is how many replicas of an endpoint load or unload at a time.
	abreast = 16
)

// indexed is an endpoint in the index.
type indexed struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// index lists the endpoints that the caller may use, in the order of their names: those without a
// key, and those that the key opens. A key that opens none is an error.
func (s *snapshot) index(authorization []string, readyOnly bool) ([]indexed, *zarpa.Error) {
	now := time.Now()
	if len(authorization) > 0 && !s.opens(authorization, now) {
		return nil, zarpa.Errorf(zarpa.Unauthenticated, "the key opens no endpoint").
			WithHint("zarpa keys NAME prints the key; it may have been replaced")
	}
	out := []indexed{}
	for _, name := range slices.Sorted(maps.Keys(s.rules)) {
		ru := s.rules[name]
		if _, refused := ru.check(authorization, now); refused != nil {
			continue
		}
		entry := indexed{Name: name, State: "READY"}
		if !ru.pool.usable() {
			entry.State, entry.Reason = "UNAVAILABLE", "no replica is ready"
		}
		if entry.Reason == "" || !readyOnly {
			out = append(out, entry)
		}
	}
	return out, nil
}

// answerIndex answers /v2/repository/index. Clients ask with POST, also without a body, or GET.
func answerIndex(ex *exchange) {
	switch ex.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		ex.w.Header().Set("Allow", "GET, HEAD, POST")
		ex.refuse(http.StatusMethodNotAllowed, zarpa.Errorf(zarpa.Invalid, "method %.20q is not allowed", ex.r.Method))
		return
	}
	_ = http.NewResponseController(ex.w).SetReadDeadline(time.Now().Add(indexTimeout)) // a writer of tests has none
	body, err := httpx.ReadBody(ex.w, ex.r, maxIndex, nil)
	var question struct {
		Ready bool `json:"ready"`
	}
	if err == nil && len(bytes.TrimSpace(body)) > 0 {
		if json.Unmarshal(body, &question) != nil {
			err = zarpa.Errorf(zarpa.Invalid, "request body: not the JSON object that is expected").WithHint(`send {"ready": true}, {} or nothing`)
		}
	}
	if err != nil {
		ex.fail(zarpa.AsError(err))
		return
	}
	list, refused := ex.g.current.Load().index(ex.r.Header["Authorization"], question.Ready)
	if refused != nil {
		ex.w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		ex.fail(refused)
		return
	}
	_ = http.NewResponseController(ex.w).SetReadDeadline(time.Time{})
	ex.status = http.StatusOK
	writeJSON(ex.w, ex.status, list)
}

// repositoryIndex is answerIndex for gRPC.
func (c *call) repositoryIndex() error {
	var question inferencepb.RepositoryIndexRequest
	told, err := c.told()
	switch {
	case err != nil:
		return err
	case told && proto.Unmarshal(c.first.Bytes(), &question) != nil:
		return errMessage()
	}
	list, refused := c.g.current.Load().index(c.in[metaKey], question.GetReady())
	if refused != nil {
		return refused
	}
	answer := &inferencepb.RepositoryIndexResponse{}
	for _, e := range list {
		answer.Models = append(answer.Models, &inferencepb.RepositoryIndexResponse_ModelIndex{Name: e.Name, State: e.State, Reason: e.Reason})
	}
	return c.stream.SendMsg(answer)
}

// loads reports whether a replica takes an escaped path for one that loads or unloads a model: it
// decodes the path and leaves a last slash aside.
func loads(path string) bool {
	plain, err := url.PathUnescape(path)
	rest, ok := strings.CutPrefix(strings.TrimSuffix(plain, "/"), "/v2/repository/models/")
	return err == nil && ok && (strings.HasSuffix(rest, "/load") || strings.HasSuffix(rest, "/unload"))
}

// everyReplica takes a place, above the usual number if need be, at every replica that can be used
// of the deployments whose model_control lets clients load models: of one of them, where it is named.
func (p *pool) everyReplica(name string) ([]*replica, *zarpa.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	allowed, found := false, name == ""
	var all []*replica
	for _, d := range p.deployments {
		if name != "" && d.name != name {
			continue
		}
		found = true
		if d.control != zarpa.ModelControlExplicit {
			continue
		}
		allowed = true
		for _, key := range slices.Sorted(maps.Keys(d.replicas)) {
			if r := d.replicas[key]; r.listed || r.record.ejected != nil {
				d.occupy(r)
				all = append(all, r)
			}
		}
	}
	switch {
	case !found:
		return nil, p.noDeployment(name)
	case !allowed:
		return nil, zarpa.Errorf(zarpa.Invalid, "endpoint %s: its models are not loaded and unloaded by clients", p.endpoint).
			WithHint("set model_control: explicit on a deployment")
	case len(all) == 0:
		return nil, p.reject("no_replica", noReplica(p.endpoint))
	}
	return all, nil
}

// usable reports whether a replica can be used.
func (p *pool) usable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.deployments, func(d *deployment) bool { return d.usable > 0 })
}

// said is what one replica answered.
type said struct {
	status int
	header http.Header
	body   []byte
}

// broadcast sends the request to every replica and answers with the first failure, in the order of
// the replicas, or with the last success.
func (ex *exchange) broadcast() *zarpa.Error {
	ex.setPhase(reading)
	rest, err := io.ReadAll(io.LimitReader(ex.r.Body, ex.rule.maxBody-ex.size+1))
	ex.setPhase(working)
	body := append(bytes.Clone(ex.body), rest...)
	if int64(len(body)) > ex.rule.maxBody {
		return ex.tooLarge()
	}
	if err != nil {
		return ex.bodyError(err)
	}
	replicas, refused := ex.rule.pool.everyReplica(ex.pinned())
	if refused != nil {
		return refused
	}
	ctx, cancel := context.WithDeadlineCause(ex.r.Context(), ex.deadline, ex.rule.timeoutError())
	defer cancel()
	answers := make([]said, len(replicas))
	err = onEach(replicas, ex.rule.pool, func(i int, r *replica) (err error) {
		answers[i], err = ex.ask(ctx, r, body)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return zarpa.AsError(whyEnded(ctx))
		}
		return brokenReplica(err)
	}
	worst := answers[len(answers)-1]
	for _, a := range answers {
		if a.status >= http.StatusBadRequest {
			worst = a
			break
		}
	}
	ex.status = worst.status
	for _, name := range [...]string{"Content-Type", "Retry-After"} {
		if v := worst.header[name]; v != nil || name == "Content-Type" { // none: do not guess one
			ex.w.Header()[name] = v
		}
	}
	ex.w.WriteHeader(worst.status)
	_, _ = ex.w.Write(worst.body) // a client that left is seen by the server
	return nil
}

// onEach does something with each replica and gives its place back. All are done; the first error
// in their order is returned.
func onEach(replicas []*replica, p *pool, do func(i int, r *replica) error) error {
	errs := make([]error, len(replicas))
	var group errgroup.Group
	group.SetLimit(abreast)
	for i, r := range replicas {
		group.Go(func() error {
			defer p.release(r)
			errs[i] = do(i, r)
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs, in their order
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

// ask sends the request to one replica, on a connection of its own.
func (ex *exchange) ask(ctx context.Context, r *replica, body []byte) (said, error) {
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: MaxHead,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ex.g.dial.dial(ctx, &r.conns, ex.deadline)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://replica"+ex.match.path, bytes.NewReader(body))
	if err != nil {
		return said{}, err
	}
	drop := named(ex.r.Header["Connection"])
	for name, values := range ex.r.Header {
		if !ours(name) && !drop[name] {
			req.Header[name] = values
		}
	}
	req.Header.Set("X-Request-Id", httpx.ID(ex.r.Context()))
	res, err := transport.RoundTrip(req)
	if err != nil {
		return said{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, SmallBody))
	return said{res.StatusCode, res.Header, b}, err
}

// everywhere is broadcast for gRPC.
func (c *call) everywhere() error {
	replicas, refused := c.rule.pool.everyReplica(c.pinned())
	if refused != nil {
		return refused
	}
	ctx, cancel := context.WithDeadlineCause(c.stream.Context(), c.deadline, c.rule.timeoutError())
	defer cancel()
	out := c.outgoing(ctx)
	message := bytes.Clone(c.first.Bytes()) // an Invoke that ends early leaves it to gRPC, whose buffers go back before
	answers := make([]grpcx.Frame, len(replicas))
	err := onEach(replicas, c.rule.pool, func(i int, r *replica) error {
		up := &upstream{ctx: ctx, calls: &r.calls, deaths: r.calls.deaths.Load()}
		client, err := r.calls.get()
		if err == nil {
			err = client.Invoke(out, c.path, grpcx.NewFrame(message), &answers[i])
		}
		if err != nil {
			return up.failure(err)
		}
		return nil
	})
	defer func() {
		for i := range answers {
			answers[i].Free()
		}
	}()
	if err != nil {
		return err
	}
	if err := c.stream.SendMsg(&answers[len(answers)-1]); err != nil {
		return c.readError(err)
	}
	return nil
}
