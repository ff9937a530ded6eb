package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func atomicScenarios() []scenario {
	return []scenario{
		{"AllHappens", atomicAll},
		{"NothingHappensAfterAnError", atomicError},
		{"NothingHappensAfterAPanic", atomicPanic},
		{"NothingHappensAfterACancel", atomicCancel},
		{"ReadsItsOwnWrites", atomicOwnWrites},
		{"OthersSeeNothingUntilTheEnd", atomicIsolation},
		{"ADomainErrorMayBeHandled", atomicHandled},
		{"ACanceledCallInsideHarmsNothing", atomicCanceledCall},
		{"ReadThenWriteIsSerial", atomicSerial},
		{"NounsEndWithTheTransaction", atomicAfterwards},
	}
}

// writeAll uses every noun once.
func writeAll(ctx context.Context, n zarpa.Nouns) error {
	_, err := n.Models.Create(ctx, model("iris"))
	return errors.Join(err,
		n.Endpoints.Put(ctx, endpoint("iris", 1)),
		n.Keys.Put(ctx, zarpa.SealedKeys{Endpoint: "iris", Sealed: []byte("k"), Updated: instant()}),
		n.Deployments.Put(ctx, observed("iris", "blue", "local")),
		n.Operations.Create(ctx, operation("op-1", "iris")),
		n.Targets.Put(ctx, target("local")),
		n.Accesses.Create(ctx, access("ci")),
		n.Audits.Append(ctx, auditEntry("iris")),
		n.Rollouts.Create(ctx, rollout("ro-1", "iris")))
}

// expect checks that all, or nothing, of writeAll is there.
func (s *subject) expect(t *testing.T, all bool) {
	t.Helper()
	ctx := t.Context()
	_, model := s.Models.Get(ctx, zarpa.ModelRef{Name: "iris"})
	_, endpoint := s.Endpoints.Get(ctx, "iris")
	_, keys := s.Keys.Get(ctx, "iris")
	_, operation := s.Operations.Get(ctx, "op-1")
	_, target := s.Targets.Get(ctx, "local")
	for noun, err := range map[string]error{"model": model, "endpoint": endpoint, "keys": keys, "operation": operation, "target": target} {
		if all && err != nil || !all && !errors.Is(err, zarpa.ErrNotFound) {
			t.Errorf("%s: %v, expected to be there: %t", noun, err, all)
		}
	}
	records, err := s.Deployments.List(ctx, "")
	ok(t, err)
	if (len(records) == 1) != all {
		t.Errorf("%d deployments, expected to be there: %t", len(records), all)
	}
	tokens, err := s.Accesses.List(ctx)
	ok(t, err)
	entries, err := s.Audits.List(ctx, zarpa.AuditQuery{})
	ok(t, err)
	if (len(tokens) == 1) != all || (len(entries) == 1) != all {
		t.Errorf("%d accesses, %d audit entries, expected to be there: %t", len(tokens), len(entries), all)
	}
	rollouts, err := s.Rollouts.List(ctx, "", 0)
	ok(t, err)
	if (len(rollouts) == 1) != all {
		t.Errorf("%d rollouts, expected to be there: %t", len(rollouts), all)
	}
}

func atomicAll(t *testing.T, s *subject) {
	ok(t, s.Atomically(t.Context(), func(n zarpa.Nouns) error { return writeAll(t.Context(), n) }))
	s.expect(t, true)
	s.restart(t)
	s.expect(t, true)
}

func atomicError(t *testing.T, s *subject) {
	sentinel := errors.New("no")
	err := s.Atomically(t.Context(), func(n zarpa.Nouns) error {
		ok(t, writeAll(t.Context(), n))
		return fmt.Errorf("after all: %w", sentinel)
	})
	if !errors.Is(err, sentinel) {
		t.Fatalf("error %v, want the function's own", err)
	}
	s.expect(t, false)
	ok(t, s.Atomically(t.Context(), func(n zarpa.Nouns) error { return writeAll(t.Context(), n) }))
	s.expect(t, true)
	m, err := s.Models.Get(t.Context(), zarpa.ModelRef{Name: "iris"})
	ok(t, err)
	if m.Version != 1 {
		t.Fatalf("version %d, want 1: the first never happened", m.Version)
	}
}

