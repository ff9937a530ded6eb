package environment_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/environment"
)

type outcome struct {
	environment zarpa.Environment
	err         error
	lines       []string
}

func ensure(ctx context.Context, c *environment.Cache, req environment.Request) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.environment, o.err = c.Ensure(ctx, req, func(line string) { o.lines = append(o.lines, line) })
		done <- o
	}()
	return done
}

func TestCallersShareOneBuild(t *testing.T) {
	t.Parallel()
	o, g := settings(t), newGate(t)
	req := environment.Request{Files: g.gated(t)}
	builder := open(t, o)
	first := ensure(t.Context(), builder, req)
	conn := g.reached(t)

	other := open(t, o) // as another process does; it must not take the build for a leftover
	id, err := other.Resolve(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := other.Get(t.Context(), id); err != nil || e.Phase != zarpa.EnvironmentBuilding {
		t.Errorf("meanwhile it is %+v, %v", e, err)
	}
	if _, err := other.Python(id); !errors.Is(err, zarpa.ErrNotFound) {
		t.Errorf("its interpreter: %v", err)
	}
	if err := other.Remove(t.Context(), id); !errors.Is(err, zarpa.ErrConflict) {
		t.Errorf("removed: %v", err)
	}
	if removed, err := other.Sweep(t.Context(), nil, time.Now().Add(time.Hour)); err != nil || len(removed) > 0 {
		t.Errorf("swept %v, %v", removed, err)
	}
	waiters := []<-chan outcome{ensure(t.Context(), builder, req), ensure(t.Context(), other, req), ensure(t.Context(), other, req)}
	left, cancel := context.WithCancel(t.Context())
	leaver := ensure(left, other, req)
	cancel()
	if got := <-leaver; !errors.Is(got.err, context.Canceled) {
		t.Errorf("who left got %v", got.err)
	}
	g.open(conn)
	want := <-first
	if want.err != nil {
		t.Fatal(want.err)
	}
	for i, w := range waiters {
		got := <-w
		if got.err != nil || !got.environment.Created.Equal(want.environment.Created) {
			t.Errorf("waiter %d: %+v, %v", i, got.environment, got.err)
		}
		if !slices.ContainsFunc(got.lines, func(s string) bool { return strings.HasPrefix(s, "ready: ") }) && len(got.lines) > 0 {
			t.Errorf("waiter %d heard %q", i, got.lines)
		}
	}
}

func TestACanceledBuildEndsWithAllItsProcesses(t *testing.T) {
	t.Parallel()
	o, g := settings(t), newGate(t)
	c := open(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	req := environment.Request{Files: g.gated(t)}
	done := ensure(ctx, c, req)
	conn := g.reached(t)
	next := ensure(t.Context(), c, req) // waits, and builds anew when the first one leaves
	cancel()
	if got := <-done; zarpa.AsError(got.err).Code != zarpa.Canceled {
		t.Errorf("canceled: %v", got.err)
	}
	if _, err := io.ReadAll(conn); err != nil { // ends when the backend, a grandchild, has died
		t.Errorf("read of the gate: %v", err)
	}
	g.open(g.reached(t))
	if got := <-next; got.err != nil || got.environment.Phase != zarpa.EnvironmentReady {
		t.Errorf("the next one: %+v, %v", got.environment, got.err)
	}
}

func TestABuildHasATimeLimit(t *testing.T) {
	t.Parallel()
	o, g := settings(t), newGate(t)
	o.BuildTimeout = 4 * time.Second // ends in the gate, or before it on a slow machine
	c := open(t, o)
	req := environment.Request{Files: g.gated(t)}
	got := <-ensure(t.Context(), c, req)
	if e := zarpa.AsError(got.err); e.Code != zarpa.Timeout || !strings.Contains(e.Message, "not done within 4s") {
		t.Errorf("error %v", got.err)
	}
	if e, err := c.Get(t.Context(), got.environment.ID); err != nil || e.Phase != zarpa.EnvironmentFailed || e.Error == nil || e.Error.Code != zarpa.Timeout {
		t.Errorf("recorded %+v, %v", e, err)
	}
}

// crashVariable makes TestCrashChild a builder that is killed.
const crashVariable = "ZARPA_ENVIRONMENT_CRASH"

func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashVariable)
	if dir == "" {
		t.Skip("the child of TestAKilledBuildIsDoneAgain")
	}
	o := settings(t)
	o.Dir = filepath.Join(dir, "environments")
	_, err := open(t, o).Ensure(t.Context(), environment.Request{Files: os.DirFS(filepath.Join(dir, "files"))}, nil)
	t.Fatalf("not killed: %v", err)
}

func TestAKilledBuildIsDoneAgain(t *testing.T) {
	t.Parallel()
	dir, g := t.TempDir(), newGate(t)
	content := g.gated(t)
	if err := os.CopyFS(filepath.Join(dir, "files"), content); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$")
	child.Env = append(os.Environ(), crashVariable+"="+dir)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	orphan := g.reached(t)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	o := settings(t)
	o.Dir = filepath.Join(dir, "environments")
	c := open(t, o) // sweeps, but not what pip still writes to
	req := environment.Request{Files: content}
	id, err := c.Resolve(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := c.Get(t.Context(), id); err != nil || e.Phase != zarpa.EnvironmentBuilding {
		t.Fatalf("while the killed one's pip lives: %+v, %v", e, err)
	}
	next := ensure(t.Context(), c, req)
	_ = orphan.Close() // lets the orphan end, which gives the lock back
	g.open(g.reached(t))
	got := <-next
	if got.err != nil || got.environment.Phase != zarpa.EnvironmentReady {
		t.Fatalf("built again: %+v, %v", got.environment, got.err)
	}
	if v := run(t, c, id, "import gated; print(gated.VERSION)"); v != "1.0" {
		t.Errorf("the package says %q", v)
	}
}

func TestLeftoversAreSweptAtOpen(t *testing.T) {
	t.Parallel()
	o := settings(t)
	left := filepath.Join(o.Dir, "0123456789abcdef")
	other := filepath.Join(o.Dir, "something else")
	for _, dir := range []string{filepath.Join(left, "venv", "bin"), other} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	open(t, o)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover is there: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("a folder of somebody else: %v", err)
	}
}
