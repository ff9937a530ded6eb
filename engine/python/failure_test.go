package python_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/python"
)

func TestAScriptThatDoesNotLoadSaysWhy(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, script, message, cause string
		code                         zarpa.Code
	}{
		{"syntax", "def init(:\n", "syntax", "score.py", zarpa.Invalid},
		{"import", "import no_such_module\n", "no_such_module", "Traceback", zarpa.Invalid},
		{"init raises", "def init(): raise ValueError('no model')\ndef run(raw): pass\n", "no model", "Traceback", zarpa.ModelError},
		{"init exits", "import sys\ndef init(): sys.exit(0)\ndef run(raw): pass\n", "SystemExit", "", zarpa.ModelError},
		{"init leaves", "import os, sys\ndef init():\n  print('last words', file=sys.stderr)\n  sys.stderr.flush()\n  os._exit(7)\ndef run(raw): pass\n", "exited with status 7", "last words", zarpa.ModelError},
		{"init is killed", "import os\ndef init(): os.kill(os.getpid(), 9)\ndef run(raw): pass\n", "SIGKILL", "", zarpa.ModelError},
		{"import is killed", "import os\nos.kill(os.getpid(), 11)\n", "SIGSEGV", "", zarpa.ModelError},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, preload := range []zarpa.Preload{zarpa.PreloadAuto, zarpa.PreloadNever} {
				_, err := newEngine(t, python.Options{Workers: 2, Preload: preload}).Script(t.Context(), code(t, c.script))
				e, ok := errors.AsType[*zarpa.Error](err)
				if !ok || e.Code != c.code || !strings.Contains(e.Message, c.message) {
					t.Fatalf("%s: %v", preload, err)
				}
				if c.cause != "" && (e.Err == nil || !strings.Contains(e.Err.Error(), c.cause)) {
					t.Errorf("%s: the cause is %v", preload, e.Err)
				}
			}
		})
	}
}

