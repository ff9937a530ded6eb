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
		threads(spec.Clients)
		return answer(generate(ctx, spec))
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
	case "replica":
		var spec replicaSpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		threads(replicaConnections / 16)
		return serveReplica(ctx, spec)
	case "proxy":
		var spec proxySpec
		if err := settings.Decode(&spec); err != nil {
			return err
		}
		return serveProxy(ctx, spec)
	}
	return fmt.Errorf("role %q: not known", role)
}

// threads prepares a role whose connections have threads of their own: as many of them may run at a
// time, and nothing is collected, since next to nothing is allocated.
func threads(n int) {
	runtime.GOMAXPROCS(n + 2)
	debug.SetGCPercent(-1)
}

// replicaSpec is a replica that costs next to nothing.
type replicaSpec struct {
	Addresses []string
	Answer    string // the body
}

// replicaConnections bounds the replica's connections, each of which has a thread.
const replicaConnections = 512

// serveReplica answers every request with the same bytes, from blocking threads.
func serveReplica(ctx context.Context, spec replicaSpec) error {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"+
		"X-Ms-Run-Function-Failed: False\r\nContent-Length: %d\r\n\r\n%s", len(spec.Answer), spec.Answer)
	var wg sync.WaitGroup
	room := make(chan struct{}, replicaConnections)
	for _, address := range spec.Addresses {
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
				go func() { // ends with its connection or the process
					defer func() { <-room }()
					answerAll(c, answer)
				}()
			}
		})
	}
	wg.Wait()
	return nil
}

func answerAll(c net.Conn, answer []byte) {
	runtime.LockOSThread()
	l, err := takeOver(c)
	if err != nil {
		return
	}
	defer l.close()
	for {
		request, err := l.read()
		if err != nil || request == nil || l.write(answer) != nil {
			return
		}
	}
}

// proxySpec is the plain reverse proxy.
type proxySpec struct {
	Listen   string
	Upstream string // unix:PATH
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
