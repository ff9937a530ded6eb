package score

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// dialects are the ways to describe the service, by what ?version= may say.
const (
	swagger2  = "2"
	openapi30 = "3"
	openapi31 = "3.1"
)

func (s *Server) swagger(w http.ResponseWriter, r *http.Request) error {
	m, err := s.entries[0].ready()
	if err != nil {
		return err
	}
	version := swagger2
	if q := r.URL.Query(); q.Has("version") {
		version = q.Get("version")
	}
	if m.scorer != nil {
		w.Header()["X-Ms-Run-Function-Failed"] = failedNo // as the scoring containers have it
		body, err := m.scorer.Swagger(version)
		if err != nil {
			return err
		}
		return answer(w, jsonType, body)
	}
	switch version {
	case "2.0":
		version = swagger2
	case "3.0":
		version = openapi30
	}
	body, ok := m.swagger[version]
	if !ok {
		return zarpa.Errorf(zarpa.NotFound, "Swagger version [%.40s] is not valid. Supported versions: [2, 3, 3.1].", version)
	}
	return answer(w, jsonType, body)
}

// node is a piece of a JSON document.
type node = map[string]any

// openapi describes the service in every dialect.
func openapi(name, version string, sig zarpa.Signature) map[string][]byte {
	out := map[string][]byte{}
	for _, dialect := range []string{swagger2, openapi30, openapi31} {
		doc := describer{dialect, name, version, sig}.document()
		out[dialect], _ = json.Marshal(doc) // maps of plain values: cannot fail
	}
	return out
}

type describer struct {
	dialect string
	name    string
	version string
	sig     zarpa.Signature
}

func (d describer) document() node {
	info := node{
		"title": d.name, "version": "1.0",
		"description": "Scoring service for the model " + d.name,
	}
	if d.version != "" {
		info["version"] = d.version
	}
	security := []node{{"Bearer": []string{}}}
	doc := node{"info": info, "paths": d.paths(security)}
	schemas := node{"ServiceInput": d.input(), "ServiceOutput": d.output(), "ErrorResponse": errorSchema()}
	if d.dialect == swagger2 {
		doc["swagger"] = "2.0"
		doc["consumes"], doc["produces"] = []string{"application/json"}, []string{"application/json"}
		doc["definitions"] = schemas
		doc["securityDefinitions"] = node{"Bearer": node{"type": "apiKey", "name": "Authorization", "in": "header", "description": "Bearer KEY"}}
		return doc
	}
	doc["openapi"] = map[string]string{openapi30: "3.0.3", openapi31: "3.1.0"}[d.dialect]
	doc["components"] = node{"schemas": schemas, "securitySchemes": node{"Bearer": node{"type": "http", "scheme": "bearer"}}}
	return doc
}

func (d describer) paths(security []node) node {
	version := node{"name": "version", "in": "query", "required": false}
	kind := node{"type": "string", "enum": []string{"2", "2.0", "3", "3.0", "3.1"}, "default": "2"}
	score := node{"operationId": "RunMLService", "description": "Run the model", "security": security, "responses": d.responses("ServiceOutput")}
	if d.dialect == swagger2 {
		maps.Copy(version, kind)
		score["parameters"] = []node{{"name": "serviceInputPayload", "in": "body", "required": true, "schema": d.ref("ServiceInput")}}
	} else {
		version["schema"] = kind
		score["requestBody"] = node{"required": true, "content": node{"application/json": node{"schema": d.ref("ServiceInput")}}}
	}
	health := node{"operationId": "ServiceHealthCheck", "description": "Healthy while the service runs", "responses": d.text()}
	if d.dialect == swagger2 {
		health["produces"] = []string{"text/plain"}
	}
	return node{
		"/":      node{"get": health},
		"/score": node{"post": score},
		"/swagger.json": node{"get": node{
			"operationId": "GetSwaggerSpec", "description": "This description", "parameters": []node{version}, "responses": d.responses(""),
		}},
	}
}

func (d describer) ref(name string) node {
	if d.dialect == swagger2 {
		return node{"$ref": "#/definitions/" + name}
	}
	return node{"$ref": "#/components/schemas/" + name}
}

func (d describer) text() node {
	ok := node{"description": "Healthy"}
	if d.dialect == swagger2 {
		ok["schema"] = node{"type": "string"}
	} else {
		ok["content"] = node{"text/plain": node{"schema": node{"type": "string"}}}
	}
	return node{"200": ok}
}

