package oip

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// refusal is a wrong request. It makes two checks: ID, a refusal with the protocol's error object, and ID.status, one
// that says whose fault it was.
type refusal struct {
	id    string
	says  string // what is wrong with the request
	level Level  // Should where servers are known to take such a request
	needs need
	// status are the statuses that say it best; none is any of 400 to 499.
	status []int
	// wrong makes the request of the sample.
	wrong func(p *probe) (request, error)
}

func refusalChecks() []check {
	var list []check
	for _, r := range slices.Concat(pathRefusals(), messageRefusals(), dataRefusals(), textRefusals(), binaryRefusals()) {
		list = append(list, r.checks()...)
	}
	return append(list, check{
		Check: Check{ID: "errors.content-type", Group: Errors, Level: Should, Says: "an error comes as application/json", Section: "REST: Errors"}, needs: needModel,
		ask: func(ctx context.Context, p *probe) (string, error) {
			a, err := p.run.wire.do(ctx, p.inferPath([]byte("{")))
			if err != nil {
				return "", err
			}
			return isJSON(a)
		},
	})
}

func (r refusal) checks() []check {
	first := Check{
		ID: "errors." + r.id, Group: Errors, Level: r.level, PerModel: r.needs&needSample != 0 || r.needs&needJSON != 0, Section: "REST: Errors",
		Says: r.says + ` is refused with an error status and {"error": string}`,
	}
	if r.needs&needBinary != 0 {
		first.Section = binarySection
	}
	if r.level == Should {
		first.Choices = "refused; some servers take it"
	}
	second := first
	second.ID, second.Level = first.ID+".status", Should
	second.Says, second.Choices = r.says+" is the client's fault: the status is of 400 to 499", ""
	if len(r.status) > 0 {
		second.Says, second.Choices = r.says+" has the status "+r.statuses(), ""
	}
	return []check{{Check: first, needs: r.needs, ask: r.object}, {Check: second, needs: r.needs, ask: r.class}}
}

func (r refusal) statuses() string {
	var list []string
	for _, s := range r.status {
		list = append(list, strconv.Itoa(s))
	}
	return strings.Join(list, " or ")
}

func (r refusal) send(ctx context.Context, p *probe) (answer, error) {
	req, err := r.wrong(p)
	if err != nil {
		return answer{}, err
	}
	return p.run.wire.do(ctx, req)
}

func (r refusal) object(ctx context.Context, p *probe) (string, error) {
	a, err := r.send(ctx, p)
	if err != nil {
		return "", err
	}
	var body struct{ Error *string }
	if err := json.Unmarshal(a.body, &body); !isStatus(a) || err != nil || body.Error == nil || *body.Error == "" {
		return "", differs(`an error status and {"error": string}`, "%s", a.said())
	}
	return a.said(), nil
}

func (r refusal) class(ctx context.Context, p *probe) (string, error) {
	a, err := r.send(ctx, p)
	if err != nil {
		return "", err
	}
	if !isStatus(a) {
		return "", skip("it was taken")
	}
	ok := a.status < 500
	want := "400 to 499"
	if len(r.status) > 0 {
		ok, want = slices.Contains(r.status, a.status), r.statuses()
	}
	if !ok {
		return "", differs(want, "%s", a.said())
	}
	return strconv.Itoa(a.status), nil
}

// asked is a request without a body.
func asked(method, path string) func(*probe) (request, error) {
	return func(*probe) (request, error) { return request{method: method, path: path}, nil }
}

func pathRefusals() []refusal {
	const unknown = "/v2/models/" + unknownName
	notFound := []int{http.StatusNotFound}
	version := func(tail, method string) func(*probe) (request, error) {
		return func(p *probe) (request, error) {
			r := p.infers(p.plain())
			r.method, r.path = method, modelPath(p.name)+"/versions/987654321"+tail
			return r, nil
		}
	}
	return []refusal{
		{"unknown-model", "inference with a model that does not exist", Must, needJSON, notFound, func(p *probe) (request, error) {
			r := p.infers(p.plain())
			r.method, r.path = http.MethodPost, unknown+"/infer"
			return r, nil
		}},
		{"unknown-model-metadata", "the metadata of a model that does not exist", Must, 0, notFound, asked(http.MethodGet, unknown)},
		{"unknown-version", "inference with a version that does not exist", Must, needJSON, notFound, version("/infer", http.MethodPost)},
		{"unknown-version-metadata", "the metadata of a version that does not exist", Must, needModel, notFound, func(p *probe) (request, error) {
			return request{method: http.MethodGet, path: modelPath(p.name) + "/versions/987654321"}, nil
		}},
		{"unknown-path", "a path that the protocol does not have", Should, needModel, notFound, func(p *probe) (request, error) {
			return request{method: http.MethodGet, path: modelPath(p.name) + "/no-such-verb"}, nil
		}},
		{"method", "GET of inference", Should, needModel, []int{http.StatusMethodNotAllowed}, func(p *probe) (request, error) {
			return request{method: http.MethodGet, path: modelPath(p.name) + "/infer"}, nil
		}},
	}
}

