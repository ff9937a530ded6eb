package oip

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

const inferSection = "REST: Inference"

func inferChecks() []check {
	of := func(id string, l Level, says string) Check {
		return Check{ID: id, Group: REST, Level: l, Says: says, Section: inferSection, PerModel: true}
	}
	others := of("rest.infer.other-members", Should, "a member of the request that the protocol does not have changes nothing, or is refused with 400 to 499")
	others.Choices = "ignored or refused"
	return []check{
		{Check: of("rest.infer.answers", Must, "a model that is ready answers a request that fits its metadata"), needs: needModel, ask: inferAnswers},
		{Check: of("rest.infer.flat-data", Must, "data may be one flat array in row-major order"), needs: needJSON | needSame, ask: asForm(flatJSON)},
		{Check: of("rest.infer.nested-data", Must, "data may be nested in arrays of its shape"), needs: needJSON | needSame, ask: inferNested},
		{Check: of("rest.infer.model-name", Must, "the answer has the model's name as model_name"), needs: needJSON, ask: inferModelName},
		{Check: of("rest.infer.model-version", Must, "model_version, where there is one, is a string and one of the model's versions"), needs: needJSON, ask: inferModelVersion},
		{Check: of("rest.infer.id", Must, "the id of the request comes back"), needs: needJSON, ask: inferID},
		{Check: of("rest.infer.output-names", Must, "each output of the answer is one of the metadata's, and comes once"), needs: needJSON, ask: inferOutputNames},
		{Check: of("rest.infer.all-outputs", Should, "a request without outputs gets all of them"), needs: needJSON, ask: inferAllOutputs},
		{Check: of("rest.infer.datatype", Must, "an output has the datatype of the metadata"), needs: needJSON, ask: inferDatatype},
		{Check: of("rest.infer.shape", Must, "an output's shape is whole, and the metadata's where that is fixed"), needs: needJSON, ask: inferShape},
		{Check: of("rest.infer.elements", Must, "an output has as many elements as its shape tells, each of its datatype's JSON type and range"), needs: needJSON, ask: inferElements},
		{Check: of("rest.infer.requested-output", Must, "only the outputs that are asked for are in the answer"), needs: needJSON, ask: inferRequested},
		{Check: of("rest.infer.requested-all", Must, "asking for all outputs by name gives what asking for none gives"), needs: needJSON | needSame, ask: inferRequestedAll},
		{Check: of("rest.infer.input-order", Must, "inputs are told apart by name, not by position"), needs: needJSON | needSame, ask: inferOrder},
		{Check: of("rest.infer.version", Must, "/versions/VERSION/infer asks that version, and model_version says so"), needs: needJSON, ask: inferVersion},
		{Check: of("rest.infer.parameters", Should, "parameters of the request, an input or an output that mean nothing to the model change nothing"), needs: needJSON | needSame, ask: inferParameters},
		{Check: of("rest.infer.model-name-member", Should, "the model_name beside inputs that the kserve SDK's client sends changes nothing"), needs: needJSON | needSame, ask: inferNameMember},
		{Check: others, needs: needJSON | needSame, ask: inferOtherMembers},
		{Check: of("rest.infer.member-order", Must, "the members of the JSON objects may come in any order, with white space between them"), needs: needJSON | needSame, ask: inferMemberOrder},
	}
}

func inferAnswers(_ context.Context, p *probe) (string, error) {
	switch {
	case p.sample != nil && p.form == rawGRPC && !p.jsonable() && !p.run.offers("binary_tensor_data"):
		return "", skip("the model's datatypes have no JSON form, and the server does not offer binary_tensor_data")
	case p.sample == nil || p.form == rawGRPC:
		return "", differs("an answer to made-up inputs of the signature", "%s", p.refused)
	}
	var shapes []string
	for _, t := range p.sample {
		shapes = append(shapes, fmt.Sprintf("%v %v", t.Type, t.Shape))
	}
	twice := ", another answer the second time: what needs the same bits is skipped"
	if p.same {
		twice = ", the same bits twice"
	}
	return strings.Join(shapes, ", ") + " by " + p.form.String() + twice, nil
}

