package gateway

import (
	"net/http"
	"regexp"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

// cors says which pages browsers let call an endpoint. The answers are those of the original
// server: "*" comes back as the page's own origin, so that caches must tell origins apart, and
// without an Origin the first of the list stands there.
type cors struct {
	any         bool
	origins     []string // sorted
	expressions []*regexp.Regexp
}

// exposed are the headers that a page may read besides the usual ones.
const exposed = "azureml-model-deployment, x-request-id, x-ms-request-id, x-ms-client-request-id, x-ms-server-version, x-ms-run-function-failed, " +
	"x-ms-run-fn-exec-ms, ms-azureml-model-error-statuscode, ms-azureml-model-error-reason, Retry-After, " +
	"Inference-Header-Content-Length"

// newCORS is nil for no entries. Entries that are no expressions after all, which the control plane
// does not let through, allow nothing.
func newCORS(entries []string) *cors {
	if len(entries) == 0 {
		return nil
	}
	c := &cors{}
	for _, e := range entries {
		if e == "*" {
			c.any = true
		} else if text, ok := zarpa.OriginExpression(e); !ok {
			c.origins = append(c.origins, e)
		} else if re, err := regexp.Compile(text); err == nil {
			c.expressions = append(c.expressions, re)
		}
	}
	slices.Sort(c.origins)
	return c
}

// allow is the value of Access-Control-Allow-Origin, empty for none; varies says that another
// Origin may get another one.
func (c *cors) allow(origin string) (value string, varies bool) {
	varies = len(c.origins) > 1 || len(c.expressions) > 0
	switch {
	case c.any && origin == "":
		return "*", false
	case c.any:
		return origin, true
	case origin == "" && len(c.origins) > 0:
		return c.origins[0], varies
	case slices.Contains(c.origins, origin),
		slices.ContainsFunc(c.expressions, func(re *regexp.Regexp) bool { return re.MatchString(origin) }):
		return origin, varies
	}
	return "", varies
}

// share lets pages of other origins read the answer, where the endpoint allows it. A pre-flight
// request, which browsers send without a key, is answered here.
func (ex *exchange) share() {
	c := ex.rule.cors
	if c == nil {
		return
	}
	origin := ex.r.Header.Get("Origin")
	value, varies := c.allow(origin)
	h := ex.w.Header()
	if varies {
		h.Add("Vary", "Origin")
	}
	if value != "" && plainValue(value) {
		h.Set("Access-Control-Allow-Origin", value)
		h.Set("Access-Control-Expose-Headers", exposed)
	}
	wanted := ex.r.Header.Get("Access-Control-Request-Method")
	if ex.r.Method != http.MethodOptions || origin == "" || wanted == "" {
		return
	}
	if value != "" && (wanted == http.MethodGet || wanted == http.MethodPost) {
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		if headers := ex.r.Header.Get("Access-Control-Request-Headers"); headers != "" && plainValue(headers) {
			h.Set("Access-Control-Allow-Headers", headers)
		}
	}
	h.Del("Access-Control-Expose-Headers") // is for answers
	h.Set("Content-Length", "0")
	ex.status = http.StatusOK
	ex.w.WriteHeader(ex.status)
}
