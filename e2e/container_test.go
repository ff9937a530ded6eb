package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// engine is a container engine that tests may use.
type engine struct {
	name string // docker, podman
	host string // as DOCKER_HOST
	// control is a program that stops and starts it; empty where the tests may not.
	control string
}

// eachEngine runs a test on every engine that there is, one after the other.
func eachEngine(t *testing.T, f func(t *testing.T, e engine)) {
	t.Helper()
	found := false
	for _, name := range []string{"docker", "podman"} {
		variable := "ZARPA_TEST_" + strings.ToUpper(name)
		if host := os.Getenv(variable); host != "" {
			found = true
			t.Run(name, func(t *testing.T) { f(t, engine{name, host, os.Getenv(variable + "_CONTROL")}) })
		}
	}
	if !found {
		t.Skip("no container engine: e2e/engines.sh docker podman -- go test ./e2e starts them, as root")
	}
}

// docker runs the engine's client; it must succeed.
func (e engine) docker(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", append([]string{"--host", e.host}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// containers are the ids of those of a target, running ones alone or all.
func (e engine) containers(t *testing.T, target string, all bool) []string {
	t.Helper()
	args := []string{"ps", "--quiet", "--no-trunc", "--filter", "label=dev.zarpa.target=" + target}
	if all { // but those that an engine which was restarted cannot remove: it calls them dead
		args = append(args, "--all", "--filter", "status=created", "--filter", "status=running", "--filter", "status=exited")
	}
	return strings.Fields(e.docker(t, args...))
}

// sweep removes all that is left of a target.
func (e engine) sweep(t *testing.T, target string) {
	t.Helper()
	if ids := e.containers(t, target, true); len(ids) > 0 {
		e.docker(t, append([]string{"rm", "--force", "--volumes"}, ids...)...)
	}
}

// fleet is a host with an engine as its target.
type fleet struct {
	*host
	engine engine
	target string
}

func newFleet(t *testing.T, e engine) *fleet {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 4))
	f := &fleet{host: newHost(t, r), engine: e, target: fmt.Sprintf("e2e-%s-%d", e.name, r.IntN(1e6))}
	t.Cleanup(func() {
		f.clean(t) // no control plane starts others
		e.sweep(t, f.target)
	})
	f.run(t, "target", "add", f.target, "--kind", "container", "--host", e.host)
	return f
}

