package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func storeScenarios() []scenario {
	return []scenario{
		{"CanceledCallersGetNothing", storeCanceled},
		{"ClosedIsUnavailable", storeClosed},
		{"CloseWaitsForRunningCalls", storeCloseWaits},
		{"ReopenKeepsAll", storeReopen},
	}
}

// calls are one call of every method, on what writeAll made.
func calls(ctx context.Context, n zarpa.Nouns) map[string]func() error {
	two := func(_ any, err error) error { return err }
	ref := zarpa.ModelRef{Name: "iris", Version: 1}
	return map[string]func() error{
		"Models.Create":      func() error { return two(n.Models.Create(ctx, model("iris"))) },
		"Models.Get":         func() error { return two(n.Models.Get(ctx, ref)) },
		"Models.List":        func() error { return two(n.Models.List(ctx, "")) },
		"Models.Update":      func() error { return n.Models.Update(ctx, zarpa.Model{Name: "iris", Version: 1}) },
		"Models.Delete":      func() error { return n.Models.Delete(ctx, ref) },
		"Endpoints.Put":      func() error { return n.Endpoints.Put(ctx, endpoint("iris", 2)) },
		"Endpoints.Get":      func() error { return two(n.Endpoints.Get(ctx, "iris")) },
		"Endpoints.List":     func() error { return two(n.Endpoints.List(ctx)) },
		"Endpoints.Delete":   func() error { return n.Endpoints.Delete(ctx, "iris") },
		"Keys.Put":           func() error { return n.Keys.Put(ctx, zarpa.SealedKeys{Endpoint: "iris"}) },
		"Keys.Get":           func() error { return two(n.Keys.Get(ctx, "iris")) },
		"Keys.Delete":        func() error { return n.Keys.Delete(ctx, "iris") },
		"Deployments.Put":    func() error { return n.Deployments.Put(ctx, observed("iris", "green", "local")) },
		"Deployments.List":   func() error { return two(n.Deployments.List(ctx, "")) },
		"Deployments.Delete": func() error { return n.Deployments.Delete(ctx, observed("iris", "blue", "local")) },
		"Operations.Create":  func() error { return n.Operations.Create(ctx, operation("op-2", "rose")) },
		"Operations.Update":  func() error { return n.Operations.Update(ctx, operation("op-1", "iris")) },
		"Operations.Get":     func() error { return two(n.Operations.Get(ctx, "op-1")) },
		"Operations.List":    func() error { return two(n.Operations.List(ctx, "", 0)) },
		"Operations.Prune":   func() error { return n.Operations.Prune(ctx, 0) },
		"Targets.Put":        func() error { return n.Targets.Put(ctx, target("prod")) },
		"Targets.Get":        func() error { return two(n.Targets.Get(ctx, "local")) },
		"Targets.List":       func() error { return two(n.Targets.List(ctx)) },
		"Targets.Delete":     func() error { return n.Targets.Delete(ctx, "local") },
		"Accesses.Create":    func() error { return n.Accesses.Create(ctx, access("other")) },
		"Accesses.Revoke":    func() error { return n.Accesses.Revoke(ctx, "ci", instant()) },
		"Accesses.List":      func() error { return two(n.Accesses.List(ctx)) },
		"Accesses.Delete":    func() error { return n.Accesses.Delete(ctx, "ci") },
		"Audits.Append":      func() error { return n.Audits.Append(ctx, auditEntry("iris")) },
		"Audits.List":        func() error { return two(n.Audits.List(ctx, zarpa.AuditQuery{})) },
		"Audits.Prune":       func() error { return n.Audits.Prune(ctx, instant()) },
	}
}

func storeCanceled(t *testing.T, s *subject) {
	ok(t, writeAll(t.Context(), s.Nouns))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(ctx, s.Nouns) {
		err := call()
		if !errors.Is(err, context.Canceled) || zarpa.AsError(err).Code != zarpa.Canceled {
			t.Errorf("%s with a canceled context: %v", name, err)
		}
	}
	s.expect(t, true)
	all, err := s.Models.List(t.Context(), "")
	ok(t, err)
	if len(all) != 1 {
		t.Fatalf("%d models, want 1: a canceled Create made one", len(all))
	}
}

