package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// strictJSON decodes a JSON body once, strictly, before the generated code does it leniently: an
// unknown field is named instead of passed over. The body's type follows from the route.
func (s *server) strictJSON(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := bodyType(r)
		if v == nil {
			next.ServeHTTP(w, r)
			return
		}
		err := httpx.DecodeJSON(w, r, maxJSON, v)
		var body []byte
		if err == nil {
			body, err = json.Marshal(v)
		}
		if err != nil {
			httpx.WriteError(w, r, httpx.API, err)
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		next.ServeHTTP(w, r)
	})
}

// bodyType is a pointer to the type of the JSON body that a call takes, nil when it takes none.
func bodyType(r *http.Request) any {
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/v1/models":
		return new(zarpa.Registration)
	case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/v1/models/") && strings.HasSuffix(r.URL.Path, "/convert"):
		return new(zarpa.ConversionSpec)
	case r.Method == http.MethodPatch && strings.HasPrefix(r.URL.Path, "/v1/models/"):
		return new(zarpa.ModelPatch)
	case r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/v1/endpoints/") && strings.Contains(r.URL.Path, "/keys/"):
		return new(zarpa.KeySpec)
	case r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/v1/endpoints/"):
		return new(zarpa.EndpointSpec)
	case r.Method == http.MethodPost && r.URL.Path == "/v1/accesses":
		return new(zarpa.AccessSpec)
	case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/v1/endpoints/") && strings.HasSuffix(r.URL.Path, "/token"):
		return new(zarpa.TokenSpec)
	case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/v1/endpoints/") && strings.HasSuffix(r.URL.Path, "/rollout"):
		return new(zarpa.RolloutSpec)
	}
	return nil
}
