package oip

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

const binarySection = "extension: binary tensor data"

func binaryChecks() []check {
	of := func(id string, says string) Check {
		return Check{ID: id, Group: Binary, Level: Extension, Says: says, Section: binarySection, PerModel: true}
	}
	const (
		b    = needBinary | needSample
		same = b | needSame
	)
	return []check{
		{Check: of("binary.input", "inputs may be bytes behind the JSON, each as long as its binary_data_size"), needs: same, ask: asForm(binaryREST)},
		{Check: of("binary.mixed-inputs", "one input may be bytes and another JSON"), needs: same | needJSON, ask: binaryMixed},
		{Check: of("binary.header-case", "the header's name may be in lower case, as clients send it, and without a Content-Type"), needs: same, ask: binaryHeaderCase},
		{Check: of("binary.output", "an output asked for with binary_data comes as bytes, and they are those of JSON"), needs: same, ask: binaryOutput},
		{Check: of("binary.output-all", "binary_data_output asks for bytes of all outputs"), needs: same, ask: binaryOutputAll},
		{Check: of("binary.output-all-listed", "binary_data_output holds for outputs that are listed without binary_data, too"), needs: b, ask: binaryListed},
		{Check: of("binary.output-override", "binary_data of an output overrides binary_data_output"), needs: b | needJSON, ask: binaryOverride},
		{Check: of("binary.sizes", "binary_data_size is what datatype and shape make, and the sizes end where the body ends"), needs: b, ask: binarySizes},
		{Check: of("binary.length-header", "an answer with bytes says in Inference-Header-Content-Length how long its JSON is"), needs: b, ask: binaryLength},
		{Check: of("binary.no-data", "an output that comes as bytes has no data"), needs: b, ask: binaryNoData},
		{Check: of("binary.json-stays", "without binary_data an output of a binary request comes in JSON"), needs: same | needJSON, ask: binaryJSONStays},
		{Check: of("binary.raw-request", "with Inference-Header-Content-Length: 0 the whole body is the one input, and outputs come as bytes"), needs: same, ask: binaryRaw},
		{Check: of("binary.gzip", "a packed request's lengths are those before packing"), needs: same, ask: binaryPacked},
		{Check: of("binary.chunked", "a binary body may come in chunks"), needs: same, ask: binaryChunked},
		{Check: of("binary.any-bytes", "a BYTES element may be any bytes, none too"), needs: b, ask: binaryAnyBytes},
	}
}

func binaryMixed(ctx context.Context, p *probe) (string, error) {
	if len(p.sample) < 2 {
		return "", skip("the model has one input")
	}
	for i := range p.sample {
		r := p.plain()
		b := raw(p.sample[i])
		r.Inputs[i].Data, r.Inputs[i].Parameters = nil, values{"binary_data_size": len(b)}
		r.tail = append([]byte{}, b...)
		if _, err := p.sameJSON(ctx, r); err != nil {
			return "", err
		}
	}
	return "the same bits", nil
}

// infers is the request of a message, with other headers in place of its own where they are not nil.
func (p *probe) infers(r inferRequest) request {
	body, header := r.encode()
	return request{path: modelPath(p.name) + "/infer", header: header, body: body}
}

func binaryHeaderCase(ctx context.Context, p *probe) (string, error) {
	r := p.infers(newRequest(binaryREST, p.sample))
	r.header = []string{strings.ToLower(lengthHeader), r.header[3]}
	return p.sendsSame(ctx, r)
}

// binaryInputs is the sample with inputs as bytes, nothing said of the outputs.
func (p *probe) binaryInputs() inferRequest {
	r := newRequest(binaryREST, p.sample)
	r.Parameters = nil
	return r
}

// allBinary wants every output of an answer to have come as bytes.
func allBinary(r reply) error {
	for _, o := range r.outputs {
		if o.size() < 0 || !r.binary {
			return differs("every output as bytes", "output %q in JSON", o.name())
		}
	}
	return nil
}

func binaryOutput(ctx context.Context, p *probe) (string, error) {
	body := p.binaryInputs()
	if p.jsonable() {
		body = p.plain()
	}
	for _, d := range p.outputs {
		body.Outputs = append(body.Outputs, outputWanted{Name: d.Name, Parameters: values{"binary_data": true}})
	}
	return p.binarySame(ctx, body)
}

func binaryOutputAll(ctx context.Context, p *probe) (string, error) {
	return p.binarySame(ctx, newRequest(binaryREST, p.sample))
}

// binarySame wants the sample's answer, all of it as bytes.
func (p *probe) binarySame(ctx context.Context, body inferRequest) (string, error) {
	r, err := p.send(ctx, body)
	if err == nil {
		err = allBinary(r)
	}
	if err != nil {
		return "", err
	}
	return p.sameIn(r)
}

func binaryListed(ctx context.Context, p *probe) (string, error) {
	body := newRequest(binaryREST, p.sample)
	for _, d := range p.outputs {
		body.Outputs = append(body.Outputs, outputWanted{Name: d.Name})
	}
	r, err := p.send(ctx, body)
	if err == nil {
		err = allBinary(r)
	}
	return "as bytes", err
}

