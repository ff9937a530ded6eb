package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// blow is one round's violence: what is killed, and when.
type blow struct {
	kind string
	// after is from the beginning of the changes to the first kill, down how long the control plane
	// stays away, again from its start to a second kill.
	after, down, again time.Duration
	control, twice     bool
	gateway            bool
	replicas           int  // 0 none, 1 one, 2 all of an endpoint
	all                bool // every process, as when the machine loses power
	end                bool // an ordinary end of the control plane, killed before it is through
	endpoint           *promised
}

// The longest times. A deploy takes about a tenth of a second here, a start of the control plane
// as well: the kills fall all over both.
const (
	maxAfter = 160 * time.Millisecond
	maxDown  = 250 * time.Millisecond
	maxAgain = 160 * time.Millisecond
	// dying is how long a killed process may still hold its sockets after it is seen as gone.
	dying = 100 * time.Millisecond
	// maxGap is how long a killed gateway may be away. The aim is a second; a machine that is shared
	// with other tests gets three, and the table shows what it was.
	maxGap = 3 * time.Second
)

// blows are dealt like cards: every kind comes up, in no order.
func blows() []blow {
	control := blow{kind: "control plane", control: true}
	twice := blow{kind: "control plane, again at its start", control: true, twice: true}
	return []blow{
		control, control, control, control, twice, twice,
		{kind: "gateway", gateway: true},
		{kind: "gateway", gateway: true},
		{kind: "replica", replicas: 1},
		{kind: "replica", replicas: 1},
		{kind: "all replicas of an endpoint", replicas: 2},
		{kind: "control plane and replica", control: true, replicas: 1},
		{kind: "control plane and gateway", control: true, gateway: true},
		{kind: "gateway and replica", gateway: true, replicas: 1},
		{kind: "control plane, gateway and all replicas of an endpoint", control: true, gateway: true, replicas: 2},
		{kind: "everything", control: true, all: true},
		{kind: "control plane, at its ordinary end", control: true, end: true},
	}
}

// deal takes the next blow and rolls its times.
func (c *crash) deal() blow {
	if len(c.deck) == 0 {
		c.deck = blows()
		c.rand.Shuffle(len(c.deck), func(i, j int) { c.deck[i], c.deck[j] = c.deck[j], c.deck[i] })
	}
	b := c.deck[0]
	c.deck = c.deck[1:]
	roll := func(limit time.Duration) time.Duration { return time.Duration(c.rand.Int64N(int64(limit))) }
	b.after, b.down, b.again = roll(maxAfter), roll(maxDown), roll(maxAgain)
	if c.rand.IntN(2) == 0 {
		b.after /= 8 // the first moments, when the API answers, are short and as delicate as the rest
	}
	if b.replicas > 0 {
		b.endpoint = c.prey()
	}
	return b
}

// prey is an endpoint whose replicas may be killed: never the steady one.
func (c *crash) prey() *promised {
	var all []*promised
	for _, p := range c.endpoints {
		if p != c.steady && p.exists {
			all = append(all, p)
		}
	}
	return all[c.rand.IntN(len(all))]
}

// strike does what the blow says and returns when the control plane and the gateway are back.
func (c *crash) strike(ctx context.Context, b blow) error {
	if !pause(ctx, b.after) {
		return ctx.Err()
	}
	if b.all || b.end {
		now := time.Now()
		for _, class := range []string{noGateway, noReplica, brokeOff} {
			c.outages = append(c.outages, window{class: class, from: now})
		}
	}
	if b.end {
		_ = c.host.up.Process.Signal(syscall.SIGTERM)
		if !pause(ctx, b.again) {
			return ctx.Err()
		}
	}
	ok, failed := c.load.counts()
	if b.control {
		c.stats.kill("control plane")
		c.host.kill()
	}
	if b.all {
		if err := c.killAll(ctx); err != nil {
			return err
		}
	}
	var back chan returned
	down := time.Now()
	if b.gateway {
		back = make(chan returned, 1)
		if err := c.killGateway(ctx, back); err != nil {
			return err
		}
	}
	if b.replicas > 0 {
		if err := c.killReplicas(ctx, b); err != nil {
			return err
		}
	}
	if b.control {
		if err := c.restart(ctx, b); err != nil {
			return err
		}
	}
	if b.control && !b.gateway && b.replicas == 0 && !b.all && !b.end { // nothing else was hurt
		okNow, failedNow := c.load.counts()
		c.stats.okMeanwhile += okNow - ok
		c.stats.failedMeanwhile += failedNow - failed
	}
	if !b.gateway {
		return nil
	}
	r := <-back
	if r.err != nil {
		return fmt.Errorf("the gateway does not come back: %w", r.err)
	}
	if b.control { // nobody could start it before
		c.stats.gapsAlone = append(c.stats.gapsAlone, r.at.Sub(c.restarted))
		return nil
	}
	gap := r.at.Sub(down)
	c.stats.gaps = append(c.stats.gaps, gap)
	if gap > maxGap {
		c.t.Errorf("round %d: the gateway was back after %v, more than %v", c.stats.rounds, gap, maxGap)
	}
	return nil
}

