package container_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/container"
	"github.com/zarpa-dev/zarpa/target/targettest"
)

func TestOutOfMemoryIsNamed(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		d := open(t, options(t, host))
		want := with(deployment("greedy", "blue"), "REPLICA", "greedy")
		want.Spec.Memory, want.Spec.CPU = 32<<20, 0.5
		h := apply(t, d, want)
		s := await(t, d, h, failed)
		last := s.Replicas[0].Last
		if !last.OutOfMemory || last.Signal != "SIGKILL" || !strings.Contains(last.Reason, "32Mi") {
			t.Errorf("a replica that took too much ended as %+v", last)
		}
		if len(s.Enforced) != 0 && (len(s.Enforced) != 2 || !strings.HasPrefix(s.Enforced[0], "memory 32Mi (cgroup")) {
			t.Errorf("enforced: %q", s.Enforced)
		}
	})
}

func TestKilledFromOutsideIsNoWantOfMemoryWhereTheEngineKnows(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		d := open(t, o)
		want := deployment("killed", "blue")
		want.Spec.Memory = 128 << 20
		h := apply(t, d, want)
		r := await(t, d, h, isReady).Replicas[0]
		crash(t, o, r)
		last := await(t, d, h, failed).Replicas[0].Last
		info, err := d.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		podman := strings.HasPrefix(info.Engine, "Podman")
		if last.OutOfMemory != podman || !strings.Contains(last.Reason, "exit 137 under a limit of 128Mi") || !last.Ready {
			t.Errorf("ended as %+v on %s", last, info.Engine)
		}
	})
}

func TestContainerMayDoLittleAndSecretsAreFiles(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		value := []byte("s3cr3t" + strings.Repeat("x", 40))
		o.Secrets = func(_ context.Context, names []string) (map[string][]byte, error) {
			if !slices.Equal(names, []string{"key", "token"}) {
				return nil, errors.New("other names than asked for")
			}
			return map[string][]byte{"key": value, "token": []byte("t")}, nil
		}
		d := open(t, o)
		want := with(deployment("look", "blue"), "REPLICA", "look")
		want.Spec.Secrets = []string{"key", "token"}
		h := apply(t, d, want)
		r := await(t, d, h, isReady).Replicas[0]
		said := logs(t, d, h, zarpa.LogQuery{})
		for _, line := range []string{
			"user 65532 65532", "--endpoint look --deployment blue", "--work /work", "write /root.txt false", "write /tmp/a.txt true", "write /work/1.txt true",
			"write /run/secrets/new false", "secret key -r-------- 46 true", "it is the right one", "secret token -r-------- 1 true", "CapEff: 0000000000000000", "NoNewPrivs: 1",
		} {
			if !strings.Contains(said, line) {
				t.Errorf("%q is not in what the replica sees:\n%s", line, said)
			}
		}
		for _, id := range containers(t, o, r.ID) {
			i, err := engine(t, host).ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(i)
			if err != nil || strings.Contains(string(b)+string(i.Raw), "s3cr3t") {
				t.Errorf("inspect shows a secret (%v): %s", err, b)
			}
		}
		if err := d.StopAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		volumes, err := engine(t, host).VolumeList(t.Context(), client.VolumeListOptions{Filters: make(client.Filters).Add("label", "dev.zarpa.instance="+o.Instance)})
		if err != nil || len(volumes.Items) != 0 {
			t.Errorf("volumes of secrets that stay: %v, %v", volumes.Items, err)
		}
	})
}

func TestSecretThatIsNotThereIsNamed(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		o.Secrets = func(context.Context, []string) (map[string][]byte, error) { return map[string][]byte{}, nil }
		d := open(t, o)
		want := deployment("none", "blue")
		want.Spec.Secrets = []string{"key"}
		last := await(t, d, apply(t, d, want), failed).Replicas[0].Last
		if !strings.Contains(last.Reason, `secret "key" does not exist`) {
			t.Errorf("last = %+v", last)
		}
	})
}

func TestNewestDeadContainerIsKeptUntilTheReplicaGoes(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		d := open(t, o)
		h := apply(t, d, deployment("dies", "blue"))
		var r zarpa.Replica
		for n := range 3 {
			r = await(t, d, h, func(s zarpa.DeploymentStatus) bool { return isReady(s) && s.Replicas[0].Restarts == n }).Replicas[0]
			if want := min(n, 1) + 1; len(containers(t, o, r.ID)) != want {
				t.Errorf("%d containers after %d deaths, want %d", len(containers(t, o, r.ID)), n, want)
			}
			if n < 2 {
				crash(t, o, r)
			}
		}
		if err := d.StopAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := containers(t, o, ""); len(left) != 0 {
			t.Errorf("containers that stay: %v", left)
		}
	})
}

