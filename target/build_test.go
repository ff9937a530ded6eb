package target_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target"
	"github.com/zarpa-dev/zarpa/target/memory"
)

// builder makes environments when it is let.
type builder struct {
	begun chan string // the models of a build that has begun
	gate  chan error  // how it ends
}

func (b builder) build(ctx context.Context, p target.Package, progress func(string)) (*zarpa.BundleEnvironment, error) {
	progress("Collecting numpy")
	b.begun <- p.Models[0].Name
	select {
	case err := <-b.gate:
		return &zarpa.BundleEnvironment{ID: "0123456789abcdef", Python: "3.11.2"}, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// during runs a reconciler whose environments are built by b.
func (g *ground) during(t *testing.T, b builder) *target.Reconciler {
	t.Helper()
	o := g.options()
	o.Environment = b.build
	return g.running(t, o)
}

// running runs a reconciler until the test ends.
func (g *ground) running(t *testing.T, o target.Options) *target.Reconciler {
	t.Helper()
	r := target.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// shows waits until the operation's phase of the name holds the text in its detail.
func (g *ground) shows(t *testing.T, r *target.Reconciler, op zarpa.Operation, want zarpa.Phase) {
	t.Helper()
	for {
		changed := r.Changed()
		got, err := g.store.Nouns().Operations.Get(t.Context(), op.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got.Phases {
			if p.Name == want.Name && strings.Contains(p.Detail, want.Detail) {
				return
			}
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("phase %s never says %q: %+v", want.Name, want.Detail, got)
		}
	}
}

func TestOldReplicasServeWhileAnEnvironmentIsBuilt(t *testing.T) {
	t.Parallel()
	g, b := newGround(t), builder{make(chan string, 1), make(chan error)}
	r := g.during(t, b)
	e := endpoint("a", "good:1", 1)
	op := g.want(t, e, "deploy")
	r.Wake("a")
	<-b.begun
	g.shows(t, r, op, zarpa.Phase{Name: "environment", Detail: "Collecting numpy"})
	if n := g.router.replicas("a"); n != 0 {
		t.Fatalf("%d replicas before there is an environment", n)
	}
	b.gate <- nil
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	before := g.router.ids()
	e.Generation++
	e.Spec.Deployments[0].Model = "other:1"
	op = g.want(t, e, "update")
	r.Wake("a")
	<-b.begun
	g.shows(t, r, op, zarpa.Phase{Name: "environment", Detail: "Collecting"})
	if now := g.router.ids(); len(now) != 1 || now[0] != before[0] {
		t.Errorf("%v on the routes during the build, want %v", now, before)
	}
	b.gate <- nil
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
}

func TestAFailedBuildEndsTheOperationAndIsTriedForTheNext(t *testing.T) {
	t.Parallel()
	g, b := newGround(t), builder{make(chan string, 1), make(chan error)}
	r := g.during(t, b)
	e := endpoint("a", "good:1", 1)
	op := g.want(t, e, "deploy")
	r.Wake("a")
	<-b.begun
	b.gate <- zarpa.Errorf(zarpa.Invalid, "requirements.txt, line 3: numpyy does not exist").WithHint("correct the name")
	got := g.ends(t, r, op)
	last := got.Phases[len(got.Phases)-1]
	if got.State != zarpa.OperationFailed || last.Name != "environment" || !strings.Contains(last.Cause, "line 3") || len(last.Log) == 0 {
		t.Fatalf("%+v", got)
	}
	e.Generation++
	op = g.want(t, e, "update")
	r.Wake("a")
	<-b.begun
	b.gate <- nil
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
}

func TestABuildEndsWithTheEndpointThatWantedIt(t *testing.T) {
	t.Parallel()
	g, b := newGround(t), builder{make(chan string, 1), make(chan error)}
	ended := make(chan struct{})
	o := g.options()
	o.Environment = func(ctx context.Context, p target.Package, progress func(string)) (*zarpa.BundleEnvironment, error) {
		defer close(ended)
		return b.build(ctx, p, progress)
	}
	r := g.running(t, o)
	e := endpoint("a", "good:1", 1)
	op := g.want(t, e, "deploy")
	r.Wake("a")
	<-b.begun
	g.shows(t, r, op, zarpa.Phase{Name: "environment", Detail: "Collecting"})
	op.State, op.Ended = zarpa.OperationFailed, time.Now() // as the API does for the next change
	if err := g.store.Nouns().Operations.Update(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	e.Generation++
	e.Deleting = true
	op = g.want(t, e, "delete")
	r.Wake("a")
	if got := g.ends(t, r, op); got.State != zarpa.OperationSucceeded {
		t.Fatalf("%+v", got)
	}
	<-ended // the build's context
}

// killable starts replicas that tests end as a crash would.
type killable struct {
	mu    sync.Mutex
	kills []func()
}

func (k *killable) start(ctx context.Context, _ memory.Replica) (memory.Running, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return memory.Running{}, err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Second}
	done := make(chan error)
	go func() {
		defer close(done)
		_ = srv.Serve(ln) // it ends when it is killed
	}()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kills = append(k.kills, func() { _ = srv.Close() })
	return memory.Running{Address: "http://" + ln.Addr().String(), Done: done, Shutdown: srv.Shutdown}, nil
}

// address is that of the only replica on the routes, "" when it is not one.
func (r *router) address() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.last.Endpoints) != 1 || len(r.last.Endpoints[0].Deployments) != 1 || len(r.last.Endpoints[0].Deployments[0].Replicas) != 1 {
		return ""
	}
	return r.last.Endpoints[0].Deployments[0].Replicas[0].Address
}

func TestRoutesFollowReplicasThatDieWhileNoEnvironmentIsThere(t *testing.T) {
	t.Parallel()
	g, b, k := newGround(t), builder{make(chan string, 1), make(chan error)}, &killable{}
	driver, err := memory.New(t.Context(), memory.Options{Start: k.start})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(driver.StopAll(context.Background()), driver.Close()) })
	g.driver = driver
	r := g.during(t, b)
	e := endpoint("a", "good:1", 1)
	op := g.want(t, e, "deploy")
	r.Wake("a")
	<-b.begun
	b.gate <- nil
	g.ends(t, r, op)
	before := g.router.address()
	e.Generation++
	e.Spec.Deployments[0].Model = "other:1"
	op = g.want(t, e, "update")
	r.Wake("a")
	<-b.begun
	b.gate <- zarpa.Errorf(zarpa.Invalid, "no such package")
	g.ends(t, r, op)
	k.mu.Lock()
	k.kills[0]()
	k.mu.Unlock()
	limit := time.After(20 * time.Second)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for now := ""; now == "" || now == before; now = g.router.address() {
		select {
		case <-look.C:
		case <-limit:
			t.Fatalf("the routes still say %q", now)
		}
	}
}

