package target

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// routerFunc is a zarpa.Router.
type routerFunc func(zarpa.Routes)

func (f routerFunc) SetRoutes(_ context.Context, r zarpa.Routes) error {
	f(r)
	return nil
}

// A step that read an endpoint's keys before one was replaced does not bring the old one back.
func TestAReplacedKeyStaysReplaced(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	keys := [][]byte{[]byte("old")}
	read := make(chan struct{}, 2)
	goOn := make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	r := &Reconciler{
		o: Options{KeyDigests: func(context.Context, string) ([][]byte, error) {
			mu.Lock()
			now := keys
			mu.Unlock()
			read <- struct{}{}
			if string(now[0]) == "old" {
				<-goOn
			}
			return now, nil
		}},
		routes: newRouteTable(routerFunc(func(zarpa.Routes) { release() }), time.Now),
	}
	endpoint := zarpa.Endpoint{Name: "iris"}
	r.routes.set(zarpa.Route{Endpoint: "iris", Auth: zarpa.AuthKey})
	var step sync.WaitGroup
	step.Go(func() {
		if err := r.route(t.Context(), endpoint, nil); err != nil {
			t.Error(err)
		}
	})
	<-read
	mu.Lock()
	keys = [][]byte{[]byte("new")}
	mu.Unlock()
	timer := time.AfterFunc(50*time.Millisecond, release) // the step goes on, while Refresh waits for it
	defer timer.Stop()
	if err := r.Refresh(t.Context(), "iris"); err != nil {
		t.Fatal(err)
	}
	step.Wait()
	if got := r.routes.routes["iris"].Keys; len(got) != 1 || string(got[0]) != "new" {
		t.Errorf("keys %q", got)
	}
}

// TestVerifyKeysComeWithTheRoutes: with those that are there when the routes are sent, and endpoints that
// want tokens alone get no keys of the other kind.
func TestVerifyKeysComeWithTheRoutes(t *testing.T) {
	t.Parallel()
	var sent []zarpa.Routes
	keys := []zarpa.VerifyKey{{ID: "one"}}
	r := New(Options{
		VerifyKeys: func() []zarpa.VerifyKey { return keys },
		KeyDigests: func(context.Context, string) ([][]byte, error) { return [][]byte{[]byte("digest")}, nil },
		Router:     routerFunc(func(routes zarpa.Routes) { sent = append(sent, routes) }),
	})
	r.routes.set(zarpa.Route{Endpoint: "iris", Auth: zarpa.AuthToken})
	r.routes.set(zarpa.Route{Endpoint: "rose", Auth: zarpa.AuthKey})
	for _, endpoint := range []string{"iris", "rose"} {
		if err := r.Refresh(t.Context(), endpoint); err != nil {
			t.Fatal(err)
		}
	}
	keys = []zarpa.VerifyKey{{ID: "two"}, {ID: "one"}}
	if err := r.Republish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 3 || len(sent[0].VerifyKeys) != 1 || len(sent[2].VerifyKeys) != 2 || sent[2].VerifyKeys[0].ID != "two" {
		t.Fatalf("sent: %+v", sent)
	}
	if e := sent[2].Endpoints; len(e[0].Keys) != 0 || len(e[1].Keys) != 1 {
		t.Errorf("keys of the endpoint with tokens %q, of that with keys %q", e[0].Keys, e[1].Keys)
	}
}