// changed is the sample's request in JSON with a change.
func changed(change func(p *probe, r *inferRequest) error) func(*probe) (request, error) {
	return func(p *probe) (request, error) {
		r := p.plain()
		if err := change(p, &r); err != nil {
			return request{}, err
		}
		req := p.infers(r)
		req.method = http.MethodPost
		return req, nil
	}
}

// always is a change that can be made to any request.
func always(change func(r *inferRequest)) func(*probe) (request, error) {
	return changed(func(_ *probe, r *inferRequest) error {
		change(r)
		return nil
	})
}

func messageRefusals() []refusal {
	return []refusal{
		{"unknown-input", "an input that the model does not have", Must, needJSON, nil, always(func(r *inferRequest) { r.Inputs[0].Name = "no_such_input" })},
		{"extra-input", "an input too many", Should, needJSON, nil, always(func(r *inferRequest) {
			extra := r.Inputs[0]
			extra.Name = "no_such_input"
			r.Inputs = append(r.Inputs, extra)
		})},
		{"missing-input", "a request that leaves an input out", Must, needJSON, nil, changed(func(_ *probe, r *inferRequest) error {
			if len(r.Inputs) < 2 {
				return skip("the model has one input")
			}
			r.Inputs = r.Inputs[1:]
			return nil
		})},
		{"no-inputs", "an empty list of inputs", Must, needJSON, nil, always(func(r *inferRequest) { r.Inputs = []inputTensor{} })},
		{"repeated-input", "an input given twice", Should, needJSON, nil, always(func(r *inferRequest) { r.Inputs = append(r.Inputs, r.Inputs[0]) })},
		{"unknown-output", "an output that the model does not have", Must, needJSON, nil, always(func(r *inferRequest) { r.Outputs = []outputWanted{{Name: "no_such_output"}} })},
		{"wrong-datatype", "a datatype that is not the model's", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			other := zarpa.Int32
			if p.sample[0].Type == zarpa.Int32 {
				other = zarpa.Int64
			}
			t := fill(zarpa.Tensor{Type: other, Shape: p.sample[0].Shape}, count(p.sample[0]))
			r.Inputs[0].Datatype, r.Inputs[0].Data = other.String(), flat(t)
			return nil
		})},
		{"unknown-datatype", "a datatype that does not exist", Must, needJSON, nil, always(func(r *inferRequest) { r.Inputs[0].Datatype = "FP31" })},
	}
}

// firstDims wants the sample's first input to have dimensions.
func firstDims(p *probe) error {
	if len(p.sample[0].Shape) == 0 {
		return skip("the first input is a scalar")
	}
	return nil
}

