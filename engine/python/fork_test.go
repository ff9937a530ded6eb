package python_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/python"
)

// pids asks until so many workers have answered.
func pids(t *testing.T, s zarpa.Scorer, n int) []string {
	t.Helper()
	var mu sync.Mutex
	found := map[string]bool{}
	eventually(t, strconv.Itoa(n)+" workers", func() bool {
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				w, err := call(t.Context(), s, "pid")
				mu.Lock()
				defer mu.Unlock()
				if err != nil && strings.Contains(err.Error(), "SIGKILL") {
					return // a test killed it
				}
				if err != nil || w.Code != 200 {
					t.Errorf("%v, %s", err, w.Body)
				}
				found[strings.TrimSpace(w.Body.String())] = true
			})
		}
		all.Wait()
		return len(found) >= n
	})
	var list []string
	for pid := range found {
		list = append(list, pid)
	}
	slices.Sort(list)
	return list
}

// kilobytes is what /proc says of a process's memory.
func kilobytes(t *testing.T, pid, field string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSuffix(status(t, pid, "smaps_rollup", field), " kB"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func linux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc, which is Linux's")
	}
}

const big = `
import os, time
def init():
    global model
    model = bytearray(os.urandom(1 << 20)) * 60
def run(raw):
    time.sleep(0.02)  # so that all workers get a request
    return os.getpid()
`

func TestForkedWorkersShareTheModelsMemory(t *testing.T) {
	linux(t)
	t.Parallel()
	total := func(preload zarpa.Preload) (kb int) {
		s := open(t, python.Options{Workers: 4, Preload: preload}, big)
		for _, pid := range pids(t, s, 4) {
			kb += kilobytes(t, pid, "Pss")
		}
		return kb
	}
	forked, apart := total(zarpa.PreloadAuto), total(zarpa.PreloadNever)
	t.Logf("four workers of a model of 60 MB: %d MB forked, %d MB apart", forked>>10, apart>>10)
	if forked > 120<<10 {
		t.Errorf("forked workers hold %d MB: they do not share", forked>>10)
	}
	if apart < 240<<10 {
		t.Errorf("workers apart hold %d MB: the measure is wrong", apart>>10)
	}
}

func TestWhatAForkWouldBreakIsNotForked(t *testing.T) {
	linux(t)
	t.Parallel()
	for name, c := range map[string]struct{ init, reason string }{
		"thread":   {"threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", "threads"},
		"socket":   {"global s; s = socket.socket()", "socket"},
		"loop":     {"global loop; loop = asyncio.new_event_loop()", "descriptor"},
		"child":    {"global child; child = subprocess.Popen(['sleep', '1000'])", "child processes"},
		"file":     {"global f; f = open(__file__)", "position would be shared"},
		"pool":     {"global pool; pool = concurrent.futures.ThreadPoolExecutor(); pool.submit(int).result()", "threads"},
		"timer":    {"signal.setitimer(signal.ITIMER_REAL, 1000)", "timer"},
		"database": {"global db; db = sqlite3.connect(os.path.join(tempfile.mkdtemp(), 'x')); db.execute('create table t (x)')", "position would be shared"},
		"plain":    {"pass", ""},
		"log":      {"global f; f = open(os.path.join(tempfile.mkdtemp(), 'log'), 'a')", ""},
		"closed":   {"asyncio.run(asyncio.sleep(0)); socket.socket().close(); t = threading.Thread(target=int); t.start(); t.join()", ""},
		"map":      {"global m; f = open(__file__, 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); f.close()", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder()
			s := open(t, python.Options{Workers: 2, Log: rec.log()}, fmt.Sprintf(`
import asyncio, concurrent.futures, mmap, os, signal, socket, sqlite3, subprocess, tempfile, threading, time
def init():
    print("init runs")
    %s
def run(raw):
    time.sleep(0.02)
    return os.getpid()
`, c.init))
			pids(t, s, 2)
			inits := 0
			for _, e := range rec.lines() {
				if e.message == "init runs" {
					inits++
				}
			}
			if c.reason == "" {
				if inits != 1 {
					t.Errorf("init() ran %d times, want once", inits)
				}
				return
			}
			if e := rec.waitFor(t, "cannot be forked"); !strings.Contains(e.attrs["reason"], c.reason) || inits != 2 {
				t.Errorf("%d times init(), because %q, want 2 and %q", inits, e.attrs["reason"], c.reason)
			}
		})
	}
}

