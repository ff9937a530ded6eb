package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// match is what a path says.
type match struct {
	style httpx.Style
	// endpoint is empty for the gateway's own paths.
	endpoint string
	// path is what the replica is asked for, escaped.
	path string
	// own answers one of the gateway's own paths and sets the status.
	own func(*exchange)
	// everywhere sends the request to every replica.
	everywhere bool
	// original tells the paths of the original service, whose statuses an endpoint may choose.
	original bool
}

// matchRequest finds the route of a request. The forms:
//
//	/endpoints/NAME                       → /              /v2/models/NAME/…           → as it is
//	/endpoints/NAME/                      → /              /api/v1/service/NAME        → /
//	/endpoints/NAME/score                 → /score         /api/v1/service/NAME/       → /
//	/endpoints/NAME/swagger.json          → /swagger.json  /api/v1/service/NAME/score  → /score
//	/endpoints/NAME/v2, /v2/…             → /v2, /v2/…     …/NAME/swagger.json         → /swagger.json
//	/endpoints/NAME/invocations, /ping, /health, /version  → the same, for clients of MLflow
//	/v2/repository/models/NAME/load, …/unload              → as it is, to every replica
//
// At an endpoint's own name what stands behind /endpoints/NAME stands at the top, and nothing else does.
//
// A replica answers to its endpoint's name as to its model's. NAME is percent-decoded once, here,
// and what does not name an endpoint is the same not_found as an endpoint that is not there.
func matchRequest(r *http.Request, own hosts) (match, *zarpa.Error) {
	path := r.URL.EscapedPath()
	if !plainQuery(r.URL.RawQuery) {
		return match{style: httpx.Score}, zarpa.Errorf(zarpa.Invalid, "the query holds a character that must be percent-encoded")
	}
	if endpoint := own.endpoint(r.Host); endpoint != "" {
		return matchHost(endpoint, path)
	}
	if rest, ok := strings.CutPrefix(path, "/endpoints/"); ok {
		return matchEndpoint(rest, path, true)
	}
	if rest, ok := strings.CutPrefix(path, "/v2/models/"); ok {
		segment, _, _ := strings.Cut(rest, "/")
		return matchModel(segment, path)
	}
	if rest, ok := strings.CutPrefix(path, "/api/v1/service/"); ok {
		return matchEndpoint(rest, path, false)
	}
	if loads(path) {
		segment, _, _ := strings.Cut(strings.TrimPrefix(path, "/v2/repository/models/"), "/")
		return matchModel(segment, path)
	}
	return matchOwn(path)
}

// matchModel is for the paths that name an endpoint as a model.
func matchModel(segment, path string) (match, *zarpa.Error) {
	m := match{style: httpx.Inference}
	name, ok := decodeName(segment)
	if !ok || dotted(path) {
		return m, unknownEndpoint(httpx.Inference, name)
	}
	m.endpoint, m.path, m.everywhere = name, path, loads(path)
	return m, nil
}

func matchEndpoint(rest, path string, oip bool) (match, *zarpa.Error) {
	segment, rest, slash := strings.Cut(rest, "/")
	m := match{style: httpx.Score, path: "/" + rest}
	isOIP := oip && slash && (rest == "v2" || strings.HasPrefix(rest, "v2/"))
	if isOIP {
		m.style = httpx.Inference
	}
	name, ok := decodeName(segment)
	m.endpoint = name
	switch {
	case !ok:
		return m, unknownEndpoint(m.style, name)
	case rest == "score":
		m.original = true
		return m, nil
	case rest == "", rest == "swagger.json":
		return m, nil
	case oip && (rest == "invocations" || rest == "ping" || rest == "health" || rest == "version"):
		m.original = rest == "invocations"
		return m, nil
	case isOIP && !dotted(m.path):
		m.everywhere = loads(m.path)
		return m, nil
	}
	return m, noPath(path)
}

func matchOwn(path string) (match, *zarpa.Error) {
	m := match{style: httpx.Inference}
	switch path {
	case "/", "":
		m.style, m.own = httpx.Score, answerHealthy
	case "/v2", "/v2/":
		m.own = answerServer
	case "/v2/repository/index":
		m.own = answerIndex
	case "/v2/health/live":
		m.own = answerLive
	case "/v2/health/ready":
		m.own = answerReady
	default:
		if !strings.HasPrefix(path, "/v2/") {
			m.style = httpx.Score
		}
		return m, noPath(path)
	}
	return m, nil
}

func decodeName(segment string) (string, bool) {
	name, err := url.PathUnescape(segment)
	if err != nil {
		return segment, false
	}
	return name, zarpa.ValidateName("endpoint", name) == nil
}

// dotted reports whether a path has "." or ".." segments, encoded or not: they could name another
// path at the replica than the one that was matched and authenticated here.
func dotted(path string) bool {
	if !strings.Contains(path, "/.") && !strings.Contains(path, "%2") {
		return false
	}
	for s := range strings.SplitSeq(path, "/") {
		if d, err := url.PathUnescape(s); err != nil || d == "." || d == ".." || strings.Contains(d, "/..") || strings.HasPrefix(d, "../") {
			return true
		}
	}
	return false
}

// plainQuery refuses what would break the request line towards a replica: HTTP/2 carries it here
// without a look.
func plainQuery(q string) bool {
	for i := range len(q) {
		if q[i] <= ' ' || q[i] == 0x7f {
			return false
		}
	}
	return true
}

func noPath(path string) *zarpa.Error {
	return zarpa.Errorf(zarpa.NotFound, "no such path: %.200s", path).
		WithHint("use /endpoints/NAME/score or /v2/models/NAME/infer")
}

// unknownEndpoint begins, towards clients of the inference protocol, as they expect it to.
func unknownEndpoint(s httpx.Style, name string) *zarpa.Error {
	if s == httpx.Inference {
		err := zarpa.Errorf(zarpa.NotFound, "Request for unknown model: '%.64s' is not found", name)
		if name == "stats" { // of all models at once, as other servers have them
			return err.WithHint("statistics are kept for each endpoint: /v2/models/NAME/stats")
		}
		return err
	}
	return zarpa.Errorf(zarpa.NotFound, "endpoint %.64q does not exist", name).WithHint("zarpa endpoint list shows those that do")
}