// asForm wants a form of the sample to be answered like the form it was first sent in.
func asForm(f form) func(context.Context, *probe) (string, error) {
	return func(ctx context.Context, p *probe) (string, error) { return p.equals(ctx, f) }
}

func inferNested(ctx context.Context, p *probe) (string, error) {
	if !slices.ContainsFunc(p.sample, func(t zarpa.Tensor) bool { return len(t.Shape) > 1 }) {
		return "", skip("no input has two dimensions or more: nested is flat")
	}
	return p.equals(ctx, nestedJSON)
}

// plain is the sample's request in JSON.
func (p *probe) plain() inferRequest {
	if p.form == nestedJSON {
		return newRequest(nestedJSON, p.sample)
	}
	return newRequest(flatJSON, p.sample)
}

func inferModelName(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.plain())
	if err == nil && r.text("model_name") != p.name {
		err = differs("model_name "+p.name, "%s", r.fields["model_name"])
	}
	return p.name, err
}

func inferModelVersion(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.plain())
	if err != nil {
		return "", err
	}
	said, ok := r.fields["model_version"]
	if !ok || string(said) == "null" {
		return "none", nil
	}
	version := r.text("model_version")
	if string(said) != `""` && version == "" || version != "" && len(p.versions) > 0 && !slices.Contains(p.versions, version) {
		return "", differs(fmt.Sprintf("one of %q", p.versions), "%s", said)
	}
	return version, nil
}

func inferID(ctx context.Context, p *probe) (string, error) {
	const id = "conformance: 42 ñ"
	body := p.plain()
	body.ID = id
	r, err := p.send(ctx, body)
	if err == nil && r.text("id") != id {
		err = differs(id, "%s", r.fields["id"])
	}
	return id, err
}

func inferOutputNames(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.plain())
	if err != nil {
		return "", err
	}
	seen := map[string]bool{}
	for _, o := range r.outputs {
		if _, ok := p.output(o.name()); !ok || seen[o.name()] {
			return "", differs("outputs of the metadata, each once", "%q", o.name())
		}
		seen[o.name()] = true
	}
	return fmt.Sprintf("%d outputs", len(seen)), nil
}

func (p *probe) output(name string) (declared, bool) {
	i := slices.IndexFunc(p.outputs, func(d declared) bool { return d.Name == name })
	if i < 0 {
		return declared{}, false
	}
	return p.outputs[i], true
}

func inferAllOutputs(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.plain())
	if err == nil && len(r.outputs) < len(p.outputs) {
		err = differs(fmt.Sprintf("%d outputs", len(p.outputs)), "%d", len(r.outputs))
	}
	return fmt.Sprintf("%d outputs", len(r.outputs)), err
}

func inferDatatype(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.plain())
	if err != nil {
		return "", err
	}
	for _, o := range r.outputs {
		if d, ok := p.output(o.name()); ok && d.Datatype != o.Datatype {
			return "", differs(d.Datatype, "output %q: %q", d.Name, o.Datatype)
		}
	}
	return "as declared", nil
}

func inferShape(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.plain())
	if err != nil {
		return "", err
	}
	for _, o := range r.outputs {
		if d, ok := p.output(o.name()); ok && !fits(o.Shape, d.Shape) {
			return "", differs(fmt.Sprintf("shape %v", d.Shape), "output %q: %v", d.Name, o.Shape)
		}
	}
	return "as declared", nil
}

// fits says whether a shape is whole and agrees with a declared one.
func fits(shape, declared []int64) bool {
	if len(shape) != len(declared) {
		return false
	}
	for i, n := range shape {
		if n < 0 || declared[i] >= 0 && declared[i] != n {
			return false
		}
	}
	return true
}

func inferElements(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.plain())
	if err != nil {
		return "", err
	}
	tensors, err := r.tensors()
	n := 0
	for _, t := range tensors {
		n += count(t)
	}
	return fmt.Sprintf("%d elements", n), err
}