func TestEveryFailedBuildEndsItsOperation(t *testing.T) {
	t.Parallel()
	for _, code := range []zarpa.Code{zarpa.Unavailable, zarpa.Timeout, zarpa.Internal} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			g, b := newGround(t), builder{make(chan string, 1), make(chan error)}
			r := g.during(t, b)
			op := g.want(t, endpoint("a", "good:1", 1), "deploy")
			r.Wake("a")
			<-b.begun
			b.gate <- &zarpa.Error{Code: code, Message: "it went wrong"}
			if got := g.ends(t, r, op); got.State != zarpa.OperationFailed || got.Error.Code != code {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestAnEnvironmentThatIsGoneIsBuiltAgain(t *testing.T) {
	t.Parallel()
	g, b := newGround(t), builder{make(chan string, 1), make(chan error)}
	var gone atomic.Bool
	o := g.options()
	o.Environment, o.Present = b.build, func(string) bool { return !gone.Load() }
	r := g.running(t, o)
	op := g.want(t, endpoint("a", "good:1", 1), "deploy")
	r.Wake("a")
	<-b.begun
	b.gate <- nil
	g.ends(t, r, op)
	gone.Store(true)
	r.Wake("a")
	<-b.begun // without a change
	gone.Store(false)
	b.gate <- nil
}
