package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestScalingIsToldAndIdleIsNoFailure(t *testing.T) {
	t.Parallel()
	s, ctx := newServer(t), t.Context()
	nouns := s.store.Nouns()
	put := func(generation int64, least int) {
		t.Helper()
		err := nouns.Endpoints.Put(ctx, zarpa.Endpoint{Name: "iris", Generation: generation, Spec: zarpa.EndpointSpec{
			Deployments: []zarpa.DeploymentSpec{{Name: "blue", Model: "iris:1", Target: "local", Scale: &zarpa.ScaleSpec{Min: &least, Max: 4}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want zarpa.EndpointPhase) {
		t.Helper()
		_, answer := s.ask(t, http.MethodGet, "/v1/endpoints/iris", nil)
		var report zarpa.EndpointReport
		if err := json.Unmarshal([]byte(answer), &report); err != nil {
			t.Fatal(err)
		}
		if report.Phase != want {
			t.Errorf("%s, want %s", report.Phase, want)
		}
	}
	put(1, 0)
	expect(zarpa.EndpointFailed) // one is wanted to begin with, and none is there nor on its way
	code, answer := s.ask(t, http.MethodGet, "/v1/endpoints/iris/scaling", nil)
	if code != http.StatusOK || strings.TrimSpace(answer) != "[]" {
		t.Errorf("%d %s", code, answer)
	}

	record := zarpa.Scaling{Endpoint: "iris", Deployment: "blue", Updated: time.Now().UTC(), Decisions: []zarpa.ScaleDecision{
		{At: time.Now().UTC(), From: 1, Reason: "no request for 5m0s", Inputs: zarpa.ScaleInputs{Target: 5.6, Ready: 1, Capacity: -1, Max: 4}},
	}}
	if err := nouns.Scalings.Put(ctx, record); err != nil {
		t.Fatal(err)
	}
	expect(zarpa.EndpointIdle)
	_, answer = s.ask(t, http.MethodGet, "/v1/endpoints/iris/scaling", nil)
	var list []zarpa.Scaling
	if err := json.Unmarshal([]byte(answer), &list); err != nil || len(list) != 1 || list[0].Decisions[0] != record.Decisions[0] {
		t.Errorf("%s, %v", answer, err)
	}
	put(2, 1) // now one is wanted, whatever was decided before
	expect(zarpa.EndpointFailed)
	record.Wanted = 2
	if err := nouns.Scalings.Put(ctx, record); err != nil {
		t.Fatal(err)
	}
	err := nouns.Deployments.Put(ctx, zarpa.Observed{
		Endpoint: "iris", Deployment: "blue", Target: "local", Status: zarpa.DeploymentStatus{Replicas: []zarpa.Replica{{Phase: zarpa.ReplicaReady}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(zarpa.EndpointDegraded)
	record.Missing = 3
	if err := nouns.Scalings.Put(ctx, record); err != nil {
		t.Fatal(err)
	}
	if _, answer := s.ask(t, http.MethodGet, "/v1/endpoints/iris", nil); !strings.Contains(answer, `has no room for 3 of them`) {
		t.Errorf("what has no room is not in the status: %s", answer)
	}
	if code, _ := s.ask(t, http.MethodGet, "/v1/endpoints/rose/scaling", nil); code != http.StatusNotFound {
		t.Errorf("of an endpoint that does not exist: %d", code)
	}
}

func TestSchedulesAreCheckedBeforeTheyAreStored(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	for scale, want := range map[string]string{
		`{"schedules": [{"cron": "0 8 * *", "min": 1}]}`:                                   `deployment \"green\": scale.schedules[0].cron`,
		`{"schedules": [{"cron": "0 8 * * *", "time_zone": "Europe/Atlantis", "max": 2}]}`: `scale.schedules[0].time_zone`,
		`{"schedules": [{"cron": "0 8 * * *"}]}`:                                           `scale.schedules[0]: changes neither min nor max`,
		`{"min": 3, "max": 2}`:                                                             `scale.min: 3 is more than max, 2`,
		`{"preset": "hpa"}`:                                                                `scale.preset`,
		`{"min": 1, "schedules": [{"cron": "0 0 31 2 *", "min": 0}]}`:                      `never comes`,
	} {
		code, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris", `{"deployments": [{"name": "green", "model": "iris", "scale": `+scale+`}]}`)
		if code != http.StatusBadRequest || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s, want %s", scale, code, answer, want)
		}
	}
	code, answer := s.ask(t, http.MethodPut, "/v1/endpoints/iris",
		`{"deployments": [{"name": "green", "model": "iris", "scale": {"min": 0, "schedules": [{"cron": "0 8 * * 1-5", "time_zone": "Europe/Madrid", "min": 2}]}}]}`)
	if code != http.StatusOK || !strings.Contains(answer, `"deployments.green.scale.target_utilization"`) {
		t.Errorf("%d %s", code, answer)
	}
}