func dataRefusals() []refusal {
	return []refusal{
		{"wrong-rank", "a shape with a dimension too many", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			r.Inputs[0].Shape = append(slices.Clone(p.sample[0].Shape), 1, 1)
			return nil
		})},
		{"wrong-dimension", "a shape that the model's fixed dimensions do not allow", Must, needJSON, nil, changed(wrongDimension)},
		{"negative-dimension", "a negative dimension", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			r.Inputs[0].Shape = slices.Clone(p.sample[0].Shape)
			if err := firstDims(p); err != nil {
				return err
			}
			r.Inputs[0].Shape[0] = -r.Inputs[0].Shape[0]
			return nil
		})},
		{"huge-shape", "a shape of more elements than a machine can count", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			r.Inputs[0].Shape = slices.Clone(p.sample[0].Shape)
			for i := range r.Inputs[0].Shape {
				r.Inputs[0].Shape[i] = 1 << 62
			}
			return firstDims(p)
		})},
		{"too-few-elements", "fewer elements than the shape tells", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return withElements(p, r, count(p.sample[0])-1)
		})},
		{"too-many-elements", "more elements than the shape tells", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return withElements(p, r, count(p.sample[0])+1)
		})},
		{"ragged", "nested data whose rows differ in length", Should, needJSON, nil, changed(ragged)},
		{"text-for-number", "a text where the datatype is a number", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return eachElement(p, r, func(t zarpa.ElementType) bool { return t != zarpa.String }, `"x"`)
		})},
		{"number-for-text", "a number where the datatype is BYTES", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return eachElement(p, r, func(t zarpa.ElementType) bool { return t == zarpa.String }, "1")
		})},
		{"fraction", "a fraction where the datatype is an integer", Should, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return eachElement(p, r, func(t zarpa.ElementType) bool { return t >= zarpa.Uint8 && t <= zarpa.Int64 }, "1.5")
		})},
		{"out-of-range", "an integer that the datatype cannot hold", Should, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return eachElement(p, r, func(t zarpa.ElementType) bool { return t >= zarpa.Uint8 && t <= zarpa.Int64 }, "18446744073709551616")
		})},
		{"number-for-bool", "a number where the datatype is BOOL", Should, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return eachElement(p, r, func(t zarpa.ElementType) bool { return t == zarpa.Bool }, "2")
		})},
		{"float-out-of-range", "a number beyond the largest of FP32 or FP64", Should, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return eachElement(p, r, isFloat, "1e999")
		})},
		{"null-element", "null among the elements", Must, needJSON, nil, changed(func(p *probe, r *inferRequest) error {
			return eachElement(p, r, func(zarpa.ElementType) bool { return true }, "null")
		})},
		{"no-data", "an input without data", Must, needJSON, nil, always(func(r *inferRequest) { r.Inputs[0].Data = nil })},
	}
}

func wrongDimension(p *probe, r *inferRequest) error {
	for i, d := range p.inputs {
		for k, n := range d.Shape {
			if n < 1 {
				continue
			}
			shape := slices.Clone(p.sample[i].Shape)
			shape[k]++
			size, err := zarpa.Elements(shape)
			if err != nil || size > maxElements {
				continue
			}
			t := fill(zarpa.Tensor{Name: d.Name, Type: d.element(), Shape: shape}, int(size))
			r.Inputs[i].Shape, r.Inputs[i].Data = shape, flat(t)
			return nil
		}
	}
	return skip("no dimension is fixed")
}

// withElements gives the first input n elements, whatever its shape.
func withElements(p *probe, r *inferRequest, n int) error {
	if n < 0 {
		return skip("the first input has no elements")
	}
	r.Inputs[0].Data = flat(fill(zarpa.Tensor{Type: p.sample[0].Type}, n))
	return nil
}

func ragged(p *probe, r *inferRequest) error {
	for i, t := range p.sample {
		if len(t.Shape) != 2 || t.Shape[0] < 2 || t.Shape[1] < 1 {
			continue
		}
		rows, cols := int(t.Shape[0]), int(t.Shape[1])
		var list []string
		next := 0
		for k := range rows {
			n := cols + map[int]int{0: 1, 1: -1}[k] // as many elements in all
			var row []string
			for range n {
				row = append(row, element(t, next))
				next++
			}
			list = append(list, "["+strings.Join(row, ",")+"]")
		}
		r.Inputs[i].Data = json.RawMessage("[" + strings.Join(list, ",") + "]")
		return nil
	}
	return skip("no input of two dimensions with two rows")
}

// eachElement replaces the elements of the first input of a kind.
func eachElement(p *probe, r *inferRequest, kind func(zarpa.ElementType) bool, text string) error {
	for i, t := range p.sample {
		if kind(t.Type) && count(t) > 0 {
			r.Inputs[i].Data = json.RawMessage("[" + strings.Join(slices.Repeat([]string{text}, count(t)), ",") + "]")
			return nil
		}
	}
	return skip("no input of such a datatype")
}

// bodyOf is a request with a text for its body.
func bodyOf(body string) func(*probe) (request, error) {
	return func(p *probe) (request, error) { return p.inferPath([]byte(body)), nil }
}

// edited is the sample's body with a change to its text.
func edited(edit func(body []byte) []byte, header ...string) func(*probe) (request, error) {
	return func(p *probe) (request, error) {
		body, _ := p.plain().encode()
		r := p.inferPath(edit(body))
		r.header = append(r.header, header...)
		return r, nil
	}
}

