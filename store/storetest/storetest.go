// Package storetest is the executable contract of zarpa.Store: every implementation runs it in its
// own tests. It uses the contract alone, so that it says nothing of how data are kept.
package storetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// Run proves the contracts of a store and its nouns.
//
// open makes an empty store that no other test sees. reopen closes the store that it is given and
// opens another over the same data. The suite closes what both return; closing twice must be no
// error. Tests run in parallel.
func Run(t *testing.T, open func(*testing.T) zarpa.Store, reopen func(*testing.T, zarpa.Store) zarpa.Store) {
	t.Helper()
	s := suite{open: open, reopen: reopen}
	groups := []struct {
		name  string
		cases []scenario
	}{
		{"Models", modelScenarios()},
		{"Endpoints", endpointScenarios()},
		{"Keys", keyScenarios()},
		{"Deployments", deploymentScenarios()},
		{"Operations", operationScenarios()},
		{"Targets", targetScenarios()},
		{"Secrets", secretScenarios()},
		{"Accesses", accessScenarios()},
		{"Audits", auditScenarios()},
		{"Rollouts", rolloutScenarios()},
		{"Scalings", scalingScenarios()},
		{"Store", storeScenarios()},
		{"Atomically", atomicScenarios()},
		{"Concurrency", concurrencyScenarios()},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range g.cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					c.run(t, s.start(t))
				})
			}
		})
	}
}

type scenario struct {
	name string
	run  func(*testing.T, *subject)
}

type suite struct {
	open   func(*testing.T) zarpa.Store
	reopen func(*testing.T, zarpa.Store) zarpa.Store
}

// subject is one store under test; its nouns are at hand.
type subject struct {
	zarpa.Store
	zarpa.Nouns
	suite suite
}

func (s suite) start(t *testing.T) *subject {
	t.Helper()
	sub := &subject{suite: s}
	sub.use(t, s.open(t))
	return sub
}

func (s *subject) use(t *testing.T, store zarpa.Store) {
	t.Helper()
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s.Store, s.Nouns = store, store.Nouns()
}

// restart closes the store and opens it again over the same data.
func (s *subject) restart(t *testing.T) {
	t.Helper()
	s.use(t, s.suite.reopen(t, s.Store))
}

// ok ends the test at an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

// fails ends the test unless err is an Error of the code with a message; it returns it.
func fails(t *testing.T, err error, code zarpa.Code) *zarpa.Error {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, expected %s", code)
	}
	e := zarpa.AsError(err)
	if e.Code != code || e.Message == "" {
		t.Fatalf("error %q (%s), expected %s", err, e.Code, code)
	}
	if code == zarpa.NotFound && !errors.Is(err, zarpa.ErrNotFound) {
		t.Fatalf("error %q does not match ErrNotFound", err)
	}
	return e
}

// same compares two nouns by their JSON form, which is what every reader of a noun sees.
func same(t *testing.T, got, want any) {
	t.Helper()
	g, w := text(t, got), text(t, want)
	if !bytes.Equal(g, w) {
		t.Fatalf("got\n%s\nwant\n%s", g, w)
	}
}

func text(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// together runs n calls at once and returns their errors in order.
func together(n int, call func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = call(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}
