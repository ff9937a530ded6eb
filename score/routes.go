package score

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// Handler answers all routes:
//
//	POST /score                        a prediction, see dataForm
//	POST /invocations                  one in MLflow's form, see invocationForm
//	GET  /                             Healthy, as long as the process answers
//	GET  /ping, /health, /version      MLflow's: a line feed when predictions are taken; the version
//	GET  /swagger.json?version=        the description of the above, 2 (default), 3 or 3.1
//	GET  /v2[/]                        the server      GET /v2/health/{live,ready}
//	GET  /v2/models/M[/versions/V][/{ready,config,stats}]
//	POST /v2/models/M[/versions/V]/{infer,generate,generate_stream}
//	GET  /v2/models/stats              POST /v2/repository/index, …/models/M/{load,unload}
//	GET  /metrics                      Prometheus      GET /-/self   Options.Self
//
// HEAD is answered wherever GET is. gRPC, by its Content-Type over HTTP/2, is answered beside them:
// the protocol's service, health and reflection.
func (s *Server) Handler() http.Handler {
	rest := httpx.RequestID(httpx.Score, s.opts.Log, httpx.Recover(httpx.Score, http.HandlerFunc(s.serve)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isGRPC(r) {
			s.carried(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// serve answers one request, counts it, and writes its error, all in one place.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w.Header()["X-Ms-Server-Version"] = s.version
	route, style := routeOther, httpx.Score
	var err error
	switch path := r.URL.Path; {
	case path == "/score":
		route, err = routeScore, s.score(w, r, dataForm{})
	case path == "/invocations":
		route, err = routeInvocations, s.score(w, r, invocationForm{})
	case path == "/v2" || strings.HasPrefix(path, "/v2/"):
		style = httpx.Inference
		route = predictionRoute(r)
		err = s.inference(w, r, strings.TrimSuffix(strings.TrimPrefix(path, "/v2"), "/"))
	default:
		err = s.page(w, r, path)
	}
	if err != nil && !errors.As(err, new(answeredError)) {
		if route == routeScore || route == routeInvocations {
			w.Header()["X-Ms-Run-Function-Failed"] = runFailed(err)
		}
		httpx.WriteError(w, r, style, err)
	}
	s.metrics.observe(route, began, err)
	if errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	}
}

// predictionRoute tells the protocol's predictions from its other routes.
func predictionRoute(r *http.Request) int {
	path := strings.TrimSuffix(r.URL.Path, "/")
	switch {
	case r.Method != http.MethodPost:
	case strings.HasSuffix(path, "/infer"):
		return routeInfer
	case strings.HasSuffix(path, "/generate"), strings.HasSuffix(path, "/generate_stream"):
		return routeGenerate
	}
	return routeOther
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

// score answers a path of the original service with the first model.
func (s *Server) score(w http.ResponseWriter, r *http.Request, form codec) error {
	if m := s.entries[0].model.Load(); m != nil && m.scorer != nil && form == (dataForm{}) {
		return s.script(w, r, m)
	}
	switch r.Method {
	case http.MethodPost:
		return s.answer(w, r, place{entry: s.entries[0], name: s.entries[0].Name}, form)
	case http.MethodOptions:
		w.Header()["Allow"] = []string{"POST, OPTIONS"}
		return nil
	}
	return notAllowed(w, r, "POST, OPTIONS")
}

// answer predicts with an entry's model. A drain does not refuse what has come all the same.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, p place, form codec) error {
	m, err := p.entry.ready()
	if err == nil {
		err = m.tensors()
	}
	if err != nil {
		return err
	}
	c := s.begin(m)
	defer s.end(c)
	c.name = p.name
	return s.predict(w, r, c, form)
}

func (s *Server) page(w http.ResponseWriter, r *http.Request, path string) error {
	switch path {
	case "/", "/metrics", "/swagger.json", "/-/self", "/ping", "/health", "/version":
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
	case "/version":
		return answer(w, textType, []byte(s.opts.ServerVersion))
	case "/ping", "/health": // of /invocations, and so of the first model
		if err := s.readiness(); err != nil {
			return err
		}
		if _, err := s.entries[0].ready(); err != nil {
			return err
		}
		return answer(w, jsonType, []byte("\n"))
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
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))} // else larger ones are sent in chunks
	_, _ = w.Write(body)                                             // a client that has left does not get it
	return nil
}

// inference answers the protocol's routes; path is without /v2 and without a last slash.
func (s *Server) inference(w http.ResponseWriter, r *http.Request, path string) error {
	if rest, ok := strings.CutPrefix(path, "/models/"); ok && (rest != "stats" || s.knows(rest)) {
		return s.modelRoute(w, r, rest)
	}
	if answered, err := s.extension(w, r, path); answered {
		return err
	}
	switch path {
	case "", "/health/live", "/health/ready", "/models/stats":
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
	case "/models/stats":
		return answer(w, jsonType, appendMessage(nil, s.allStatistics()))
	}
	return noPage("/v2" + path)
}

// extension answers the routes of the server's extensions, and says whether path was one.
func (s *Server) extension(w http.ResponseWriter, r *http.Request, path string) (answered bool, err error) {
	if rest, ok := strings.CutPrefix(path, "/repository/"); ok {
		return true, s.repository(w, r, "/"+rest)
	}
	if rest, ok := strings.CutPrefix(path, "/systemsharedmemory/"); ok {
		return true, s.sharedMemory(w, r, systemMemory, "/"+rest)
	}
	if rest, ok := strings.CutPrefix(path, "/cudasharedmemory/"); ok {
		return true, s.sharedMemory(w, r, cudaMemory, "/"+rest)
	}
	switch path {
	case "/trace/setting":
		return true, s.settings(w, r, "trace setting")
	case "/logging":
		return true, s.settings(w, r, "log setting")
	}
	return false, nil
}

const serverName = "zarpa"

// extensions are the protocol's words for what the server has beyond it.
func extensions() []string {
	return []string{
		"binary_tensor_data", "classification", "generate", "model_configuration", "model_repository",
		"model_repository(unload_dependents)", "parameters", "statistics",
	}
}

func (s *Server) about() []byte {
	return appendMessage(nil, &pb.ServerMetadataResponse{Name: serverName, Version: s.opts.ServerVersion, Extensions: extensions()})
}

// knows reports whether a model answers to a name.
func (s *Server) knows(name string) bool {
	_, err := s.find(name)
	return err == nil
}

// readiness is nil when the server takes predictions.
func (s *Server) readiness() error {
	switch {
	case s.draining.Load():
		return zarpa.Errorf(zarpa.Unavailable, "the replica is stopping")
	case s.started.Load():
		return nil
	}
	for _, e := range s.entries {
		if _, err := e.ready(); err != nil {
			return err
		}
	}
	return &zarpa.Error{Code: zarpa.Unavailable, Message: "the models are still loading", Hint: "try again soon", RetryAfter: retryAfter}
}

// place is where a request of a model's goes: the entry, the name it was called by, and the verb.
type place struct {
	entry *entry
	name  string
	verb  string
}

// verbs are what may follow /v2/models/M[/versions/V], with the methods that they take.
var verbs = map[string]struct {
	allow  string
	answer func(s *Server, w http.ResponseWriter, r *http.Request, p place) error
}{
	"":      {"GET, HEAD", (*Server).metadata},
	"ready": {"GET, HEAD", (*Server).modelReady},
	"infer": {"POST", (*Server).infer},

	"generate":        {"POST", (*Server).generate},
	"generate_stream": {"POST", (*Server).generateStream},

	"config":        {"GET, HEAD", (*Server).modelConfig},
	"stats":         {"GET, HEAD", (*Server).modelStats},
	"trace/setting": {"GET, HEAD, POST", (*Server).modelTrace},
}

// modelRoute answers M[/versions/V][/VERB].
func (s *Server) modelRoute(w http.ResponseWriter, r *http.Request, rest string) error {
	p, err := s.resolve(rest)
	if err != nil {
		return err
	}
	v := verbs[p.verb]
	for method := range strings.SplitSeq(v.allow, ", ") {
		if method == r.Method {
			return v.answer(s, w, r, p)
		}
	}
	return notAllowed(w, r, v.allow)
}

func (s *Server) metadata(w http.ResponseWriter, _ *http.Request, p place) error {
	m, err := p.entry.ready()
	if err != nil {
		return err
	}
	quoted, _ := tensorjson.AppendString([]byte(`{"name":`), p.name)
	return answer(w, jsonType, append(append(quoted, ','), m.metadata[1:]...))
}

func (s *Server) modelReady(w http.ResponseWriter, _ *http.Request, p place) error {
	if s.draining.Load() {
		return s.readiness()
	}
	if _, err := p.entry.ready(); err != nil {
		return err
	}
	quoted, _ := tensorjson.AppendString([]byte(`{"name":`), p.name)
	return answer(w, jsonType, append(quoted, `,"ready":true}`...))
}

func (s *Server) infer(w http.ResponseWriter, r *http.Request, p place) error {
	return s.answer(w, r, p, inferenceForm{})
}

// resolve splits a model's path. Clients leave a slash in a name as it is, so it is the known
// names that tell where the name ends.
func (s *Server) resolve(rest string) (place, error) {
	for _, e := range s.entries {
		for _, known := range e.names {
			tail, ok := strings.CutPrefix(rest, known)
			if !ok || tail != "" && tail[0] != '/' {
				continue
			}
			version, verb, ok := splitTail(tail)
			if !ok {
				continue
			}
			return place{e, known, verb}, e.version(known, version)
		}
	}
	for verb := range verbs {
		if verb != "" {
			rest = strings.TrimSuffix(rest, "/"+verb)
		}
	}
	return place{}, s.unknownModel(rest)
}

// splitTail reads what follows a model's name: [/versions/V][/VERB].
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
	verb = strings.TrimPrefix(tail, "/")
	_, ok = verbs[verb]
	return version, verb, ok && (verb == "" || tail[0] == '/')
}
