package score

import (
	"net/http"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// Handler answers all routes:
//
//	POST /score                        a prediction, see dataForm
//	GET  /                             Healthy, as long as the process answers
//	GET  /swagger.json?version=        the description of the above, 2 (default), 3 or 3.1
//	GET  /v2[/]                        the server      GET /v2/health/{live,ready}
//	GET  /v2/models/M[/versions/V][/ready]             POST …/infer
//	GET  /metrics                      Prometheus      GET /-/self   Options.Self
//
// HEAD is answered wherever GET is.
func (s *Server) Handler() http.Handler {
	return httpx.RequestID(httpx.Score, s.opts.Log, httpx.Recover(httpx.Score, http.HandlerFunc(s.serve)))
}

// serve answers one request, counts it, and writes its error, all in one place.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w.Header()["X-Ms-Server-Version"] = s.version
	route, style := routeOther, httpx.Score
	var err error
	switch path := r.URL.Path; {
	case path == "/score":
		route = routeScore
		err = s.score(w, r)
		if err != nil {
			w.Header()["X-Ms-Run-Function-Failed"] = runFailed(err)
		}
	case path == "/v2" || strings.HasPrefix(path, "/v2/"):
		style = httpx.Inference
		if r.Method == http.MethodPost && strings.HasSuffix(path, "/infer") {
			route = routeInfer
		}
		err = s.inference(w, r, strings.TrimSuffix(strings.TrimPrefix(path, "/v2"), "/"))
	default:
		err = s.page(w, r, path)
	}
	if err != nil {
		httpx.WriteError(w, r, style, err)
	}
	s.metrics.observe(route, began, err)
}

// runFailed says whether it was the model that failed.
func runFailed(err error) []string {
	switch zarpa.AsError(err).Code {
	case zarpa.ModelError, zarpa.Timeout:
		return failedYes
	default: // what is left follows
	}
	return failedNo
}

func (s *Server) score(w http.ResponseWriter, r *http.Request) error {
	switch r.Method {
	case http.MethodPost:
		m, err := s.ready()
		if err != nil {
			return err
		}
		c := s.begin(m)
		defer s.end(c)
		return s.predict(w, r, c, dataForm{})
	case http.MethodOptions:
		w.Header()["Allow"] = []string{"POST, OPTIONS"}
		return nil
	}
	return notAllowed(w, r, "POST, OPTIONS")
}

// ready is the model, or why there is none. A drain does not refuse what has come all the same.
func (s *Server) ready() (*model, error) {
	if m := s.model.Load(); m != nil {
		return m, nil
	}
	return nil, &zarpa.Error{Code: zarpa.Unavailable, Message: "the model is still loading", Hint: "try again soon", RetryAfter: retryAfter}
}

func (s *Server) page(w http.ResponseWriter, r *http.Request, path string) error {
	switch path {
	case "/", "/metrics", "/swagger.json", "/-/self":
		if err := getOnly(w, r); err != nil {
			return err
		}
	}
	switch path {
	case "/":
		return answer(w, textType, []byte("Healthy"))
	case "/metrics":
		s.prom.ServeHTTP(w, r)
		return nil
	case "/swagger.json":
		return s.swagger(w, r)
	case "/-/self":
		return answer(w, jsonType, s.self)
	}
	return noPage(path)
}

func noPage(path string) error {
	return zarpa.Errorf(zarpa.NotFound, "path %.200q: not found", path).WithHint("see /swagger.json, or /v2/models/NAME for the inference protocol")
}

func getOnly(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	return notAllowed(w, r, "GET, HEAD")
}

func notAllowed(w http.ResponseWriter, r *http.Request, allow string) error {
	w.Header()["Allow"] = []string{allow}
	return httpx.WithStatus(zarpa.Errorf(zarpa.Invalid, "method %.20s: not allowed here", r.Method).WithHint("use %s", allow), http.StatusMethodNotAllowed)
}

