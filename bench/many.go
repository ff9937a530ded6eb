package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

const (
	manyEndpoints = 100
	manyReplicas  = 10
	manyIdle      = 2000 // connections
	laterAnswer   = `{"label":[1],"probabilities":[{"0":0.0,"1":1.0,"2":0.0}]}`
)

// crowd is a gateway with some endpoints, each with replicas behind sockets of their own.
type crowd struct {
	name      string
	endpoints int
	gate      *process
	control   *gateway.ControlClient
	address   string
	memory    memory   // before any load
	open      []sample // one for each round
	closed    []sample
}

// manyResult is what its part measured besides the loads.
type manyResult struct {
	bare       memory          // of a gateway without routes
	took, seen []time.Duration // until SetRoutes returned, until an answer came by the new routes
	idle       float64         // KiB for one idle connection
}

// measureMany is its part.
func (b *bench) measureMany(ctx context.Context, r *report) error {
	stop, crowds, result, err := b.crowds(ctx)
	defer stop()
	if err != nil {
		return err
	}
	request := requestText("/endpoints/e0/score", benchKey, []byte(irisBody))
	for round := range b.scale.rounds {
		b.say("many endpoints, round %d of %d", round+1, b.scale.rounds)
		for i := range crowds {
			c := crowds[(i+round)%len(crowds)]
			s, err := b.load(ctx, c.gate, loadSpec{Address: c.address, Request: request, Clients: hopClients, Rate: hopRate, Duration: b.scale.open})
			if err != nil {
				return err
			}
			c.open = append(c.open, s)
			if s, err = b.load(ctx, c.gate, loadSpec{Address: c.address, Request: request, Clients: hopClients, Duration: b.scale.closed}); err != nil {
				return err
			}
			c.closed = append(c.closed, s)
		}
	}
	large := crowds[1]
	for i := range b.scale.deploys {
		took, seen, err := b.reroute(ctx, large, request, i)
		if err != nil {
			return err
		}
		result.took, result.seen = append(result.took, took), append(result.seen, seen)
	}
	if result.idle, err = idleConnections(ctx, large, request); err != nil {
		return err
	}
	r.many(crowds, result)
	return nil
}

// crowds starts the replicas, which are two processes, and two gateways. stop is never nil.
func (b *bench) crowds(ctx context.Context) (stop func(), list []*crowd, result manyResult, err error) {
	var running []*process
	stop = func() {
		for _, c := range list {
			c.control.Close()
		}
		for _, p := range running {
			p.stop()
		}
	}
	for set, answer := range []string{irisAnswer, laterAnswer} {
		spec := replicaSpec{Answer: answer}
		for i := range manyEndpoints * manyReplicas {
			spec.Addresses = append(spec.Addresses, b.seat(set, i))
		}
		if set == 1 {
			spec.Addresses = spec.Addresses[:manyReplicas] // of the one endpoint that changes
		}
		last := spec.Addresses[len(spec.Addresses)-1]
		p, err := b.role(ctx, "replica", spec, answers(last, requestText("/score", benchKey, []byte(irisBody))))
		if err != nil {
			return stop, list, result, err
		}
		running = append(running, p)
	}
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return stop, list, result, err
	}
	for i, c := range []*crowd{{name: "1 endpoint, 10 replicas", endpoints: 1}, {name: "100 endpoints, 10 replicas each", endpoints: manyEndpoints}} {
		socket := filepath.Join(b.temp, fmt.Sprintf("m%d.sock", i))
		c.address, c.control = ports[i], gateway.NewControlClient(socket)
		list = append(list, c)
		up := func(ctx context.Context) error { _, err := c.control.Routes(ctx); return err }
		if c.gate, err = b.serve(ctx, "zarpa gateway", up, "gateway", "--listen", c.address, "--control", socket); err != nil {
			return stop, list, result, err
		}
		running = append(running, c.gate)
		result.bare = c.gate.memory()
		if err := c.control.SetRoutes(ctx, b.manyRoutes(1, c.endpoints, 0)); err != nil {
			return stop, list, result, err
		}
		c.memory = c.gate.memory()
	}
	return stop, list, result, nil
}

// seat is the address of a replica of one of the sets.
func (b *bench) seat(set, i int) string {
	return "unix:" + filepath.Join(b.temp, fmt.Sprintf("s%d-%d", set, i))
}

// manyRoutes lead to all endpoints; the first one's replicas are those of a set.
func (b *bench) manyRoutes(revision int64, endpoints, set int) zarpa.Routes {
	routes := zarpa.Routes{Revision: revision}
	for e := range endpoints {
		d := zarpa.RouteDeployment{Name: "blue", Weight: 100, MaxConcurrency: hopClients}
		for i := range manyReplicas {
			of := 0
			if e == 0 {
				of = set
			}
			d.Replicas = append(d.Replicas, zarpa.RouteReplica{ID: fmt.Sprintf("e%d-%d-%d", e, of, i), Address: b.seat(of, e*manyReplicas+i)})
		}
		routes.Endpoints = append(routes.Endpoints, zarpa.Route{
			Endpoint: fmt.Sprintf("e%d", e), Auth: zarpa.AuthKey, Keys: [][]byte{zarpa.KeyDigest(fmt.Sprint("other", e)), zarpa.KeyDigest(benchKey)},
			Deployments: []zarpa.RouteDeployment{d},
		})
	}
	return routes
}

