// Package main measures what Zarpa costs on one machine, in one go: the gateway's hop beside a
// plain reverse proxy, the scoring server beside a bare handler and a raw loop, the time from a
// model file to the first answer, and memory. It writes RESULTS.md.
//
//	go run ./bench            everything; about six minutes
//	go run ./bench -quick     a smoke test of half a minute; its figures mean little
//	go run ./bench -only a,c  some of the parts
//
// Everything that is measured is a process of its own: zarpa itself, built for the occasion, and
// this program again in the roles of replica, reverse proxy, bare server, raw loop and load.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// rolePrefix marks the first argument of this program when it runs itself.
const rolePrefix = "role="

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	p := program{args: os.Args[1:], env: os.Environ(), in: os.Stdin, out: os.Stdout, progress: os.Stderr} //nolint:forbidigo // a command
	err := p.run(ctx)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(p.progress, "bench:", err)
		os.Exit(1) //nolint:forbidigo // a command
	}
}

// program is what the process was given.
type program struct {
	args, env []string
	in        io.Reader
	out       io.Writer
	progress  io.Writer
}

// settings are the flags.
type settings struct {
	quick, check   bool
	only, out      string
	zarpa, library string
	rounds         int
}

// scale is how much is measured.
type scale struct {
	rounds   int           // of every comparison, each with all contestants
	open     time.Duration // of one open-loop run
	closed   time.Duration // of one closed-loop run
	deploys  int
	idle     time.Duration // over which idle processor time is counted
	commands string        // the flags that lead to it
}

func (s settings) scale() scale {
	sc := scale{rounds: 7, open: 2 * time.Second, closed: 2 * time.Second, deploys: 10, idle: 10 * time.Second}
	if s.quick {
		sc = scale{rounds: 1, open: 500 * time.Millisecond, closed: 500 * time.Millisecond, deploys: 2, idle: time.Second, commands: " -quick"}
	}
	if s.rounds > 0 {
		sc.rounds = s.rounds
		sc.commands += fmt.Sprintf(" -rounds %d", s.rounds)
	}
	return sc
}

func (p program) run(ctx context.Context) error {
	if len(p.args) > 0 {
		if role, ok := strings.CutPrefix(p.args[0], rolePrefix); ok {
			return p.play(ctx, role)
		}
	}
	var s settings
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(p.progress)
	fs.BoolVar(&s.quick, "quick", false, "a smoke test: one short round of everything")
	fs.BoolVar(&s.check, "check", false, "fail when an aim is missed")
	fs.StringVar(&s.only, "only", "a,b,c,d", "parts: a hop, b scoring, c first answer, d memory")
	fs.StringVar(&s.out, "out", "", "file to write; bench/RESULTS.md by default, standard output for -quick and for some of the parts; - is standard output")
	fs.StringVar(&s.zarpa, "zarpa", "", "zarpa binary to measure; built from this module by default")
	fs.StringVar(&s.library, "library", "", "ONNX Runtime's library; $ZARPA_ONNXRUNTIME, or the one in bin/, by default")
	fs.IntVar(&s.rounds, "rounds", 0, "rounds of every comparison; 7 by default")
	if err := fs.Parse(p.args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("argument %q: not known; there are flags only", fs.Arg(0))
	}
	b, err := p.prepare(ctx, s)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.temp)
	return b.measureAll(ctx, s)
}

// bench is one run of the measurements.
type bench struct {
	root     string // of the module
	temp     string
	self     string // this program
	zarpa    string
	library  string
	env      []string
	progress io.Writer
	out      io.Writer
	scale    scale
}

// prepare finds the module and builds what is measured.
func (p program) prepare(ctx context.Context, s settings) (*bench, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bench{root: root, self: self, zarpa: s.zarpa, progress: p.progress, out: p.out, scale: s.scale()}
	if b.library, err = findLibrary(root, s.library, p.env); err != nil {
		return nil, err
	}
	b.env = append(slices.Clone(p.env), "ZARPA_ONNXRUNTIME="+b.library)
	// Names of sockets are short, and so must be the folder's.
	if b.temp, err = os.MkdirTemp("", "zb"); err != nil {
		return nil, err
	}
	if b.zarpa != "" {
		return b, nil
	}
	b.say("build zarpa")
	b.zarpa = filepath.Join(b.temp, "zarpa")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.zarpa, "./cmd/zarpa")
	build.Dir = root
	if text, err := build.CombinedOutput(); err != nil {
		os.RemoveAll(b.temp)
		return nil, fmt.Errorf("build zarpa: %w\n%s", err, text)
	}
	return b, nil
}

func moduleRoot(ctx context.Context) (string, error) {
	text, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	file := strings.TrimSpace(string(text))
	if err != nil || filepath.Base(file) != "go.mod" {
		return "", errors.New("run it inside the module: go run ./bench")
	}
	return filepath.Dir(file), nil
}

func findLibrary(root, given string, env []string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "ZARPA_ONNXRUNTIME="); ok && v != "" {
			return filepath.Abs(v)
		}
	}
	found, err := filepath.Glob(filepath.Join(root, "bin", "libonnxruntime.*"))
	if err != nil || len(found) == 0 {
		return "", errors.New("no ONNX Runtime in bin/: run make build first, or give -library")
	}
	return found[0], nil
}

// measureAll runs the parts that were asked for and writes the report.
func (b *bench) measureAll(ctx context.Context, s settings) error {
	parts := map[string]func(context.Context, *report) error{
		"a": b.measureHop, "b": b.measureScoring, "c": b.measureFirst, "d": b.measureMemory,
	}
	wanted := strings.Split(s.only, ",")
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	r := newReport(b, s)
	for _, letter := range wanted {
		measure := parts[letter]
		if measure == nil {
			return fmt.Errorf("-only: %q is not known; the parts are a, b, c and d", letter)
		}
		if err := measure(ctx, r); err != nil {
			return fmt.Errorf("part %s: %w", letter, err)
		}
	}
	if err := r.save(len(wanted) == len(parts)); err != nil {
		return err
	}
	if s.check && r.missed() > 0 {
		return fmt.Errorf("%d aims are missed", r.missed())
	}
	return nil
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, format+"\n", args...)
}
