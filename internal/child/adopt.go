package child

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Self is what a process says of itself at GET /-/self on its socket.
type Self struct {
	Label string `json:"label"`
	// PID and Started are for people; identity rests on Label and on the peer of the socket.
	PID     int       `json:"pid,omitempty"`
	Started time.Time `json:"started,omitzero"`
}

const (
	// selfTimeout bounds the question who a process is; one that hangs is known by its record.
	selfTimeout = time.Second
	maxSelf     = 64 << 10
	// holdTimeout bounds the wait for a process that holds the log and cannot be found: it was
	// forked the moment its parent died and has not yet become itself.
	holdTimeout = 2 * time.Second
)

// Adopt takes over the run that is recorded in dir. It returns a Child that runs; or, when the
// process died unseen, one whose Done is closed and whose Exit is Unknown. The error is
// fs.ErrNotExist when no run was ever recorded, and [ErrRunning] when something holds the run's
// log that does not say what it is.
func Adopt(ctx context.Context, dir string, groups *Cgroups) (*Child, error) {
	r, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	c := &Child{dir: dir, record: r, adopted: true, groups: groups, done: make(chan struct{}), released: make(chan struct{})}
	found, err := c.find(ctx)
	if err != nil {
		return nil, err
	}
	if !found {
		c.proc = &process{}
		c.finish(0, false)
		return c, nil
	}
	if c.record.PID != r.PID || c.record.StartTicks != r.StartTicks {
		if err := c.record.write(dir); err != nil {
			c.proc.close()
			return nil, err
		}
	}
	c.watch()
	return c, nil
}

// find looks for the process until it has it or nothing holds the log any more.
func (c *Child) find(ctx context.Context) (bool, error) {
	if c.record.Boot != bootID() {
		return false, nil // no process survives a boot
	}
	deadline := time.NewTimer(holdTimeout)
	defer deadline.Stop()
	for {
		held := c.record.Log.held()
		if pid := c.locate(ctx); pid > 0 && c.hold(pid) {
			return true, nil
		}
		if !held {
			return false, ctx.Err()
		}
		pause := time.NewTimer(20 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return false, ctx.Err()
		case <-deadline.C:
			pause.Stop()
			return false, fmt.Errorf("adopt %s: %w", c.record.Label, ErrRunning)
		}
	}
}

// locate names the process of the record, or 0: by its socket, else by its record, else by its
// label among all processes of this user.
func (c *Child) locate(ctx context.Context) int {
	r := c.record
	if r.Socket != "" {
		if self, pid, err := Ask(ctx, r.Socket); err == nil && self.Label == r.Label && pid > 0 {
			return pid
		}
	}
	if r.PID > 0 {
		ticks, alive := processStart(r.PID)
		if alive && ticks == r.StartTicks && carriesLabel(r.PID, r.Label) {
			return r.PID
		}
	}
	return scanLabel(r.Label)
}

// hold opens the process and makes sure that it is still the one that was located.
func (c *Child) hold(pid int) bool {
	p, err := openProcess(pid)
	if err != nil {
		return false
	}
	ticks, alive := processStart(pid)
	if !alive || !carriesLabel(pid, c.record.Label) {
		p.close()
		return false
	}
	c.proc, c.record.PID, c.record.StartTicks = p, pid, ticks
	return true
}

// Ask connects to a socket and returns what the process behind it says of itself, and its pid by
// the kernel's word (0 where the kernel does not tell).
func Ask(ctx context.Context, socket string) (Self, int, error) {
	ctx, cancel := context.WithTimeout(ctx, selfTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return Self{}, 0, fmt.Errorf("ask who listens: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing is written to it any more
	pid := peerPID(conn.(*net.UnixConn))
	used := false
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		if used {
			return nil, syscall.ECONNREFUSED // the answer must come from the peer that was looked at
		}
		used = true
		return conn, nil
	}}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://child/-/self", nil)
	if err != nil {
		return Self{}, 0, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return Self{}, 0, fmt.Errorf("ask who listens: %w", err)
	}
	defer resp.Body.Close()
	var self Self
	if resp.StatusCode != http.StatusOK {
		return Self{}, 0, fmt.Errorf("ask who listens: status %d", resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxSelf)).Decode(&self); err != nil {
		return Self{}, 0, fmt.Errorf("ask who listens: %w", err)
	}
	return self, pid, nil
}
