package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

const (
	hopRate    = 1000.0 // requests per second of the open loop
	hopClients = 16
	benchKey   = "q1goS2M73iIdMwroAuY1hPYGKfo-Jg9jKqDKzc8R9ZE"
	irisBody   = `{"data": [[5.1, 3.5, 1.4, 0.2]]}`
	irisAnswer = `{"label":[0],"probabilities":[{"0":0.97770464,"1":0.02229456,"2":7.5249204e-7}]}`
)

// The ways to the replica, in the order of the tables.
const (
	directUnix = iota
	directTCP
	viaGateway
	viaProxy
	viaCopy
	ways
)

// way is one way to the replica.
type way struct {
	name    string
	process *process // whose processor time is told
	address string
	request []byte
	open    []sample // one for each round
	closed  []sample
}

// measureHop is its part.
func (b *bench) measureHop(ctx context.Context, r *report) error {
	list, stop, err := b.hopWays(ctx)
	defer stop()
	if err != nil {
		return err
	}
	for round := range b.scale.rounds {
		b.say("hop:, round %d of %d", round+1, b.scale.rounds)
		for i := range list {
			w := list[(i+round)%len(list)] // nobody is always the first
			s, err := b.load(ctx, w.process, loadSpec{
				Address: w.address, Request: w.request, Clients: hopClients, Rate: hopRate, Duration: b.scale.open,
			})
			if err != nil {
				return err
			}
			w.open = append(w.open, s)
		}
		for i := range list {
			w := list[(i+round)%len(list)]
			s, err := b.load(ctx, w.process, loadSpec{
				Address: w.address, Request: w.request, Clients: hopClients, Duration: b.scale.closed,
			})
			if err != nil {
				return err
			}
			w.closed = append(w.closed, s)
		}
	}
	r.hop(list)
	return nil
}

// hopWays starts the replica, the gateway and the reverse proxy. stop is never nil.
func (b *bench) hopWays(ctx context.Context) (list []*way, stop func(), err error) {
	var running []*process
	stop = func() {
		for _, p := range running {
			p.stop()
		}
	}
	unix := "unix:" + filepath.Join(b.temp, "r.sock")
	ports, err := freePorts(ctx, 4)
	if err != nil {
		return nil, stop, err
	}
	plain := requestText("/score", benchKey, []byte(irisBody))
	keyed := requestText("/endpoints/iris/score", benchKey, []byte(irisBody))
	replica, err := b.role(ctx, "replica", replicaSpec{Addresses: []string{unix, ports[0]}, Answer: irisAnswer}, answers(unix, plain))
	if err != nil {
		return nil, stop, err
	}
	running = append(running, replica)
	proxy, err := b.role(ctx, "proxy", proxySpec{Listen: ports[1], Upstream: unix}, answers(ports[1], plain))
	if err != nil {
		return nil, stop, err
	}
	running = append(running, proxy)
	carrier, err := b.role(ctx, "copy", proxySpec{Listen: ports[3], Upstream: unix}, answers(ports[3], plain))
	if err != nil {
		return nil, stop, err
	}
	running = append(running, carrier)
	control := filepath.Join(b.temp, "g.sock")
	client := gateway.NewControlClient(control)
	defer client.Close()
	check := func(ctx context.Context) error {
		if err := client.SetRoutes(ctx, hopRoutes(unix)); err != nil {
			return err
		}
		return answers(ports[2], keyed)(ctx)
	}
	gate, err := b.serve(ctx, "zarpa gateway", check, "gateway", "--listen", ports[2], "--control", control)
	if err != nil {
		return nil, stop, err
	}
	running = append(running, gate)
	list = make([]*way, ways)
	list[directUnix] = &way{name: "direct, Unix socket", process: replica, address: unix, request: plain}
	list[directTCP] = &way{name: "direct, TCP", process: replica, address: ports[0], request: plain}
	list[viaGateway] = &way{name: "zarpa gateway", process: gate, address: ports[2], request: keyed}
	list[viaProxy] = &way{name: "httputil.ReverseProxy", process: proxy, address: ports[1], request: plain}
	list[viaCopy] = &way{name: "bytes copied, no HTTP", process: carrier, address: ports[3], request: plain}
	return list, stop, nil
}