func TestLongLinesAreWhole(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		d := open(t, options(t, host))
		h := apply(t, d, with(deployment("long", "blue"), "REPLICA", "long"))
		await(t, d, h, isReady)
		said := logs(t, d, h, zarpa.LogQuery{Replica: "", Tail: 0})
		if !strings.Contains(said, strings.Repeat("x", 40_000)+"end\n") {
			t.Errorf("a line of 40 000 bytes is in pieces: %.200q of %d bytes", said, len(said))
		}
	})
}

func TestReopenedTakesTheSameContainer(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		first := open(t, o)
		h := apply(t, first, deployment("stays", "blue"))
		r := await(t, first, h, isReady).Replicas[0]
		before := containers(t, o, r.ID)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		// The note is lost: labels tell.
		if err := os.Remove(filepath.Join(o.Dir, "replicas", r.ID, "run.json")); err != nil {
			t.Fatal(err)
		}
		d := open(t, o)
		s, err := d.Observe(t.Context(), h)
		if err != nil || !isReady(s) || s.Replicas[0].Restarts != 0 {
			t.Errorf("reopened: %+v, %v", s, err)
		}
		if after := containers(t, o, ""); !slices.Equal(before, after) {
			t.Errorf("containers %v, were %v", after, before)
		}
	})
}

func TestLeftoversOfALostDirectoryAreSweptAndOthersStay(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		lost := open(t, o)
		h := apply(t, lost, deployment("lost", "blue"))
		await(t, lost, h, isReady)
		other := o
		other.Dir, other.Target = t.TempDir(), "other"
		neighbour := open(t, other)
		nh := apply(t, neighbour, deployment("near", "blue"))
		await(t, neighbour, nh, isReady)
		if err := lost.Close(); err != nil {
			t.Fatal(err)
		}
		o.Dir = t.TempDir()
		d := open(t, o)
		if err := d.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := containers(t, o, ""); len(left) != 1 {
			t.Errorf("%d containers are left, want the neighbour's alone", len(left))
		}
		if s, err := neighbour.Observe(t.Context(), nh); err != nil || !isReady(s) {
			t.Errorf("the neighbour: %+v, %v", s, err)
		}
		info, err := d.Describe(t.Context())
		if err != nil || !strings.Contains(strings.Join(info.Notes, "\n"), "which are left alone: ") || !strings.HasPrefix(info.Platform, "linux/") {
			t.Errorf("describes itself as %+v, %v", info, err)
		}
		t.Logf("%+v", info)
	})
}

func TestQuotaStartsWhatHasRoom(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		o.Quota = 2
		d := open(t, o)
		await(t, d, apply(t, d, deployment("first", "blue")), isReady)
		want := deployment("second", "blue")
		want.Spec.Replicas = 2
		h, err := d.Apply(t.Context(), want)
		if zarpa.AsError(err).Code != zarpa.Overloaded || !strings.Contains(err.Error(), "at most 2") {
			t.Errorf("Apply over the quota: %v", err)
		}
		await(t, d, h, isReady)
		report, err := d.Capacity(t.Context())
		if err != nil || report.Slots() != 0 || report.CPU == 0 || report.Memory == 0 {
			t.Errorf("capacity %+v, %v", report, err)
		}
	})
}

func TestEngineRestartsWhatMayBeRestarted(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		o.Restart = container.RestartUnlessStopped
		d := open(t, o)
		h := apply(t, d, deployment("again", "blue"))
		first := await(t, d, h, isReady).Replicas[0]
		crash(t, o, first)
		s := await(t, d, h, func(s zarpa.DeploymentStatus) bool { return isReady(s) && s.Replicas[0].Restarts > 0 })
		if err := targettest.Call(t.Context(), s.Replicas[0].Address, 0); err != nil {
			t.Error(err)
		}
		if err := d.StopAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := containers(t, o, ""); len(left) != 0 {
			t.Errorf("containers that stay: %v", left)
		}
	})
}

func TestStubbornReplicaIsKilled(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		o := options(t, host)
		d := open(t, o)
		want := with(deployment("stubborn", "blue"), "REPLICA", "stubborn")
		want.Spec.DrainTimeout = zarpa.Duration(50 * time.Millisecond)
		await(t, d, apply(t, d, want), isReady)
		if err := d.StopAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := containers(t, o, ""); len(left) != 0 {
			t.Errorf("containers that stay: %v", left)
		}
	})
}

func TestStartIsPrompt(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		d := open(t, options(t, host))
		await(t, d, apply(t, d, deployment("first", "blue")), isReady) // the image is there
		began := time.Now()
		r := await(t, d, apply(t, d, deployment("prompt", "blue")), isReady).Replicas[0]
		t.Logf("Apply to ready: %v, start of the container to ready: %v", time.Since(began), r.Loaded)
	})
}
