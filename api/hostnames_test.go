package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa/api"
)

func TestHostnamesAreOneEndpointsEach(t *testing.T) {
	t.Parallel()
	s := startServer(t, api.Options{DNSSuffix: "models.example.com"})
	s.register(t, "iris")
	for _, c := range []struct {
		endpoint, hostname string
		code               int
		want               string
	}{
		{"iris", "iris", 200, `"field":"hostname","to":"iris.models.example.com"`},
		{"iris", "iris", 200, `"changes":[]`},
		{"rose", "iris.models.example.com", 409, `is that of endpoint \"iris\"`},
		{"rose", "rose.example.org", 200, `"to":"rose.example.org"`},
		{"lily", "Lily", 400, "in small letters"},
		{"lily", "lily.example.com:80", 400, "without a port"},
		{"lily", "10.0.0.1", 400, "not the name of a host"},
		{"lily", "-x.example.com", 400, "not the name of a host"},
		{"lily", "a..b", 400, "not the name of a host"},
		{"lily", strings.Repeat("a", 64) + ".com", 400, "not the name of a host"},
		{"lily", strings.Repeat("a.", 130) + "com", 400, "not the name of a host"},
	} {
		code, answer := s.ask(t, "PUT", "/v1/endpoints/"+c.endpoint, fmt.Sprintf(`{"hostname": %q, "deployments": [{"name": "blue", "model": "iris"}]}`, c.hostname))
		if code != c.code || !strings.Contains(answer, c.want) {
			t.Errorf("%s at %s: %d %s, want %d %s", c.endpoint, c.hostname, code, answer, c.code, c.want)
		}
	}
	if code, answer := s.ask(t, "GET", "/v1/endpoints/iris", nil); code != 200 || !strings.Contains(answer, `"score":"http://iris.models.example.com/score"`) {
		t.Errorf("%d %s", code, answer)
	}
}

func TestTheGatewaysOwnNameIsNobodys(t *testing.T) {
	t.Parallel()
	s := newServer(t) // whose gateway is http://gateway
	if code, answer := s.ask(t, "PUT", "/v1/endpoints/iris", `{"hostname": "gateway", "deployments": []}`); code != 409 || !strings.Contains(answer, "the gateway's own name") {
		t.Errorf("%d %s", code, answer)
	}
}
