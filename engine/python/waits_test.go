package python

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// comes waits for the end of what must end.
func comes(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Errorf("never: %s", what)
	}
}

// after runs f beside the test and tells of its end.
func after(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// firstWrite tells of the first write to it.
type firstWrite struct {
	once sync.Once
	done chan struct{}
}

func (f *firstWrite) Write(b []byte) (int, error) {
	f.once.Do(func() { close(f.done) })
	return len(b), nil
}

func TestWhoPrintsWithoutAPauseHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	prints := &firstWrite{done: make(chan struct{})}
	o, theirs, err := newOutput(slog.New(slog.NewTextHandler(prints, nil)))
	if err != nil {
		t.Fatal(err)
	}
	yes := exec.Command("yes", strings.Repeat("x", 100)) // lines that take less time to log
	yes.Stdout, yes.Stderr = theirs[0], theirs[1]
	if err := yes.Start(); err != nil {
		t.Skipf("no yes: %v", err)
	}
	closeAll(theirs)
	comes(t, "something is printed", prints.done)
	attributed := after(func() {
		for range 2 {
			o.attribute("a request")
		}
	})
	comes(t, "the output is attributed", attributed)
	if !t.Failed() {
		comes(t, "the output is closed", after(o.close))
	}
	_ = yes.Process.Kill() // it may have ended by SIGPIPE
	_ = yes.Wait()
	<-attributed
}

// child is a worker of a nursery, without a process.
func child(t *testing.T, n *nursery, id int) *worker {
	t.Helper()
	conn, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll([]*os.File{theirs}) })
	w := &worker{
		id: id, limits: &Options{Grace: 50 * time.Millisecond}, conn: conn,
		exited: make(chan struct{}), done: make(chan struct{}),
	}
	w.parent.Store(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.children[id] = w
	return w
}

// mute is a nursery with one worker, and its process's end of the socket, which says nothing by itself.
func mute(t *testing.T) (*nursery, *worker, *os.File) {
	t.Helper()
	conn, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	n := newNursery(conn)
	w := child(t, n, 1)
	listened := after(n.listen)
	t.Cleanup(func() {
		_ = theirs.Close()
		<-listened
	})
	return n, w, theirs
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestEachSignalIsToldOfByItself(t *testing.T) {
	t.Parallel()
	n, w, theirs := mute(t)
	barrier := child(t, n, 2)
	first, second := w.signal(0), w.signal(0)
	asked := bufio.NewScanner(theirs)
	for range 2 {
		if !asked.Scan() {
			t.Fatal(asked.Err())
		}
	}
	tell := func(line string) {
		t.Helper()
		if _, err := theirs.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	tell(`{"event":"signalled","worker":1}`)
	tell(`{"event":"exited","worker":2}`)
	comes(t, "the events are read", barrier.exited)
	if !isClosed(first) || isClosed(second) {
		t.Errorf("after one event, of two signals: %v and %v were told of", isClosed(first), isClosed(second))
	}
	tell(`{"event":"signalled","worker":1}`)
	comes(t, "the second event", second)
}

func TestAnInterruptThatNobodyDeliversEndsWithTheGrace(t *testing.T) {
	t.Parallel()
	_, w, _ := mute(t)
	stop := w.watch(canceled())
	comes(t, "the worker is given up", after(func() { stop() }))
	if !w.isLost() {
		t.Fatal("it is not lost")
	}
	if w.why != reasonTimeout {
		t.Errorf("it is lost: %s", w.why)
	}
}

func TestABatchThatWasAcceptedBeforeCloseIsAnswered(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("no Python: %v", err)
	}
	dir := t.TempDir()
	text := "def init(): pass\ndef run(raw): pass\ndef run_batch(raws): return raws\n"
	if err := os.WriteFile(filepath.Join(dir, "score.py"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{Python: path, Workers: 1, MaxBatch: 2, Env: []string{"PATH=" + os.Getenv("PATH")}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	loaded, err := e.Script(context.WithoutCancel(t.Context()), Script{Code: dir, Entry: "score.py"})
	if err != nil {
		t.Fatal(err)
	}
	s := loaded.(*scriptSession)
	is := func(what func() bool) {
		t.Helper()
		ticks := time.NewTicker(time.Millisecond)
		defer ticks.Stop()
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-ticks.C {
			s.mu.Lock()
			ok := what()
			s.mu.Unlock()
			if ok {
				return
			}
		}
		t.Error("never")
	}
	s.batches.mu.Lock() // the request is accepted, and does not get further
	answer := httptest.NewRecorder()
	asked := after(func() {
		err = s.Score(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/score", nil), []byte("x"))
	})
	is(func() bool { return s.running == 1 })
	closed := after(func() { _ = s.Close() })
	is(func() bool { return s.closed })
	s.batches.mu.Unlock()
	comes(t, "the answer", asked)
	if err != nil || answer.Body.String() != `"x"` {
		t.Errorf("%v, %s", err, answer.Body)
	}
	comes(t, "the end", closed)
}
