package python_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/python"
)

func TestCloseLeavesNothing(t *testing.T) {
	linux(t)
	t.Parallel()
	dir := t.TempDir()
	e := newEngine(t, python.Options{Workers: 2, Dir: dir, Grace: 300 * time.Millisecond})
	c := code(t, `
import atexit, os, subprocess, time
def init():
    global child
    atexit.register(lambda: open(os.path.join(os.path.dirname(__file__), "goodbye"), "a").close())
    if os.path.exists(os.path.join(os.path.dirname(__file__), "child")):
        child = subprocess.Popen(["sleep", "1000"])
def run(raw):
    time.sleep(0.2)
    return 1
`)
	for range 2 {
		session, err := e.Script(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		s := session.(scorer)
		var all sync.WaitGroup
		began := make(chan struct{}, 2)
		for range 2 {
			all.Go(func() {
				began <- struct{}{}
				w, err := call(t.Context(), s, "x")
				if (err != nil || w.Body.String() != "1") && zarpa.AsError(err).Code != zarpa.Unavailable {
					t.Errorf("a request that ran when Close came: %v, %s", err, w.Body)
				}
			})
		}
		<-began
		for range 2 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		<-s.Done()
		if s.Err() != nil {
			t.Errorf("it was closed, and did not give up: %v", s.Err())
		}
		// What was killed takes a moment to be gone.
		eventually(t, "no process is left", func() bool { return len(processes(dir)) == 0 })
		all.Wait()
		if _, err := call(t.Context(), s, "x"); zarpa.AsError(err).Code != zarpa.Unavailable {
			t.Errorf("after Close: %v", err)
		}
		if _, err := os.Stat(filepath.Join(c.Code, "goodbye")); err != nil {
			t.Errorf("the script's atexit did not run: %v", err)
		}
		if err := os.WriteFile(filepath.Join(c.Code, "child"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serverVariable makes the test's own program a server that converts in the folder that it names.
const serverVariable = "ZARPA_TEST_CONVERTS_IN"

func TestAConverterEndsWithItsServer(t *testing.T) {
	if dir := os.Getenv(serverVariable); dir != "" {
		_, err := newEngine(t, python.Options{}).Convert(t.Context(), python.Conversion{
			Dir: dir, File: "model.pkl", Format: zarpa.FormatSklearn, Out: filepath.Join(dir, "out.onnx"), Samples: 1,
		})
		t.Fatalf("the conversion ended: %v", err)
	}
	linux(t)
	t.Parallel()
	dir := t.TempDir()
	endless := "import time\nopen('began', 'w').close()\ntime.sleep(60)\n" // the converter imports it
	if err := os.WriteFile(filepath.Join(dir, "numpy.py"), []byte(endless), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAConverterEndsWithItsServer$")
	server.Env = append(os.Environ(), serverVariable+"="+dir, "ZARPA_PYTHON="+interpreter(t))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the conversion begins", func() bool {
		_, err := os.Stat(filepath.Join(dir, "began"))
		return err == nil
	})
	if len(processes(dir)) == 0 {
		t.Error("no converter runs")
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait() // it was killed
	eventually(t, "the converter ends", func() bool { return len(processes(dir)) == 0 })
}

func TestATemporaryProgramIsRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	e, err := python.New(python.Options{Python: interpreter(t)})
	if err != nil {
		t.Fatal(err)
	}
	if made, _ := os.ReadDir(dir); len(made) != 1 {
		t.Errorf("%v", made)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("files are left: %v", left)
	}
}

// childDir tells this test, in a process of its own, what to do.
const childDir = "ZARPA_TEST_PYTHON_DIR"

func TestNoPythonOutlivesItsServer(t *testing.T) {
	linux(t)
	if dir := os.Getenv(childDir); dir != "" {
		serveUntilKilled(t, dir)
		return
	}
	t.Parallel()
	for _, hang := range []string{"idle", "busy"} {
		dir := t.TempDir()
		server := exec.Command(os.Args[0], "-test.run=^TestNoPythonOutlivesItsServer$", "-test.v")
		server.Env = append(os.Environ(), childDir+"="+dir, "ZARPA_TEST_PYTHON_BODY="+hang)
		out, err := server.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "it serves"); {
		}
		if n := len(processes(dir)); n < 4 { // root, zygote, two workers
			t.Errorf("%s: %d processes serve", hang, n)
		}
		_ = server.Process.Kill()
		_ = server.Wait()
		eventually(t, "no Python is left", func() bool { return len(processes(dir)) == 0 })
	}
}

// serveUntilKilled is what the process does whose end the test looks at.
func serveUntilKilled(t *testing.T, dir string) {
	e := newEngine(t, python.Options{Workers: 2, Dir: dir})
	session, err := e.Script(t.Context(), code(t, `
import signal, time
def init(): pass
def run(raw):
    if raw == "busy":
        print("it works")
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
    return 1
`))
	if err != nil {
		t.Fatal(err)
	}
	s := session.(scorer)
	if os.Getenv("ZARPA_TEST_PYTHON_BODY") == "busy" {
		go call(t.Context(), s, "busy")
		go call(t.Context(), s, "busy")
	}
	eventually(t, "all processes run", func() bool { return len(processes(dir)) >= 4 })
	os.Stdout.WriteString("it serves\n")
	select {}
}

func TestWornWorkersAreReplacedWithoutLoss(t *testing.T) {
	linux(t)
	t.Parallel()
	for name, c := range map[string]struct {
		o      python.Options
		reason string
	}{
		"requests":       {python.Options{MaxRequests: 5}, "requests"},
		"requests apart": {python.Options{MaxRequests: 20, Preload: zarpa.PreloadNever}, "requests"},
		"memory":         {python.Options{MaxMemory: 48 << 20}, "memory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewRegistry()
			c.o.Workers, c.o.Registry = 2, reg
			s := open(t, c.o, `
leak = []
def init(): pass
def run(raw):
    leak.append(bytearray(2 << 20))
    return raw
`)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 25 {
						answers(t, s, "x", `"x"`)
					}
				})
			}
			all.Wait()
			const want = "zarpa_python_worker_restarts_total"
			n := 0.0
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					if f.GetName() != want {
						continue
					}
					if m.GetLabel()[0].GetValue() == c.reason {
						n = m.GetCounter().GetValue()
					} else if m.GetCounter().GetValue() > 0 {
						t.Errorf("replaced for %v", m)
					}
				}
			}
			if n < 2 {
				t.Errorf("%v workers were replaced for %s", n, c.reason)
			}
		})
	}
}

func TestManySessionsLoadAndCloseAtOnce(t *testing.T) {
	t.Parallel()
	e := newEngine(t, python.Options{Workers: 2})
	c := code(t, plain)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			session, err := e.Script(t.Context(), c)
			if err != nil {
				t.Error(err)
				return
			}
			for range 5 {
				answers(t, session.(scorer), "4", "8")
			}
			if err := session.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