// awaitReady waits until an endpoint has so many ready replicas, and all that it wants.
func (f *fleet) awaitReady(t *testing.T, endpoint string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := await(ctx, func() error {
		report, err := f.client.GetEndpoint(ctx, endpoint)
		if err != nil {
			return err
		}
		ready, all := 0, 0
		for _, d := range report.Deployments {
			ready += d.Status.Ready("")
			all += len(d.Status.Replicas)
		}
		if ready != n || all != n {
			return fmt.Errorf("%s has %d ready replicas of %d, want %d", endpoint, ready, all, n)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, f.run(t, "explain", endpoint), f.tail())
	}
}

// TestContainersUnderLoad deploys to a real engine, and lets happen what happens, while it is called.
func TestContainersUnderLoad(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		f := newFleet(t, e)
		iris := example(t, "iris")
		f.run(t, "deploy", "iris", "--model", iris.file, "--target", f.target, "--replicas", "2", "--memory", "256Mi", "--cpu", "0.5")
		f.patient(t, "iris")
		load := newFlood("http://"+f.gateway+"/endpoints/iris/score", iris.body, f.primary(t, "iris"), iris.right)
		load.begin(t.Context(), 100)
		defer load.end()
		pause(t.Context(), time.Second)
		nothingFailed(t, load, "two containers")

		before := f.engine.containers(t, f.target, false)
		f.run(t, "deploy", "iris", "--env", "LEVEL=2")
		f.awaitReady(t, "iris", 2)
		pause(t.Context(), calm)
		nothingFailed(t, load, "update")
		after := f.engine.containers(t, f.target, false)
		for _, id := range before {
			if strings.Contains(strings.Join(after, " "), id) {
				t.Errorf("container %.12s survived the update", id)
			}
		}

		f.kill()
		pause(t.Context(), time.Second)
		if err := f.start(); err != nil {
			t.Fatal(err)
		}
		f.awaitReady(t, "iris", 2)
		pause(t.Context(), calm)
		nothingFailed(t, load, "control plane kill -9")
		if now := f.engine.containers(t, f.target, false); strings.Join(now, " ") != strings.Join(after, " ") {
			t.Errorf("a new control plane did not take over: %v, before %v", now, after)
		}

		f.engine.docker(t, "kill", "--signal", "KILL", after[0])
		f.awaitReady(t, "iris", 2)
		pause(t.Context(), calm)
		took, failures := load.take()
		t.Log(newTally("a container kill -9", took, failures))
		for _, bad := range failures {
			if !broken(bad) {
				t.Errorf("a container kill -9: %s: %.300s", bad.class, bad.detail)
			}
		}
		f.explains(t, "iris", "137")
		f.awaitReady(t, "iris", 2)
		if f.run(t, "logs", "iris") == "" || f.run(t, "logs", "iris", "--previous") == "" {
			t.Error("no logs of a running and of a dead container")
		}
		f.restartEngine(t, load)
		load.end()
		f.run(t, "endpoint", "delete", "iris")
		f.run(t, "target", "delete", f.target)
		if left := f.engine.containers(t, f.target, true); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// restartEngine restarts the engine, which takes its containers with it.
func (f *fleet) restartEngine(t *testing.T, load *flood) {
	t.Helper()
	if f.engine.control == "" {
		return
	}
	for _, what := range []string{"stop", "start"} {
		if out, err := exec.CommandContext(t.Context(), f.engine.control, what).CombinedOutput(); err != nil {
			t.Fatalf("%s the engine: %v\n%s", what, err, out)
		}
	}
	f.awaitReady(t, "iris", 2)
	_, _ = load.take() // for a moment there was no replica
	pause(t.Context(), time.Second)
	nothingFailed(t, load, "the engine was restarted")
}

// TestContainersTellWhatIsInTheWay: limits, each with its cause and a hint.
func TestContainersTellWhatIsInTheWay(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		f := newFleet(t, e)
		iris := example(t, "iris")
		f.run(t, "model", "register", "iris", iris.file)
		f.run(t, "deploy", "greedy", "--model", filepath.Join("..", "engine", "enginetest", "testdata", "oom.onnx"), "--target", f.target, "--memory", "128Mi")
		f.eat(t, "greedy", 60_000_000)
		f.explains(t, "greedy", "memory", "128mi")
		f.awaitReady(t, "greedy", 1)
		f.run(t, "endpoint", "delete", "greedy")

		f.run(t, "target", "set", f.target, "--quota", "2")
		f.run(t, "deploy", "many", "--model", "iris", "--target", f.target, "--replicas", "2")
		f.run(t, "deploy", "more", "--model", "iris", "--target", f.target, "--no-wait")
		f.explains(t, "more", "at most 2 replicas", "no room for 1 more")
		f.run(t, "target", "set", f.target, "--quota", "")
		f.awaitReady(t, "more", 1)
		f.run(t, "endpoint", "delete", "many")
		f.run(t, "endpoint", "delete", "more")

		f.run(t, "target", "set", f.target, "--max-image", "1Mi")
		f.run(t, "deploy", "large", "--model", "iris", "--target", f.target, "--env", "A=1", "--no-wait")
		f.explains(t, "large", "too large", "1mi")
		f.run(t, "endpoint", "delete", "large")

		f.run(t, "target", "set", f.target, "--max-image", "", "--base", "registry.invalid/none:1")
		f.run(t, "deploy", "based", "--model", "iris", "--target", f.target, "--no-wait")
		f.explains(t, "based", "registry.invalid/none:1", "base")
	})
}