func TestALoadThatNeverReturnsIsBounded(t *testing.T) {
	t.Parallel()
	e := newEngine(t, python.Options{Workers: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := e.Script(ctx, code(t, "import time\ndef init():\n  while True: time.sleep(1)\ndef run(raw): pass\n"))
	if zarpa.AsError(err).Code != zarpa.Timeout {
		t.Errorf("%v", err)
	}
}

func TestANonInterpreterIsUnavailable(t *testing.T) {
	t.Parallel()
	if _, err := python.New(python.Options{Python: "no-such-python"}); zarpa.AsError(err).Code != zarpa.Unavailable {
		t.Errorf("%v", err)
	}
	e, err := python.New(python.Options{Python: "/bin/ls"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, err = e.Script(t.Context(), code(t, plain))
	if e := zarpa.AsError(err); err == nil || e.Code != zarpa.Unavailable || !strings.Contains(e.Message, "/bin/ls ended by itself") {
		t.Errorf("%v", err)
	}
	_, err = newEngine(t, python.Options{}).Script(t.Context(), python.Script{Code: "no-such-folder", Entry: "score.py"})
	if zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("%v", err)
	}
}

// deadly does to itself what its request says.
const deadly = `
import os, signal, socket, sys, threading, time
def init(): pass
def run(raw):
    if raw == "segfault":
        print("about to fail", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif raw == "exit":
        os._exit(5)
    elif raw == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif raw == "hang":
        while True:
            try:
                time.sleep(100)
            except BaseException:
                pass
    elif raw == "sleep":
        time.sleep(100)
    elif raw == "garbage":
        for fd in range(3, 256):
            try:
                socket.socket(fileno=os.dup(fd)).sendall(b"garbage" * 100)
            except OSError:
                pass
        time.sleep(100)
    elif raw == "close":
        os.closerange(3, 256)
        return 1
    elif raw == "child":
        if os.fork() == 0:
            time.sleep(100)
        os._exit(6)
    return raw
`

func TestOnlyTheRequestOfADeadWorkerFails(t *testing.T) {
	t.Parallel()
	for _, preload := range []zarpa.Preload{zarpa.PreloadAuto, zarpa.PreloadNever} {
		t.Run(string(preload), func(t *testing.T) {
			t.Parallel()
			s := open(t, python.Options{Workers: 2, Preload: preload, Grace: 200 * time.Millisecond}, deadly)
			for body, want := range map[string]string{
				"segfault": "SIGSEGV", "exit": "status 5", "kill": "SIGKILL", "garbage": "damaged", "close": "", "child": "status 6",
			} {
				_, err := call(t.Context(), s, body)
				e := zarpa.AsError(err)
				if err == nil || e.Code != zarpa.ModelError || !strings.Contains(e.Message, want) || !strings.Contains(e.Message, "replaced") {
					t.Errorf("%s: %v: %v", body, err, e.Err)
				}
				if body == "segfault" && (e.Err == nil || !strings.Contains(e.Err.Error(), "about to fail")) {
					t.Errorf("the cause is %v", e.Err)
				}
				answers(t, s, "x", `"x"`)
			}
		})
	}
}

func TestARequestPastItsTimeEndsAlone(t *testing.T) {
	t.Parallel()
	s := open(t, python.Options{Workers: 1, Grace: 300 * time.Millisecond}, deadly)
	answers(t, s, "x", `"x"`)
	for _, c := range []struct {
		body, want string
		code       zarpa.Code
	}{
		{"sleep", "interrupted", zarpa.Timeout},
		{"hang", "replaced", zarpa.Timeout},
		{"sleep", "interrupted", zarpa.Canceled},
		{"hang", "replaced", zarpa.Canceled},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if c.code == zarpa.Canceled {
			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
		}
		_, err := call(ctx, s, c.body)
		cancel()
		if e := zarpa.AsError(err); e == nil || e.Code != c.code || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: %v", c.body, err)
		}
		answers(t, s, "x", `"x"`)
	}
}

func TestTheQueueHasAnEnd(t *testing.T) {
	t.Parallel()
	s := open(t, python.Options{Workers: 1, QueueLimit: 1, Grace: 100 * time.Millisecond}, deadly)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 { // one works, one waits
		go func() {
			for {
				_, err := call(ctx, s, "sleep")
				if zarpa.AsError(err).Code != zarpa.Overloaded { // another try was in the queue
					ended <- err
					return
				}
			}
		}()
	}
	eventually(t, "the queue is full", func() bool {
		soon, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		_, err := call(soon, s, "sleep")
		return zarpa.AsError(err).Code == zarpa.Overloaded
	})
	cancel()
	for range 2 {
		if err := <-ended; zarpa.AsError(err).Code != zarpa.Canceled {
			t.Errorf("%v", err)
		}
	}
	answers(t, s, "x", `"x"`)
}

func TestASessionWhoseWorkersDoNotStartGivesUp(t *testing.T) {
	t.Parallel()
	c := code(t, "import os\ndef init():\n  if os.path.exists(os.path.join(os.path.dirname(__file__), 'loaded')): raise ValueError('second')\n  open(os.path.join(os.path.dirname(__file__), 'loaded'), 'w').close()\ndef run(raw): os._exit(1)\n")
	session, err := newEngine(t, python.Options{Workers: 1, Preload: zarpa.PreloadNever}).Script(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s := session.(scorer)
	if _, err := call(t.Context(), s, "x"); zarpa.AsError(err).Code != zarpa.ModelError {
		t.Errorf("%v", err)
	}
	if _, err := call(t.Context(), s, "x"); zarpa.AsError(err).Code != zarpa.Unavailable { // it waits until then
		t.Errorf("%v", err)
	}
	<-s.Done()
	if s.Err() == nil || !strings.Contains(s.Err().Error(), "second") {
		t.Errorf("%v", s.Err())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestAStreamedAnswerLeavesPartByPart(t *testing.T) {
	t.Parallel()
	s := open(t, python.Options{Workers: 1, Grace: time.Second}, `
import time
from azureml.contrib.services.aml_response import AMLResponse
closed = 0
def init(): pass
def run(raw):
    if raw == "closed":
        return closed
    return AMLResponse(parts(raw), 200)
def parts(raw):
    global closed
    try:
        yield b"one "
        if raw == "fail":
            raise ValueError("in the middle")
        if raw == "wait":
            time.sleep(100)
        while raw == "endless":
            yield b"more "
        yield b"two"
    finally:
        closed += 1
`)
	answers(t, s, "x", "one two")
	w, err := call(t.Context(), s, "fail")
	if e := zarpa.AsError(err); e == nil || e.Code != zarpa.ModelError || !strings.Contains(e.Message, "in the middle") || w.Body.String() != "one " || !w.Flushed {
		t.Errorf("%v, %s", err, w.Body)
	}
	for _, body := range []string{"wait", "endless"} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		w, err = call(ctx, s, body)
		cancel()
		if zarpa.AsError(err).Code != zarpa.Timeout || !strings.HasPrefix(w.Body.String(), "one ") {
			t.Errorf("%s: %v, %.100s", body, err, w.Body)
		}
	}
	gone := &goneWriter{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/score", nil)
	if err := s.Score(gone, r, []byte("endless")); !errors.Is(err, errGone) {
		t.Errorf("%v", err)
	}
	answers(t, s, "closed", "5")
}

var errGone = errors.New("the client has left")

// goneWriter is the connection of a client that leaves after the first part.
type goneWriter struct {
	*httptest.ResponseRecorder
	written int
}

func (g *goneWriter) Write(b []byte) (int, error) {
	if g.written++; g.written > 1 {
		return 0, errGone
	}
	return g.ResponseRecorder.Write(b)
}