func atomicPanic(t *testing.T, s *subject) {
	func() {
		defer func() {
			if r := recover(); r != "boom" {
				t.Errorf("recovered %v, want boom", r)
			}
		}()
		_ = s.Atomically(t.Context(), func(n zarpa.Nouns) error {
			ok(t, writeAll(t.Context(), n))
			panic("boom")
		})
	}()
	s.expect(t, false)
	ok(t, s.Atomically(t.Context(), func(n zarpa.Nouns) error { return writeAll(t.Context(), n) })) // nothing stays locked
	s.expect(t, true)
}

func atomicCancel(t *testing.T, s *subject) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.Atomically(ctx, func(n zarpa.Nouns) error {
		ok(t, writeAll(t.Context(), n))
		cancel()
		return nil
	})
	fails(t, err, zarpa.Canceled)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v does not match context.Canceled", err)
	}
	s.expect(t, false)
	called := false
	fails(t, s.Atomically(ctx, func(zarpa.Nouns) error { called = true; return nil }), zarpa.Canceled)
	if called {
		t.Fatal("the function ran for a caller who had left")
	}
}

func atomicOwnWrites(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Atomically(ctx, func(n zarpa.Nouns) error {
		ok(t, writeAll(ctx, n))
		m, err := n.Models.Get(ctx, zarpa.ModelRef{Name: "iris"})
		ok(t, err)
		if m.Version != 1 {
			t.Errorf("version %d, want 1", m.Version)
		}
		all, err := n.Operations.List(ctx, "iris", 0)
		ok(t, err)
		if len(all) != 1 {
			t.Errorf("%d operations, want 1", len(all))
		}
		fails(t, n.Endpoints.Put(ctx, endpoint("iris", 1)), zarpa.Conflict)
		return n.Endpoints.Put(ctx, endpoint("iris", 2))
	}))
}

func atomicIsolation(t *testing.T, s *subject) {
	ctx := t.Context()
	wrote, looked, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Atomically(ctx, func(n zarpa.Nouns) error {
			defer close(wrote)
			if err := writeAll(ctx, n); err != nil {
				return err
			}
			wrote <- struct{}{}
			<-looked
			return nil
		})
	}()
	<-wrote
	s.expect(t, false) // and reading does not wait for the writer
	close(looked)
	ok(t, <-done)
	s.expect(t, true)
}

func atomicHandled(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Operations.Create(ctx, operation("old", "iris")))
	ok(t, s.Atomically(ctx, func(n zarpa.Nouns) error {
		e := fails(t, n.Operations.Create(ctx, operation("op-1", "iris")), zarpa.Conflict)
		old, err := n.Operations.Get(ctx, e.Operation)
		ok(t, err)
		old.State = zarpa.OperationFailed
		ok(t, n.Operations.Update(ctx, old))
		return n.Operations.Create(ctx, operation("op-1", "iris"))
	}))
	s.expectOperations(t, "iris", 0, "op-1", "old")
}

func atomicCanceledCall(t *testing.T, s *subject) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	ok(t, s.Atomically(t.Context(), func(n zarpa.Nouns) error {
		ok(t, n.Targets.Put(t.Context(), target("first")))
		fails(t, n.Targets.Put(gone, target("second")), zarpa.Canceled)
		return writeAll(t.Context(), n)
	}))
	s.expect(t, true)
	_, err := s.Targets.Get(t.Context(), "first")
	ok(t, err)
	_, err = s.Targets.Get(t.Context(), "second")
	fails(t, err, zarpa.NotFound)
}

func atomicSerial(t *testing.T, s *subject) {
	const n = 12
	ctx := t.Context()
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 1)))
	var runs atomic.Int64
	for _, err := range together(n, func(int) error {
		return s.Atomically(ctx, func(n zarpa.Nouns) error {
			runs.Add(1)
			e, err := n.Endpoints.Get(ctx, "iris")
			if err != nil {
				return err
			}
			e.Generation++
			return n.Endpoints.Put(ctx, e)
		})
	}) {
		ok(t, err)
	}
	e, err := s.Endpoints.Get(ctx, "iris")
	ok(t, err)
	if e.Generation != n+1 {
		t.Fatalf("generation %d after %d serial increments (%d runs), want %d", e.Generation, n, runs.Load(), n+1)
	}
}

func atomicAfterwards(t *testing.T, s *subject) {
	var kept zarpa.Nouns
	ok(t, s.Atomically(t.Context(), func(n zarpa.Nouns) error { kept = n; return nil }))
	if err := kept.Targets.Put(t.Context(), target("late")); err == nil {
		t.Fatal("a noun of a finished transaction still wrote")
	}
	_, err := s.Targets.Get(t.Context(), "late")
	fails(t, err, zarpa.NotFound)
}
