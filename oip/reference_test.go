package oip

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // the reference takes it
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// reference is a server that keeps the protocol, for models that answer their inputs, but for one fault: the id of
// the check that must see it, or the name of a fault of many.
type reference struct {
	pb.UnimplementedGRPCInferenceServiceServer

	fault string
	list  []*mirror

	mu    sync.Mutex // guards the counters and states of the models
	asked int        // REST requests, to tell one answer from the next
}

// mirror is a model that answers input i as output i.
type mirror struct {
	name            string
	inputs, outputs []declared
	count, ns       uint64
	unloaded        bool
}

func newReference(fault string) *reference {
	wide := []int64{-1, 3}
	return &reference{fault: fault, list: []*mirror{
		{
			name:    "numbers",
			inputs:  []declared{{"a", "FP32", wide}, {"b", "INT64", wide}, {"c", "BOOL", wide}},
			outputs: []declared{{"out_a", "FP32", wide}, {"out_b", "INT64", wide}, {"out_c", "BOOL", wide}},
		},
		{name: "texts", inputs: []declared{{"x", "BYTES", []int64{-1}}}, outputs: []declared{{"y", "BYTES", []int64{-1}}}},
		{name: "halves", inputs: []declared{{"x", "FP16", []int64{-1}}}, outputs: []declared{{"y", "FP16", []int64{-1}}}},
	}}
}

// has says whether the server has the fault.
func (s *reference) has(fault string) bool { return s.fault == fault }

// serve starts the server on loopback and says where it is.
func (s *reference) serve(t *testing.T) Target {
	t.Helper()
	web := httptest.NewUnstartedServer(s)
	web.Listener = sniffing{web.Listener, s}
	web.Start()
	t.Cleanup(web.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer(s.limits()...)
	pb.RegisterGRPCInferenceServiceServer(rpc, s)
	if !s.has("grpc.health") {
		h := health.NewServer()
		if s.has("grpc.health.unknown") {
			h.SetServingStatus(unknownName, healthpb.HealthCheckResponse_SERVING)
		}
		healthpb.RegisterHealthServer(rpc, h)
	}
	if s.has("grpc.reflection") {
		reflection.Register(noServices{rpc})
	} else {
		reflection.Register(rpc)
	}
	go func() { _ = rpc.Serve(ln) }() // ends with Stop
	t.Cleanup(rpc.Stop)
	return Target{URL: web.URL, GRPC: ln.Addr().String(), Extensions: []string{extensionLoad}, Harsh: s.has("harsh")}
}

// limits are the settings of the gRPC server.
func (s *reference) limits() []grpc.ServerOption {
	//nolint:staticcheck // registering would change the whole process
	deflate := []grpc.ServerOption{grpc.RPCDecompressor(decompressor{"deflate"}), grpc.StatsHandler(encodings{})}
	switch {
	case s.has("grpc.message-limit"):
		return append(deflate, grpc.MaxRecvMsgSize(32<<20))
	case s.has("grpc.unknown-method"):
		return append(deflate, grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			return status.Error(codes.Internal, "no such method")
		}))
	}
	return deflate
}

// encodings lets calls see how they were compressed.
type encodings struct{}

type encodingKey struct{}

func (encodings) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, encodingKey{}, new(string))
}

func (encodings) HandleRPC(ctx context.Context, r stats.RPCStats) {
	if h, ok := r.(*stats.InHeader); ok {
		*ctx.Value(encodingKey{}).(*string) = h.Compression
	}
}

func (encodings) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (encodings) HandleConn(context.Context, stats.ConnStats) {}

// noServices is a server that knows no services, for reflection.
type noServices struct{ *grpc.Server }

func (noServices) GetServiceInfo() map[string]grpc.ServiceInfo { return nil }

// sniffing lets the server see how a header's name was written.
type sniffing struct {
	net.Listener
	s *reference
}

func (l sniffing) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return sniffed{c, l.s}, err
}

type sniffed struct {
	net.Conn
	s *reference
}

func (c sniffed) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.s.has("rest.http.header-case") {
		copy(b[:n], bytes.ReplaceAll(b[:n], []byte("cOnTeNt-tYpE"), []byte("X-Other-Type")))
	}
	if c.s.has("binary.header-case") {
		copy(b[:n], bytes.ReplaceAll(b[:n], []byte("inference-header-content-length"), []byte("inference-header-other---length")))
	}
	return n, err
}

func (s *reference) model(name string) *mirror {
	i := slices.IndexFunc(s.list, func(m *mirror) bool { return m.name == name })
	if i < 0 {
		return nil
	}
	return s.list[i]
}