// responses are a good one of a schema, any object for "", and the error.
func (d describer) responses(schema string) node {
	good := node{"type": "object"}
	if schema != "" {
		good = d.ref(schema)
	}
	body := func(description string, schema node) node {
		if d.dialect == swagger2 {
			return node{"description": description, "schema": schema}
		}
		return node{"description": description, "content": node{"application/json": node{"schema": schema}}}
	}
	return node{"200": body("Done", good), "default": body("Failed", d.ref("ErrorResponse"))}
}

func errorSchema() node {
	return node{"type": "object", "properties": node{"message": node{"type": "string"}}}
}

// input is {"data": …}: the tensor of a model with one input, an object of them for several.
func (d describer) input() node {
	out := node{"type": "object", "required": []string{"data"}}
	var data node
	var example any
	if len(d.sig.Inputs) == 1 {
		data = valueSchema(d.sig.Inputs[0])
		example = sample(d.sig.Inputs[0])
	} else {
		data, example = objectSchema(d.sig.Inputs, true)
	}
	if example != nil {
		out["example"] = node{"data": example}
	}
	out["properties"] = node{"data": data}
	return out
}

func (d describer) output() node {
	out, example := objectSchema(d.sig.Outputs, false)
	if example != nil {
		out["example"] = example
	}
	return out
}

func objectSchema(values []zarpa.ValueInfo, needed bool) (schema node, example any) {
	properties, required, samples := node{}, []string{}, node{}
	for _, v := range values {
		properties[v.Name] = valueSchema(v)
		if !v.Optional {
			required = append(required, v.Name)
		}
		if s := sample(v); s != nil {
			samples[v.Name] = s
		}
	}
	schema = node{"type": "object", "properties": properties}
	if needed && len(required) > 0 {
		schema["required"] = required
	}
	if len(samples) == len(values) {
		example = samples
	}
	return schema, example
}

func valueSchema(v zarpa.ValueInfo) node {
	switch {
	case v.Type == zarpa.Sequence && len(v.Items) == 1:
		return node{"type": "array", "items": valueSchema(v.Items[0])}
	case v.Type == zarpa.Sequence:
		return node{"type": "array", "items": node{}}
	case v.Type == zarpa.Map && len(v.Items) == 2:
		return node{"type": "object", "additionalProperties": valueSchema(v.Items[1])}
	case v.Type == zarpa.Map:
		return node{"type": "object"}
	case v.NoShape:
		return node{}
	}
	schema := elementSchema(v.Type)
	for _, dim := range slices.Backward(v.Shape) {
		schema = node{"type": "array", "items": schema}
		if size := dim.Size; size >= 0 {
			schema["minItems"], schema["maxItems"] = size, size
		}
	}
	if v.Doc != "" {
		schema["description"] = v.Doc
	}
	return schema
}

func elementSchema(t zarpa.ElementType) node {
	switch t {
	case zarpa.Bool:
		return node{"type": "boolean"}
	case zarpa.String:
		return node{"type": "string"}
	case zarpa.Float64:
		return node{"type": "number", "format": "double"}
	case zarpa.Float16, zarpa.BFloat16, zarpa.Float32:
		return node{"type": "number", "format": "float"}
	case zarpa.Int64:
		return node{"type": "integer", "format": "int64"}
	case zarpa.Int32:
		return node{"type": "integer", "format": "int32"}
	default: // what is left follows
	}
	if strings.Contains(t.String(), "INT") {
		return node{"type": "integer"}
	}
	return node{}
}

// maxSample bounds the elements of an example; a bigger tensor has none.
const maxSample = 1024

// sample is a value that the schema takes, one along every free dimension; nil when there is none
// that a reader would want to see.
func sample(v zarpa.ValueInfo) any {
	shape := make([]int64, len(v.Shape))
	for i, d := range v.Shape {
		if shape[i] = d.Size; d.Size < 0 {
			shape[i] = 1
		}
	}
	n, err := zarpa.Elements(shape)
	schema := elementSchema(v.Type)
	switch {
	case v.Type == zarpa.Sequence && len(v.Items) == 1:
		if s := sample(v.Items[0]); s != nil {
			return []any{s}
		}
		return nil
	case v.Type == zarpa.Map && len(v.Items) == 2:
		if s := sample(v.Items[1]); s != nil {
			return node{"0": s}
		}
		return nil
	case v.NoShape, err != nil, n > maxSample, schema["type"] == nil:
		return nil
	}
	zero := map[any]any{"boolean": false, "string": "text", "number": 0.5, "integer": 1}[schema["type"]]
	for _, s := range slices.Backward(shape) {
		row := make([]any, s)
		for j := range row {
			row[j] = zero
		}
		zero = row
	}
	return zero
}
