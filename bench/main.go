// Package main measures what Zarpa costs on one machine, in one go: the gateway's hop beside a
// plain reverse proxy, the scoring server beside a bare handler, a raw loop and the servers of
// others, batching beside the best static batch, the time from a model file to the first answer,
// memory, and scoring scripts beside the server that they were written for. It writes RESULTS.md and
// results.svg.
//
//	go run ./bench                    everything; about an hour, with the peers installed
//	go run ./bench -short             a smoke test; its figures mean little
//	go run ./bench -only hop,scoring  some of the parts
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
	short, check   bool
	only, out      string
	peers, models  string
	zarpa, library string
	rounds         int
}

// scale is how much is measured.
type scale struct {
	rounds   int           // of every comparison, each with all contestants
	open     time.Duration // of one open-loop run
	closed   time.Duration // of one closed-loop run
	compare  time.Duration // of one run against a server that is compared with others
	deploys  int
	idle     time.Duration // over which idle processor time is counted
	commands string        // the flags that lead to it
}

func (s settings) scale() scale {
	sc := scale{rounds: 5, open: 2 * time.Second, closed: 2 * time.Second, compare: time.Second, deploys: 10, idle: 10 * time.Second}
	if s.short {
		const little = 200 * time.Millisecond
		sc = scale{rounds: 1, open: little, closed: little, compare: little / 2, deploys: 2, idle: time.Second, commands: " -short"}
	}
	if s.rounds > 0 {
		sc.rounds = s.rounds
		sc.commands += fmt.Sprintf(" -rounds %d", s.rounds)
	}
	return sc
}

// part is one comparison.
type part struct {
	name, about string
	measure     func(*bench, context.Context, *report) error
}

// parts are all, in the order of the report.
func parts() []part {
	return []part{
		{"peers", "other servers", (*bench).measurePeers},
		{"scoring", "forms of a request", (*bench).measureScoring},
		{"batch", "batching", (*bench).measureBatch},
		{"hop", "the gateway", (*bench).measureHop},
		{"overload", "ten times the load", (*bench).measureOverload},
		{"many", "many endpoints on one gateway", (*bench).measureMany},
		{"elastic", "replicas that follow the load", (*bench).measureElastic},
		{"first", "from a file to the first answer", (*bench).measureFirst},
		{"containers", "images and containers", (*bench).measureContainers},
		{"memory", "memory and rest", (*bench).measureMemory},
		{"python", "scoring scripts", (*bench).measurePython},
	}
}

func partNames() string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return strings.Join(names, ",")
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
	fs.BoolVar(&s.short, "short", false, "a smoke test: one short round of everything")
	fs.BoolVar(&s.check, "check", false, "fail when an aim is missed")
	fs.StringVar(&s.only, "only", partNames(), "parts to run")
	fs.StringVar(&s.peers, "peers", "all", "peers to compare with: all (without ray), none, or names of bench/peers/*.txt")
	fs.StringVar(&s.models, "models", "all", "models to serve: all, or names of "+strings.Join(modelNames, ", "))
	fs.StringVar(&s.out, "out", "", "file to write; bench/RESULTS.md by default, standard output for -short and for some of the parts; - is standard output; the plot goes beside it")
	fs.StringVar(&s.zarpa, "zarpa", "", "zarpa binary to measure; built from this module by default")
	fs.StringVar(&s.library, "library", "", "ONNX Runtime's library; $ZARPA_ONNXRUNTIME, or the one in bin/, by default")
	fs.IntVar(&s.rounds, "rounds", 0, "rounds of every comparison; 5 by default")
	if err := fs.Parse(p.args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("argument %q: not known; there are flags only", fs.Arg(0))
	}
	if s.out != "" && s.out != "-" { // better now than in an hour
		if _, err := os.Stat(filepath.Dir(s.out)); err != nil {
			return fmt.Errorf("-out: %w", err)
		}
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
	copy     string // the same in a file of its own, for servers whose memory is told
	zarpa    string
	library  string
	env      []string
	progress io.Writer
	out      io.Writer
	scale    scale

	socketCount int
	only        string // names of models, or all
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
	b := &bench{root: root, self: self, zarpa: s.zarpa, progress: p.progress, out: p.out, scale: s.scale(), only: s.models}
	if b.library, err = findLibrary(root, s.library, p.env); err != nil {
		return nil, err
	}
	b.env = append(slices.Clone(p.env), "ZARPA_ONNXRUNTIME="+b.library)
	// Names of sockets are short, and so must be the folder's.
	if b.temp, err = os.MkdirTemp("", "zb"); err != nil {
		return nil, err
	}
	b.copy = filepath.Join(b.temp, "bench")
	if err := copyFile(self, b.copy); err != nil {
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

// variable is the value of a variable of an environment, the last one as for programs; "" when it is not set.
func variable(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

func findLibrary(root, given string, env []string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	if v := variable(env, "ZARPA_ONNXRUNTIME"); v != "" {
		return filepath.Abs(v)
	}
	found, err := filepath.Glob(filepath.Join(root, "bin", "libonnxruntime.*"))
	if err != nil || len(found) == 0 {
		return "", errors.New("no ONNX Runtime in bin/: run make build first, or give -library")
	}
	return found[0], nil
}

// measureAll runs the parts that were asked for and writes the report.
func (b *bench) measureAll(ctx context.Context, s settings) error {
	wanted := strings.Split(s.only, ",")
	for _, w := range wanted {
		if !slices.ContainsFunc(parts(), func(p part) bool { return p.name == w }) {
			return fmt.Errorf("-only: %q is not known; the parts are %s", w, partNames())
		}
	}
	r := newReport(b, s)
	whole := true
	for _, p := range parts() {
		if !slices.Contains(wanted, p.name) {
			whole = false
			continue
		}
		if err := p.measure(b, ctx, r); err != nil {
			return fmt.Errorf("part %s, %s: %w", p.name, p.about, err)
		}
	}
	if err := r.save(whole); err != nil {
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

// copyFile copies a program: processes of the copy share no page with those of the original.
func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755)
}
