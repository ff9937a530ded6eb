package python_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/python"
)

// chaos is a script that does to itself what requests say.
const chaos = `
import os, signal, socket, sys, time
leak = []
def init():
    global model
    model = bytearray(os.urandom(1 << 20)) * 8
def run(raw):
    what, _, word = raw.partition(" ")
    if what == "leak":
        leak.append(bytearray(40 << 20))
    elif what == "exit":
        os._exit(5)
    elif what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "hang":
        while True:
            try:
                time.sleep(100)
            except BaseException:
                pass
    elif what == "raise":
        raise ValueError("on purpose")
    elif what == "slow":
        time.sleep(100)
    elif what == "garbage" or what == "half":
        for fd in range(3, 256):
            try:
                data = socket.socket(fileno=os.dup(fd))
                data.sendall(b"\x08\x00\x00\x00\x11" if what == "half" else os.urandom(100))
            except OSError:
                pass
        if what == "half":
            os._exit(4)
        time.sleep(100)
    elif what == "large":
        return word * 100000
    elif what == "pid":
        time.sleep(0.02)  # so that all workers are asked
        return os.getpid()
    return word
`

// harm are the requests that do harm, and what each is told; a deadline ends those that have one.
var harm = map[string]struct {
	code  zarpa.Code
	words string
}{
	"exit":     {zarpa.ModelError, "exited with status 5"},
	"segfault": {zarpa.ModelError, "killed by signal SIGSEGV"},
	"garbage":  {zarpa.ModelError, "damaged"},
	"half":     {zarpa.ModelError, "replaced"},
	"hang":     {zarpa.Timeout, "replaced"},
	"slow":     {zarpa.Timeout, "interrupted"},
}

// storm is a load of requests, some of which do harm.
type storm struct {
	s      scorer
	random *rand.Rand
	killed *atomic.Int64 // workers that were killed from outside
	// innocent are good requests that failed, each of them for a killed worker
	innocent, good, bad *atomic.Int64
}

// strike sends one request and looks at its answer.
func (st storm) strike(t *testing.T, n int) {
	word := fmt.Sprintf("w%d", n)
	pick := st.random.IntN(100)
	switch {
	case pick < 12:
		kinds := []string{"exit", "segfault", "garbage", "half", "hang", "slow"}
		st.harmful(t, kinds[st.random.IntN(len(kinds))])
	case pick < 16:
		st.killOne(t)
	case pick < 20:
		st.expect(t, "leak "+word, `"`+word+`"`)
	case pick < 24:
		st.expect(t, "large "+word, `"`+strings.Repeat(word, 100000)+`"`)
	case pick < 28:
		if w, err := call(t.Context(), st.s, "raise"); err == nil && w.Code != 500 {
			t.Errorf("raise: %d %s", w.Code, w.Body)
		}
	default:
		st.expect(t, "echo "+word, `"`+word+`"`)
	}
}

// expect sends a good request, which may fail for one reason: its worker was killed from outside.
func (st storm) expect(t *testing.T, body, want string) {
	w, err := call(t.Context(), st.s, body)
	switch {
	case err != nil && strings.Contains(err.Error(), "SIGKILL"):
		st.innocent.Add(1)
	case err != nil:
		t.Errorf("%s: %v: %v", body, err, zarpa.AsError(err).Err)
	case w.Code != 200 || w.Body.String() != want:
		t.Errorf("%s: %d %.100s", body, w.Code, w.Body)
	default:
		st.good.Add(1)
	}
}

func (st storm) harmful(t *testing.T, kind string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	want := harm[kind]
	if want.code == zarpa.Timeout { // from when it has a worker, it takes so long
		ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
	}
	w, err := call(ctx, st.s, kind)
	e := zarpa.AsError(err)
	switch {
	case err == nil:
		t.Errorf("%s: %d %.100s", kind, w.Code, w.Body)
	case strings.Contains(e.Message, "SIGKILL"):
		st.innocent.Add(1)
	case e.Code == zarpa.Timeout && want.code == zarpa.Timeout: // it may have waited for a worker all the time
		st.bad.Add(1)
	case e.Code != want.code || !strings.Contains(e.Message, want.words):
		t.Errorf("%s: %v: %v", kind, err, e.Err)
	default:
		st.bad.Add(1)
	}
}

// killOne kills a worker as somebody else would, whatever it is doing then.
func (st storm) killOne(t *testing.T) {
	w, err := call(t.Context(), st.s, "pid")
	if err != nil {
		if strings.Contains(err.Error(), "SIGKILL") {
			st.innocent.Add(1)
			return
		}
		t.Errorf("pid: %v", err)
		return
	}
	var pid int
	if _, err := fmt.Sscan(w.Body.String(), &pid); err != nil {
		t.Error(err)
		return
	}
	if syscall.Kill(pid, syscall.SIGKILL) == nil {
		st.killed.Add(1)
	}
}

// TestChaos is two seconds long, or as long as ZARPA_CHAOS says, such as 5m.
func TestChaos(t *testing.T) {
	linux(t)
	t.Parallel()
	last := 2 * time.Second
	if text := os.Getenv("ZARPA_CHAOS"); text != "" {
		var err error
		if last, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, preload := range []zarpa.Preload{zarpa.PreloadAuto, zarpa.PreloadNever} {
		t.Run(string(preload), func(t *testing.T) {
			t.Parallel()
			options := python.Options{
				Workers: 3, Preload: preload, Grace: 200 * time.Millisecond, MaxRequests: 40, MaxMemory: 128 << 20,
				Log: newRecorder().log(),
			}
			s := open(t, options, chaos)
			var killed, innocent, good, bad atomic.Int64
			ends := time.Now().Add(last)
			var all sync.WaitGroup
			for client := range 4 {
				all.Go(func() {
					st := storm{s, rand.New(rand.NewPCG(1, uint64(client))), &killed, &innocent, &good, &bad}
					for n := 0; time.Now().Before(ends); n++ {
						st.strike(t, n)
					}
				})
			}
			all.Wait()
			if innocent.Load() > killed.Load() {
				t.Errorf("%d requests failed for %d killed workers", innocent.Load(), killed.Load())
			}
			if bad.Load() == 0 || good.Load() == 0 {
				t.Errorf("%d good and %d bad requests: it was no storm", good.Load(), bad.Load())
			}
			pids(t, s, 3)
			fresh := open(t, options, chaos) // measured at the same time: the machine may be busier than before
			pids(t, fresh, 3)
			var own, other int64
			eventually(t, "a third of the throughput of a session that saw no storm", func() bool {
				own, other = race(t, s, fresh)
				return own > other/3
			})
			t.Logf("%d good requests, %d harmful, %d workers killed under %d; then %d requests were answered while a fresh session answered %d",
				good.Load(), bad.Load(), killed.Load(), innocent.Load(), own, other)
		})
	}
}

// race lets two sessions answer, all rightly, until one of them has answered 300 requests, and counts
// the answers of both.
func race(t *testing.T, one, other zarpa.Scorer) (int64, int64) {
	t.Helper()
	var counts [2]atomic.Int64
	var all sync.WaitGroup
	for i, s := range []zarpa.Scorer{one, other} {
		for range 3 {
			all.Go(func() {
				for counts[0].Load() < 300 && counts[1].Load() < 300 {
					answers(t, s, "echo x", `"x"`)
					counts[i].Add(1)
				}
			})
		}
	}
	all.Wait()
	return counts[0].Load(), counts[1].Load()
}
