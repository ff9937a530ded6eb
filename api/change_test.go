package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
)

// put changes an endpoint and returns its operation.
func (s *server) put(t *testing.T, path, body string) zarpa.Operation {
	t.Helper()
	code, answer := s.ask(t, http.MethodPut, path, body)
	return operationOf(t, code, answer)
}

func operationOf(t *testing.T, code int, answer string) zarpa.Operation {
	t.Helper()
	var set zarpa.ChangeSet
	if err := json.Unmarshal([]byte(answer), &set); err != nil || code != 200 || set.Operation == nil {
		t.Fatalf("%d %s", code, answer)
	}
	return *set.Operation
}

// end lets an operation have ended, as the reconciler does.
func (s *server) end(t *testing.T, op zarpa.Operation, state zarpa.OperationState) {
	t.Helper()
	op.State, op.Ended = state, time.Now().UTC()
	if err := s.store.Nouns().Operations.Update(t.Context(), op); err != nil {
		t.Fatal(err)
	}
}

func (s *server) weights(t *testing.T) map[string]int {
	t.Helper()
	e, err := s.store.Nouns().Endpoints.Get(t.Context(), "iris")
	if err != nil {
		t.Fatal(err)
	}
	return e.Spec.Weights()
}

func replicas(n int) string {
	return fmt.Sprintf(`{"deployments": [{"name": "blue", "model": "iris", "replicas": %d}]}`, n)
}

func TestAnInterruptTakesThePlaceOfTheOperationThatRuns(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	first := s.put(t, "/v1/endpoints/iris", replicas(1))
	if first.Who != "admin" || first.Before != nil {
		t.Errorf("the first operation: %+v", first)
	}
	if code, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris?interrupt=false", replicas(2)); code != 409 || !strings.Contains(answer, first.ID) {
		t.Errorf("%d %s", code, answer)
	}
	second := s.put(t, "/v1/endpoints/iris?interrupt=true", replicas(2))
	if second.Before == nil || second.Before.Deployments[0].Replicas != 1 {
		t.Errorf("what was before: %+v", second.Before)
	}
	old, err := s.store.Nouns().Operations.Get(t.Context(), first.ID)
	if err != nil || old.State != zarpa.OperationFailed || old.Error == nil || old.Error.Code != zarpa.Conflict || old.Error.Message != "a later change took its place" {
		t.Errorf("%+v, %v", old, err)
	}
}

func TestADeleteTakesThePlaceOfTheOperationThatRuns(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	first := s.put(t, "/v1/endpoints/iris", replicas(1))
	code, answer := s.ask(t, http.MethodDelete, "/v1/endpoints/iris", nil)
	op := operationOf(t, code, answer)
	if op.Kind != "delete" || op.State != zarpa.OperationRunning {
		t.Errorf("%+v", op)
	}
	old, err := s.store.Nouns().Operations.Get(t.Context(), first.ID)
	if err != nil || old.State != zarpa.OperationFailed || old.Error.Message != "a later change took its place" {
		t.Errorf("%+v, %v", old, err)
	}
	// Deleting twice is deleting once, and nothing interrupts it.
	code, answer = s.ask(t, http.MethodDelete, "/v1/endpoints/iris", nil)
	if again := operationOf(t, code, answer); again.ID != op.ID {
		t.Errorf("%+v", again)
	}
	if code, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris?interrupt=true", replicas(2)); code != 409 {
		t.Errorf("%d %s", code, answer)
	}
}

func TestUndoGoesBackAlsoFromWhatRunsOrFailed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	op := s.put(t, "/v1/endpoints/iris", replicas(1))
	undo := func() (int, string) { return s.ask(t, http.MethodPost, "/v1/endpoints/iris/undo", nil) }
	if code, answer := undo(); code != 409 || !strings.Contains(answer, "nothing was before") {
		t.Errorf("of the first: %d %s", code, answer)
	}
	s.end(t, op, zarpa.OperationSucceeded)
	has := func(what string, want int) {
		t.Helper()
		e, err := s.store.Nouns().Endpoints.Get(t.Context(), "iris")
		if err != nil || e.Spec.Deployments[0].Replicas != want {
			t.Errorf("%s: %+v, %v; want %d replicas", what, e.Spec.Deployments, err, want)
		}
	}
	s.put(t, "/v1/endpoints/iris", replicas(2))
	code, answer := undo() // while it runs
	back := operationOf(t, code, answer)
	has("undone while it ran", 1)
	s.end(t, back, zarpa.OperationSucceeded)
	s.end(t, s.put(t, "/v1/endpoints/iris", replicas(3)), zarpa.OperationFailed)
	code, answer = undo()
	s.end(t, operationOf(t, code, answer), zarpa.OperationSucceeded)
	has("undone after it failed", 1)
	code, answer = undo()
	operationOf(t, code, answer)
	has("the undoing undone", 3)
	if code, answer := s.ask(t, http.MethodPost, "/v1/endpoints/rose/undo", nil); code != 404 {
		t.Errorf("of nobody: %d %s", code, answer)
	}
}

