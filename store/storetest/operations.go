package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func operationScenarios() []scenario {
	return []scenario{
		{"ReadBackAsCreated", operationsReadBack},
		{"OneRunsPerEndpoint", operationsOneRuns},
		{"ManyCreateAtOnceOneRuns", operationsRace},
		{"UpdateReplacesProgressAndCounts", operationsUpdate},
		{"UpdateOfAGoneOneIsNotFound", operationsGone},
		{"AnIdentityIsUsedOnce", operationsIdentity},
		{"ListIsNewestFirst", operationsList},
		{"PruneKeepsTheNewestEnded", operationsPrune},
	}
}

func operationsReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	o := operation("op-1", "iris")
	in := o
	in.State = "" // Create says running
	ok(t, s.Operations.Create(ctx, in))
	for range 2 {
		got, err := s.Operations.Get(ctx, "op-1")
		ok(t, err)
		same(t, got, o)
		s.restart(t)
	}
	_, err := s.Operations.Get(ctx, "op-2")
	fails(t, err, zarpa.NotFound)
}

func operationsOneRuns(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Operations.Create(ctx, operation("op-1", "iris")))
	for _, restart := range []bool{false, true} {
		if restart {
			s.restart(t)
		}
		if e := fails(t, s.Operations.Create(ctx, operation("op-2", "iris")), zarpa.Conflict); e.Operation != "op-1" {
			t.Fatalf("the conflict names operation %q, want op-1", e.Operation)
		}
	}
	ok(t, s.Operations.Create(ctx, operation("op-3", "rose"))) // another endpoint
	for i, state := range []zarpa.OperationState{zarpa.OperationSucceeded, zarpa.OperationFailed} {
		all, err := s.Operations.List(ctx, "iris", 1)
		ok(t, err)
		o := all[0]
		o.State = state
		ok(t, s.Operations.Update(ctx, o))
		ok(t, s.Operations.Create(ctx, operation(fmt.Sprint("next-", i), "iris")))
	}
	first, err := s.Operations.Get(ctx, "op-1")
	ok(t, err)
	first.State = zarpa.OperationRunning
	if e := fails(t, s.Operations.Update(ctx, first), zarpa.Conflict); e.Operation != "next-1" {
		t.Fatalf("running again: the conflict names %q, want next-1", e.Operation)
	}
}

func operationsRace(t *testing.T, s *subject) {
	won := 0
	for _, err := range together(16, func(i int) error {
		return s.Operations.Create(t.Context(), operation(fmt.Sprint("op-", i), "iris"))
	}) {
		if err == nil {
			won++
		} else if e := fails(t, err, zarpa.Conflict); e.Operation == "" {
			t.Fatal("the conflict names no operation")
		}
	}
	if won != 1 {
		t.Fatalf("%d run at once, want 1", won)
	}
}

func operationsUpdate(t *testing.T, s *subject) {
	ctx := t.Context()
	o := operation("op-1", "iris")
	ok(t, s.Operations.Create(ctx, o))
	first, err := s.Operations.Get(ctx, "op-1")
	ok(t, err)
	change := ended(o)
	change.State = zarpa.OperationFailed
	change.Error = &zarpa.Error{Code: zarpa.ModelError, Message: unicode, Hint: "look", RequestID: "r"}
	change.Phases = append(slices.Clone(o.Phases), zarpa.Phase{
		Name: "load", Deployment: "blue", State: zarpa.OperationFailed, Started: instant(), Cause: "no", Hint: "yes", Log: []string{"l1", unicode},
	})
	want := change
	want.Revision = first.Revision + 1
	change.Kind, change.Endpoint, change.Generation, change.Created, change.Revision = "delete", "rose", 77, time.Time{}, 1000
	change.Who, change.Before = "another", nil
	ok(t, s.Operations.Update(ctx, change))
	got, err := s.Operations.Get(ctx, "op-1")
	ok(t, err)
	same(t, got, want)
	ok(t, s.Operations.Update(ctx, zarpa.Operation{ID: "op-1", State: zarpa.OperationRunning}))
	got, err = s.Operations.Get(ctx, "op-1")
	ok(t, err)
	if got.Revision != first.Revision+2 || got.Error != nil || !got.Ended.IsZero() || len(got.Phases) != 0 {
		t.Fatalf("after a second update: %s", text(t, got))
	}
	for _, err := range together(8, func(int) error { return s.Operations.Update(ctx, o) }) {
		ok(t, err)
	}
	got, err = s.Operations.Get(ctx, "op-1")
	ok(t, err)
	if got.Revision != first.Revision+10 {
		t.Fatalf("revision %d after ten updates, want %d", got.Revision, first.Revision+10)
	}
}

