package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
	"github.com/zarpa-dev/zarpa/internal/child"
)

const (
	// gatewayStart bounds the wait for a started gateway to answer; it takes milliseconds.
	gatewayStart = 10 * time.Second
	// A gateway that dies at once again is restarted after a delay that doubles up to the longest:
	// the first restart is at once, because callers wait for it.
	firstRestart, longestRestart = 50 * time.Millisecond, 5 * time.Second
	// gatewayHealthy is how long it must have run for the delay to begin anew.
	gatewayHealthy = 10 * time.Second
)

// keeper keeps a gateway running: it adopts one that runs, starts one that does not, and starts
// it again on the same address when it dies.
type keeper struct {
	dir        string // state, below the data directory
	executable string
	want       gatewayWant
	log        *slog.Logger
	// started is called after the gateway has been started or adopted and answers.
	started func(ctx context.Context)

	client  *gateway.ControlClient
	socket  string
	current *child.Child
	address string // where it really listens
	grpc    string // the same for gRPC alone; empty for none
}

// gatewayWant are the settings that a running gateway must have been started with.
type gatewayWant struct {
	Listen string `json:"listen"`
	GRPC   string `json:"grpc,omitempty"`
	// TLS are the arguments that say which certificates to show. Certificates may change in their files.
	TLS      string `json:"tls,omitempty"`
	Insecure bool   `json:"insecure,omitempty"`
	// Requests and Connections are its bounds; 0 is its own default.
	Requests    int `json:"requests,omitempty"`
	Connections int `json:"connections,omitempty"`
	// AccessLog is an absolute path; empty for no access log.
	AccessLog string `json:"access_log,omitempty"`
	Version   string `json:"version"`
}

// gatewayState is what the keeper writes down about the gateway that it started.
type gatewayState struct {
	Want    gatewayWant `json:"want"`
	Address string      `json:"address"`
	GRPC    string      `json:"grpc,omitempty"`
}

func newKeeper(dir, executable string, want gatewayWant, log *slog.Logger) (*keeper, error) {
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
		return nil, dataError(dir, err)
	}
	if err := child.SweepFiles(dir, filepath.Join(dir, "run")); err != nil {
		return nil, dataError(dir, err)
	}
	sockets, err := child.SocketDir(dir, len("gateway.sock"))
	if err != nil {
		return nil, dataError(dir, err)
	}
	socket := filepath.Join(sockets, "gateway.sock")
	return &keeper{
		dir: dir, executable: executable, want: want, log: log, socket: socket,
		client: gateway.NewControlClient(socket), started: func(context.Context) {},
	}, nil
}

// open adopts the gateway that runs, or starts one, and returns when it answers.
func (k *keeper) open(ctx context.Context) error {
	var state gatewayState
	if b, err := os.ReadFile(k.stateFile()); err == nil {
		_ = json.Unmarshal(b, &state) // a broken file is as good as none: the gateway is started anew
	}
	running, err := child.Adopt(ctx, filepath.Join(k.dir, "run"), nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return zarpa.Errorf(zarpa.Conflict, "the gateway of an earlier run cannot be taken over: %w", err).
			WithHint("end it by hand, then start again")
	}
	if err == nil && !ended(running) {
		if state.Want == k.want {
			k.current, k.address, k.grpc = running, state.Address, state.GRPC
			return nil
		}
		k.log.Info("the running gateway has other settings; replacing it")
		if err := running.Stop(ctx, gateway.DefaultDrain); err != nil {
			return err
		}
	}
	before := wish{flag: "--gateway", want: k.want.Listen}
	if state.Want.Listen == k.want.Listen {
		before.had = state.Address
	}
	if k.address, err = before.free(ctx); err != nil {
		return err
	}
	if k.grpc = ""; k.want.GRPC != "" {
		before = wish{flag: "--grpc", want: k.want.GRPC}
		if state.Want.GRPC == k.want.GRPC {
			before.had = state.GRPC
		}
		if k.grpc, err = before.free(ctx); err != nil {
			return err
		}
	}
	return k.start(ctx)
}

func (k *keeper) stateFile() string { return filepath.Join(k.dir, "gateway.json") }

// wish is an address that the gateway shall listen on, by the flag that says so. had is what it was
// in the run before; empty when there was none, or it was wanted elsewhere.
type wish struct{ flag, want, had string }

