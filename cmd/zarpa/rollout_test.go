package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/rollout"
	"github.com/zarpa-dev/zarpa/store/sqlite"
)

// idle is a gateway that counts nothing.
type idle struct{}

func (idle) Load(context.Context, int64, time.Duration) (zarpa.Load, error) {
	return zarpa.Load{Run: "1"}, nil
}

func TestRolloutsAreMetrics(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	store, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "zarpa.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	err = errors.Join(
		store.Nouns().Endpoints.Put(ctx, zarpa.Endpoint{Name: "iris", Generation: 1, Spec: zarpa.EndpointSpec{
			Deployments: []zarpa.DeploymentSpec{{Name: "blue"}, {Name: "green"}},
		}}),
		store.Nouns().Rollouts.Create(ctx, zarpa.Rollout{
			ID: "ro-1", Endpoint: "iris", Spec: zarpa.RolloutSpec{To: "green"}.WithDefaults(), State: zarpa.RolloutRunning, Step: -1,
			Before: map[string]int{"blue": 100, "green": 0},
		}))
	if err != nil {
		t.Fatal(err)
	}
	c := rollout.New(rollout.Options{Store: store, Loader: idle{}, Log: slog.New(slog.DiscardHandler), Every: time.Millisecond})
	done := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	go func() { done <- c.Run(running) }()
	registry := prometheus.NewRegistry()
	registry.MustRegister(rolloutMetrics{c})
	var names []string
	for len(names) == 0 && pause(ctx, 5*time.Millisecond) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			names = append(names, f.GetName())
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"zarpa_rollout_state", "zarpa_rollout_step", "zarpa_rollout_step_percent"} {
		if !slices.Contains(names, want) {
			t.Errorf("%v has no %s", names, want)
		}
	}
}

func TestALongIntervalNeedsNoPatience(t *testing.T) {
	t.Parallel()
	spec, err := rolloutFlags{to: "green", interval: "2h", maxErrorRate: "0.5%", minRequests: 10}.spec()
	if err != nil || *spec.MaxErrorRate != 0.5 || spec.WithDefaults().Patience != spec.Interval {
		t.Errorf("%+v, %v", spec, err)
	}
	for _, wrong := range []rolloutFlags{{to: "green", interval: "2h", maxErrorRate: "x"}, {to: "green", interval: "2", maxErrorRate: "1"}, {interval: "2h", maxErrorRate: "1"}} {
		if spec, err := wrong.spec(); zarpa.AsError(err).Code != zarpa.Invalid {
			t.Errorf("%+v: %+v, %v", wrong, spec, err)
		}
	}
}
