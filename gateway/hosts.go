package gateway

import (
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// hosts are the endpoints that have a name of the gateway for themselves, by that name.
type hosts map[string]string

// endpoint is the one at a Host header or an authority; "" for the names that are no endpoint's.
func (h hosts) endpoint(host string) string {
	if len(h) == 0 {
		return ""
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i] // an IP address in brackets is no endpoint's, with its end or without
	}
	return h[strings.ToLower(strings.TrimSuffix(host, "."))] // what is in small letters is not copied
}

func newHosts(routes []zarpa.Route) hosts {
	h := hosts{}
	for _, r := range routes {
		if r.Hostname != "" {
			h[r.Hostname] = r.Endpoint
		}
	}
	return h
}

// matchHost finds the route of a request at an endpoint's own name, where its paths stand at the top: those that
// stand behind /endpoints/NAME elsewhere, and no others.
func matchHost(endpoint, path string) (match, *zarpa.Error) {
	m, err := matchEndpoint(endpoint+path, path, true)
	if err != nil && err.Code == zarpa.NotFound {
		err = err.WithHint("this is the endpoint's own name: use /score or /v2/models/NAME/infer")
	}
	return m, err
}
