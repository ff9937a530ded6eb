package oip

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

func metadataChecks() []check {
	model := func(id string, l Level, says string) Check {
		return Check{ID: id, Group: REST, Level: l, Says: says, Section: "REST: Model Metadata", PerModel: true}
	}
	ready := func(id string, says string) Check {
		return Check{ID: id, Group: REST, Level: Must, Says: says, Section: "REST: Health", PerModel: true}
	}
	names := model("rest.names.encoded", Should, "a name that is percent-encoded in a path is the name")
	names.Section, names.Choices = "RFC 3986, 6.2.2.2", "decoded; some servers take the path as it is and answer 404"
	slash := model("rest.names.slash", Should, "a path with slashes in the name, as clients send names with slashes, is routed or refused with an error")
	slash.Section, slash.Choices = "what clients send", "the model, or an error of 400 to 499"
	return []check{
		{Check: ready("rest.model.ready", "GET /v2/models/NAME/ready answers 200 for a model that is ready"), needs: needModel, ask: modelReady},
		{Check: ready("rest.model.ready-version", "the same with /versions/VERSION"), needs: needModel, ask: modelReadyVersion},
		{Check: model("rest.model.metadata", Must, "the metadata has name and platform as strings, and inputs and outputs with name, datatype and shape"), ask: modelMetadata},
		{Check: model("rest.model.metadata-version", Must, "the metadata can be had with /versions/VERSION, too"), needs: needModel, ask: modelMetadataVersion},
		{Check: model("rest.model.versions", Should, "versions, where there are any, are strings"), ask: modelVersions},
		{Check: model("rest.model.datatypes", Must, "every datatype of the metadata is one of the protocol"), needs: needModel, ask: modelDatatypes},
		{Check: model("rest.model.content-type", Should, "metadata comes as application/json"), needs: needModel, ask: metadataType},
		{Check: names, needs: needModel, ask: namesEncoded},
		{Check: slash, needs: needModel, ask: namesSlash},
	}
}

func modelReady(ctx context.Context, p *probe) (string, error) {
	return getOK(modelPath(p.name)+"/ready")(ctx, p)
}

// versionPath is the path of the model's newest named version.
func (p *probe) versionPath() (string, error) {
	if len(p.versions) == 0 {
		return "", skip("the metadata names no versions")
	}
	return modelPath(p.name) + "/versions/" + escape(p.versions[len(p.versions)-1]), nil
}

func modelReadyVersion(ctx context.Context, p *probe) (string, error) {
	path, err := p.versionPath()
	if err != nil {
		return "", err
	}
	return getOK(path+"/ready")(ctx, p)
}

func modelMetadata(ctx context.Context, p *probe) (string, error) {
	if p.name == "" {
		return "", skip("no model is known: %s", p.run.noModels)
	}
	a, err := p.run.get(ctx, modelPath(p.name))
	if err != nil {
		return "", err
	}
	return checkMetadata(p.name, a)
}

// checkMetadata holds the metadata against the specification, field by field.
func checkMetadata(name string, a answer) (string, error) {
	type end struct {
		Name, Datatype *string
		Shape          *[]int64
	}
	var m struct {
		Name, Platform  *string
		Inputs, Outputs *[]end
	}
	if err := json.Unmarshal(a.body, &m); a.status != http.StatusOK || err != nil {
		return "", differs("200 with a JSON object", "%s", a.said())
	}
	switch {
	case m.Name == nil || *m.Name != name:
		return "", differs("name "+name, "%s", a.said())
	case m.Platform == nil:
		return "", differs("a platform", "%s", a.said())
	case m.Inputs == nil || m.Outputs == nil:
		return "", differs("lists of inputs and outputs", "%s", a.said())
	}
	for _, e := range append(*m.Inputs, *m.Outputs...) {
		if e.Name == nil || e.Datatype == nil || e.Shape == nil {
			return "", differs("name, datatype and shape for each input and output", "%s", a.said())
		}
		for _, n := range *e.Shape {
			if n < -1 {
				return "", differs("dimensions of -1 or more", "%q: %v", *e.Name, *e.Shape)
			}
		}
	}
	return fmt.Sprintf("platform %s, %d inputs, %d outputs", *m.Platform, len(*m.Inputs), len(*m.Outputs)), nil
}

func modelMetadataVersion(ctx context.Context, p *probe) (string, error) {
	path, err := p.versionPath()
	if err != nil {
		return "", err
	}
	a, err := p.run.get(ctx, path)
	if err != nil {
		return "", err
	}
	return checkMetadata(p.name, a)
}

func modelVersions(ctx context.Context, p *probe) (string, error) {
	if p.name == "" {
		return "", skip("no model is known: %s", p.run.noModels)
	}
	a, err := p.run.get(ctx, modelPath(p.name))
	if err != nil {
		return "", err
	}
	var m struct{ Versions json.RawMessage }
	_ = json.Unmarshal(a.body, &m) // another check's matter
	if m.Versions == nil {
		return "none named", nil
	}
	var list []string
	if err := json.Unmarshal(m.Versions, &list); err != nil {
		return "", differs("a list of strings", "%s", m.Versions)
	}
	return strings.Join(list, ", "), nil
}

func modelDatatypes(_ context.Context, p *probe) (string, error) {
	var seen []string
	for _, d := range append(append([]declared{}, p.inputs...), p.outputs...) {
		if !inProtocol(d.element()) {
			return "", differs("BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64, BYTES or BF16", "%q: %q", d.Name, d.Datatype)
		}
		seen = append(seen, d.Datatype)
	}
	return strings.Join(seen, " "), nil
}

func metadataType(ctx context.Context, p *probe) (string, error) {
	a, err := p.run.get(ctx, modelPath(p.name))
	if err != nil {
		return "", err
	}
	return isJSON(a)
}

// isJSON wants an answer to say that it is JSON.
func isJSON(a answer) (string, error) {
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return "", differs("Content-Type: application/json", "%q", a.header.Get("Content-Type"))
	}
	return kind, nil
}

func namesEncoded(ctx context.Context, p *probe) (string, error) {
	path := fmt.Sprintf("/v2/models/%%%02X%s", p.name[0], escape(p.name[1:]))
	return getOK(path)(ctx, p)
}

func namesSlash(ctx context.Context, p *probe) (string, error) {
	if strings.Contains(p.name, "/") {
		return modelReady(ctx, p) // slashes are sent as they are
	}
	a, err := p.run.get(ctx, modelPath(p.name+"/"+unknownName)+"/ready")
	if err != nil {
		return "", err
	}
	if zarpa.CodeFromHTTP(a.status) == zarpa.Internal || a.status < 400 {
		return "", differs("an error of 400 to 499: there is no such model", "%s", a.said())
	}
	return a.said(), nil
}

// unknownName is a model that no server has.
const unknownName = "no-such-model-4c1d"
