package oip

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
)

func healthChecks() []check {
	return []check{
		{
			Check: Check{ID: "rest.health.live", Group: REST, Level: Must, Says: "GET /v2/health/live answers 200 while the server lives", Section: "REST: Health"},
			ask:   getOK("/v2/health/live"),
		},
		{
			Check: Check{ID: "rest.health.ready", Group: REST, Level: Must, Says: "GET /v2/health/ready answers 200 when all models are ready", Section: "REST: Health"},
			ask:   getOK("/v2/health/ready"),
		},
		{
			Check: Check{
				ID: "rest.health.body", Group: REST, Level: Should, Says: "the body of a readiness answer is empty or a JSON object with a boolean",
				Section: "REST: Health", Choices: `empty, {"ready": true} or {"live": true}`,
			},
			ask: healthBody,
		},
		{
			Check: Check{ID: "rest.server.metadata", Group: REST, Level: Must, Says: "GET /v2 answers name and version as strings, and extensions as a list of strings", Section: "REST: Server Metadata"},
			ask:   serverMetadata,
		},
		{
			Check: Check{
				ID: "rest.server.slash", Group: REST, Level: Should, Says: "GET /v2/ is the same as GET /v2: one text of the specification writes one, one the other",
				Section: "REST: Server Metadata", Choices: "200, or a redirect to /v2",
			},
			ask: serverSlash,
		},
	}
}

// getOK wants 200 from a path.
func getOK(path string) func(context.Context, *probe) (string, error) {
	return func(ctx context.Context, p *probe) (string, error) {
		a, err := p.run.get(ctx, path)
		if err != nil {
			return "", err
		}
		if a.status != http.StatusOK {
			return "", differs("200", "%s", a.said())
		}
		return "200", nil
	}
}

func (r *run) get(ctx context.Context, path string) (answer, error) {
	return r.wire.do(ctx, request{method: http.MethodGet, path: path})
}

func healthBody(ctx context.Context, p *probe) (string, error) {
	a, err := p.run.get(ctx, "/v2/health/ready")
	if err != nil {
		return "", err
	}
	if len(strings.TrimSpace(string(a.body))) == 0 {
		return "empty", nil
	}
	var object map[string]bool
	if err := json.Unmarshal(a.body, &object); err != nil {
		return "", differs("an empty body, or a JSON object with a boolean", "%s", a.said())
	}
	return strings.TrimSpace(string(a.body)), nil
}

func serverMetadata(ctx context.Context, p *probe) (string, error) {
	a, err := p.run.get(ctx, "/v2")
	if err != nil {
		return "", err
	}
	var m struct {
		Name, Version *string
		Extensions    *[]string
	}
	const want = `200 with {"name": string, "version": string, "extensions": [string…]}`
	if err := json.Unmarshal(a.body, &m); a.status != http.StatusOK || err != nil || m.Name == nil || m.Version == nil || m.Extensions == nil {
		return "", differs(want, "%s", a.said())
	}
	return *m.Name + " " + *m.Version + ", extensions: " + strings.Join(*m.Extensions, " "), nil
}

func serverSlash(ctx context.Context, p *probe) (string, error) {
	a, err := p.run.get(ctx, "/v2/")
	switch {
	case err != nil:
		return "", err
	case a.status == http.StatusOK:
		return "200", nil
	case a.status >= 300 && a.status < 400:
		return "a redirect to " + a.header.Get("Location"), nil
	}
	return "", differs("what /v2 answers", "%s", a.said())
}
