package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one contestant.
type process struct {
	name string
	pid  int
	cmd  *exec.Cmd
	said *tail
	done chan error
}

// stopWait is how long a process may take to end after SIGTERM; all end in milliseconds.
const stopWait = 10 * time.Second

// tail keeps what a process printed, for errors.
type tail struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

// maxTail bounds what is kept: a process prints a few lines unless it is broken.
const maxTail = 64 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() < maxTail {
		t.buf.Write(b)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// start starts a program and returns at once.
func (b *bench) start(name string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, said: &tail{}, done: make(chan error, 1)}
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env, p.said, p.said
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.pid = cmd.Process.Pid
	go func() { p.done <- cmd.Wait() }() // ends with the process, which stop ends
	return p, nil
}

// serve starts zarpa with arguments and waits until check succeeds.
func (b *bench) serve(ctx context.Context, name string, check func(context.Context) error, args ...string) (*process, error) {
	p, err := b.start(name, exec.CommandContext(context.WithoutCancel(ctx), b.zarpa, args...))
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, check)
}

// role starts this program in a role that serves, and waits until check succeeds.
func (b *bench) role(ctx context.Context, name string, config any, check func(context.Context) error) (*process, error) {
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), b.self, rolePrefix+name)
	cmd.Stdin = bytes.NewReader(text)
	p, err := b.start(name, cmd)
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, check)
}

// ask runs this program in a role that ends by itself, and decodes what it prints.
func (b *bench) ask(ctx context.Context, role string, config, result any) error {
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, b.self, rolePrefix+role)
	cmd.Env, cmd.Stdin, cmd.Stderr = b.env, bytes.NewReader(text), &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", role, err, stderr.String())
	}
	return json.Unmarshal(out, result)
}

// startWait bounds the wait for a contestant to answer.
const startWait = 20 * time.Second

// await waits until check succeeds; a process that does not come up is stopped.
func (p *process) await(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case ended := <-p.done:
			p.done <- ended
			return fmt.Errorf("%s ended before it answered: %w\n%s", p.name, errors.Join(ended, err), p.said)
		case <-ctx.Done():
			p.stop()
			return fmt.Errorf("%s does not answer: %w\n%s", p.name, err, p.said)
		case <-tick.C:
		}
	}
}

// stop ends the process and waits for that.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopWait):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// answers is a check that sends the request itself.
func answers(address string, request []byte) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := dial(ctx, address)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(request); err != nil {
			return err
		}
		room := make([]byte, 12)
		if _, err := io.ReadFull(c, room); err != nil {
			return err
		}
		if s := statusOf(room); s != 200 {
			return fmt.Errorf("status %d", s)
		}
		return nil
	}
}

func splitAddress(address string) (network, where string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", address
}

// freePort is a loopback address that nobody uses right now.
func freePort(ctx context.Context) (string, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// ticks is USER_HZ, in which /proc counts: 100 on every architecture that Go has.
const ticks = 100

// processor is the processor time that the process has used, in seconds.
func (p *process) processor() float64 {
	used, _ := processorOf(strconv.Itoa(p.pid)) // 0 on systems without /proc, as the report says
	return used
}

func ownProcessor() float64 {
	used, _ := processorOf("self")
	return used
}

func processorOf(pid string) (float64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0, err
	}
	return parseStat(string(text))
}

// parseStat sums utime and stime, fields 14 and 15 of proc_pid_stat(5). The name in field 2 may
// hold anything, parentheses included.
func parseStat(text string) (float64, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat: %d fields after the name", len(fields))
	}
	user, err := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticks, errors.Join(err, err2)
}

// memory is what a process has in memory, in MiB.
type memory struct {
	Resident float64 // all of it
	Own      float64 // without pages of files, which processes of one binary share
}

func memoryOf(pid int) (memory, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return memory{}, err
	}
	return memory{statusMiB(string(text), "VmRSS"), statusMiB(string(text), "RssAnon")}, nil
}

func statusMiB(status, name string) float64 {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024
		}
	}
	return 0
}

// scheduled is the time that all threads of a process ran, in seconds, to the nanosecond: ticks are
// too coarse for an idle process. Threads that ended are not in it.
func scheduled(pid int) float64 {
	files, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "schedstat"))
	total := 0.0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended meanwhile
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseFloat(ns, 64)
		total += n / 1e9
	}
	return total
}