// free finds out whether the address can be had, and which port stands for port 0. The port of the
// run before is kept, so that URLs stay.
func (w wish) free(ctx context.Context) (string, error) {
	var failed error
	for _, addr := range []string{w.had, w.want} {
		if addr == "" {
			continue
		}
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil {
			addr = ln.Addr().String()
			return addr, ln.Close()
		}
		failed = err
	}
	return "", zarpa.Errorf(zarpa.Unavailable, "the gateway cannot listen on %s: %w", w.want, failed).
		WithHint("choose another address with %s, or stop what uses this one", w.flag)
}

// start starts a gateway on the address that was found and waits until it answers.
func (k *keeper) start(ctx context.Context) error {
	b, err := json.Marshal(gatewayState{Want: k.want, Address: k.address, GRPC: k.grpc})
	if err != nil {
		return err
	}
	if err := child.WriteFile(k.stateFile(), b); err != nil {
		return dataError(k.dir, err)
	}
	id := make([]byte, 4)
	_, _ = rand.Read(id)
	label := "gateway-" + hex.EncodeToString(id)
	args := []string{
		"gateway", "--listen", k.address, "--control", k.socket,
		"--routes", filepath.Join(k.dir, "routes.json"), "--label", label,
	}
	if k.grpc != "" {
		args = append(args, "--grpc", k.grpc)
	}
	if k.want.TLS != "" {
		args = append(args, strings.Split(k.want.TLS, argSeparator)...)
	}
	if k.want.Insecure {
		args = append(args, "--insecure")
	}
	if k.want.AccessLog != "" {
		args = append(args, "--access-log", k.want.AccessLog)
	}
	if n := k.want.Requests; n > 0 {
		args = append(args, "--max-requests", strconv.Itoa(n))
	}
	if n := k.want.Connections; n > 0 {
		args = append(args, "--max-connections", strconv.Itoa(n))
	}
	if err := k.gatewayLog().Keep(filepath.Join(k.dir, "previous.log")); err != nil {
		k.log.Warn("the log of the gateway's last run is lost", "error", err)
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayStart)
	defer cancel()
	c, err := child.Start(ctx, child.Spec{
		Label: label, Path: k.executable, Args: args, Env: childEnv(), Dir: filepath.Join(k.dir, "run"),
		Log: k.gatewayLog(), Socket: k.socket,
	})
	if err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "the gateway cannot be started: %w", err)
	}
	k.current = c
	if err := k.await(ctx, c); err != nil {
		// One that runs and does not answer would be in the way of the next.
		return errors.Join(err, c.Stop(context.WithoutCancel(ctx), 0))
	}
	return nil
}

func (k *keeper) gatewayLog() child.Log { return child.Log{Path: filepath.Join(k.dir, "gateway.log")} }

// childEnv is the environment of the gateway: nothing that it does not need, no token above all.
func childEnv() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "LANG", "TMPDIR", "GOMAXPROCS", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// await asks the control socket until it answers.
func (k *keeper) await(ctx context.Context, c *child.Child) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if self, _, err := child.Ask(ctx, k.socket); err == nil && self.Label == c.Label() {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.Done():
			timer.Stop()
			return zarpa.Errorf(zarpa.Unavailable, "the gateway ended at its start: %s", c.Exit().Reason)
		case <-ctx.Done():
			timer.Stop()
			return zarpa.Errorf(zarpa.Timeout, "the gateway does not answer")
		}
	}
}

// run watches until ctx ends, and starts the gateway again whenever it dies. It leaves the
// gateway running.
func (k *keeper) run(ctx context.Context) error {
	delay := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.current.Done():
		}
		exit := k.current.Exit()
		k.log.Warn("the gateway died; starting it again", "reason", exit.Reason)
		if exit.At.Sub(k.current.Started()) > gatewayHealthy {
			delay = 0
		}
		for {
			if !pause(ctx, delay) {
				return nil
			}
			delay = min(max(firstRestart, 2*delay), longestRestart)
			err := k.start(ctx)
			if err == nil {
				k.started(ctx)
				break
			}
			if ctx.Err() == nil {
				k.log.Error("start the gateway", "error", err)
			}
		}
	}
}

// pause waits and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// stop ends the gateway.
func (k *keeper) stop(ctx context.Context) error {
	return k.current.Stop(ctx, gateway.DefaultDrain)
}

// metrics passes on what the gateway's control socket shows.
func (k *keeper) metrics() http.Handler {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", k.socket)
	}, MaxIdleConns: 1, IdleConnTimeout: time.Minute}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		relay(w, r, transport, "http://gateway/metrics")
	})
}

func ended(c *child.Child) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}