func operationsGone(t *testing.T, s *subject) {
	ctx := t.Context()
	fails(t, s.Operations.Update(ctx, operation("op-1", "iris")), zarpa.NotFound)
	_, err := s.Operations.Get(ctx, "op-1") // Update made nothing
	fails(t, err, zarpa.NotFound)
}

func operationsIdentity(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Operations.Create(ctx, operation("op-1", "iris")))
	ok(t, s.Operations.Update(ctx, ended(operation("op-1", "iris"))))
	fails(t, s.Operations.Create(ctx, operation("op-1", "rose")), zarpa.Conflict)
	got, err := s.Operations.Get(ctx, "op-1")
	ok(t, err)
	if got.Endpoint != "iris" {
		t.Fatalf("the first was replaced: %s", text(t, got))
	}
}

func identities(all []zarpa.Operation) []string {
	ids := make([]string, 0, len(all))
	for _, o := range all {
		ids = append(ids, o.ID)
	}
	return ids
}

func (s *subject) expectOperations(t *testing.T, endpoint string, limit int, want ...string) {
	t.Helper()
	all, err := s.Operations.List(t.Context(), endpoint, limit)
	ok(t, err)
	if ids := identities(all); !slices.Equal(ids, want) {
		t.Fatalf("List(%q, %d) = %v, want %v", endpoint, limit, ids, want)
	}
}

func operationsList(t *testing.T, s *subject) {
	ctx := t.Context()
	s.expectOperations(t, "", 0)
	for i, id := range []string{"c", "a", "b", "e", "d"} {
		o := operation(id, []string{"iris", "rose"}[i%2])
		o.Created = instant().Add(time.Duration(i/2) * time.Second) // some at the same time: creation's order decides
		ok(t, s.Operations.Create(ctx, o))
		ok(t, s.Operations.Update(ctx, ended(o)))
	}
	s.expectOperations(t, "", 0, "d", "e", "b", "a", "c")
	s.expectOperations(t, "iris", 0, "d", "b", "c")
	s.expectOperations(t, "rose", 0, "e", "a")
	s.expectOperations(t, "", 2, "d", "e")
	s.expectOperations(t, "iris", 1, "d")
	s.expectOperations(t, "iris", 100, "d", "b", "c")
	s.expectOperations(t, "none", 0)
}

func operationsPrune(t *testing.T, s *subject) {
	ctx := t.Context()
	add := func(id, endpoint string, end bool) {
		t.Helper()
		o := operation(id, endpoint)
		ok(t, s.Operations.Create(ctx, o))
		if end {
			ok(t, s.Operations.Update(ctx, ended(o)))
		}
	}
	for i := range 5 {
		add(fmt.Sprint("i", i), "iris", true)
		add(fmt.Sprint("r", i), "rose", true)
	}
	add("running", "iris", false)
	fails(t, s.Operations.Prune(ctx, -1), zarpa.Invalid)
	ok(t, s.Operations.Prune(ctx, 10))
	s.expectOperations(t, "rose", 0, "r4", "r3", "r2", "r1", "r0")
	ok(t, s.Operations.Prune(ctx, 2))
	s.expectOperations(t, "iris", 0, "running", "i4", "i3")
	s.expectOperations(t, "rose", 0, "r4", "r3")
	ok(t, s.Operations.Prune(ctx, 0))
	s.expectOperations(t, "", 0, "running")
	fails(t, s.Operations.Create(ctx, operation("next", "iris")), zarpa.Conflict)
}