func inferRequested(ctx context.Context, p *probe) (string, error) {
	for _, d := range p.outputs {
		body := p.plain()
		body.Outputs = []outputWanted{{Name: d.Name}}
		r, err := p.send(ctx, body)
		if err != nil {
			return "", err
		}
		if len(r.outputs) != 1 || r.outputs[0].name() != d.Name {
			return "", differs("output "+d.Name+" alone", "%d outputs, %q first", len(r.outputs), r.outputs[0].name())
		}
	}
	return fmt.Sprintf("each of %d", len(p.outputs)), nil
}

func inferRequestedAll(ctx context.Context, p *probe) (string, error) {
	body := p.plain()
	for _, d := range p.outputs {
		body.Outputs = append(body.Outputs, outputWanted{Name: d.Name})
	}
	return p.sameJSON(ctx, body)
}

// sameJSON sends a request in JSON and wants the sample's answer.
func (p *probe) sameJSON(ctx context.Context, r inferRequest) (string, error) {
	body, header := r.encode()
	return p.sendsSame(ctx, request{path: modelPath(p.name) + "/infer", header: header, body: body})
}

func inferOrder(ctx context.Context, p *probe) (string, error) {
	if len(p.sample) < 2 {
		return "", skip("the model has one input")
	}
	body := p.plain()
	slices.Reverse(body.Inputs)
	return p.sameJSON(ctx, body)
}

func inferVersion(ctx context.Context, p *probe) (string, error) {
	path, err := p.versionPath()
	if err != nil {
		return "", err
	}
	body, header := p.plain().encode()
	r, err := p.post(ctx, request{path: path + "/infer", header: header, body: body})
	if err != nil {
		return "", err
	}
	want := p.versions[len(p.versions)-1]
	if r.text("model_version") != want {
		return "", differs("model_version "+want, "%s", r.fields["model_version"])
	}
	return want, nil
}

func inferParameters(ctx context.Context, p *probe) (string, error) {
	body := p.plain()
	extra := values{"conformance_text": "x", "conformance_number": 3, "conformance_flag": true}
	body.Parameters = extra
	for i := range body.Inputs {
		body.Inputs[i].Parameters = extra
	}
	for _, d := range p.outputs {
		body.Outputs = append(body.Outputs, outputWanted{Name: d.Name, Parameters: extra})
	}
	return p.sameJSON(ctx, body)
}

func inferMemberOrder(ctx context.Context, p *probe) (string, error) {
	var inputs []map[string]any // maps are written in the order of their keys: data before shape
	for _, in := range p.plain().Inputs {
		inputs = append(inputs, map[string]any{"name": in.Name, "shape": in.Shape, "datatype": in.Datatype, "data": in.Data})
	}
	body, err := json.MarshalIndent(map[string]any{"inputs": inputs, "id": "order"}, "\t", "  \n")
	if err != nil {
		return "", err
	}
	return p.sendsSame(ctx, request{path: modelPath(p.name) + "/infer", header: jsonType(), body: body})
}

func inferNameMember(ctx context.Context, p *probe) (string, error) {
	body, _ := p.plain().encode()
	return p.sendsSame(ctx, p.inferPath(append([]byte(`{"model_name":`+quote(p.name)+","), body[1:]...)))
}

func inferOtherMembers(ctx context.Context, p *probe) (string, error) {
	body, _ := p.plain().encode()
	r := p.inferPath(append([]byte(`{"conformance":[{"a":1}],`), body[1:]...))
	a, err := p.run.wire.do(ctx, r)
	if err != nil {
		return "", err
	}
	if a.status >= 400 && a.status < 500 {
		return "refused: " + a.said(), nil
	}
	if _, err := p.sendsSame(ctx, r); err != nil {
		return "", err
	}
	return "ignored", nil
}

func jsonType() []string { return []string{"Content-Type", "application/json"} }

// inferPath is the request of a body to the model, its Content-Type JSON.
func (p *probe) inferPath(body []byte) request {
	return request{method: http.MethodPost, path: modelPath(p.name) + "/infer", header: jsonType(), body: body}
}
