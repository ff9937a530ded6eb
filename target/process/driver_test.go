package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/process"
	"github.com/zarpa-dev/zarpa/target/targettest"
)

// TestMain makes the test binary its own replicas: they are real processes.
func TestMain(m *testing.M) {
	switch mode := os.Getenv("REPLICA"); mode {
	case "":
		os.Exit(m.Run())
	case "driver":
		driveUntilKilled()
		os.Exit(1)
	default:
		os.Exit(serveReplica(mode))
	}
}

// serveReplica is a replica. Its mode says what is wrong with it.
func serveReplica(mode string) int {
	arg := func(name string) string { return os.Args[slices.Index(os.Args, name)+1] }
	switch mode {
	case "broken":
		fmt.Fprintln(os.Stderr, "loading")
		fmt.Fprintln(os.Stderr, "error: iris.onnx: not an ONNX file")
		return zarpa.ExitLoadFailed
	case "mute":
		select {} // never listens
	case "environment":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "greedy":
		kept := [][]byte{}
		for {
			b := make([]byte, 4<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
			runtime.KeepAlive(kept)
		}
	}
	s := &targettest.Server{Label: arg("--label"), Log: os.Stdout}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	drained := make(chan error, 1)
	go func() {
		<-ctx.Done()
		if mode == "stubborn" {
			return
		}
		drained <- s.Shutdown(context.Background())
	}()
	if err := s.Serve(arg("--listen"), nil); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	if err := <-drained; err != nil {
		return 1
	}
	return 0
}

func deployment(endpoint, name string) zarpa.Deployment {
	spec := zarpa.DeploymentSpec{Name: name, Model: "m:1", Env: map[string]string{
		"REPLICA": "serve",
		"GORACE":  "atexit_sleep_ms=0", // else every end takes a second under the race detector
	}}
	return zarpa.Deployment{Endpoint: endpoint, Bundle: "sha256:1", Spec: spec.WithDefaults()}
}

func with(d zarpa.Deployment, name, value string) zarpa.Deployment {
	env := map[string]string{}
	maps.Copy(env, d.Spec.Env)
	env[name] = value
	d.Spec.Env = env
	return d
}

func options(dir string) process.Options {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return process.Options{
		Dir: dir, Executable: exe, Environ: append(os.Environ(), "ZARPA_TOKEN=secret"),
		Bundles: func(context.Context, string) (string, error) { return dir, nil },
	}
}

// opened is a driver that remembers its options, to be opened again.
type opened struct {
	*process.Driver
	o process.Options
}

func open(t *testing.T, o process.Options) opened {
	t.Helper()
	d, err := process.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		if err := d.StopAll(ctx); err != nil && zarpa.AsError(err).Code != zarpa.Unavailable {
			t.Error(err) // unavailable: the test closed it and opened another
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return opened{d, o}
}

func TestDriver(t *testing.T) {
	t.Parallel()
	targettest.Run(t, targettest.Config{
		New: func(t *testing.T) zarpa.Driver { return open(t, options(t.TempDir())) },
		Reopen: func(t *testing.T, old zarpa.Driver) zarpa.Driver {
			was := old.(opened)
			if err := was.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, was.o)
		},
		Deployment: deployment,
		Change:     func(d zarpa.Deployment) zarpa.Deployment { return with(d, "CHANGED", "yes") },
		Broken:     func(d zarpa.Deployment) zarpa.Deployment { return with(d, "REPLICA", "broken") },
		Crash: func(t *testing.T, _ zarpa.Driver, r zarpa.Replica) {
			if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		Call: targettest.Call,
	})
}

// await waits until the deployment's status is as ok says.
func await(t *testing.T, d zarpa.Driver, h zarpa.Handle, ok func(zarpa.DeploymentStatus) bool) zarpa.DeploymentStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	changed := make(chan struct{}, 1)
	d.(zarpa.Notifier).Notify(func(string) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	for {
		s, err := d.Observe(ctx, h)
		if err == nil && ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("last seen: %+v, %v", s, err)
		}
	}
}

func apply(t *testing.T, d zarpa.Driver, want zarpa.Deployment) zarpa.Handle {
	t.Helper()
	h, err := d.Apply(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func failed(s zarpa.DeploymentStatus) bool {
	return len(s.Replicas) == 1 && s.Replicas[0].Last != nil
}

func isReady(s zarpa.DeploymentStatus) bool { return s.Ready("") == 1 }

func TestDeadReplicasTellWhy(t *testing.T) {
	t.Parallel()
	nowhere := errors.New("bundle sha256:1 is damaged")
	for name, tc := range map[string]struct {
		change func(*process.Options, *zarpa.Deployment)
		reason string
		code   int
	}{
		"LoadFailed": {
			func(_ *process.Options, d *zarpa.Deployment) { *d = with(*d, "REPLICA", "broken") },
			"the model could not be loaded: iris.onnx: not an ONNX file", zarpa.ExitLoadFailed,
		},
		"NoProgram": {func(o *process.Options, _ *zarpa.Deployment) { o.Executable = "/nowhere/zarpa" }, "no such file", -1},
		"NoBundle": {func(o *process.Options, _ *zarpa.Deployment) {
			o.Bundles = func(context.Context, string) (string, error) { return "", nowhere }
		}, nowhere.Error(), -1},
		"NeverReady": {func(_ *process.Options, d *zarpa.Deployment) {
			*d = with(*d, "REPLICA", "mute")
			d.Spec.StartTimeout = zarpa.Duration(300 * time.Millisecond)
		}, "it was not ready within its start_timeout of 300ms: it does not listen", -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, want := options(t.TempDir()), deployment("why", "blue")
			tc.change(&o, &want)
			d := open(t, o)
			r := await(t, d, apply(t, d, want), failed).Replicas[0]
			if !strings.Contains(r.Last.Reason, tc.reason) || tc.code > 0 && r.Last.Code != tc.code || r.Last.Ready {
				t.Errorf("last = %+v, want reason %q and code %d", r.Last, tc.reason, tc.code)
			}
		})
	}
}

func TestReplicaGetsNoSecretOfItsParent(t *testing.T) {
	t.Parallel()
	d := open(t, options(t.TempDir()))
	h := apply(t, d, with(deployment("env", "blue"), "REPLICA", "environment"))
	await(t, d, h, isReady)
	r, err := d.Logs(t.Context(), h, zarpa.LogQuery{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if log := string(b); strings.Contains(log, "secret") || !strings.Contains(log, "PATH=") {
		t.Errorf("environment of a replica: %s", log)
	}
}

func TestAnotherDriverTakesOverWhateverTheDirectoryIsCalled(t *testing.T) {
	t.Parallel()
	o := options(filepath.Join(t.TempDir(), "a [b] *?"))
	first := open(t, o)
	h := apply(t, first, deployment("named", "blue"))
	pid := await(t, first, h, isReady).Replicas[0].PID
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := open(t, o).Observe(t.Context(), h)
	if err != nil || !isReady(s) || s.Replicas[0].PID != pid {
		t.Errorf("after a restart: %+v, %v; want it ready as process %d", s, err, pid)
	}
}

func TestStubbornReplicaIsKilled(t *testing.T) {
	t.Parallel()
	d := open(t, options(t.TempDir()))
	want := with(deployment("stubborn", "blue"), "REPLICA", "stubborn")
	want.Spec.DrainTimeout = zarpa.Duration(50 * time.Millisecond)
	r := await(t, d, apply(t, d, want), isReady).Replicas[0]
	if err := d.StopAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(r.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after StopAll: %v, want it gone", r.PID, err)
	}
}

func TestLongStateDirectoryStillHasSockets(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	var r zarpa.Replica
	t.Cleanup(func() { _ = os.Remove(filepath.Dir(strings.TrimPrefix(r.Address, "unix:"))) }) // after the driver's
	d := open(t, options(dir))
	h := apply(t, d, deployment("long", "blue"))
	r = await(t, d, h, isReady).Replicas[0]
	if strings.HasPrefix(r.Address, "unix:"+dir) {
		t.Errorf("address %s is too long to work", r.Address)
	}
	if err := targettest.Call(t.Context(), r.Address, 0); err != nil {
		t.Error(err)
	}
}

func TestLimitsHoldOrTheStatusSaysWhyNot(t *testing.T) {
	t.Parallel()
	d := open(t, options(t.TempDir()))
	want := with(deployment("limits", "blue"), "REPLICA", "greedy")
	want.Spec.Memory, want.Spec.CPU = 64<<20, 0.5
	h := apply(t, d, want)
	s := await(t, d, h, func(s zarpa.DeploymentStatus) bool { return len(s.Enforced) > 0 })
	t.Logf("enforced: %q", s.Enforced)
	if len(s.Enforced) != 2 || !strings.HasPrefix(s.Enforced[0], "memory 64Mi") || !strings.HasPrefix(s.Enforced[1], "cpu 0.5") {
		t.Fatalf("enforced: %q, want one sentence for memory and one for cpu", s.Enforced)
	}
	if strings.Contains(s.Enforced[0], "not enforced") {
		if err := d.Remove(t.Context(), h); err != nil { // before it eats the machine
			t.Fatal(err)
		}
		t.Skip(s.Enforced[0])
	}
	last := await(t, d, h, failed).Replicas[0].Last
	if !last.OutOfMemory || last.Signal != "SIGKILL" || !strings.Contains(last.Reason, "64Mi") {
		t.Errorf("a replica that took too much ended as %+v", last)
	}
}

// driveUntilKilled is a control plane that dies without warning.
func driveUntilKilled() {
	d, err := process.Open(context.Background(), options(os.Getenv("DRIVER_DIR")))
	if err != nil {
		fmt.Println(err)
		return
	}
	want := deployment("outlives", "blue")
	want.Spec.Replicas = 3
	changed := make(chan struct{}, 1)
	d.Notify(func(string) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	h, err := d.Apply(context.Background(), want)
	for err == nil && os.Getenv("DRIVER_WAITS") != "" {
		var s zarpa.DeploymentStatus
		if s, err = d.Observe(context.Background(), h); s.Ready("") == 3 {
			break
		}
		<-changed
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("applied")
	select {}
}

func TestReplicasSurviveAKilledControlPlane(t *testing.T) {
	t.Parallel()
	for _, waits := range []string{"yes", ""} { // killed when all are ready, and in the middle of their start
		t.Run("Waits"+waits, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := options(dir)
			cmd := exec.Command(o.Executable)
			cmd.Env = append(os.Environ(), "REPLICA=driver", "DRIVER_DIR="+dir, "DRIVER_WAITS="+waits)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 8)
			if _, err := io.ReadFull(out, line); err != nil || string(line) != "applied\n" {
				t.Fatalf("the driver says %q, %v", line, err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed, as was asked
			d := open(t, o)
			h := zarpa.Handle{Version: 1, Data: []byte("outlives/blue")}
			s, err := d.Observe(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			if waits != "" && s.Ready("") != 3 {
				t.Errorf("taken over: %+v, want three ready at once", s.Replicas)
			}
			want := deployment("outlives", "blue")
			want.Spec.Replicas = 3
			apply(t, d, want)
			s = await(t, d, h, func(s zarpa.DeploymentStatus) bool { return s.Ready("") == 3 && len(s.Replicas) == 3 })
			for _, r := range s.Replicas {
				if r.Restarts > 0 {
					t.Errorf("replica %s was started again", r.ID)
				}
			}
			if n := running(t, dir); n != 3 {
				t.Errorf("%d processes run, want 3", n)
			}
		})
	}
}

// running counts the processes that serve sockets of a state directory.
func running(t *testing.T, dir string) int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(paths) == 0 {
		t.Skip("no /proc to count processes in")
	}
	n := 0
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "--listen\x00unix:"+dir+"/") {
			n++
		}
	}
	return n
}

func TestHungReplicaIsReplaced(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.Probes.Every, o.Probes.Return, o.Probes.Timeout = 50*time.Millisecond, 20*time.Millisecond, 200*time.Millisecond
	d := open(t, o)
	h := apply(t, d, deployment("hangs", "blue"))
	r := await(t, d, h, isReady).Replicas[0]
	if err := syscall.Kill(r.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s := await(t, d, h, func(s zarpa.DeploymentStatus) bool { return isReady(s) && s.Replicas[0].Restarts == 1 })
	if last := s.Replicas[0].Last; last == nil || !strings.Contains(last.Reason, "liveness") {
		t.Errorf("last = %+v, want a liveness failure", last)
	}
}

func TestStartIsPrompt(t *testing.T) {
	t.Parallel()
	d := open(t, options(t.TempDir()))
	began := time.Now()
	r := await(t, d, apply(t, d, deployment("prompt", "blue")), isReady).Replicas[0]
	t.Logf("Apply to ready: %v, process start to ready: %v", time.Since(began), r.Loaded)
}