// returned tells when the gateway was back.
type returned struct {
	at  time.Time
	err error
}

// restart starts the control plane after its time away, kills it once more where the blow says
// so, and measures how long the last start took until the API answered.
func (c *crash) restart(ctx context.Context, b blow) error {
	if !pause(ctx, b.down) {
		return ctx.Err()
	}
	if b.twice {
		if err := c.host.start(); err != nil {
			return err
		}
		if !pause(ctx, b.again) {
			return ctx.Err()
		}
		c.stats.kill("control plane")
		c.host.kill()
	}
	c.restarted = time.Now()
	if err := c.host.start(); err != nil {
		return err
	}
	if err := c.host.awaitAPI(ctx); err != nil {
		return fmt.Errorf("the control plane does not come back: %w", err)
	}
	c.stats.adoptions = append(c.stats.adoptions, time.Since(c.restarted))
	return nil
}

// killGateway kills the gateway. Until a new connection to its address brings a prediction again,
// callers find nobody; back then gets nil.
func (c *crash) killGateway(ctx context.Context, back chan<- returned) error {
	all, err := c.host.processes()
	if err != nil {
		return err
	}
	began := time.Now()
	for _, p := range all {
		if p.role != "gateway" {
			continue
		}
		c.stats.kill("gateway")
		if err := killProcess(ctx, p.pid); err != nil {
			return err
		}
	}
	via := fresh()
	go func() {
		err := await(ctx, func() error {
			class, detail := c.load.predict(ctx, via, &c.steady.caller, c.steady.keys.Primary)
			if class != answered {
				return fmt.Errorf("%s: %s", class, detail)
			}
			return nil
		})
		now := time.Now()
		c.windows.add(window{class: noGateway, from: began, to: now})
		back <- returned{now, err}
	}()
	return nil
}

// killAll kills all that still runs.
func (c *crash) killAll(ctx context.Context) error {
	all, err := c.host.processes()
	for _, p := range all {
		if p.role == "score" {
			c.stats.kill("replica")
			c.wounds[p.replica()]++
		} else {
			c.stats.kill("gateway")
		}
		err = errors.Join(err, killProcess(ctx, p.pid))
	}
	return err
}

// killReplicas kills one replica of an endpoint, or all.
func (c *crash) killReplicas(ctx context.Context, b blow) error {
	all, err := c.host.processes()
	if err != nil {
		return err
	}
	var pack []running
	for _, p := range all {
		if p.role == "score" && p.endpoint == b.endpoint.endpoint {
			pack = append(pack, p)
		}
	}
	if len(pack) == 0 {
		return nil // it is on its way out
	}
	alone := len(pack) == 1 || b.replicas == 2 || b.endpoint.churn
	if b.replicas == 1 { // the one that was hurt least: further deaths are mourned for longer
		c.rand.Shuffle(len(pack), func(i, j int) { pack[i], pack[j] = pack[j], pack[i] })
		slices.SortStableFunc(pack, func(a, b running) int { return c.wounds[a.replica()] - c.wounds[b.replica()] })
		pack = pack[:1]
	}
	began := time.Now()
	for _, p := range pack {
		c.stats.kill("replica")
		c.wounds[p.replica()]++
		if err := killProcess(ctx, p.pid); err != nil {
			return err
		}
	}
	c.windows.add(window{class: brokeOff, endpoint: b.endpoint.endpoint, from: began, to: time.Now().Add(dying)})
	if alone { // nobody may be left to answer, until the round has settled
		c.outages = append(c.outages, window{class: noReplica, endpoint: b.endpoint.endpoint, from: began})
	}
	return nil
}
