package replica

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// bench is a Runner whose runs are a server of the test's.
type bench struct {
	address string
	mu      sync.Mutex
	fails   error
	away    bool
	stopped int
	asked   chan struct{} // told when a run is asked whether it is away
	starts  chan struct{} // told of every start
}

func (b *bench) Start(context.Context, Start) (Run, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.starts <- struct{}{}
	if b.fails != nil {
		return nil, b.fails
	}
	return &benchRun{b: b, began: time.Now(), done: make(chan struct{})}, nil
}

func (b *bench) Find(context.Context, Start) (Run, error) { return nil, fs.ErrNotExist }
func (b *bench) Forget(Start)                             {}
func (b *bench) Lines(context.Context, Start, LogRead, func(string) error) error {
	return nil
}

func (b *bench) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

type benchRun struct {
	b     *bench
	began time.Time
	done  chan struct{}
	once  sync.Once
}

func (r *benchRun) Info() Info            { return Info{Address: r.b.address, Started: r.began} }
func (r *benchRun) Done() <-chan struct{} { return r.done }
func (r *benchRun) Exit() zarpa.Exit      { return zarpa.Exit{Code: -1, Reason: "stopped"} }
func (r *benchRun) Release()              {}

func (r *benchRun) Stop(context.Context, time.Duration) error {
	r.once.Do(func() { close(r.done) })
	r.b.set(func() { r.b.stopped++ })
	return nil
}

func (r *benchRun) Away() bool {
	select {
	case r.b.asked <- struct{}{}:
	default:
	}
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	return r.b.away
}

func benchSet(t *testing.T, b *bench, o Options) *Set {
	t.Helper()
	b.asked, b.starts = make(chan struct{}, 100), make(chan struct{}, 1000)
	o.Runner, o.Dir = b, t.TempDir()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.StopAll(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func applyOne(t *testing.T, s *Set) zarpa.Handle {
	t.Helper()
	h, err := s.Apply(t.Context(), zarpa.Deployment{Endpoint: "e", Bundle: "b", Spec: zarpa.DeploymentSpec{Name: "blue", Model: "m:1"}.WithDefaults()})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// awaitStatus waits for the only replica to be as ok says.
func awaitStatus(t *testing.T, s *Set, h zarpa.Handle, ok func(zarpa.Replica) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		status, err := s.Observe(ctx, h)
		if err != nil {
			t.Fatal(err)
		}
		if len(status.Replicas) == 1 && ok(status.Replicas[0]) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("last seen: %+v", status)
		}
	}
}

func TestDeafReplicaIsNotCondemnedWhileWhatRunsItIsAway(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	b := &bench{address: server.URL, away: true}
	s := benchSet(t, b, Options{Probes: Probes{Every: 5 * time.Millisecond, Return: 5 * time.Millisecond, Deaf: 2}})
	h := applyOne(t, s)
	awaitStatus(t, s, h, func(r zarpa.Replica) bool { return r.Phase == zarpa.ReplicaReady })
	server.Close()
	for range 6 { // more often than it may be deaf
		<-b.asked
	}
	awaitStatus(t, s, h, func(r zarpa.Replica) bool { return r.Phase == zarpa.ReplicaUnready })
	b.set(func() {
		if b.stopped != 0 {
			t.Error("it was stopped though nobody can tell whether it lives")
		}
		b.away = false
	})
	awaitStatus(t, s, h, func(r zarpa.Replica) bool { return r.Last != nil && strings.Contains(r.Last.Reason, "liveness") })
}

func TestSlowReplicaIsNotCondemnedWhileWhatRunsItIsAway(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	b := &bench{address: server.URL, away: true}
	s := benchSet(t, b, Options{Probes: Probes{First: 5 * time.Millisecond, Slowest: 5 * time.Millisecond}})
	d := zarpa.Deployment{Endpoint: "e", Bundle: "b", Spec: zarpa.DeploymentSpec{Name: "blue", Model: "m:1", StartTimeout: zarpa.Duration(time.Millisecond)}.WithDefaults()}
	h, err := s.Apply(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // its time is over
		<-b.asked
	}
	b.set(func() {
		if b.stopped != 0 {
			t.Error("it was stopped though nobody can tell whether it lives")
		}
		b.away = false
	})
	awaitStatus(t, s, h, func(r zarpa.Replica) bool { return r.Last != nil && strings.Contains(r.Last.Reason, "start_timeout") })
}

func TestHurryStartsWhatWaits(t *testing.T) {
	t.Parallel()
	b := &bench{fails: errors.New("nothing is there")}
	s := benchSet(t, b, Options{Backoff: Backoff{First: time.Hour, Max: time.Hour}})
	h := applyOne(t, s)
	<-b.starts
	awaitStatus(t, s, h, func(r zarpa.Replica) bool { return r.Phase == zarpa.ReplicaBackoff })
	s.Hurry()
	<-b.starts
	awaitStatus(t, s, h, func(r zarpa.Replica) bool { return r.Phase == zarpa.ReplicaBackoff && r.Restarts == 1 })
}
