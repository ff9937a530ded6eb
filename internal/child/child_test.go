package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test binary its own children.
func TestMain(m *testing.M) {
	switch os.Getenv("CHILD") {
	case "":
		os.Exit(m.Run())
	case "panic":
		fmt.Println("about to fall")
		panic("the floor is gone")
	case "exit":
		fmt.Fprintln(os.Stderr, "error: no more")
		os.Exit(7)
	case "silent": // lives, answers nothing
		fmt.Println("up")
		select {}
	}
	label := os.Args[1]
	http.HandleFunc("GET /-/self", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(Self{Label: label, PID: os.Getpid()})
	})
	l, err := net.Listen("unix", os.Args[2])
	if err != nil {
		panic(err)
	}
	fmt.Println("up")
	panic(http.Serve(l, nil))
}

func spec(t *testing.T, mode string) Spec {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	label := fmt.Sprintf("child.%d.%s", os.Getpid(), filepath.Base(filepath.Dir(dir)))
	socket := filepath.Join(dir, "s")
	return Spec{
		Label: label, Path: exe, Args: []string{label, socket}, Dir: dir, Socket: socket,
		Env: []string{"CHILD=" + mode, "GORACE=atexit_sleep_ms=0"}, Log: Log{Path: filepath.Join(dir, "log")},
	}
}

func start(t *testing.T, s Spec) *Child {
	t.Helper()
	c, err := Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-c.PID(), syscall.SIGKILL)
		_, _ = syscall.Wait4(c.PID(), nil, 0, nil) // when nobody has collected it
		c.Release()
	})
	return c
}

func done(t *testing.T, c *Child) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the process does not end")
	}
}

// up waits until the process has printed a line, as one who follows its log does.
func up(t *testing.T, s Spec) {
	t.Helper()
	seen := errors.New("seen")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Log.Lines(ctx, LogRead{Follow: true}, func(string) error { return seen }); !errors.Is(err, seen) {
		t.Fatal(err)
	}
}

func TestExitIsKept(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]struct {
		code   int
		reason string
	}{
		"panic": {2, "it crashed: panic: the floor is gone"},
		"exit":  {7, "it ended with exit code 7; its last line: no more"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := start(t, spec(t, mode))
			done(t, c)
			e := c.Exit()
			if e.Code != want.code || e.Reason != want.reason || len(e.Log) == 0 || e.Unknown || e.At.IsZero() {
				t.Errorf("exit = %+v, want %+v", e, want)
			}
		})
	}
}

