package oip

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// infer answers an inference request over REST.
func (s *reference) infer(w http.ResponseWriter, r *http.Request, m *mirror) {
	if r.Method != http.MethodPost {
		s.refuse(w, http.StatusMethodNotAllowed, "POST alone")
		return
	}
	if s.refusesTransport(r) {
		s.refuse(w, http.StatusUnsupportedMediaType, "not that way")
		return
	}
	body, status := s.unpacked(r)
	if status != 0 {
		s.refuse(w, status, "the body cannot be unpacked")
		return
	}
	req, in, err := s.read(r, m, body)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	if s.has("rest.infer.answers") {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.mu.Lock()
	m.count, m.ns = m.count+1, m.ns+1000
	s.mu.Unlock()
	text, tail := s.answer(m, req, s.mirrored(m, in, req.wanted()))
	if tail != nil {
		if !s.has("binary.length-header") {
			w.Header().Set(lengthHeader, strconv.Itoa(len(text)))
		}
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	s.packed(w, r, append(text, tail...))
}

// refusesTransport says whether a fault of transport makes the request unwelcome.
func (s *reference) refusesTransport(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	isBinary := r.Header.Get(lengthHeader) != ""
	return s.has("rest.http.no-content-type") && kind == "" && !isBinary ||
		s.has("rest.http.header-case") && r.Header.Get("X-Other-Type") != "" ||
		s.has("rest.http.form-content-type") && strings.Contains(kind, "form") ||
		s.has("rest.http.charset") && strings.Contains(kind, "charset") ||
		s.has("rest.http.chunked") && r.TransferEncoding != nil && !isBinary ||
		s.has("binary.chunked") && r.TransferEncoding != nil && isBinary ||
		s.has("rest.http.expect") && r.Header.Get("Expect") != "" ||
		s.has("binary.gzip") && isBinary && r.Header.Get("Content-Encoding") != ""
}

// inferMessage is a request as the reference reads it.
type inferMessage struct {
	ID         string
	Parameters values
	Inputs     []struct {
		Name, Datatype string
		Shape          []int64
		Parameters     values
		Data           json.RawMessage
	}
	Outputs []outputWanted
	raw     bool
	nan     bool // the fault of NaN has something to answer
}

// wanted are the names of the outputs that are asked for.
func (r inferMessage) wanted() []string {
	var names []string
	for _, o := range r.Outputs {
		names = append(names, o.Name)
	}
	return names
}

func (s *reference) read(r *http.Request, m *mirror, body []byte) (inferMessage, []zarpa.Tensor, error) {
	var req inferMessage
	var tail []byte
	if text := r.Header.Get(lengthHeader); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > len(body) {
			return req, nil, errors.New("length header")
		}
		if n == 0 {
			in, err := s.rawBody(m, body)
			req.raw = true
			return req, in, err
		}
		body, tail = body[:n], body[n:]
	}
	if s.has("rest.value.nan") && bytes.Contains(body, []byte("NaN")) {
		body, req.nan = bytes.ReplaceAll(body, []byte("NaN"), []byte("0")), true
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return req, nil, err
	}
	if s.has("rest.infer.model-name-member") && bytes.Contains(body, []byte(`"model_name"`)) {
		return req, nil, errors.New("unknown member")
	}
	if s.has("rest.infer.other-members") && bytes.Contains(body, []byte(`conformance":[`)) {
		req.Inputs = req.Inputs[:1] // answers something else
		return req, make([]zarpa.Tensor, 1), nil
	}
	if s.has("rest.infer.member-order") && bytes.Contains(body, []byte(`  `)) {
		return req, nil, errors.New("white space")
	}
	in, err := s.inputs(m, req, tail)
	return req, in, err
}

func (s *reference) rawBody(m *mirror, body []byte) ([]zarpa.Tensor, error) {
	t := zarpa.Tensor{Name: m.inputs[0].Name, Type: elements(m.inputs[0].Datatype)}
	size := t.Type.Bits() / 8
	if len(m.inputs) != 1 || size == 0 || len(body)%size != 0 || s.has("binary.raw-request") {
		return nil, errors.New("no raw request of this model")
	}
	t.Shape, t.Data = []int64{int64(len(body) / size)}, body
	return []zarpa.Tensor{t}, nil
}

func (s *reference) inputs(m *mirror, req inferMessage, tail []byte) ([]zarpa.Tensor, error) {
	in := make([]zarpa.Tensor, len(m.inputs))
	if len(req.Inputs) != len(m.inputs) || slices.ContainsFunc(req.wanted(), func(n string) bool {
		return !slices.ContainsFunc(m.outputs, func(d declared) bool { return d.Name == n })
	}) {
		return nil, errors.New("wrong inputs or outputs")
	}
	mixed := map[bool]bool{}
	for k, x := range req.Inputs {
		i := slices.IndexFunc(m.inputs, func(d declared) bool { return d.Name == x.Name })
		if s.has("rest.infer.input-order") && i >= 0 {
			i = k
		}
		if i < 0 || in[i].Shape != nil || x.Datatype != m.inputs[i].Datatype && !s.has("rest.infer.input-order") || !fits(x.Shape, m.inputs[i].Shape) {
			return nil, fmt.Errorf("input %q", x.Name)
		}
		if s.has("rest.value.empty") && x.Shape[0] == 0 {
			return []zarpa.Tensor{}, nil
		}
		if s.has("rest.infer.parameters") && x.Parameters["conformance_text"] != nil {
			return nil, errors.New("unknown parameter")
		}
		t := zarpa.Tensor{Name: x.Name, Type: elements(x.Datatype), Shape: x.Shape}
		var err error
		if t, tail, err = s.elements(t, x.Parameters, x.Data, tail); err != nil {
			return nil, err
		}
		mixed[x.Data == nil] = true
		in[i] = t
	}
	if len(tail) > 0 || s.has("binary.mixed-inputs") && len(mixed) > 1 {
		return nil, errors.New("bytes too many")
	}
	return in, nil
}

// elements reads an input's elements, from the tail or from JSON, and gives the rest of the tail.
func (s *reference) elements(t zarpa.Tensor, parameters values, data json.RawMessage, tail []byte) (zarpa.Tensor, []byte, error) {
	if size, isBinary := parameters["binary_data_size"].(float64); isBinary {
		if data != nil || size < 0 || int(size) > len(tail) || s.has("binary.input") && t.Type == zarpa.Bool {
			return t, nil, errors.New("binary_data_size")
		}
		t, err := fromRaw(t, tail[:int(size)])
		if s.has("binary.any-bytes") && t.Type == zarpa.String {
			for i := range t.Strings {
				t.Strings[i] = strings.ReplaceAll(t.Strings[i], "\x00", "")
			}
		}
		return t, tail[int(size):], err
	}
	if s.has("shared-memory.unknown") && parameters["shared_memory_region"] != nil {
		n, _ := zarpa.Elements(t.Shape)
		return fill(t, int(n)), tail, nil
	}
	if data == nil || !s.rightNesting(t.Shape, data) {
		return t, nil, errors.New("data")
	}
	text := string(data)
	if s.has("rest.value.number-forms") && strings.Contains(text, "E-1") {
		data = json.RawMessage(strings.ReplaceAll(text, "E-1", ""))
	}
	if s.has("rest.value.text") && strings.Contains(text, `\ud83d`) {
		data = json.RawMessage(strings.ReplaceAll(text, `\u`, `u`))
	}
	t, err := fromJSON(t, data)
	if s.has("rest.value.extremes") && t.Type == zarpa.Int64 {
		for i := range count(t) { // as if it had gone through a double
			f, _ := number(zarpa.Int64, strconv.FormatInt(int64(float32(integer(t, i))), 10))
			copy(t.Data[i*8:], f)
		}
	}
	return t, tail, err
}

// rightNesting says whether data is flat, or nested in the shape.
func (s *reference) rightNesting(shape []int64, data json.RawMessage) bool {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		return false
	}
	if len(list) == 0 || list[0][0] != '[' {
		return !s.has("rest.infer.flat-data") || len(shape) < 2
	}
	for _, row := range list {
		var inner []json.RawMessage
		if json.Unmarshal(row, &inner) != nil || int64(len(inner)) != shape[len(shape)-1] {
			return false
		}
	}
	return !s.has("rest.infer.nested-data")
}