// kill ends a process with SIGKILL; its number is text.
func kill(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err == nil {
		err = syscall.Kill(n, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatalf("kill %q: %v", pid, err)
	}
}

func TestTheZygotesDeathIsNoRequestsConcern(t *testing.T) {
	linux(t)
	t.Parallel()
	s := open(t, python.Options{Workers: 2, Grace: time.Second}, big)
	first := pids(t, s, 2)
	zygote := status(t, first[0], "status", "PPid")
	done := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if w, err := call(t.Context(), s, "x"); err != nil || w.Code != 200 {
					t.Errorf("%v: %v", err, zarpa.AsError(err).Err)
				}
			}
		})
	}
	kill(t, zygote)
	eventually(t, "both workers are new", func() bool {
		now := pids(t, s, 2)
		return !slices.Contains(now, first[0]) && !slices.Contains(now, first[1])
	})
	close(done)
	all.Wait()
	eventually(t, "the old workers are gone", func() bool { return !slices.ContainsFunc(first, exists) })
}

func TestWithoutItsRootASessionGivesUp(t *testing.T) {
	linux(t)
	t.Parallel()
	dir := t.TempDir()
	session, err := newEngine(t, python.Options{Workers: 2, Dir: dir}).Script(t.Context(), code(t, big))
	if err != nil {
		t.Fatal(err)
	}
	s := session.(scorer)
	zygote := status(t, pids(t, s, 2)[0], "status", "PPid")
	root := status(t, zygote, "status", "PPid")
	kill(t, root)
	pids(t, s, 2) // what works goes on
	kill(t, zygote)
	<-s.Done()
	if _, err := call(t.Context(), s, "x"); zarpa.AsError(err).Code != zarpa.Unavailable || s.Err() == nil {
		t.Errorf("%v, %v", err, s.Err())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "no process is left", func() bool { return len(processes(dir)) == 0 })
}

func exists(pid string) bool {
	found, _ := filepath.Glob("/proc/" + pid + "/exe")
	return len(found) > 0
}

func TestTheScriptsOwnSignalsAndThreadsWork(t *testing.T) {
	t.Parallel()
	for _, preload := range []zarpa.Preload{zarpa.PreloadAuto, zarpa.PreloadNever} {
		s := open(t, python.Options{Workers: 1, Preload: preload}, `
import asyncio, concurrent.futures, multiprocessing, operator, os, signal, subprocess, threading, time
got = []
def init():
    signal.signal(signal.SIGUSR1, lambda *_: got.append("usr1"))
    signal.signal(signal.SIGCHLD, lambda *_: got.append("child"))
def fired(*_):
    raise KeyError("its own alarm")
async def both():
    loop = asyncio.get_running_loop()
    return await asyncio.gather(asyncio.sleep(0.01, 1), loop.run_in_executor(None, int, "2"))
def double(n):
    return 2 * n
def run(raw):
    if raw == "signal":
        del got[:]
        os.kill(os.getpid(), signal.SIGUSR1)
        subprocess.run(["true"])
        return sorted(set(got))
    if raw == "alarm":
        before = signal.signal(signal.SIGALRM, fired)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            time.sleep(10)
        except KeyError as e:
            return str(e)
        finally:
            signal.signal(signal.SIGALRM, before)
    if raw == "asyncio":
        return asyncio.run(both())
    if raw == "threads":
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return list(pool.map(double, range(4)))
    if raw == "processes":
        with multiprocessing.Pool(2) as pool:
            return pool.map(double, range(4))
    if raw == "spawn":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(operator.neg, range(4))
`)
		for body, want := range map[string]any{
			"signal": []string{"child", "usr1"}, "alarm": "'its own alarm'", "asyncio": []int{1, 2}, "threads": []int{0, 2, 4, 6},
			"processes": []int{0, 2, 4, 6}, "spawn": []int{0, -1, -2, -3},
		} {
			for range 2 {
				w, err := call(t.Context(), s, body)
				var got, wanted any
				text, _ := json.Marshal(want)
				if err != nil || json.Unmarshal(w.Body.Bytes(), &got) != nil || json.Unmarshal(text, &wanted) != nil || fmt.Sprint(got) != fmt.Sprint(wanted) {
					t.Errorf("%s, %s: %v, %s, want %s", preload, body, err, w.Body, text)
				}
			}
		}
	}
}
