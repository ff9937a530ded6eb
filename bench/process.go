package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one contestant.
type process struct {
	name string
	pid  int
	// leads tells that the process leads a session: it and its family count as one contestant.
	leads bool
	cmd   *exec.Cmd
	said  *tail
	done  chan error
}

// stopWait is how long a process may take to end after SIGTERM. Zarpa ends in milliseconds, some
// peers in seconds.
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
	if cmd.Env == nil {
		cmd.Env = b.env
	}
	cmd.Stdout, cmd.Stderr = p.said, p.said
	cmd.WaitDelay = time.Second                          // for what its children print after it ended
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // which tells its family apart
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.pid, p.leads = cmd.Process.Pid, true
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
	cmd := exec.CommandContext(context.WithoutCancel(ctx), b.copy, rolePrefix+name)
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

// startWait bounds the wait for a contestant to answer: the slowest takes 17 s on a calm machine.
const startWait = 90 * time.Second

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
			p.stop()
			return fmt.Errorf("%s ended before it answered: %w\n%s", p.name, errors.Join(ended, err), p.said)
		case <-ctx.Done():
			p.stop()
			return fmt.Errorf("%s does not answer: %w\n%s", p.name, err, p.said)
		case <-tick.C:
		}
	}
}

// stop ends the process, waits for that, and ends what is left of its family.
func (p *process) stop() {
	members := family(p.pid)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	ended := false
	select {
	case <-p.done:
		ended = true
	case <-time.After(stopWait):
	}
	for _, m := range members {
		m.kill()
	}
	if !ended {
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

// freePorts are addresses of the loopback that nobody uses right now, no two the same.
func freePorts(ctx context.Context, n int) ([]string, error) {
	list := make([]string, n)
	for i := range list {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close() // when all are known
		list[i] = ln.Addr().String()
	}
	return list, nil
}
