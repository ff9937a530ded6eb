package memory_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/replica"
	"github.com/zarpa-dev/zarpa/target/memory"
	"github.com/zarpa-dev/zarpa/target/targettest"
)

// house starts servers and knows them by address, to crash them.
type house struct {
	mu      sync.Mutex
	servers map[string]*targettest.Server
}

func (h *house) start(ctx context.Context, r memory.Replica) (memory.Running, error) {
	if r.Deployment.Spec.Env["BROKEN"] != "" {
		fmt.Fprintln(r.Log, "not an ONNX file")
		return memory.Running{}, fmt.Errorf("%w: not an ONNX file", memory.ErrLoad)
	}
	s := &targettest.Server{Label: r.ID, Log: r.Log}
	address, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- s.Serve("127.0.0.1:0", func(a string) { address <- a })
		close(done)
	}()
	select {
	case a := <-address:
		h.mu.Lock()
		defer h.mu.Unlock()
		h.servers[a] = s
		return memory.Running{Address: a, Done: done, Shutdown: s.Shutdown}, nil
	case err := <-done:
		return memory.Running{}, err
	case <-ctx.Done():
		_ = s.Close()
		return memory.Running{}, ctx.Err()
	}
}

func (h *house) crash(t *testing.T, address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.servers[address].Close(); err != nil {
		t.Fatal(err)
	}
}

func deployment(endpoint, name string) zarpa.Deployment {
	return zarpa.Deployment{Endpoint: endpoint, Bundle: "sha256:1", Spec: zarpa.DeploymentSpec{Name: name, Model: "m:1"}.WithDefaults()}
}

func change(name string) func(zarpa.Deployment) zarpa.Deployment {
	return func(d zarpa.Deployment) zarpa.Deployment {
		env := map[string]string{name: "yes"}
		maps.Copy(env, d.Spec.Env)
		d.Spec.Env = env
		return d
	}
}

func TestDriver(t *testing.T) {
	t.Parallel()
	h := &house{servers: map[string]*targettest.Server{}}
	targettest.Run(t, targettest.Config{
		New: func(t *testing.T) zarpa.Driver {
			return open(t, memory.Options{Start: h.start})
		},
		Deployment: deployment,
		Change:     change("CHANGED"),
		Broken:     change("BROKEN"),
		Crash:      func(t *testing.T, _ zarpa.Driver, r zarpa.Replica) { h.crash(t, r.Address) },
		Call:       targettest.Call,
	})
}

func open(t *testing.T, o memory.Options) *memory.Driver {
	t.Helper()
	d, err := memory.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := errors.Join(d.StopAll(ctx), d.Close()); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestSickReplicaIsUnreadyUntilItIsWell(t *testing.T) {
	t.Parallel()
	h := &house{servers: map[string]*targettest.Server{}}
	d := open(t, memory.Options{Start: h.start, Probes: replica.Probes{Every: 20 * time.Millisecond, Return: 10 * time.Millisecond}})
	changed := make(chan struct{}, 1)
	d.Notify(func(string) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	handle, err := d.Apply(t.Context(), deployment("sick", "blue"))
	if err != nil {
		t.Fatal(err)
	}
	await := func(phase zarpa.ReplicaPhase) zarpa.Replica {
		for {
			s, err := d.Observe(t.Context(), handle)
			if err != nil {
				t.Fatal(err)
			}
			if s.Replicas[0].Phase == phase {
				return s.Replicas[0]
			}
			select {
			case <-changed:
			case <-t.Context().Done():
				t.Fatal(t.Context().Err())
			}
		}
	}
	r := await(zarpa.ReplicaReady)
	if err := targettest.Post(t.Context(), r.Address, "/ready/no"); err != nil {
		t.Fatal(err)
	}
	if r := await(zarpa.ReplicaUnready); r.Message == "" || r.Restarts != 0 {
		t.Errorf("an unready replica: %+v", r)
	}
	if err := targettest.Post(t.Context(), r.Address, "/ready/yes"); err != nil {
		t.Fatal(err)
	}
	await(zarpa.ReplicaReady)
}

func TestOnlyWhatFitsIsStarted(t *testing.T) {
	t.Parallel()
	h := &house{servers: map[string]*targettest.Server{}}
	d := open(t, memory.Options{Start: h.start, MaxReplicas: 2})
	one, two := deployment("a", "blue"), deployment("b", "blue")
	two.Spec.Replicas = 2
	if _, err := d.Apply(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	handle, err := d.Apply(t.Context(), two)
	if zarpa.AsError(err).Code != zarpa.Overloaded {
		t.Errorf("third replica of two: %v, want overloaded", err)
	}
	if s, err := d.Observe(t.Context(), handle); err != nil || len(s.Replicas) != 1 || !strings.Contains(s.Message, "no room for 1 more") {
		t.Errorf("what fits is not started, or what does not is not said: %+v, %v", s, err)
	}
	if err := d.Check(two.Spec); err != nil {
		t.Errorf("what only others are in the way of: %v, want no error", err)
	}
	two.Spec.Replicas = 3
	if err := d.Check(two.Spec); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("check more replicas than can ever run: %v, want invalid", err)
	}
	if _, err := d.Apply(t.Context(), two); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("more replicas than can ever run: %v, want invalid", err)
	}
}
