package container_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/targettest"
)

// control stops, kills or starts an engine of the tests' own.
func control(t *testing.T, variable, what string) {
	t.Helper()
	program := os.Getenv(variable + "_CONTROL")
	if out, err := exec.Command(program, what).CombinedOutput(); err != nil {
		t.Fatalf("%s the engine: %v: %s", what, err, out)
	}
}

// TestEngineAway is not parallel: the others need the engine.
func TestEngineAway(t *testing.T) {
	for name, variable := range engines {
		t.Run(name, func(t *testing.T) {
			host := os.Getenv(variable)
			if host == "" || os.Getenv(variable+"_CONTROL") == "" {
				t.Skipf("%s_CONTROL stops no engine: run e2e/engines.sh docker podman -- go test ./target/container", variable)
			}
			for _, how := range []string{"stop", "kill"} {
				t.Run(how, func(t *testing.T) { engineAway(t, host, variable, how) })
			}
		})
	}
}

// engineAway ends the engine, reopens the driver without it, and starts it again: whatever the engine has made of the
// containers, there is one ready replica in one running container in the end.
func engineAway(t *testing.T, host, variable, how string) {
	o := options(t, host)
	o.Probes.Every, o.Probes.Return = 200*time.Millisecond, 100*time.Millisecond
	first := open(t, o)
	h := apply(t, first, deployment("away", "blue"))
	before := await(t, first, h, isReady).Replicas[0]
	ids := containers(t, o, before.ID)
	control(t, variable, how)
	down := true
	t.Cleanup(func() {
		if down {
			control(t, variable, "start")
		}
	})
	await(t, first, h, func(s zarpa.DeploymentStatus) bool { return strings.Contains(s.Message, "cannot be reached") })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	d := open(t, o)
	outlives := targettest.Call(t.Context(), before.Address, 0) == nil
	s, err := d.Observe(t.Context(), h)
	if err != nil || len(s.Replicas) != 1 || s.Replicas[0].ID != before.ID {
		t.Errorf("opened without the engine: %+v, %v", s, err)
	}
	if outlives && !isReady(s) {
		t.Errorf("the replica answers and is %+v", s.Replicas)
	}
	control(t, variable, "start")
	down = false
	after := await(t, d, h, func(s zarpa.DeploymentStatus) bool { return isReady(s) && s.Message == "" && len(s.Replicas) == 1 }).Replicas[0]
	if err := targettest.Call(t.Context(), after.Address, 0); err != nil {
		t.Errorf("with the engine back: %v", err)
	}
	now := containers(t, o, "")
	if outlives && (after.Restarts != before.Restarts || !slices.Equal(ids, now)) {
		t.Errorf("it lived on and was started again: %+v, containers %v, were %v", after, now, ids)
	}
	t.Logf("the container outlived the engine: %v", outlives)
	crash(t, o, after) // events arrive again; and there is one that runs
	await(t, d, h, func(s zarpa.DeploymentStatus) bool { return isReady(s) && s.Replicas[0].Restarts > after.Restarts })
}
