package target_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target"
)

// preparing is a driver whose preparations end when they are let.
type preparing struct {
	zarpa.Driver

	begun chan string
	gate  chan error
}

func (p preparing) Prepare(ctx context.Context, d zarpa.Deployment, progress func(string)) error {
	progress("sending 15 MB")
	p.begun <- d.Bundle
	select {
	case err := <-p.gate:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func prepared(t *testing.T) (*ground, preparing, *target.Reconciler, zarpa.Operation) {
	t.Helper()
	g := newGround(t)
	o := g.options()
	p := preparing{o.Drivers[zarpa.DefaultTarget], make(chan string, 1), make(chan error)}
	o.Drivers = map[string]zarpa.Driver{zarpa.DefaultTarget: p}
	r := g.running(t, o)
	op := g.want(t, endpoint("a", "good:1", 1), "deploy")
	r.Wake("a")
	if bundle := <-p.begun; bundle == "" {
		t.Error("prepared without a bundle")
	}
	return g, p, r, op
}

func TestNothingStartsBeforeItIsPrepared(t *testing.T) {
	t.Parallel()
	g, p, r, op := prepared(t)
	g.shows(t, r, op, zarpa.Phase{Name: "image", Detail: "sending 15 MB"})
	if n := g.router.replicas("a"); n != 0 {
		t.Fatalf("%d replicas before they can be made", n)
	}
	p.gate <- nil
	got := g.ends(t, r, op)
	if got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	for _, phase := range got.Phases {
		if phase.Name == "image" && (phase.State != zarpa.OperationSucceeded || phase.Detail != "sending 15 MB") {
			t.Errorf("%+v", phase)
		}
	}
}

func TestWhatCannotBePreparedFailsTheOperation(t *testing.T) {
	t.Parallel()
	g, p, r, op := prepared(t)
	p.gate <- zarpa.Errorf(zarpa.Invalid, "no such base").WithHint("name another")
	got := g.ends(t, r, op)
	last := got.Phases[len(got.Phases)-1]
	if got.State != zarpa.OperationFailed || last.Name != "image" || !strings.Contains(last.Cause, "no such base") || last.Hint != "name another" {
		t.Fatalf("%+v", got)
	}
}

func TestATargetThatComesLaterIsUsed(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	o := g.options()
	driver := o.Drivers[zarpa.DefaultTarget]
	o.Drivers = nil
	r := g.running(t, o)
	e := endpoint("a", "good:1", 1)
	op := g.want(t, e, "deploy")
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationFailed {
		t.Fatalf("without a driver: %+v", got)
	}
	r.SetDriver(zarpa.DefaultTarget, driver)
	e.Generation++
	op = g.want(t, e, "update")
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded || g.router.replicas("a") != 1 {
		t.Fatalf("with one: %+v", got)
	}
	r.DropDriver(zarpa.DefaultTarget)
	if _, err := r.Describe(t.Context(), zarpa.DefaultTarget); !errors.Is(err, zarpa.ErrNotFound) {
		t.Error(err)
	}
	if _, err := r.Capacity(t.Context(), zarpa.DefaultTarget); err == nil {
		t.Error("a target that is gone tells its capacity")
	}
}

// stuck is a driver whose replicas cannot be stopped.
type stuck struct{ zarpa.Driver }

func (stuck) Remove(context.Context, zarpa.Handle) error { return nil }

func (d stuck) Observe(ctx context.Context, h zarpa.Handle) (zarpa.DeploymentStatus, error) {
	s, err := d.Driver.Observe(ctx, h)
	s.Message = "the engine cannot be reached"
	return s, err
}

func TestWhatIsOnATargetThatIsForgottenIsGone(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	o := g.options()
	o.Drivers = map[string]zarpa.Driver{zarpa.DefaultTarget: stuck{o.Drivers[zarpa.DefaultTarget]}}
	targets := g.store.Nouns().Targets
	if err := targets.Put(t.Context(), zarpa.Target{Name: zarpa.DefaultTarget, Kind: "process"}); err != nil {
		t.Fatal(err)
	}
	r := g.running(t, o)
	e := endpoint("a", "good:1", 1)
	op := g.want(t, e, "deploy")
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	e.Generation, e.Deleting = e.Generation+1, true
	op = g.want(t, e, "delete")
	r.Wake("a")
	g.says(t, r, op, "the engine cannot be reached")
	r.DropDriver(zarpa.DefaultTarget)
	g.says(t, r, op, "could not be opened") // it is stored, so that it may come back
	if err := targets.Delete(t.Context(), zarpa.DefaultTarget); err != nil {
		t.Fatal(err)
	}
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
}

// says waits until the operation tells what is in its way.
func (g *ground) says(t *testing.T, r *target.Reconciler, op zarpa.Operation, text string) {
	t.Helper()
	for {
		changed := r.Changed()
		now, err := g.store.Nouns().Operations.Get(t.Context(), op.ID)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(now.Phases, func(p zarpa.Phase) bool { return strings.Contains(p.Cause, text) }) {
			return
		}
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatalf("%q is not said: %+v", text, now)
		}
	}
}
