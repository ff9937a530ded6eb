package score

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/zarpa-dev/zarpa"
)

func TestSwaggerIsValidInEveryDialect(t *testing.T) {
	t.Parallel()
	big := info("image", zarpa.Float32, 1, 3, 224, 224)
	free := zarpa.ValueInfo{Name: "free", Type: zarpa.Float32, NoShape: true}
	for name, s := range map[string]*session{
		"iris":    iris(),
		"several": echo(info("age", zarpa.Int32, -1, 1), info("city", zarpa.String, -1, 1), info("b", zarpa.Bool), info("u", zarpa.Uint8, 2)),
		"big":     echo(big), "free": echo(free), "none": {},
	} {
		h := newServer(t, s, Options{}).Handler()
		for query, version := range map[string]string{"": "2.0", "?version=2": "2.0", "?version=2.0": "2.0", "?version=3": "3.0.3", "?version=3.0": "3.0.3", "?version=3.1": "3.1.0"} {
			w := ask(h, http.MethodGet, "/swagger.json"+query, "")
			if w.Code != 200 {
				t.Fatalf("%s: %d %s", query, w.Code, w.Body)
			}
			var doc *openapi3.T
			var err error
			if version == "2.0" {
				var two openapi2.T
				if err = json.Unmarshal(w.Body.Bytes(), &two); err == nil && two.Swagger == version {
					doc, err = openapi2conv.ToV3(&two)
				}
			} else {
				doc, err = openapi3.NewLoader().LoadFromData(w.Body.Bytes())
			}
			if err != nil || doc == nil || version != "2.0" && doc.OpenAPI != version {
				t.Fatalf("%s %s: %v", name, query, err)
			}
			if err := doc.Validate(t.Context()); err != nil {
				t.Errorf("%s %s: %v", name, query, err)
			}
			for path, id := range map[string]string{"/": "ServiceHealthCheck", "/score": "RunMLService", "/swagger.json": "GetSwaggerSpec"} {
				item := doc.Paths.Find(path)
				if op := item.Get; op != nil && op.OperationID != id || item.Post != nil && item.Post.OperationID != id {
					t.Errorf("%s %s: operationId", name, path)
				}
			}
			if doc.Components.SecuritySchemes["Bearer"] == nil {
				t.Errorf("%s %s: no Bearer", name, query)
			}
		}
	}
}

// TestSwaggerExampleIsAnswered sends the description's own example.
func TestSwaggerExampleIsAnswered(t *testing.T) {
	t.Parallel()
	for _, s := range []*session{iris(), echo(info("age", zarpa.Int32, -1, 1), info("city", zarpa.String, -1, 1), info("b", zarpa.Bool))} {
		h := newServer(t, s, Options{}).Handler()
		var doc struct {
			Definitions struct {
				ServiceInput struct{ Example json.RawMessage }
			}
		}
		if err := json.Unmarshal(ask(h, http.MethodGet, "/swagger.json", "").Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		if w := ask(h, http.MethodPost, "/score", string(doc.Definitions.ServiceInput.Example)); w.Code != 200 {
			t.Errorf("%s: %d %s", doc.Definitions.ServiceInput.Example, w.Code, w.Body)
		}
	}
}