// mirrored are the outputs: the inputs under their names.
func (s *reference) mirrored(m *mirror, in []zarpa.Tensor, wanted []string) []zarpa.Tensor {
	var out []zarpa.Tensor
	for i, t := range in {
		t.Name = m.outputs[i].Name
		if wanted == nil || slices.Contains(wanted, t.Name) || s.has("rest.infer.requested-output") {
			out = append(out, t)
		}
	}
	if s.has("rest.infer.all-outputs") && wanted == nil && len(out) > 1 {
		out = out[:1]
	}
	if s.has("rest.infer.requested-all") && len(wanted) > 1 {
		out = out[:1]
	}
	return out
}

// answer is that to an inference request over REST: its JSON, and the bytes behind it when there are any.
func (s *reference) answer(m *mirror, req inferMessage, out []zarpa.Tensor) (text, tail []byte) {
	body := map[string]any{"model_name": m.name, "model_version": "1"}
	if req.ID != "" && !s.has("rest.infer.id") {
		body["id"] = req.ID
	}
	switch {
	case s.has("rest.infer.model-name"):
		body["model_name"] = "other"
	case s.has("rest.infer.model-version"):
		body["model_version"] = 1
	}
	var outputs []map[string]any
	for i, t := range out {
		o, b := s.output(req, t, i)
		outputs = append(outputs, o)
		tail = append(tail, b...)
	}
	body["outputs"] = outputs
	if len(outputs) == 0 {
		body["outputs"] = []string{}
	}
	text, _ = json.Marshal(body)
	if req.nan {
		text = bytes.ReplaceAll(text, []byte("[0,0"), []byte("[null,0"))
	}
	return text, tail
}

