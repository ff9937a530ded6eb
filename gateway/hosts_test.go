package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func TestAnEndpointAloneAtItsName(t *testing.T) {
	t.Parallel()
	tell := func(who string) string {
		return replica(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, who+" "+r.URL.Path)
		})
	}
	iris, rose := route(tell("iris")), route(tell("rose"))
	iris.Hostname, rose.Endpoint = "iris.example.com", "rose"
	g := start(t, iris, rose)
	for _, c := range []struct {
		host, path string
		code       int
		want       string
	}{
		{"iris.example.com", "/score", 200, "iris /score"},
		{"iris.example.com:8080", "/score", 200, "iris /score"},
		{"IRIS.example.com", "/score", 200, "iris /score"},
		{"iris.example.com.", "/score", 200, "iris /score"},
		{"iris.example.com", "/", 200, "iris /"},
		{"iris.example.com", "/swagger.json", 200, "iris /swagger.json"},
		{"iris.example.com", "/invocations", 200, "iris /invocations"},
		{"iris.example.com", "/v2/models/iris", 200, "iris /v2/models/iris"},
		{"iris.example.com", "/v2/models/second/infer", 200, "iris /v2/models/second/infer"},
		{"iris.example.com", "/v2", 200, "iris /v2"},
		{"iris.example.com", "/endpoints/rose/score", 404, "own name"},
		{"iris.example.com", "/endpoints/iris/score", 404, "own name"},
		{"iris.example.com", "/v2/../score", 404, ""},
		{"iris.example.com", "/nothing", 404, "own name"},
		{"other.example.com", "/endpoints/iris/score", 200, "iris /score"},
		{"other.example.com", "/endpoints/rose/score", 200, "rose /score"},
		{"other.example.com", "/score", 404, "/endpoints/NAME/score"},
		{"[::1]:8080", "/endpoints/rose/score", 200, "rose /score"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+c.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.code || !strings.Contains(string(b), c.want) {
			t.Errorf("%s%s: %d %s, want %d %s", c.host, c.path, resp.StatusCode, b, c.code, c.want)
		}
	}
	iris.Hostname, rose.Hostname = "x.example.com", "x.example.com"
	if err := g.SetRoutes(t.Context(), zarpa.Routes{Revision: 1 << 60, Endpoints: []zarpa.Route{iris, rose}}); zarpa.AsError(err) == nil || zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("one name for two endpoints: %v", err)
	}
}

// TestAnEndpointAloneAtItsAuthority asks by gRPC: whatever the model's name, it is the endpoint's.
func TestAnEndpointAloneAtItsAuthority(t *testing.T) {
	t.Parallel()
	g := serve(t, func() zarpa.Route {
		r := speaks(&speaker{name: "iris"})(t)[0]
		r.Hostname = "iris.example.com"
		return r
	}())
	for name, address := range addresses() {
		for authority, want := range map[string]codes.Code{"iris.example.com": codes.OK, "iris.example.com:443": codes.OK, "other.example.com": codes.NotFound} {
			conn, err := grpc.NewClient(address(g), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority))
			if err != nil {
				t.Fatal(err)
			}
			_, err = pb.NewGRPCInferenceServiceClient(conn).ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "second"})
			if status.Code(err) != want {
				t.Errorf("%s at %s: %v, want %v", authority, name, err, want)
			}
			conn.Close()
		}
	}
}