func textRefusals() []refusal {
	return []refusal{
		{"malformed-json", "a body that is no JSON", Must, needModel, nil, bodyOf(`{"inputs": [`)},
		{"empty-body", "an empty body", Must, needModel, nil, bodyOf("")},
		{"no-object", "a body that is a JSON list", Must, needModel, nil, bodyOf("[1, 2]")},
		{"missing-inputs", "a body without inputs", Must, needModel, nil, bodyOf("{}")},
		{"inputs-no-list", "inputs that are a text", Must, needModel, nil, bodyOf(`{"inputs": "x"}`)},
		{"input-no-object", "an input that is a number", Must, needModel, nil, bodyOf(`{"inputs": [1]}`)},
		{"shape-no-numbers", "a shape of texts", Must, needJSON, nil, edited(func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), `"shape":[`, `"shape":["x",`))
		})},
		{"trailing-text", "text behind the JSON object", Should, needJSON, nil, edited(func(b []byte) []byte { return append(b, "} x"...) })},
		{"truncated-json", "a JSON object that breaks off", Must, needJSON, nil, edited(func(b []byte) []byte { return b[:len(b)-3] })},
		{
			"unknown-encoding", "an unknown Content-Encoding", Should, needJSON,
			[]int{http.StatusUnsupportedMediaType, http.StatusNotImplemented, http.StatusBadRequest},
			edited(func(b []byte) []byte { return b }, "Content-Encoding", "zarp"),
		},
		{"broken-gzip", "a body that is not packed as its header says", Should, needJSON, nil, edited(func(b []byte) []byte { return b }, "Content-Encoding", "gzip")},
		{"truncated-gzip", "a packed body that breaks off", Should, needJSON, nil, edited(func(b []byte) []byte {
			p := packed("gzip", b)
			return p[:len(p)-12]
		}, "Content-Encoding", "gzip")},
	}
}

// tampered is the sample as bytes, with a change to the message, and then to the request.
func tampered(message func(r *inferRequest), then func(r *request)) func(*probe) (request, error) {
	return func(p *probe) (request, error) {
		m := newRequest(binaryREST, p.sample)
		if len(m.tail) == 0 {
			return request{}, skip("the input has no bytes")
		}
		message(&m)
		r := p.infers(m)
		r.method = http.MethodPost
		then(&r)
		return r, nil
	}
}

func binaryRefusals() []refusal {
	const n = needBinary | needSample
	keep, as := func(*inferRequest) {}, func(*request) {}
	length := func(value string) func(r *request) {
		return func(r *request) { r.header = []string{"Content-Type", "application/octet-stream", lengthHeader, value} }
	}
	resize := func(by int) func(r *inferRequest) {
		return func(r *inferRequest) {
			size, _ := r.Inputs[0].Parameters["binary_data_size"].(int)
			r.Inputs[0].Parameters = values{"binary_data_size": size + by}
		}
	}
	return []refusal{
		{"binary-truncated", "a binary body that breaks off", Extension, n, nil, tampered(keep, func(r *request) { r.body = r.body[:len(r.body)-1] })},
		{"binary-trailing", "a binary body with bytes too many", Extension, n, nil, tampered(keep, func(r *request) { r.body = append(r.body, 0) })},
		{"binary-size-large", "a binary_data_size that goes beyond the body", Extension, n, nil, tampered(resize(1000), as)},
		{"binary-size-small", "a binary_data_size that is not what the shape makes", Extension, n, nil, tampered(func(r *inferRequest) {
			resize(-1)(r)
			r.tail = r.tail[:len(r.tail)-1]
		}, as)},
		{"binary-size-negative", "a negative binary_data_size", Extension, n, nil, tampered(func(r *inferRequest) { r.Inputs[0].Parameters = values{"binary_data_size": -1} }, as)},
		{"binary-header-large", "an Inference-Header-Content-Length beyond the body", Extension, n, nil, tampered(keep, length("99999999"))},
		{"binary-header-negative", "a negative Inference-Header-Content-Length", Extension, n, nil, tampered(keep, length("-1"))},
		{"binary-header-text", "an Inference-Header-Content-Length that is no number", Extension, n, nil, tampered(keep, length("many"))},
		{"binary-header-short", "an Inference-Header-Content-Length that cuts the JSON", Extension, n, nil, tampered(keep, length("10"))},
		{"binary-data-twice", "an input with both data and binary_data_size", Should, n | needJSON, nil, func(p *probe) (request, error) {
			m := newRequest(binaryREST, p.sample)
			m.Inputs[0].Data = flat(p.sample[0])
			r := p.infers(m)
			r.method = http.MethodPost
			return r, nil
		}},
		{"binary-element-length", "a BYTES element whose length goes beyond the tensor", Extension, n, nil, func(p *probe) (request, error) {
			for _, t := range p.sample[:1] {
				if t.Type != zarpa.String {
					return request{}, skip("the first input is not BYTES")
				}
			}
			return tampered(func(r *inferRequest) { r.tail[3] = 0x7f }, as)(p)
		}},
	}
}
