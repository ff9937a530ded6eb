package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// remoteCommand speaks the Engine API over its standard input and output. Podman knows the same command.
const remoteCommand = `sh -c 'if command -v docker >/dev/null 2>&1; then exec docker %ssystem dial-stdio; else exec podman %ssystem dial-stdio; fi'`

// sshDialer connects through the system's ssh, with the user's configuration, keys and agent; it asks nobody.
func sshDialer(h host, environ []string) func(context.Context, string, string) (net.Conn, error) {
	args := sshArgs(h)
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// The connection outlives the dialing: it ends with Close.
		cmd := exec.Command("ssh", args...) //nolint:noctx // see above
		cmd.Env = environ
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		c := &sshConn{cmd: cmd, in: in, out: out, host: h}
		cmd.Stderr, cmd.WaitDelay = &c.stderr, partingTime // what ssh has started may hold it open
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("ssh cannot be started: %w", err)
		}
		return c, nil
	}
}

// sshArgs are the arguments of ssh. What comes from the URL was checked not to begin with a dash, and is quoted
// where a shell reads it.
func sshArgs(h host) []string {
	args := []string{"-o", fmt.Sprintf("ConnectTimeout=%d", int(dialTimeout.Seconds())), "-o", "BatchMode=yes", "-T"}
	if user := h.url.User.Username(); user != "" {
		args = append(args, "-l", user)
	}
	if port := h.url.Port(); port != "" {
		args = append(args, "-p", port)
	}
	docker, podman := "", ""
	if path := strings.TrimSuffix(h.url.Path, "/"); path != "" {
		// The path stands within double quotes within single ones.
		quoted := `"unix://` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`", `'`, `'\''`).Replace(path) + `"`
		docker, podman = "--host "+quoted+" ", "--url "+quoted+" "
	}
	return append(args, "--", h.url.Hostname(), fmt.Sprintf(remoteCommand, docker, podman))
}

// sshConn is a connection over the pipes of a process.
type sshConn struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	host   host
	once   sync.Once
	stderr tail
}

func (c *sshConn) Read(b []byte) (int, error) {
	n, err := c.out.Read(b)
	if err != nil && n == 0 {
		err = c.failed(err)
	}
	return n, err
}

func (c *sshConn) Write(b []byte) (int, error) {
	n, err := c.in.Write(b)
	if err != nil {
		err = c.failed(err)
	}
	return n, err
}

// partingTime is what ssh gets to say why it ends.
const partingTime = time.Second

// failed is the error of a broken connection with what ssh has said, all of which is there when it has ended.
func (c *sshConn) failed(err error) error {
	c.end(partingTime)
	said := c.stderr.String()
	if said == "" {
		return err
	}
	err = sshError{host: c.host.String(), said: said}
	c.host.why.set(err) // the client keeps some of its errors to itself
	return err
}

// Close ends the process. It may be called more than once.
func (c *sshConn) Close() error {
	c.end(0)
	return nil
}

// end ends the process, at the latest after so long.
func (c *sshConn) end(within time.Duration) {
	c.once.Do(func() {
		_ = c.in.Close()
		kill := time.AfterFunc(within, func() { _ = c.cmd.Process.Kill() }) // it has nothing to finish
		_ = c.cmd.Wait()
		kill.Stop()
	})
}

func (c *sshConn) LocalAddr() net.Addr  { return sshAddr(c.host.String()) }
func (c *sshConn) RemoteAddr() net.Addr { return sshAddr(c.host.String()) }

// Deadlines are not kept: calls end with their contexts, which close the connection.
func (c *sshConn) SetDeadline(time.Time) error      { return nil }
func (c *sshConn) SetReadDeadline(time.Time) error  { return nil }
func (c *sshConn) SetWriteDeadline(time.Time) error { return nil }

type sshAddr string

func (a sshAddr) Network() string { return "ssh" }
func (a sshAddr) String() string  { return string(a) }

// sshError is what ssh, or the command at the other end, said.
type sshError struct{ host, said string }

func (e sshError) Error() string { return e.host + ": " + e.said }

func sshSaid(err error) (string, bool) {
	e, ok := errors.AsType[sshError](err)
	return e.said, ok
}

// maxSaid is how much of what ssh says is kept.
const maxSaid = 1 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if n := len(t.buf) - maxSaid; n > 0 {
		t.buf = bytes.Clone(t.buf[n:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}