// hopRoutes lead to the replica; its places are more than the clients, so that nobody queues.
func hopRoutes(unix string) zarpa.Routes {
	return zarpa.Routes{Revision: 1, Endpoints: []zarpa.Route{{
		Endpoint: "iris", Auth: zarpa.AuthKey, Keys: [][]byte{zarpa.KeyDigest("another"), zarpa.KeyDigest(benchKey)},
		Deployments: []zarpa.RouteDeployment{{
			Name: "blue", Weight: 100, MaxConcurrency: 4 * hopClients, Replicas: []zarpa.RouteReplica{{ID: "blue-1", Address: unix}},
		}},
	}}}
}

// hop reports it.
func (r *report) hop(list []*way) {
	base := list[directUnix]
	var rows [][]string
	for _, w := range list {
		rows = append(rows, []string{
			w.name, us(middle(w.open, p50)), us(middle(w.open, p99)),
			us(median(paired(each(w.open, p50), each(base.open, p50), difference))),
			us(median(paired(each(w.open, p99), each(base.open, p99), difference))),
			us(middle(w.open, perRequest)),
		})
	}
	s := r.section("The gateway's hop")
	s.text("The replica is a process that answers the same %d bytes at once, over a Unix socket. The clients reach the gateway "+
		"and the reverse proxy by TCP on the loopback. The gateway checks the key (the second of two), gives ids, and counts; the reverse proxy "+
		"(%s) does none of that, and uses its buffers and connections again. “Bytes copied” is a process that carries each message on without reading it, from "+
		"threads that do nothing else: a hop that does no work, to compare with.", len(irisAnswer), "`httputil.ReverseProxy`, its own process, the same kind of Unix socket to the replica")
	s.text("Open loop, %.0f requests/s over %d connections; latency counts from the moment a request is due. µs, medians of %d rounds. "+
		"“Added” is the median of the differences, round by round, to the direct call over the Unix socket; “processor” is the time of that "+
		"process for one request (of the replica's for the direct calls).", hopRate, hopClients, r.bench.scale.rounds)
	s.table([]string{"way", "p50", "p99", "added p50", "added p99", "processor"}, rows)
	rows = nil
	proxy := list[viaProxy]
	for _, w := range list {
		rows = append(rows, []string{
			w.name, whole(middle(w.closed, perSecond)), spread(paired(each(w.closed, perSecond), each(proxy.closed, perSecond), quotient)),
			us(middle(w.closed, p50)), us(middle(w.closed, p99)), us(middle(w.closed, perRequest)), us(middle(w.closed, loadCost)),
		})
	}
	s.text("Closed loop, %d clients. “× ReverseProxy” is the median of the quotients, round by round, with the least and the greatest.", hopClients)
	s.table([]string{"way", "requests/s", "× ReverseProxy", "p50", "p99", "processor", "processor of the load"}, rows)
	r.hopAims(list)
}

func (r *report) hopAims(list []*way) {
	gate, proxy, base := list[viaGateway], list[viaProxy], list[directUnix]
	added := median(paired(each(gate.open, p50), each(base.open, p50), difference)) / 1000
	r.aim(aim{
		what: "the hop adds to p50, at 1 000 requests/s", want: "≤ 0.15 ms", got: fmt.Sprintf("%.3f ms", added), met: added <= 0.15,
		bound: fmt.Sprintf("A hop that only copies bytes adds %s µs in the same place, and the reverse proxy %s µs.", us(median(paired(each(list[viaCopy].open, p50), each(base.open, p50), difference))),
			us(median(paired(each(proxy.open, p50), each(base.open, p50), difference)))),
	})
	times := median(paired(each(gate.closed, perSecond), each(proxy.closed, perSecond), quotient))
	r.aim(aim{
		what: "its throughput against ReverseProxy's, 16 clients", want: "≥ 1.3 ×", got: fmt.Sprintf("%.2f ×", times), met: times >= 1.3,
		bound: fmt.Sprintf("Of processor time the gateway needs %s µs for a request and the reverse proxy %s µs, which is %.2f ×; the load needs "+
			"%s µs of the same cores either way, and the replica some more. A hop that only copies bytes has %.2f × the reverse proxy's throughput.",
			us(middle(gate.closed, perRequest)), us(middle(proxy.closed, perRequest)), middle(proxy.closed, perRequest)/middle(gate.closed, perRequest),
			us(middle(gate.closed, loadCost)), median(paired(each(list[viaCopy].closed, perSecond), each(proxy.closed, perSecond), quotient))),
	})
}
