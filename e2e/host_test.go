package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa/client"
)

// host is one data directory and the processes on it. Its methods are called by one goroutine.
type host struct {
	binary, data, log string
	api, gateway      string   // addresses, the same over all restarts
	args              []string // further ones of zarpa up
	client            *client.Client

	up    *exec.Cmd
	ended chan struct{} // closed when up has ended
}

// newHost makes a data directory with a running control plane. Whatever happens, nothing that
// runs on the directory outlives the test.
func newHost(t *testing.T, r *rand.Rand) *host {
	t.Helper()
	return openHost(t, r, nil)
}

// newSecureHost is newHost with a certificate.
func newSecureHost(t *testing.T, a *authority, cert, key string) *host {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3))
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool(), MinVersion: tls.VersionTLS12}}}
	return openHost(t, r, secure, "--tls-cert", cert, "--tls-key", key)
}

// openHost makes a host whose control plane is reached through a client of its own, nil for plain HTTP.
func openHost(t *testing.T, r *rand.Rand, secure *http.Client, args ...string) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{binary: needBinary(t), data: filepath.Join(dir, "data"), log: filepath.Join(dir, "up.log"), args: args}
	h.api, h.gateway = freeAddress(t, r), freeAddress(t, r)
	t.Cleanup(func() { h.clean(t) })
	if err := h.start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	token := []byte{}
	err := await(ctx, func() (err error) {
		token, err = os.ReadFile(filepath.Join(h.data, "admin-token"))
		return err
	})
	if err == nil {
		scheme := "http://"
		if secure != nil {
			scheme = "https://"
		}
		h.client, err = client.New(client.Options{Server: scheme + h.api, Token: strings.TrimSpace(string(token)), HTTP: secure})
	}
	if err == nil {
		err = h.awaitAPI(ctx)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, h.tail())
	}
	return h
}

// freeAddress is below the ports that the kernel gives to outgoing connections: with thousands of
// those, one might take the gateway's port while it is down.
func freeAddress(t *testing.T, r *rand.Rand) string {
	t.Helper()
	for range 1000 {
		addr := "127.0.0.1:" + strconv.Itoa(10_000+r.IntN(20_000))
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no free port between 10000 and 30000")
	return ""
}

// start starts the control plane; it need not answer yet.
func (h *host) start() error {
	log, err := os.OpenFile(h.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- start %s\n", time.Now().Format(time.StampMicro))
	h.up = exec.Command(h.binary, append([]string{"up", "--data", h.data, "--api", h.api, "--gateway", h.gateway}, h.args...)...)
	h.up.Stdout, h.up.Stderr = log, log
	if err := h.up.Start(); err != nil {
		return err
	}
	up, ended := h.up, make(chan struct{})
	h.ended = ended
	go func() {
		_ = up.Wait() // killed, mostly
		close(ended)
	}()
	return nil
}

// kill ends the control plane as a crash does, and returns when it is gone.
func (h *host) kill() {
	_ = h.up.Process.Kill()
	<-h.ended
}

// awaitAPI returns when this start of the control plane answers.
func (h *host) awaitAPI(ctx context.Context) error {
	return await(ctx, func() error {
		select {
		case <-h.ended:
			return fatal{fmt.Errorf("zarpa up ended: %v", h.up.ProcessState)}
		default:
		}
		_, err := h.client.Server(ctx)
		return err
	})
}

// tail is what the control plane and the gateway printed last.
func (h *host) tail() string {
	var out strings.Builder
	for _, file := range []string{h.log, filepath.Join(h.data, "gateway", "gateway.log")} {
		b, _ := os.ReadFile(file)
		lines := strings.SplitAfter(string(b), "\n")
		fmt.Fprintf(&out, "==> %s\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-60):], ""))
	}
	return out.String()
}

// running is one process of the product on a data directory.
type running struct {
	pid      int
	role     string // "up", "gateway", "score"
	endpoint string // of a replica
	label    string
	control  string // socket of a gateway
}

// replica is the replica's ID: the label is ID.RUN.
func (p running) replica() string { return p.label[:max(0, strings.LastIndexByte(p.label, '.'))] }

// processes finds all that runs on the data directory, by the arguments of every process of the
// machine: the product's own notes are not asked.
func (h *host) processes() ([]running, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []running
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // empty for the dead
		if err != nil || !bytes.Contains(b, []byte(h.data)) || !alive(pid) {
			continue
		}
		args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		if len(args) < 2 || args[0] != h.binary {
			continue
		}
		found = append(found, running{
			pid: pid, role: args[1], endpoint: option(args, "--endpoint"), label: option(args, "--label"), control: option(args, "--control"),
		})
	}
	return found, nil
}

func option(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// alive tells a process that runs from one that is dead and not yet collected.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	return len(rest) > 1 && rest[1] != 'Z' && rest[1] != 'X'
}

// killProcess kills one process and returns when it is gone.
func killProcess(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return await(ctx, func() error {
		if alive(pid) {
			return fmt.Errorf("process %d lives after SIGKILL", pid)
		}
		return nil
	})
}

// clean kills all that is left, in every case.
func (h *host) clean(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	err := await(ctx, func() error {
		left, err := h.processes()
		for _, p := range left {
			_ = syscall.Kill(-p.pid, syscall.SIGKILL) // replicas and gateway lead a group
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		if len(left) > 0 {
			return fmt.Errorf("%d processes are left", len(left))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// files counts what is left in the data directory, by kind.
func (h *host) files() (map[string]int, error) {
	n := map[string]int{}
	err := filepath.WalkDir(h.data, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(h.data, path)
		switch dir, base := filepath.Split(rel); {
		case rel == filepath.Join("blobs", "sha256"):
			return fs.SkipDir
		case strings.Contains(base, ".tmp"):
			n["half written"]++ // by a process that is no more, or right now
		case dir == "blobs/tmp/", strings.HasPrefix(base, ".unpack-"), strings.HasPrefix(base, ".broken-"):
			n["temporary"]++ // kept for a day: another process might be at it
			if e.IsDir() {
				return fs.SkipDir
			}
		case dir == "replicas/replicas/":
			n["replicas"]++
		case dir == "replicas/deployments/":
			n["wishes"]++
		case e.Type() == fs.ModeSocket && strings.HasPrefix(rel, "replicas/"):
			n["sockets"]++
		}
		return nil
	})
	return n, err
}
