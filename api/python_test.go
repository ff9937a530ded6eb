package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestAChangeTakesThePlaceOfOneThatWaitsForAnEnvironment(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	code, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris", `{"deployments": [{"name": "blue", "model": "iris", "replicas": 1}]}`)
	var first zarpa.ChangeSet
	if err := json.Unmarshal([]byte(answer), &first); err != nil || code != 200 || first.Operation == nil {
		t.Fatalf("%d %s", code, answer)
	}
	op := *first.Operation
	op.Phases = append(op.Phases, zarpa.Phase{Name: "environment", Deployment: "blue", State: zarpa.OperationRunning, Started: time.Now().UTC()})
	ops := s.store.Nouns().Operations
	if err := ops.Update(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	if code, answer = s.ask(t, http.MethodDelete, "/v1/endpoints/iris", nil); code != 200 {
		t.Fatalf("delete: %d %s", code, answer)
	}
	old, err := ops.Get(t.Context(), op.ID)
	if err != nil || old.State != zarpa.OperationFailed || old.Error == nil || !strings.Contains(old.Error.Message, "took its place") || old.Ended.IsZero() {
		t.Errorf("%+v, %v", old, err)
	}
}

func TestWhatADeploymentOfCodeNamesMustBeStored(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	missing := `"sha256:` + strings.Repeat("0", 64) + `"`
	for _, c := range []struct{ deployment, want string }{
		{`{"name": "blue"}`, "model: empty"},
		{`{"name": "blue", "code": ` + missing + `}`, "code"},
		{`{"name": "blue", "code": ` + missing + `, "entry": "../score.py"}`, "../score.py"},
		{`{"name": "blue", "code": ` + missing + `, "workers": 1000}`, "workers"},
		{`{"name": "blue", "code": ` + missing + `, "environment": {"python": "3"}}`, "3.11"},
		{`{"name": "blue", "entry": "score.py", "model": "iris"}`, "without code"},
	} {
		code, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris", `{"deployments": [`+c.deployment+`]}`)
		if code != 400 && code != 404 || !strings.Contains(answer, c.want) {
			t.Errorf("%s: %d %s, want an error that says %q", c.deployment, code, answer, c.want)
		}
	}
}