// reroute moves the first endpoint to the other replicas and asks until one of them answers.
func (b *bench) reroute(ctx context.Context, c *crowd, request []byte, i int) (took, seen time.Duration, err error) {
	set := (i + 1) % 2
	want := []byte(irisAnswer)
	if set == 1 {
		want = []byte(laterAnswer)
	}
	conn, err := dial(ctx, c.address)
	if err != nil {
		return 0, 0, err
	}
	line := polled(conn)
	defer conn.Close()
	began := time.Now()
	if err := c.control.SetRoutes(ctx, b.manyRoutes(int64(i+2), c.endpoints, set)); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	for {
		if _, err := conn.Write(request); err != nil {
			return 0, 0, err
		}
		answer, err := line.read()
		if err != nil {
			return 0, 0, err
		}
		if bytes.HasSuffix(answer, want) {
			return took, time.Since(began), nil
		}
		if time.Since(began) > startWait {
			return 0, 0, errors.New("the new routes are never seen")
		}
	}
}

// idleConnections opens connections, sends one request over each, and tells what one costs, in KiB.
func idleConnections(ctx context.Context, c *crowd, request []byte) (float64, error) {
	before := c.gate.memory()
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	room := make([]byte, maxMessage)
	for range manyIdle {
		conn, err := dial(ctx, c.address)
		if err != nil {
			return 0, err
		}
		open = append(open, conn)
		if _, err := conn.Write(request); err != nil {
			return 0, err
		}
		for have := 0; ; {
			n, err := conn.Read(room[have:])
			if err != nil && !errors.Is(err, io.EOF) || n == 0 {
				return 0, fmt.Errorf("an answer broke off: %w", err)
			}
			have += n
			end, err := messageEnd(room[:have])
			if err != nil {
				return 0, err
			}
			if end > 0 {
				break
			}
		}
	}
	return (c.gate.memory().Own - before.Own) * 1024 / manyIdle, nil
}

// many reports it.
func (r *report) many(crowds []*crowd, m manyResult) {
	small, large := crowds[0], crowds[1]
	var rows [][]string
	for _, c := range crowds {
		rows = append(rows, []string{
			c.name, us(middle(c.open, p50)), us(middle(c.open, p99)), us(middle(c.open, perRequest)),
			whole(middle(c.closed, perSecond)), us(middle(c.closed, perRequest)), ms(c.memory.Own),
		})
	}
	s := r.section("Many endpoints on one gateway")
	s.text("Every replica has a socket of its own; all are served by one process that answers the same bytes at once. The load goes to one endpoint. "+
		"Open loop %.0f requests/s, then closed loop with %d clients; µs, medians of %d rounds; memory is the gateway's own, in MiB, before any load.",
		hopRate, hopClients, r.bench.scale.rounds)
	s.table([]string{"gateway", "p50", "p99", "processor", "requests/s, closed", "processor", "memory"}, rows)
	perEndpoint := (large.memory.Own - small.memory.Own) * 1024 / (manyEndpoints - 1)
	change, seen := median(milliseconds(m.took)), median(milliseconds(m.seen))
	s.text("An endpoint with %d replicas takes %.1f KiB of the gateway's memory, an idle client connection %.1f KiB (%d were open, each after one request). "+
		"A change of the routes of all %d endpoints is in use after %.1f ms, and the first answer by it comes after %.1f ms (medians of %d).",
		manyReplicas, perEndpoint, m.idle, manyIdle, manyEndpoints, change, seen, len(m.seen))
	times := median(paired(each(large.open, p50), each(small.open, p50), quotient))
	r.aim(aim{
		what: "100 endpoints × 10 replicas: p50 of the hop against one endpoint's", want: "0.9–1.1 ×", got: fmt.Sprintf("%.2f ×", times),
		met: times >= 0.9 && times <= 1.1, bound: fmt.Sprintf("Processor time for a request is %.2f ×.", median(paired(each(large.closed, perRequest), each(small.closed, perRequest), quotient))),
	})
	r.aim(aim{what: "100 endpoints × 10 replicas: a route change is seen", want: "≤ 50 ms", got: fmt.Sprintf("%.1f ms", seen), met: seen <= 50})
}

func milliseconds(list []time.Duration) []float64 {
	out := make([]float64, len(list))
	for i, d := range list {
		out[i] = d.Seconds() * 1000
	}
	return out
}