// refuse answers a wrong request, or does what the fault of all refusals is.
func (s *reference) refuse(w http.ResponseWriter, status int, format string, args ...any) {
	body := any(map[string]string{"error": fmt.Sprintf(format, args...)})
	switch {
	case s.has("takes what is wrong"):
		status = http.StatusOK
	case s.has("errors without an object"):
		body = map[string]string{"detail": "no"}
	case s.has("every error is the server's"):
		status = http.StatusInternalServerError
	case s.has("errors.content-type"):
		w.Header().Set("Content-Type", "text/plain")
	}
	answerJSON(w, status, body)
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // to loopback
}

func (s *reference) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if s.has("rest.names.encoded") {
		path = r.URL.EscapedPath()
	}
	if s.has("rest.server.slash") && path == "/v2/" {
		path = "/none"
	}
	path = strings.TrimSuffix(path, "/")
	switch rest, isModel := strings.CutPrefix(path, "/v2/models/"); {
	case path == "/v2":
		s.metadata(w)
	case path == "/v2/health/live", path == "/v2/health/ready":
		s.health(w, strings.TrimPrefix(path, "/v2/"))
	case path == "/v2/repository/index" && r.Method == http.MethodPost:
		s.index(w, r)
	case strings.HasPrefix(path, "/v2/repository/models/"):
		s.load(strings.TrimPrefix(path, "/v2/repository/models/"))
	case path == "/v2/models/stats":
		s.stats(w, s.list)
	case path == "/v2/systemsharedmemory/status" && s.has("shared-memory.status"):
		answerJSON(w, http.StatusOK, "none")
	case path == "/v2/systemsharedmemory/status":
		answerJSON(w, http.StatusOK, []string{})
	case isModel:
		s.ofModel(w, r, rest)
	default:
		s.refuse(w, http.StatusNotFound, "no such path")
	}
}

func (s *reference) metadata(w http.ResponseWriter) {
	offers := []string{"binary_tensor_data", "model_repository", "statistics", "model_configuration", "classification", "trace"}
	if s.has("rest.server.metadata") {
		answerJSON(w, http.StatusOK, map[string]any{"name": "reference", "version": 1, "extensions": offers})
		return
	}
	answerJSON(w, http.StatusOK, map[string]any{"name": "reference", "version": "1", "extensions": offers})
}

func (s *reference) health(w http.ResponseWriter, which string) {
	if s.has("rest."+strings.ReplaceAll(which, "/", ".")) || s.has("errors.lasting") && which == "health/live" && s.count() > 50 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if s.has("rest.health.body") {
		_, _ = w.Write([]byte("OK")) // to loopback
	}
}

// count counts the requests to models.
func (s *reference) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *reference) index(w http.ResponseWriter, r *http.Request) {
	_, hasLength := r.Header["Content-Length"]
	body, _ := io.ReadAll(r.Body)
	hasLength = hasLength || len(body) > 0
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []map[string]string{}
	for _, m := range s.list {
		list = append(list, map[string]string{"name": m.name, "version": "1", "state": "READY"})
	}
	switch {
	case s.has("repository.index") && !hasLength:
		s.refuse(w, http.StatusLengthRequired, "no length")
		return
	case s.has("repository.index-empty") && string(body) == "{}":
		s.refuse(w, http.StatusBadRequest, "empty")
		return
	case s.has("repository.index-ready") && strings.Contains(string(body), "ready"):
		list = append(list, map[string]string{"name": "late", "state": "LOADING"})
	}
	answerJSON(w, http.StatusOK, list)
}