func binaryOverride(ctx context.Context, p *probe) (string, error) {
	body := newRequest(binaryREST, p.sample)
	for i, d := range p.outputs {
		body.Outputs = append(body.Outputs, outputWanted{Name: d.Name, Parameters: values{"binary_data": i != 0}})
	}
	r, err := p.send(ctx, body)
	if err != nil {
		return "", err
	}
	for _, o := range r.outputs {
		isBytes, wantBytes := o.size() >= 0, o.name() != p.outputs[0].Name
		if isBytes != wantBytes {
			return "", differs("output "+p.outputs[0].Name+" alone in JSON", "output %q as bytes: %v", o.name(), isBytes)
		}
	}
	return "overridden", nil
}

func binarySizes(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, newRequest(binaryREST, p.sample))
	if err != nil {
		return "", err
	}
	sum := 0
	for _, o := range r.outputs {
		var t zarpa.ElementType
		_ = t.UnmarshalText([]byte(o.Datatype)) // another check's matter
		want, err := zarpa.ByteSize(t, o.Shape)
		if err == nil && t != zarpa.String && t != zarpa.Undefined && o.size() >= 0 && int64(o.size()) != want {
			return "", differs(fmt.Sprintf("%d bytes for %v %v", want, t, o.Shape), "binary_data_size %d", o.size())
		}
		sum += max(0, o.size())
	}
	if sum != len(r.tail) {
		return "", differs(fmt.Sprintf("%d bytes behind the JSON", sum), "%d", len(r.tail))
	}
	return fmt.Sprintf("%d bytes", sum), nil
}

func binaryLength(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, newRequest(binaryREST, p.sample))
	if err == nil && !r.binary {
		err = differs("the header "+lengthHeader, "none")
	}
	return strconv.Itoa(r.header), err
}

func binaryNoData(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, newRequest(binaryREST, p.sample))
	if err != nil {
		return "", err
	}
	for _, o := range r.outputs {
		if o.size() >= 0 && o.Data != nil {
			return "", differs("no data beside binary_data_size", "output %q has both", o.name())
		}
	}
	return "none", nil
}

func binaryJSONStays(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.binaryInputs())
	if err != nil {
		return "", err
	}
	for _, o := range r.outputs {
		if o.size() >= 0 {
			return "", differs("data in JSON: bytes were not asked for", "output %q as bytes", o.name())
		}
	}
	return p.sameIn(r)
}

// rawInput says whether a raw binary request can carry the sample: its shape must follow from the body's length.
func (p *probe) rawInput() error {
	if len(p.inputs) != 1 {
		return skip("the model has %d inputs", len(p.inputs))
	}
	open := 0
	for _, n := range p.inputs[0].Shape {
		if n < 0 {
			open++
		}
	}
	if open > 1 {
		return skip("more than one dimension may be chosen")
	}
	if p.sample[0].Type == zarpa.String {
		return skip("a raw request of BYTES is one element")
	}
	return nil
}

func binaryRaw(ctx context.Context, p *probe) (string, error) {
	if err := p.rawInput(); err != nil {
		return "", err
	}
	r, err := p.post(ctx, request{
		path: modelPath(p.name) + "/infer", header: []string{"Content-Type", "application/octet-stream", lengthHeader, "0"}, body: raw(p.sample[0]),
	})
	if err == nil {
		err = allBinary(r)
	}
	if err != nil {
		return "", err
	}
	return p.sameIn(r)
}

func binaryPacked(ctx context.Context, p *probe) (string, error) {
	r := p.infers(newRequest(binaryREST, p.sample))
	r.body = packed("gzip", r.body)
	r.header = append(r.header, "Content-Encoding", "gzip")
	return p.sendsSame(ctx, r)
}

func binaryChunked(ctx context.Context, p *probe) (string, error) {
	r := p.infers(newRequest(binaryREST, p.sample))
	r.framing = chunked
	return p.sendsSame(ctx, r)
}

func binaryAnyBytes(ctx context.Context, p *probe) (string, error) {
	list := []string{"\x00", "\xff\xfe", "", "a\x00b"}
	tensors := append([]zarpa.Tensor{}, p.sample...)
	found := false
	for i, t := range tensors {
		if t.Type == zarpa.String && count(t) > 0 {
			found = true
			t.Strings = append([]string{}, t.Strings...)
			for k := range t.Strings {
				t.Strings[k] = list[k%len(list)]
			}
			tensors[i] = t
		}
	}
	if !found {
		return "", skip("no input of BYTES")
	}
	r, err := p.send(ctx, newRequest(binaryREST, tensors))
	if err != nil {
		return "", skip("the model does not take such bytes: %v", err)
	}
	got, err := r.tensors()
	if err != nil {
		return "", err
	}
	if p.mirrors() && sameElements(got, tensors) != "" {
		return "", differs("the bytes that were sent, as this model does with others", "%s", sameElements(got, tensors))
	}
	return "whole", nil
}

// mirrors says whether the model answers its inputs, as far as the sample shows.
func (p *probe) mirrors() bool { return sameElements(p.answer, p.sample) == "" }

// sameElements compares tensors in their order, whatever their names.
func sameElements(a, b []zarpa.Tensor) string {
	rename := func(list []zarpa.Tensor) []zarpa.Tensor {
		out := append([]zarpa.Tensor{}, list...)
		for i := range out {
			out[i].Name = strconv.Itoa(i)
		}
		return out
	}
	return sameTensors(rename(a), rename(b))
}

// quote is a text as a JSON string.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string always has a JSON form
	return string(b)
}

// isStatus says whether an answer refuses, by its status.
func isStatus(a answer) bool { return a.status >= http.StatusBadRequest }
