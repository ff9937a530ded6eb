package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func rolloutScenarios() []scenario {
	return []scenario{
		{"ReadBackAsCreated", rolloutsReadBack},
		{"OneRunsPerEndpoint", rolloutsOneRuns},
		{"UpdateWantsTheVersion", rolloutsUpdate},
		{"ManyUpdateAtOnceOneWins", rolloutsRace},
		{"ListIsNewestFirst", rolloutsList},
		{"PruneKeepsTheNewestThatAreOver", rolloutsPrune},
	}
}

func rolloutsReadBack(t *testing.T, s *subject) {
	want := rollout("ro-1", "iris")
	in := want
	in.Version = 77 // it begins at 0
	ok(t, s.Rollouts.Create(t.Context(), in))
	for range 2 {
		got, err := s.Rollouts.List(t.Context(), "iris", 0)
		ok(t, err)
		same(t, got, []zarpa.Rollout{want})
		s.restart(t)
	}
}

func rolloutsOneRuns(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Rollouts.Create(ctx, rollout("ro-1", "iris")))
	ok(t, s.Rollouts.Create(ctx, rollout("ro-2", "rose"))) // another endpoint
	if e := fails(t, s.Rollouts.Create(ctx, rollout("ro-3", "iris")), zarpa.Conflict); !strings.Contains(e.Message, "ro-1") {
		t.Fatalf("the conflict %q does not name ro-1", e.Message)
	}
	fails(t, s.Rollouts.Create(ctx, rollout("ro-2", "lily")), zarpa.Conflict) // the identity is taken
	over := rollout("ro-1", "iris")
	over.State = zarpa.RolloutAborted
	ok(t, s.Rollouts.Update(ctx, over))
	ok(t, s.Rollouts.Create(ctx, rollout("ro-3", "iris")))
	over.Version, over.State = 1, zarpa.RolloutRunning
	fails(t, s.Rollouts.Update(ctx, over), zarpa.Conflict)
}

func rolloutsUpdate(t *testing.T, s *subject) {
	ctx := t.Context()
	fails(t, s.Rollouts.Update(ctx, rollout("ro-1", "iris")), zarpa.NotFound)
	ok(t, s.Rollouts.Create(ctx, rollout("ro-1", "iris")))
	change := rollout("ro-1", "iris")
	change.State, change.Step, change.Compare, change.Reason = zarpa.RolloutPaused, 3, nil, "told to"
	ok(t, s.Rollouts.Update(ctx, change))
	fails(t, s.Rollouts.Update(ctx, change), zarpa.Conflict) // of version 0 still
	want := change
	want.Version = 1
	got, err := s.Rollouts.List(ctx, "", 0)
	ok(t, err)
	same(t, got, []zarpa.Rollout{want})
	ok(t, s.Rollouts.Update(ctx, want))
}

func rolloutsRace(t *testing.T, s *subject) {
	r := rollout("ro-1", "iris")
	ok(t, s.Rollouts.Create(t.Context(), r))
	won := 0
	for _, err := range together(8, func(int) error { return s.Rollouts.Update(t.Context(), r) }) {
		if err == nil {
			won++
		} else {
			fails(t, err, zarpa.Conflict)
		}
	}
	if won != 1 {
		t.Fatalf("%d updates of one version, want 1", won)
	}
}

func (s *subject) expectRollouts(t *testing.T, endpoint string, limit int, want ...string) {
	t.Helper()
	all, err := s.Rollouts.List(t.Context(), endpoint, limit)
	ok(t, err)
	var got []string
	for _, r := range all {
		got = append(got, r.ID)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("List(%q, %d) = %v, want %v", endpoint, limit, got, want)
	}
}

func rolloutsList(t *testing.T, s *subject) {
	for i, id := range []string{"c", "a", "b"} {
		r := rollout(id, []string{"iris", "rose"}[i%2])
		r.State = zarpa.RolloutSucceeded
		ok(t, s.Rollouts.Create(t.Context(), r))
	}
	s.expectRollouts(t, "", 0, "b", "a", "c")
	s.expectRollouts(t, "", 2, "b", "a")
	s.expectRollouts(t, "iris", 0, "b", "c")
	s.expectRollouts(t, "iris", 1, "b")
	s.expectRollouts(t, "none", 0)
}

func rolloutsPrune(t *testing.T, s *subject) {
	ctx := t.Context()
	for i := range 4 {
		for _, endpoint := range []string{"iris", "rose"} {
			r := rollout(fmt.Sprint(endpoint, i), endpoint)
			if r.State = zarpa.RolloutRolledBack; endpoint == "iris" && i == 3 {
				r.State = zarpa.RolloutPaused
			}
			ok(t, s.Rollouts.Create(ctx, r))
		}
	}
	fails(t, s.Rollouts.Prune(ctx, -1), zarpa.Invalid)
	ok(t, s.Rollouts.Prune(ctx, 10))
	s.expectRollouts(t, "rose", 0, "rose3", "rose2", "rose1", "rose0")
	ok(t, s.Rollouts.Prune(ctx, 2))
	s.expectRollouts(t, "iris", 0, "iris3", "iris2", "iris1")
	s.expectRollouts(t, "rose", 0, "rose3", "rose2")
	ok(t, s.Rollouts.Prune(ctx, 0))
	s.expectRollouts(t, "", 0, "iris3")
}