func TestAChangeOfTheTrafficAloneIsAnOperationOfItsOwnKind(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	two := func(more, blue, green string) string {
		return `{` + more + `"deployments": [{"name": "blue", "model": "iris"` + blue + `}, {"name": "green", "model": "iris"` + green + `}]}`
	}
	s.end(t, s.put(t, "/v1/endpoints/iris", two("", `, "weight": 100`, `, "weight": 0`)), zarpa.OperationSucceeded)
	for _, c := range []struct{ more, blue, green, kind string }{
		{"", `, "weight": 90`, `, "weight": 10`, zarpa.OperationTraffic},
		{`"default": "blue", `, "", `, "weight": 0`, zarpa.OperationTraffic},
		{`"default": "blue", "mirror": {"deployment": "green", "percent": 10}, "sticky": "key", `, "", "", zarpa.OperationTraffic},
		{`"default": "blue", `, `, "replicas": 2`, "", "update"},
	} {
		op := s.put(t, "/v1/endpoints/iris", two(c.more, c.blue, c.green))
		if op.Kind != c.kind {
			t.Errorf("%+v: %s", c, op.Kind)
		}
		s.end(t, op, zarpa.OperationSucceeded)
	}
	// One that takes the place of an update brings that about, too.
	s.put(t, "/v1/endpoints/iris", two(`"default": "blue", `, `, "replicas": 3`, ""))
	if op := s.put(t, "/v1/endpoints/iris?interrupt=true", two(`"default": "green", `, `, "replicas": 3`, "")); op.Kind != "update" {
		t.Errorf("in the place of an update: %s", op.Kind)
	}
}

