package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

func TestConnectionsThatAreTooManyAreClosed(t *testing.T) {
	t.Parallel()
	g := gateway.New(gateway.Options{MaxConnections: 2})
	if err := g.SetRoutes(t.Context(), zarpa.Routes{Revision: 1, Endpoints: []zarpa.Route{route(replica(t, fine))}}); err != nil {
		t.Fatal(err)
	}
	public := listenLocal(t)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- g.Serve(ctx, gateway.Listeners{Public: []net.Listener{public}}) }()
	defer func() { cancel(); <-ended }()
	// answered connects and asks; a connection that was let in stays.
	answered := func() (net.Conn, bool) {
		c, err := net.Dial("tcp", public.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err = bufio.NewReader(c).Peek(1)
		return c, err == nil
	}
	first, ok := answered()
	if !ok {
		t.Fatal("the first is closed")
	}
	if _, ok := answered(); !ok {
		t.Fatal("the second is closed")
	}
	if _, ok := answered(); ok {
		t.Error("the third is served")
	}
	_ = first.Close()
	eventually(t, "a client that left makes room", func() bool { _, ok := answered(); return ok })
}