func answer(w http.ResponseWriter, contentType []string, body []byte) error {
	w.Header()["Content-Type"] = contentType
	_, _ = w.Write(body) // a client that has left does not get it
	return nil
}

// inference answers the protocol's routes; path is without /v2 and without a last slash.
func (s *Server) inference(w http.ResponseWriter, r *http.Request, path string) error {
	if rest, ok := strings.CutPrefix(path, "/models/"); ok {
		return s.modelRoute(w, r, rest)
	}
	switch path {
	case "", "/health/live", "/health/ready":
		if err := getOnly(w, r); err != nil {
			return err
		}
	}
	switch path {
	case "":
		return answer(w, jsonType, s.about())
	case "/health/live":
		return answer(w, jsonType, []byte(`{"live":true}`))
	case "/health/ready":
		if err := s.readiness(); err != nil {
			return err
		}
		return answer(w, jsonType, []byte(`{"ready":true}`))
	}
	return noPage("/v2" + path)
}

func (s *Server) about() []byte {
	body, _ := tensorjson.AppendString([]byte(`{"name":"zarpa","version":`), s.opts.ServerVersion)
	return append(body, `,"extensions":[]}`...)
}

func (s *Server) readiness() error {
	if s.draining.Load() {
		return zarpa.Errorf(zarpa.Unavailable, "the replica is stopping")
	}
	_, err := s.ready()
	return err
}

// modelRoute answers M[/versions/V][/ready|/infer].
func (s *Server) modelRoute(w http.ResponseWriter, r *http.Request, rest string) error {
	name, verb, err := s.resolve(rest)
	if err != nil {
		return err
	}
	if verb == "infer" {
		if r.Method != http.MethodPost {
			return notAllowed(w, r, "POST")
		}
	} else if err := getOnly(w, r); err != nil {
		return err
	}
	if verb == "ready" {
		if err := s.readiness(); err != nil {
			return err
		}
	}
	m, err := s.ready()
	if err != nil {
		return err
	}
	quoted, _ := tensorjson.AppendString([]byte(`{"name":`), name)
	switch verb {
	case "infer":
		c := s.begin(m)
		defer s.end(c)
		c.name = name
		return s.predict(w, r, c, inferenceForm{})
	case "ready":
		return answer(w, jsonType, append(quoted, `,"ready":true}`...))
	}
	return answer(w, jsonType, append(append(quoted, ','), m.metadata[1:]...))
}

// resolve splits a model's path into its name, one that the server answers to, and the verb:
// "", "ready" or "infer". Clients leave a slash in a name as it is, so it is the known names
// that tell where the name ends.
func (s *Server) resolve(rest string) (name, verb string, err error) {
	for _, known := range s.names {
		tail, ok := strings.CutPrefix(rest, known)
		if !ok || tail != "" && tail[0] != '/' {
			continue
		}
		version, verb, ok := splitTail(tail)
		switch {
		case !ok:
			continue
		case version != "" && version != s.opts.ModelVersion:
			return "", "", zarpa.Errorf(zarpa.NotFound, "Request for unknown model: '%s' version %.40s is not found", known, version).
				WithHint("this replica serves version %s", s.opts.ModelVersion)
		}
		return known, verb, nil
	}
	for _, verb := range []string{"/infer", "/ready"} {
		rest = strings.TrimSuffix(rest, verb)
	}
	return "", "", zarpa.Errorf(zarpa.NotFound, "Request for unknown model: '%.200s' is not found", rest).
		WithHint("this replica serves %s", strings.Join(s.names, ", "))
}

// splitTail reads what follows a model's name: [/versions/V][/ready|/infer].
func splitTail(tail string) (version, verb string, ok bool) {
	if v, found := strings.CutPrefix(tail, "/versions/"); found {
		version, tail, found = strings.Cut(v, "/")
		if version == "" {
			return "", "", false
		}
		if found {
			tail = "/" + tail
		}
	}
	switch tail {
	case "":
		return version, "", true
	case "/ready", "/infer":
		return version, tail[1:], true
	}
	return "", "", false
}
