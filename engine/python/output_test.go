package python_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/zarpa-dev/zarpa/engine/python"
)

func TestWhatIsPrintedIsLoggedAsItIs(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	s := open(t, python.Options{Workers: 1, Log: rec.log()}, `
import os, sys, subprocess
print("loaded")
def init():
    print("in init", file=sys.stderr)
def run(raw):
    print("  two\tparts", raw)
    print("to stderr", raw, file=sys.stderr)
    os.write(1, b"by the system " + raw.encode() + b"\n")
    os.write(2, b"\xff\x00bytes\r\n")
    subprocess.run(["echo", "by a child " + raw])
    print("x" * 70000)
    print("no end of line", end="")
`)
	for _, body := range []string{"1", "2"} {
		answers(t, s, body, "{}")
		id := "request of " + body
		var got []string
		for _, e := range rec.lines() {
			if e.attrs["request_id"] == id {
				got = append(got, e.attrs["stream"]+":"+e.message)
			}
			if e.attrs["worker"] == "" {
				t.Errorf("%q names no worker", e.message)
			}
		}
		want := []string{
			"stdout:by the system " + body, "stdout:by a child " + body, "stdout:  two\tparts " + body,
			"stdout:" + strings.Repeat("x", 65536), "stdout:" + strings.Repeat("x", 70000-65536), "stdout:no end of line",
			"stderr:to stderr " + body, `stderr:\xff\x00bytes`,
		}
		have := strings.Join(got, "\n")
		for _, line := range want {
			if !strings.Contains("\n"+have+"\n", "\n"+line+"\n") {
				t.Errorf("request %s: no %.80q", body, line)
			}
		}
		if len(got) != len(want) {
			t.Errorf("request %s: %d lines, want %d: %.2000q", body, len(got), len(want), got)
		}
	}
	for _, e := range rec.lines() {
		if (e.message == "loaded" || e.message == "in init") && e.attrs["request_id"] != "" {
			t.Errorf("%q has the id of a request", e.message)
		}
	}
	rec.waitFor(t, "in init")
}

func TestLinesBelongToTheirRequests(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	s := open(t, python.Options{Workers: 2, Log: rec.log()}, `
import sys
def init(): pass
def run(raw):
    for n in range(3):
        print("out", raw, n)
        print("err", raw, n, file=sys.stderr)
`)
	const clients, each = 4, 50
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for n := range each {
				answers(t, s, fmt.Sprintf("%d-%d", c, n), "{}")
			}
		})
	}
	all.Wait()
	lines := rec.lines()
	if len(lines) != clients*each*6 {
		t.Errorf("%d lines, want %d", len(lines), clients*each*6)
	}
	for _, e := range lines {
		if body := strings.Fields(e.message)[1]; e.attrs["request_id"] != "request of "+body {
			t.Errorf("%q has the id %q", e.message, e.attrs["request_id"])
		}
	}
}