// TestASecretIsAFile: a script reads it, and nobody who looks at the container does.
func TestASecretIsAFile(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3")
	}
	eachEngine(t, func(t *testing.T, e engine) {
		f := newFleet(t, e)
		code := t.TempDir()
		script := "import os\ndef run(raw):\n    with open(os.path.join(os.environ['ZARPA_SECRETS'], 'word')) as f:\n        return {'length': len(f.read())}\n\ndef init():\n    print('ready to read')\n"
		value := "open sesame, four times over"
		if err := os.WriteFile(filepath.Join(code, "score.py"), []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "word")
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		f.run(t, "secret", "set", "word", "--from-file", file)
		f.run(t, "deploy", "reader", "--code", code, "--entry", "score.py", "--target", f.target, "--secret", "word", "--workers", "1")
		if out := f.run(t, "invoke", "reader", "-d", "{}"); !strings.Contains(out, strconv.Itoa(len(value))) {
			t.Errorf("the script did not read the secret: %s", out)
		}
		for _, id := range f.engine.containers(t, f.target, true) {
			if out := f.engine.docker(t, "inspect", id); strings.Contains(out, value) {
				t.Errorf("docker inspect tells the secret")
			}
		}
		if out := f.run(t, "logs", "reader"); !strings.Contains(out, "ready to read") || strings.Contains(out, value) {
			t.Errorf("logs:\n%s", out)
		}
	})
}

// explains waits until the explanation of an endpoint holds some words, in lower case.
func (f *fleet) explains(t *testing.T, endpoint string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := await(ctx, func() error {
		out := f.run(t, "explain", endpoint)
		for _, word := range words {
			if !strings.Contains(strings.ToLower(out), word) {
				return fmt.Errorf("explain %s does not say %q:\n%s", endpoint, word, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// eat has the model make a tensor of so many floats, which ends its replica when that is too much.
func (f *fleet) eat(t *testing.T, endpoint string, floats int) {
	t.Helper()
	body := fmt.Sprintf(`{"inputs":[{"name":"size","shape":[1],"datatype":"INT64","data":[%d]}]}`, floats)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.gateway+"/v2/models/"+endpoint+"/infer", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.primary(t, endpoint))
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Timeout: callTimeout}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Errorf("a tensor of %d bytes fits into 128Mi", 4*floats)
	}
}

// TestPythonContainersOnABase: the engine installs the environment on an image of its own, once.
func TestPythonContainersOnABase(t *testing.T) {
	root := os.Getenv("ZARPA_TEST_BASE")
	if _, err := os.Stat(root); err != nil {
		t.Skip("ZARPA_TEST_BASE names no tar of a system with python3 and venv")
	}
	eachEngine(t, func(t *testing.T, e engine) {
		f := newFleet(t, e)
		const base = "localhost/zarpa-e2e-base:1" // of no registry
		e.docker(t, "import", root, base)
		f.run(t, "target", "set", f.target, "--base", base)
		code := t.TempDir()
		environments := func() string {
			return e.docker(t, "images", "--no-trunc", "--quiet", "--filter", "reference=*zarpa.local/environment")
		}
		was := ""
		for n := range 2 {
			script := fmt.Sprintf("import sys\ndef init():\n    pass\ndef run(raw):\n    return {'prefix': sys.prefix, 'n': %d}\n", n)
			if err := os.WriteFile(filepath.Join(code, "score.py"), []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			f.run(t, "deploy", "based", "--code", code, "--target", f.target, "--workers", "1")
			if out := f.run(t, "invoke", "based", "-d", "{}"); !strings.Contains(out, "/zarpa/environment") || !strings.Contains(out, strconv.Itoa(n)) {
				t.Errorf("the script answers %s", out)
			}
			now := environments()
			if len(strings.Fields(now)) == 0 || n > 0 && now != was {
				t.Errorf("environments after script %d: %q, before: %q", n, now, was)
			}
			was = now
		}
		f.run(t, "endpoint", "delete", "based")
	})
}
