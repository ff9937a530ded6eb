package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// play makes this process one of the contestants. Its settings come as JSON on standard input.
func (p program) play(ctx context.Context, role string) error {
	settings := json.NewDecoder(p.in)
	answer := func(v any, err error) error {
		if err != nil {
			return err
		}
		return json.NewEncoder(p.out).Encode(v)
	}
	switch role {
	case "load":
		var spec loadSpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		return answer(playLoad(ctx, spec))
	case "overload":
		var spec overloadSpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		return answer(flood(ctx, spec))
	case "raw":
		var spec modelSpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		return answer(rawLoop(ctx, spec))
	case "bare":
		var spec modelSpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		return serveBare(ctx, spec)
	case "empty":
		var spec emptySpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		return serveEmpty(ctx, spec)
	case "replica":
		var spec replicaSpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		threads(1)
		return serveReplica(ctx, spec)
	case "copy":
		var spec proxySpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		threads(4 * hopClients)
		return serveCopy(ctx, spec)
	case "proxy":
		var spec proxySpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		return serveProxy(ctx, spec)
	}
	return fmt.Errorf("role %q: not known", role)
}

func playLoad(ctx context.Context, spec loadSpec) (loadResult, error) {
	switch {
	case spec.GRPC:
		threads(1)
		debug.SetMemoryLimit(loadMemory) // grpc-go allocates for every call
		return generateGRPC(ctx, spec)
	case spec.Rate > 0:
		threads(spec.Clients + 2)
	default:
		threads(1)
	}
	return generate(ctx, spec)
}

// loadMemory is when a load that allocates begins to collect.
const loadMemory = 512 << 20

// threads prepares a role that allocates next to nothing: n of its threads run at a time, and
// nothing is collected.
func threads(n int) {
	runtime.GOMAXPROCS(n)
	debug.SetGCPercent(-1)
}

// replicaSpec is a replica that costs next to nothing.
type replicaSpec struct {
	Addresses []string
	Answer    string // the body
	Takes     time.Duration
}

// maxConnections bounds the connections of a role.
const maxConnections = 512

// serveReplica answers every request with the same bytes.
func serveReplica(ctx context.Context, spec replicaSpec) error {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"+
		"X-Ms-Run-Function-Failed: False\r\nContent-Length: %d\r\n\r\n%s", len(spec.Answer), spec.Answer)
	return eachConnection(ctx, spec.Addresses, func(c net.Conn) { answerAll(c, answer, spec.Takes) })
}

// eachConnection listens until ctx ends and serves connections, each in a goroutine that ends with
// its connection or with the process.
func eachConnection(ctx context.Context, addresses []string, serve func(net.Conn)) error {
	var wg sync.WaitGroup
	room := make(chan struct{}, maxConnections)
	for _, address := range addresses {
		network, where := splitAddress(address)
		ln, err := new(net.ListenConfig).Listen(ctx, network, where)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
		defer stop()
		wg.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return // closed, at the end
				}
				room <- struct{}{}
				go func() {
					defer func() { <-room }()
					serve(c)
				}()
			}
		})
	}
	wg.Wait()
	return nil
}

// answerAll answers every request after a while.
func answerAll(c net.Conn, answer []byte, after time.Duration) {
	l := polled(c)
	defer l.Close()
	for {
		if _, err := l.read(); err != nil {
			return
		}
		if after > 0 {
			time.Sleep(after)
		}
		if _, err := l.Write(answer); err != nil {
			return
		}
	}
}

// proxySpec is the plain reverse proxy.
type proxySpec struct {
	Listen   string
	Upstream string // unix:PATH
}

// serveCopy carries messages to the replica and back without looking at more than their length,
// from one blocking thread for each connection: no hop between two processes costs less.
func serveCopy(ctx context.Context, spec proxySpec) error {
	return eachConnection(ctx, []string{spec.Listen}, func(c net.Conn) {
		upstream, err := dial(ctx, spec.Upstream)
		if err != nil {
			_ = c.Close()
			return
		}
		from, err := blocking(c)
		if err != nil {
			_ = upstream.Close()
			return
		}
		defer from.Close()
		to, err := blocking(upstream)
		if err != nil {
			return
		}
		defer to.Close()
		runtime.LockOSThread()
		for err == nil {
			if err = carry(from, to); err == nil {
				err = carry(to, from)
			}
		}
	})
}

// carry brings one message from one connection to another.
func carry(from, to *link) error {
	message, err := from.read()
	if err == nil {
		_, err = to.Write(message)
	}
	return err
}

// buffers lets the reverse proxy use its copy buffers again: without, it allocates 32 KiB for
// every answer, which would be no fair comparison.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// serveProxy is httputil.ReverseProxy as one would run it: many idle connections, no compression,
// buffers used again. It has no authentication, no ids and no metrics.
func serveProxy(ctx context.Context, spec proxySpec) error {
	network, where := splitAddress(spec.Upstream)
	transport := &http.Transport{
		MaxIdleConns: 256, MaxIdleConnsPerHost: 256, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, where)
		},
	}
	target := &url.URL{Scheme: "http", Host: "replica"}
	return serveHTTP(ctx, spec.Listen, &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport, BufferPool: &buffers{},
	})
}

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, address string, h http.Handler) error {
	network, where := splitAddress(address)
	if network == "unix" {
		_ = os.Remove(where) // of an earlier contestant
	}
	ln, err := new(net.ListenConfig).Listen(ctx, network, where)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