func storeClosed(t *testing.T, s *subject) {
	ok(t, writeAll(t.Context(), s.Nouns))
	ok(t, s.Close())
	for name, call := range calls(t.Context(), s.Nouns) {
		if err := call(); err == nil || zarpa.AsError(err).Code != zarpa.Unavailable {
			t.Errorf("%s on a closed store: %v, want unavailable", name, err)
		}
	}
	err := s.Atomically(t.Context(), func(zarpa.Nouns) error { t.Error("a closed store ran a transaction"); return nil })
	fails(t, err, zarpa.Unavailable)
	ok(t, s.Close())
}

func storeCloseWaits(t *testing.T, s *subject) {
	ctx := t.Context()
	inside, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Atomically(ctx, func(n zarpa.Nouns) error {
			close(inside)
			<-goOn
			return writeAll(ctx, n)
		})
	}()
	<-inside
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for err := error(nil); err == nil; { // until Close has begun
		_, err = s.Targets.List(ctx)
	}
	select {
	case err := <-closed:
		t.Fatalf("Close returned %v while a transaction ran", err)
	default:
	}
	close(goOn)
	ok(t, <-done)
	ok(t, <-closed)
	s.restart(t)
	s.expect(t, true)
}

func storeReopen(t *testing.T, s *subject) {
	ok(t, writeAll(t.Context(), s.Nouns))
	for range 3 {
		s.restart(t)
		s.expect(t, true)
	}
}

func concurrencyScenarios() []scenario {
	return []scenario{{"AllNounsFromManyGoroutines", manyGoroutines}}
}

// manyGoroutines lets writers, readers and transactions run at once: under the race detector it
// finds shared state, and without it the lost update.
func manyGoroutines(t *testing.T, s *subject) {
	const workers, rounds = 12, 6
	ctx := t.Context()
	for _, err := range together(workers, func(w int) error {
		for r := range rounds {
			if err := s.work(ctx, w, r); err != nil {
				return fmt.Errorf("worker %d, round %d: %w", w, r, err)
			}
		}
		return nil
	}) {
		ok(t, err)
	}
	models, err := s.Models.List(ctx, "shared")
	ok(t, err)
	if len(models) != workers*rounds || models[0].Version != workers*rounds {
		t.Fatalf("%d shared models, want %d", len(models), workers*rounds)
	}
	all, err := s.Operations.List(ctx, "", 0)
	ok(t, err)
	if len(all) != workers*rounds {
		t.Fatalf("%d operations, want %d", len(all), workers*rounds)
	}
}

func (s *subject) work(ctx context.Context, worker, round int) error {
	own, id := fmt.Sprint("w", worker), fmt.Sprintf("op-%d-%d", worker, round)
	if _, err := s.Models.Create(ctx, model("shared")); err != nil {
		return err
	}
	err := s.Atomically(ctx, func(n zarpa.Nouns) error {
		return errors.Join(n.Endpoints.Put(ctx, endpoint(own, int64(round)+1)), n.Operations.Create(ctx, operation(id, own)))
	})
	if err != nil {
		return err
	}
	if e, err := s.Endpoints.Get(ctx, own); err != nil || e.Generation != int64(round)+1 {
		return fmt.Errorf("read back generation %d: %w", e.Generation, err)
	}
	_, listed := s.Endpoints.List(ctx)
	_, gone := s.Deployments.List(ctx, own)
	return errors.Join(listed, gone,
		s.Operations.Update(ctx, ended(operation(id, own))),
		s.Deployments.Put(ctx, observed(own, "blue", "local")),
		s.Targets.Put(ctx, target(own)), s.Targets.Delete(ctx, own))
}