// output is one output, as bytes where that was asked for.
func (s *reference) output(req inferMessage, t zarpa.Tensor, i int) (o map[string]any, tail []byte) {
	o = map[string]any{"name": t.Name, "datatype": t.Type.String(), "shape": t.Shape}
	all, _ := req.Parameters["binary_data_output"].(bool)
	binary := all || req.raw
	listed := false
	for _, x := range req.Outputs {
		if x.Name != t.Name {
			continue
		}
		if b, ok := x.Parameters["binary_data"].(bool); ok {
			binary = b && (all || !s.has("binary.output")) || all && s.has("binary.output-override")
		} else {
			listed = true
		}
		if n, ok := x.Parameters["classification"].(float64); ok {
			t = zarpa.Tensor{Name: t.Name, Type: zarpa.String, Shape: []int64{int64(n)}, Strings: []string{"5.5:1"}}
			if s.has("classification.output") {
				t.Strings[0] = "5.5"
			}
			o["datatype"], o["shape"] = "BYTES", t.Shape
		}
	}
	if listed && s.has("binary.output-all-listed") || all && req.Outputs == nil && s.has("binary.output-all") && t.Type == zarpa.Bool {
		binary = false
	}
	if s.has("binary.json-stays") && req.Parameters == nil && len(req.Inputs) > 0 && req.Inputs[0].Data == nil {
		binary = true
	}
	if binary {
		b := raw(t)
		size := len(b)
		if s.has("binary.sizes") {
			b = append(slices.Clone(b), 0)
		}
		if s.has("binary.no-data") {
			o["data"] = []int{}
		}
		o["parameters"] = values{"binary_data_size": size}
		return o, append([]byte{}, b...)
	}
	o["data"] = flat(t)
	if s.has("rest.value.negative-zero") {
		o["data"] = json.RawMessage(strings.ReplaceAll(string(flat(t)), "-0.0", "-0"))
	}
	s.spoil(o, t, i)
	return o, nil
}

// spoil does what the faults of outputs in JSON are.
func (s *reference) spoil(o map[string]any, t zarpa.Tensor, i int) {
	switch {
	case s.has("rest.infer.output-names") && i == 0:
		o["name"] = "other"
	case s.has("rest.infer.datatype") && t.Type == zarpa.Int64:
		o["datatype"] = "INT32"
	case s.has("rest.infer.shape"):
		o["shape"] = []int64{int64(count(t))}
		if len(t.Shape) == 1 {
			o["shape"] = []int64{int64(count(t)), 1}
		}
	case s.has("rest.infer.elements"):
		o["data"] = []int{}
	}
}

// packed sends an answer in the encoding that was asked for.
func (s *reference) packed(w http.ResponseWriter, r *http.Request, text []byte) {
	if w.Header().Get("Content-Type") == "" && !s.has("rest.http.content-type") {
		w.Header().Set("Content-Type", "application/json")
	}
	if s.has("rest.http.keep-alive") && r.Header.Get("Connection") != "close" {
		w.Header().Set("Connection", "close")
	}
	accepts := r.Header.Get("Accept-Encoding")
	var out io.WriteCloser
	switch accepts {
	case "gzip":
		out = gzip.NewWriter(w)
	case "deflate":
		out = zlib.NewWriter(w)
	default:
		_, _ = w.Write(text) // to loopback
		return
	}
	w.Header().Set("Content-Encoding", accepts)
	if s.has("rest.http.accept-" + accepts) {
		_, _ = w.Write(text) // not what the header says
		return
	}
	_, _ = out.Write(text)
	_ = out.Close()
}
