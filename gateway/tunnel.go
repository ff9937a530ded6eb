package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A WebSocket begins as a request like any other, with key, queue and place. When the replica has
// switched, bytes go both ways as they come and nobody looks at them; the place is held until
// either side ends. It also ends when no byte went either way for request_timeout, and at the end
// of the gateway's drain time.

// upgrade reports whether a request asks for a WebSocket. Other protocols are offers (h2c from
// ordinary clients), which HTTP lets a server leave aside, and so is one with a body: it has no
// length towards the replica, which would take it for the next request.
func upgrade(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.Method == http.MethodGet && r.ContentLength == 0 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// tunnel takes over both connections of a WebSocket.
func (ex *exchange) tunnel(c *conn, in *bufio.Reader) error {
	a := &ex.work.answer
	if !ex.upgrade {
		return brokenReplica(errHead) // nobody asked for it
	}
	done := ex.g.tunnels.enter() // before net/http forgets the connection: a drain waits for either
	defer done()
	client, buffered, err := http.NewResponseController(ex.w).Hijack()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	ex.status = a.status
	h := ex.w.Header()
	a.copyFields(h, a.status)
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	_ = client.SetDeadline(time.Time{}) // what fails here fails in writing
	_, _ = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(buffered)
	_, _ = buffered.WriteString("\r\n")
	if buffered.Flush() != nil {
		ex.status = statusLeft
		return nil
	}
	ex.pipe(client, buffered.Reader, c, in)
	return nil
}

// pipe copies both ways until one of them ends.
func (ex *exchange) pipe(client net.Conn, fromClient io.Reader, c *conn, fromReplica io.Reader) {
	end := sync.OnceFunc(func() {
		past := time.Unix(1, 0)
		_ = client.SetDeadline(past)
		_ = c.SetDeadline(past)
	})
	idle := time.AfterFunc(ex.rule.timeout, end)
	defer idle.Stop()
	stop := context.AfterFunc(ex.g.tunnels.ctx, end)
	defer stop()
	ex.limit.Stop() // it was that of the handshake
	var wg sync.WaitGroup
	wg.Go(func() {
		defer end()
		ex.copy(c, fromClient, idle)
	})
	ex.copy(client, fromReplica, idle)
	end()
	wg.Wait()
}

func (ex *exchange) copy(to io.Writer, from io.Reader, idle *time.Timer) {
	buffer := make([]byte, smallBuffer)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			idle.Reset(ex.rule.timeout)
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// tunnels are the open WebSockets, which net/http's server knows no more.
type tunnels struct {
	wg  sync.WaitGroup
	ctx context.Context //nolint:containedctx // ends them all, at the gateway's end
	cut context.CancelFunc
}

func newTunnels() *tunnels {
	t := &tunnels{}
	t.ctx, t.cut = context.WithCancel(context.Background())
	return t
}

func (t *tunnels) enter() (done func()) {
	t.wg.Add(1)
	return t.wg.Done
}

// drain waits for their ends, and ends them when limit has passed.
func (t *tunnels) drain(limit time.Duration) {
	timer := time.AfterFunc(limit, t.cut)
	defer timer.Stop()
	t.wg.Wait()
}
