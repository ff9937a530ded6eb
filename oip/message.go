package oip

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/zarpa-dev/zarpa"
)

// lengthHeader tells how many bytes of a body are JSON.
const lengthHeader = "Inference-Header-Content-Length"

// values are the parameters of a request, an input or an output.
type values map[string]any

// inferRequest is the JSON of an inference request. tail is the binary data behind it.
type inferRequest struct {
	ID         string         `json:"id,omitempty"`
	Parameters values         `json:"parameters,omitempty"`
	Inputs     []inputTensor  `json:"inputs"`
	Outputs    []outputWanted `json:"outputs,omitempty"`
	tail       []byte
}

type inputTensor struct {
	Name       string          `json:"name"`
	Shape      []int64         `json:"shape"`
	Datatype   string          `json:"datatype"`
	Parameters values          `json:"parameters,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
}

type outputWanted struct {
	Name       string `json:"name"`
	Parameters values `json:"parameters,omitempty"`
}

// form is the way that inputs are sent.
type form int

const (
	flatJSON form = iota
	nestedJSON
	binaryREST
	rawGRPC
)

func (f form) String() string {
	return [...]string{"flat JSON", "nested JSON", "binary tensors", "gRPC"}[f]
}

// newRequest is a request of the tensors in one of the REST forms.
func newRequest(f form, tensors []zarpa.Tensor) inferRequest {
	var r inferRequest
	for _, t := range tensors {
		in := inputTensor{Name: t.Name, Shape: t.Shape, Datatype: t.Type.String()}
		if in.Shape == nil {
			in.Shape = []int64{}
		}
		switch f {
		case flatJSON:
			in.Data = flat(t)
		case nestedJSON:
			in.Data = nested(t)
		case binaryREST, rawGRPC:
			b := raw(t)
			in.Parameters = values{"binary_data_size": len(b)}
			r.tail = append(r.tail, b...)
		}
		r.Inputs = append(r.Inputs, in)
	}
	if f == binaryREST {
		r.Parameters = values{"binary_data_output": true}
	}
	return r
}

// encode is the request's body and the headers that go with it.
func (r inferRequest) encode() (body []byte, header []string) {
	body, _ = json.Marshal(r) // plain data
	header = []string{"Content-Type", "application/json"}
	if r.tail != nil {
		header = []string{"Content-Type", "application/octet-stream", lengthHeader, strconv.Itoa(len(body))}
		body = append(body, r.tail...)
	}
	return body, header
}

// reply is a successful answer to an inference request, read as leniently as can be.
type reply struct {
	answer answer
	fields map[string]json.RawMessage // of the JSON object
	// Outputs are the outputs; what is not of its JSON type is missing here.
	outputs []outputTensor
	header  int    // bytes of JSON
	tail    []byte // what is behind it
	binary  bool   // a length header was there
}

type outputTensor struct {
	Name       *string         `json:"name"`
	Shape      []int64         `json:"shape"`
	Datatype   string          `json:"datatype"`
	Parameters values          `json:"parameters"`
	Data       json.RawMessage `json:"data"`
}

// size is the output's binary_data_size, -1 without one.
func (o outputTensor) size() int {
	if n, ok := o.Parameters["binary_data_size"].(float64); ok && n >= 0 && n < maxAnswer {
		return int(n)
	}
	return -1
}

func (o outputTensor) name() string {
	if o.Name == nil {
		return ""
	}
	return *o.Name
}

// text is a member of the answer, "" where it is missing or no string.
func (r reply) text(field string) string {
	var s string
	_ = json.Unmarshal(r.fields[field], &s) // no string is ""
	return s
}

// readReply reads an answer that should be a success.
func readReply(a answer) (reply, error) {
	r := reply{answer: a, header: len(a.body)}
	if a.status != http.StatusOK {
		return r, differs("200 with outputs", "%s", a.said())
	}
	if s := a.header.Get(lengthHeader); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > len(a.body) {
			return r, differs(lengthHeader+" of at most the body's length", "%s of a body of %d bytes", s, len(a.body))
		}
		r.binary, r.header, r.tail = true, n, a.body[n:]
	}
	if err := json.Unmarshal(a.body[:r.header], &r.fields); err != nil {
		return r, differs("a JSON object", "%s: %v", a.said(), err)
	}
	if err := json.Unmarshal(r.fields["outputs"], &r.outputs); err != nil || len(r.outputs) == 0 {
		return r, differs("a list of outputs, each with name, shape and datatype", "%s", a.said())
	}
	return r, nil
}

// tensors are the outputs with their elements, wherever these are.
func (r reply) tensors() ([]zarpa.Tensor, error) {
	var list []zarpa.Tensor
	rest := r.tail
	for _, o := range r.outputs {
		t := zarpa.Tensor{Name: o.name(), Shape: o.Shape}
		if err := t.Type.UnmarshalText([]byte(o.Datatype)); err != nil {
			return nil, differs("a datatype of the protocol", "output %q: %q", t.Name, o.Datatype)
		}
		var err error
		size := o.size()
		switch {
		case size > len(rest):
			return nil, differs("the bytes that binary_data_size tells", "output %q: %d of %d bytes", t.Name, len(rest), size)
		case size >= 0 && r.binary:
			t, err = fromRaw(t, rest[:size])
			rest = rest[size:]
		case o.Data == nil:
			return nil, differs("data, or binary_data_size", "output %q has neither", t.Name)
		default:
			t, err = fromJSON(t, o.Data)
		}
		if err != nil {
			return nil, differs("elements of the datatype, as many as the shape tells", "%v", err)
		}
		list = append(list, t)
	}
	if len(rest) > 0 {
		return nil, differs("no bytes beyond the outputs", "%d bytes too many", len(rest))
	}
	return list, nil
}

// modelPath is /v2/models/NAME, with slashes in the name as they are, as clients send them.
func modelPath(name string) string { return "/v2/models/" + escape(name) }

func escape(name string) string {
	var b bytes.Buffer
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', bytes.IndexByte([]byte("-_.~/:@"), c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// send posts a request to the model and reads what should be a success.
func (p *probe) send(ctx context.Context, r inferRequest) (reply, error) {
	body, header := r.encode()
	return p.post(ctx, request{path: modelPath(p.name) + "/infer", header: header, body: body})
}

// post posts to the model and reads what should be a success.
func (p *probe) post(ctx context.Context, r request) (reply, error) {
	r.method = http.MethodPost
	a, err := p.run.wire.do(ctx, r)
	if err != nil {
		return reply{}, err
	}
	return readReply(a)
}

// infer sends tensors in a form and gives the answer's.
func (p *probe) infer(ctx context.Context, f form, tensors []zarpa.Tensor) ([]zarpa.Tensor, error) {
	if f == rawGRPC {
		if p.run.rpc == nil {
			return nil, errors.New("no address for gRPC was given")
		}
		resp, err := p.run.rpc.infer(ctx, p.rawRequest(tensors))
		if err != nil {
			return nil, differs("an answer", "%s", failed(err))
		}
		return grpcTensors(resp)
	}
	r, err := p.send(ctx, newRequest(f, tensors))
	if err != nil {
		return nil, err
	}
	return r.tensors()
}

// equals sends tensors in a form and wants the answer to be the sample's.
func (p *probe) equals(ctx context.Context, f form) (string, error) {
	got, err := p.infer(ctx, f, p.sample)
	if err != nil {
		return "", err
	}
	return p.compare(got)
}

// compare holds an answer against the sample's.
func (p *probe) compare(got []zarpa.Tensor) (string, error) {
	if d := sameTensors(p.answer, got); d != "" {
		return "", differs("the same bits as by "+p.form.String(), "%s", d)
	}
	return "the same bits", nil
}

// sameIn wants a reply's tensors to be the sample's answer.
func (p *probe) sameIn(r reply) (string, error) {
	tensors, err := r.tensors()
	if err != nil {
		return "", err
	}
	return p.compare(tensors)
}

// sendsSame sends a request and wants the answer to be the sample's.
func (p *probe) sendsSame(ctx context.Context, r request) (string, error) {
	got, err := p.post(ctx, r)
	if err != nil {
		return "", err
	}
	return p.sameIn(got)
}