func TestStopEndsTheGroup(t *testing.T) {
	t.Parallel()
	s := spec(t, "serve")
	c := start(t, s)
	up(t, s)
	if err := c.Stop(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if e := c.Exit(); e.Signal != "SIGTERM" || e.Code != -1 {
		t.Errorf("exit = %+v, want SIGTERM", e)
	}
	if _, err := os.Stat(s.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestStopReturnsWithItsContext(t *testing.T) {
	t.Parallel()
	c := start(t, spec(t, "serve"))
	if err := syscall.Kill(c.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Stop(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop = %v, want canceled", err)
	}
}

// Whatever is on disk at the moment the parent dies, the child is found.
func TestAdoptFindsTheChild(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		mode   string
		forget func(r *record)
	}{
		"BySocket":                 {"serve", func(*record) {}},
		"BySocketAfterIntentAlone": {"serve", func(r *record) { r.PID, r.StartTicks = 0, 0 }},
		"BySocketNotByPid":         {"serve", func(r *record) { r.PID, r.StartTicks = os.Getpid(), 1 }},
		"ByRecord":                 {"silent", func(*record) {}},
		"ByLabelAfterIntentAlone":  {"silent", func(r *record) { r.PID, r.StartTicks = 0, 0 }},
		"ByLabelNotByPid":          {"silent", func(r *record) { r.PID = os.Getpid(); r.StartTicks, _ = processStart(os.Getpid()) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(t, tc.mode)
			c := start(t, s)
			up(t, s)
			c.Release()
			r, err := readRecord(s.Dir)
			if err != nil {
				t.Fatal(err)
			}
			tc.forget(&r)
			if err := r.write(s.Dir); err != nil {
				t.Fatal(err)
			}
			a, err := Adopt(t.Context(), s.Dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			if a.PID() != c.PID() || !a.Adopted() || !a.Started().Equal(c.Started()) {
				t.Errorf("adopted pid %d, started %v; want %d, %v", a.PID(), a.Started(), c.PID(), c.Started())
			}
			if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			done(t, a)
			a.Release()
			if _, err := Adopt(t.Context(), s.Dir, nil); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Adopt of a run that was seen to end: %v, want not exist", err)
			}
		})
	}
}

func TestAdoptOfTheDeadIsUnknown(t *testing.T) {
	t.Parallel()
	s := spec(t, "panic")
	c := start(t, s)
	r := c.record
	done(t, c)
	for _, boot := range []string{r.Boot, "another boot"} {
		r.Boot = boot
		if err := r.write(s.Dir); err != nil {
			t.Fatal(err)
		}
		a, err := Adopt(t.Context(), s.Dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		done(t, a)
		if e := a.Exit(); !e.Unknown || e.Code != -1 || !strings.Contains(e.Reason, "the floor is gone") {
			t.Errorf("exit = %+v, want unknown with the reason from the log", e)
		}
		a.Release()
	}
}

func TestSecondStartIsRefusedWhileTheFirstRuns(t *testing.T) {
	t.Parallel()
	s := spec(t, "silent")
	c := start(t, s)
	if _, err := Start(t.Context(), s); !errors.Is(err, ErrRunning) {
		t.Errorf("second start: %v, want ErrRunning", err)
	}
	if err := s.Log.Keep(s.Log.Path + ".old"); !errors.Is(err, ErrRunning) {
		t.Errorf("Keep while it runs: %v, want ErrRunning", err)
	}
	if err := c.Stop(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestStartOfNothingLeavesNothing(t *testing.T) {
	t.Parallel()
	s := spec(t, "serve")
	s.Path = "/nowhere/zarpa"
	if _, err := Start(t.Context(), s); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Start = %v, want not exist", err)
	}
	if _, err := Adopt(t.Context(), s.Dir, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Adopt = %v, want not exist", err)
	}
}

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	l := Log{Path: filepath.Join(t.TempDir(), "log"), Limit: 1000}
	f, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 500 {
		fmt.Fprintf(f, "line %d\n", i)
		if i%10 == 0 {
			if err := l.Trim(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var lines []string
	keep := func(line string) error {
		lines = append(lines, line)
		return nil
	}
	if err := l.Lines(t.Context(), LogRead{}, keep); err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Join(lines, "\n")); n > 1100 || n < 300 || lines[len(lines)-1] != "line 499" {
		t.Errorf("%d bytes kept, ending in %q", n, lines[len(lines)-1])
	}
	lines = nil
	if err := l.Lines(t.Context(), LogRead{Tail: 2}, keep); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(lines, []string{"line 498", "line 499"}) {
		t.Errorf("tail = %q", lines)
	}
	lines = nil
	if err := l.Lines(t.Context(), LogRead{Tail: math.MaxInt}, keep); err != nil || lines[len(lines)-1] != "line 499" {
		t.Errorf("more lines than there can be: %v", err)
	}
}

func TestFollowedLogGoesOnAfterTrimAndKeep(t *testing.T) {
	t.Parallel()
	l := Log{Path: filepath.Join(t.TempDir(), "log"), Limit: 10}
	write := func(text string) *os.File {
		f, err := l.open()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, text)
		return f
	}
	f := write("first is a long line\n")
	lines, gone := make(chan string, 10), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- l.Lines(t.Context(), LogRead{Follow: true, Gone: gone}, func(line string) error {
			lines <- line
			return nil
		})
	}()
	expect := func(want string) {
		t.Helper()
		if got := <-lines; got != want {
			t.Errorf("line %q, want %q", got, want)
		}
	}
	expect("first is a long line")
	if err := l.Trim(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "second\n")
	expect("second")
	_ = f.Close()
	if err := l.Keep(l.Path + ".old"); err != nil {
		t.Fatal(err)
	}
	defer write("third\nno end").Close()
	expect("third")
	close(gone)
	expect("no end")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSocketDirIsPrivate(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	dir, err := SocketDir(state, 15)
	if err != nil || dir != filepath.Join(state, "s") {
		t.Fatalf("SocketDir = %s, %v", dir, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := SocketDir(state, 15); err == nil {
		t.Error("a directory that others may read was taken")
	}
	long := filepath.Join(state, strings.Repeat("x", 100))
	dir, err = SocketDir(long, 15)
	if err != nil || len(dir)+16 >= maxSocketPath {
		t.Fatalf("SocketDir of a long path = %s, %v", dir, err)
	}
	again, err := SocketDir(long, 15)
	if err != nil || again != dir {
		t.Errorf("SocketDir again = %s, %v", again, err)
	}
	_ = os.Remove(dir)
}