func TestAFurtherDeploymentLeavesTheSharesOfTheOthers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	for i, c := range []struct {
		body string
		want map[string]int
	}{
		{`{"deployments": [{"name": "blue", "model": "iris"}]}`, map[string]int{"blue": 100}},
		{`{"deployments": [{"name": "blue", "model": "iris"}, {"name": "green", "model": "iris", "weight": 10}]}`, map[string]int{"blue": 90, "green": 10}},
		{`{"deployments": [{"name": "blue", "model": "iris"}, {"name": "green", "model": "iris", "weight": 10}, {"name": "alpha", "model": "iris"}]}`, map[string]int{"alpha": 0, "blue": 90, "green": 10}},
		{`{"deployments": [{"name": "blue", "model": "iris", "weight": 0}]}`, map[string]int{"blue": 0}},
		{`{"deployments": [{"name": "blue", "model": "iris", "weight": 0}, {"name": "green", "model": "iris"}]}`, map[string]int{"blue": 0, "green": 0}},
	} {
		s.end(t, s.put(t, "/v1/endpoints/iris", c.body), zarpa.OperationSucceeded)
		if got := s.weights(t); !maps.Equal(got, c.want) {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
}

func TestSetWeightsChangesNothingElse(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	var woken []string
	set := api.SetWeights(s.store, func(name string) { woken = append(woken, name) }, time.Now)
	change := api.WeightChange{Endpoint: "iris", Weights: map[string]int{"blue": 40, "green": 60}, Who: "rollout ro-1"}
	if err := set(t.Context(), change); zarpa.AsError(err).Code != zarpa.NotFound {
		t.Errorf("of nobody: %v", err)
	}
	op := s.put(t, "/v1/endpoints/iris", `{"default": "blue", "deployments": [{"name": "blue", "model": "iris", "replicas": 3}, {"name": "green", "model": "iris"}]}`)
	if err := set(t.Context(), change); zarpa.AsError(err).Code != zarpa.Conflict || zarpa.AsError(err).Operation != op.ID {
		t.Errorf("while another operation runs: %v", err)
	}
	s.end(t, op, zarpa.OperationSucceeded)
	for range 2 { // the second time it is so already
		if err := set(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	ops, err := s.store.Nouns().Operations.List(t.Context(), "iris", 0)
	if err != nil || len(ops) != 2 || ops[0].Who != "rollout ro-1" || ops[0].Kind != zarpa.OperationTraffic || ops[0].Before == nil || len(woken) != 1 {
		t.Errorf("%+v, %v, woken %v", ops, err, woken)
	}
	if got := s.weights(t); !maps.Equal(got, change.Weights) {
		t.Errorf("weights %v", got)
	}
	change.Weights, change.Interrupt = map[string]int{"blue": 100}, true
	if err := set(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	if got := s.weights(t); got["blue"] != 100 || got["green"] != 0 {
		t.Errorf("weights %v", got)
	}
	change.Weights = map[string]int{"blue": 40, "green": 60}
	change.Interrupt = false
	if err := set(t.Context(), change); zarpa.AsError(err).Code != zarpa.Conflict {
		t.Errorf("the one that runs is in the way: %v", err)
	}
}

func TestRolloutsBeginOnlyWhereTheyCan(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if code, answer := s.ask(t, http.MethodGet, "/v1/endpoints/rose/rollout", nil); code != 404 || !strings.Contains(answer, "rose") {
		t.Errorf("of an endpoint that never was: %d %s", code, answer)
	}
	s.register(t, "iris")
	three := `"deployments": [{"name": "blue", "model": "iris", "weight": %d}, {"name": "green", "model": "iris", "weight": %d}, {"name": "red", "model": "iris", "weight": 0}]`
	s.end(t, s.put(t, "/v1/endpoints/iris", "{"+fmt.Sprintf(three, 90, 10)+"}"), zarpa.OperationSucceeded)
	s.end(t, s.put(t, "/v1/endpoints/none", "{"+fmt.Sprintf(three, 0, 0)+"}"), zarpa.OperationSucceeded)
	s.end(t, s.put(t, "/v1/endpoints/mirrored", `{"mirror": {"deployment": "red", "percent": 5}, `+fmt.Sprintf(three, 90, 10)+"}"), zarpa.OperationSucceeded)
	for _, c := range []struct {
		endpoint, body string
		code           int
		want           string
	}{
		{"rose", `{"to": "green"}`, 404, "rose"},
		{"iris", `{"to": ""}`, 400, "to: empty"},
		{"iris", `{"to": "green", "steps": [50]}`, 400, "end with 100"},
		{"iris", `{"to": "pink"}`, 404, "no deployment"},
		{"iris", `{"to": "green", "compare": "pink"}`, 404, "compare"},
		{"iris", `{"to": "green", "compare": "red"}`, 409, "no traffic to compare with"},
		{"iris", `{"to": "green", "steps": [5, 100]}`, 400, "steps[0]: 5 is not above"},
		{"iris", `{"to": "green", "max_eror_rate": 1}`, 400, "max_error_rate"},
		{"none", `{"to": "green"}`, 409, "no traffic that could be moved"},
		{"mirrored", `{"to": "red"}`, 409, "--no-mirror"},
		{"iris", `{"to": "green", "compare": "blue"}`, 201, `"steps":[25,50,100]`},
		{"iris", `{"to": "red"}`, 409, "another rollout is under way"},
	} {
		if code, answer := s.ask(t, http.MethodPost, "/v1/endpoints/"+c.endpoint+"/rollout", c.body); code != c.code || !strings.Contains(answer, c.want) {
			t.Errorf("%s %s: %d %s; want %d with %q", c.endpoint, c.body, code, answer, c.code, c.want)
		}
	}
	steer := func(action string, code int, want string) {
		t.Helper()
		got, answer := s.ask(t, http.MethodPost, "/v1/endpoints/iris/rollout/"+action, nil)
		if got != code || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s; want %d with %q", action, got, answer, code, want)
		}
	}
	steer("stop", 400, "pause, resume or abort")
	steer("pause", 200, `"state":"paused"`)
	steer("pause", 200, `"version":1`)
	steer("resume", 200, `"state":"running"`)
	steer("abort", 200, "aborted by admin")
	steer("abort", 200, `"rolling_back"`)
	steer("pause", 409, "rolling_back")
	if code, answer := s.ask(t, http.MethodGet, "/v1/endpoints/iris/rollout?limit=5", nil); code != 200 || strings.Count(answer, `"id":`) != 1 {
		t.Errorf("%d %s", code, answer)
	}
	if code, answer := s.ask(t, http.MethodPost, "/v1/endpoints/rose/rollout/pause", nil); code != 404 {
		t.Errorf("%d %s", code, answer)
	}
}
