package targettest

import (
	"bufio"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func logsUnknown(t *testing.T, g *ground) {
	l, ok := g.driver.(zarpa.Logger)
	if !ok {
		t.Skip("this driver keeps no logs")
	}
	if _, err := l.Logs(g.ctx, zarpa.Handle{}, zarpa.LogQuery{}); !errors.Is(err, zarpa.ErrNotFound) {
		t.Errorf("Logs of an unknown handle: %v, want not_found", err)
	}
	d := g.Deployment("silent", "blue")
	h := g.apply(t, d)
	if _, err := l.Logs(g.ctx, h, zarpa.LogQuery{Replica: "nobody-0.0000"}); !errors.Is(err, zarpa.ErrNotFound) {
		t.Errorf("Logs of an unknown replica: %v, want not_found", err)
	}
}

func logs(t *testing.T, g *ground) {
	d := scaled(g.Deployment("writes", "blue"), 2)
	h := g.apply(t, d)
	s := g.await(t, h, "ready", ready(d, 2))
	for _, r := range s.Replicas { // what was printed may take a moment to be kept
		g.written(t, h, r.ID)
	}
	all := g.logs(t, h, zarpa.LogQuery{})
	for _, r := range s.Replicas {
		one := g.logs(t, h, zarpa.LogQuery{Replica: r.ID})
		if one[0] == "" || strings.HasPrefix(one[0], "[") {
			t.Errorf("log of %s: %q, want plain lines", r.ID, one)
		}
		if got := strings.Join(all, "\n"); !strings.Contains(got, "["+r.ID+"] "+one[0]) {
			t.Errorf("log of all: %q, want it to hold %q of %s", got, one[0], r.ID)
		}
		if tail := g.logs(t, h, zarpa.LogQuery{Replica: r.ID, Tail: 1}); len(tail) != 1 || tail[0] != one[len(one)-1] {
			t.Errorf("last line of %s: %q, want %q", r.ID, tail, one[len(one)-1])
		}
		if none := g.logs(t, h, zarpa.LogQuery{Replica: r.ID, Previous: true}); strings.Join(none, "") != "" {
			t.Errorf("log of the run before: %q, but there was none", none)
		}
	}
}

func previousLogs(t *testing.T, g *ground) {
	d := g.Deployment("before", "blue")
	h := g.apply(t, d)
	r := g.await(t, h, "ready", ready(d, 1)).Replicas[0]
	was := g.written(t, h, r.ID)
	g.Crash(t, g.driver, r)
	g.await(t, h, "back", func(s zarpa.DeploymentStatus) bool { return s.Ready("") == 1 && s.Replicas[0].Restarts == 1 })
	kept := g.logs(t, h, zarpa.LogQuery{Replica: r.ID, Previous: true})
	if kept[0] != was[0] {
		t.Errorf("log of the run before: %q, want it to begin with %q", kept, was[0])
	}
}

func followsLogs(t *testing.T, g *ground) {
	l, ok := g.driver.(zarpa.Logger)
	if !ok {
		t.Skip("this driver keeps no logs")
	}
	d := g.Deployment("follows", "blue")
	h := g.apply(t, d)
	r := g.await(t, h, "ready", ready(d, 1)).Replicas[0]
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	out, err := l.Logs(ctx, h, zarpa.LogQuery{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-g.ctx.Done():
				return
			}
		}
	}()
	first, ok := <-lines
	if !ok || !strings.HasPrefix(first, "["+r.ID+"] ") {
		t.Fatalf("first line followed: %q", first)
	}
	g.Crash(t, g.driver, r)
	for again := ""; again != first; { // the new run prints what the first printed
		if again, ok = <-lines; !ok {
			t.Fatal("the log ended with the run")
		}
	}
	cancel()
	for range lines { // until the stream ends, as it must when ctx does
	}
}
