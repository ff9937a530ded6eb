package api

import (
	"context"
	"net"
	"net/url"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// urls are where an endpoint answers: at its own name, when it has one.
func (s *server) urls(e zarpa.Endpoint) zarpa.URLs {
	gateway := s.Server.GatewayURL
	base := gateway + "/endpoints/" + e.Name
	if u, err := url.Parse(gateway); err == nil && e.Spec.Hostname != "" {
		u.Host = e.Spec.Hostname + portOf(u)
		gateway = strings.TrimSuffix(u.String(), "/")
		base = gateway
	}
	return zarpa.URLs{Score: base + "/score", Infer: gateway + "/v2/models/" + e.Name + "/infer", Swagger: base + "/swagger.json"}
}

func portOf(u *url.URL) string {
	if u.Port() == "" {
		return ""
	}
	return ":" + u.Port()
}

// resolveHostname completes a single label, and wants the name to be nobody else's: neither another endpoint's
// nor the gateway's own, at which all endpoints are.
func (s *server) resolveHostname(ctx context.Context, n zarpa.Nouns, endpoint string, spec *zarpa.EndpointSpec) error {
	if spec.Hostname == "" {
		return nil
	}
	if s.DNSSuffix != "" && !strings.Contains(spec.Hostname, ".") {
		spec.Hostname += "." + s.DNSSuffix
	}
	if u, err := url.Parse(s.Server.GatewayURL); err == nil && net.ParseIP(u.Hostname()) == nil && strings.EqualFold(u.Hostname(), spec.Hostname) {
		return zarpa.Errorf(zarpa.Conflict, "hostname: %q is the gateway's own name, at which all endpoints are", spec.Hostname).
			WithHint("choose a name of the endpoint's own")
	}
	all, err := n.Endpoints.List(ctx)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name != endpoint && e.Spec.Hostname == spec.Hostname {
			return zarpa.Errorf(zarpa.Conflict, "hostname: %q is that of endpoint %q", spec.Hostname, e.Name).
				WithHint("choose another, or take it from that one first: zarpa deploy %s --hostname ''", e.Name)
		}
	}
	return nil
}