func (s *reference) load(rest string) {
	name, verb, _ := strings.Cut(rest, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.model(name).unloaded = verb == "unload" && !s.has("repository.load")
}

// ofModel is what is below /v2/models/.
func (s *reference) ofModel(w http.ResponseWriter, r *http.Request, rest string) {
	if s.has("rest.names.slash") && strings.Contains(rest, "/"+unknownName) {
		rest, _, _ = strings.Cut(rest, "/"+unknownName)
		rest += "/ready"
	}
	name, tail, _ := strings.Cut(rest, "/")
	versioned := strings.HasPrefix(tail, "versions/")
	if versioned {
		version, after, _ := strings.Cut(strings.TrimPrefix(tail, "versions/"), "/")
		if tail = after; version != "1" {
			s.refuse(w, http.StatusNotFound, "no such version")
			return
		}
	}
	m := s.model(name)
	if m == nil {
		s.refuse(w, http.StatusNotFound, "Request for unknown model: %q", name)
		return
	}
	s.mu.Lock()
	s.asked++
	unloaded := m.unloaded
	s.mu.Unlock()
	fails := map[string]bool{"ready": s.has("rest.model.ready"), "ready/v": s.has("rest.model.ready-version"), "/v": s.has("rest.model.metadata-version"), "infer/v": s.has("rest.infer.version")}
	if fails[tail+map[bool]string{true: "/v"}[versioned]] || tail == "ready" && unloaded {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.verb(w, r, m, tail)
}

func (s *reference) verb(w http.ResponseWriter, r *http.Request, m *mirror, tail string) {
	switch tail {
	case "ready":
	case "":
		s.modelMetadata(w, m)
	case "infer":
		s.infer(w, r, m)
	case "stats":
		s.stats(w, []*mirror{m})
	case "config":
		config := map[string]any{"name": m.name, "input": m.inputs, "output": m.outputs}
		if s.has("config.model") {
			config["input"] = nil
		}
		answerJSON(w, http.StatusOK, config)
	case "trace/setting":
		if s.has("trace.settings") {
			answerJSON(w, http.StatusOK, "off")
			return
		}
		answerJSON(w, http.StatusOK, map[string]string{"trace_level": "OFF"})
	case "generate", "generate_stream":
		s.generate(w, r, m, tail)
	default:
		s.refuse(w, http.StatusNotFound, "no such verb")
	}
}

func (s *reference) modelMetadata(w http.ResponseWriter, m *mirror) {
	body := map[string]any{"name": m.name, "versions": []string{"1"}, "platform": "mirror", "inputs": m.inputs, "outputs": m.outputs}
	switch {
	case s.has("rest.model.metadata"):
		delete(body, "platform")
	case s.has("rest.model.versions"):
		body["versions"] = []int{1}
	case s.has("rest.model.datatypes"):
		body["outputs"] = append([]declared{{"z", "COMPLEX64", []int64{1}}}, m.outputs...)
	case s.has("rest.model.content-type"):
		w.Header().Set("Content-Type", "text/html")
	}
	answerJSON(w, http.StatusOK, body)
}

func (s *reference) stats(w http.ResponseWriter, list []*mirror) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []map[string]any
	for _, m := range list {
		one := counted{m.count, m.ns}
		if s.has("statistics.counts") {
			one = counted{1, 1}
		}
		stats := map[string]any{"success": one, "fail": one, "queue": one, "compute_input": one, "compute_infer": one, "compute_output": one}
		if s.has("statistics.model") {
			delete(stats, "queue")
		}
		if s.has("statistics.all") && len(list) > 1 {
			continue
		}
		out = append(out, map[string]any{"name": m.name, "version": "1", "inference_count": m.count, "execution_count": m.count, "inference_stats": stats})
	}
	answerJSON(w, http.StatusOK, map[string]any{"model_stats": out})
}

// unpacked is the request's body without its Content-Encoding, or the status that refuses it.
func (s *reference) unpacked(r *http.Request) (body []byte, status int) {
	limit := io.Reader(r.Body)
	var err error
	encoding := r.Header.Get("Content-Encoding")
	switch {
	case s.has("rest.http."+encoding) && r.Header.Get(lengthHeader) == "":
		return nil, http.StatusUnsupportedMediaType
	case encoding == "gzip":
		limit, err = gzip.NewReader(r.Body)
	case encoding == "deflate":
		limit, err = zlib.NewReader(r.Body)
	case encoding != "":
		return nil, http.StatusUnsupportedMediaType
	}
	if err != nil {
		return nil, http.StatusBadRequest
	}
	body, err = io.ReadAll(io.LimitReader(limit, 1<<20))
	if err != nil {
		return nil, http.StatusBadRequest
	}
	return body, 0
}

// generate answers each output with its input; a stream has every answer twice.
func (s *reference) generate(w http.ResponseWriter, r *http.Request, m *mirror, verb string) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		if s.has("generate.error") {
			answerJSON(w, http.StatusBadRequest, "no")
			return
		}
		s.refuse(w, http.StatusBadRequest, "no JSON")
		return
	}
	out := map[string]any{"model_name": m.name}
	for i, d := range m.outputs {
		out[d.Name] = body[m.inputs[i].Name]
	}
	if verb == "generate" {
		if s.has("generate.answers") {
			delete(out, m.outputs[0].Name)
		}
		answerJSON(w, http.StatusOK, out)
		return
	}
	if !s.has("generate.stream") {
		w.Header().Set("Content-Type", "text/event-stream")
	}
	text, _ := json.Marshal(out)
	fmt.Fprintf(w, "data: %s\n\ndata: %s\n\n", text, text)
}

// elements is a datatype's element type.
func elements(datatype string) zarpa.ElementType { return declared{Datatype: datatype}.element() }
