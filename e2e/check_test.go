package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
)

// settle waits until what is acknowledged, what is stored, what is reported, what runs and what
// is served are one, and then looks once at what must hold at once.
func (c *crash) settle(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	var last error
	err := await(waiting, func() error {
		err := c.truth(waiting)
		if err != nil {
			last = err
		}
		return err
	})
	now := time.Now()
	c.stats.settle(now.Sub(began), last)
	for _, w := range c.outages {
		w.to = now
		c.windows.add(w)
	}
	c.outages = nil
	if err != nil {
		return err
	}
	if err := c.serves(ctx); err != nil {
		return err
	}
	return c.readBack(ctx)
}

// truth compares what was acknowledged with what is stored, and that with what is.
func (c *crash) truth(ctx context.Context) error {
	for _, p := range c.endpoints {
		if err := p.resolve(ctx, c.host.client); err != nil {
			return err
		}
	}
	fresh, err := c.library.resolve(ctx, c.host.client, c.known)
	if err != nil {
		return err
	}
	c.downloads = append(c.downloads, fresh...)
	return c.agree(ctx)
}

// agree compares reports, processes, routes, files and operations.
func (c *crash) agree(ctx context.Context) error {
	reports, err := c.host.client.ListEndpoints(ctx)
	if err != nil {
		return err
	}
	processes, err := c.host.processes()
	if err != nil {
		return err
	}
	run := map[string][]int{} // pids by endpoint
	roles, control := map[string]int{}, ""
	for _, p := range processes {
		roles[p.role]++
		switch p.role {
		case "score":
			run[p.endpoint] = append(run[p.endpoint], p.pid)
		case "gateway":
			control = p.control
		}
	}
	router := gateway.NewControlClient(control)
	defer router.Close()
	routes, err := router.Routes(ctx)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	replicas := 0
	for _, r := range reports {
		pids, err := c.matches(r, routes)
		if err != nil {
			return err
		}
		slices.Sort(run[r.Endpoint.Name])
		if !slices.Equal(pids, run[r.Endpoint.Name]) {
			return fmt.Errorf("endpoint %s: replicas %v are reported, %v run", r.Endpoint.Name, pids, run[r.Endpoint.Name])
		}
		c.pids[r.Endpoint.Name] = pids
		replicas += len(pids)
	}
	if err := c.complete(reports, routes); err != nil {
		return err
	}
	if roles["up"] != 1 || roles["gateway"] != 1 || roles["score"] != replicas || len(processes) != replicas+2 {
		return fmt.Errorf("processes %v, wanted up, gateway and %d of score", roles, replicas)
	}
	if err := c.operationsEnded(ctx); err != nil {
		return err
	}
	return c.tidy(replicas, len(reports))
}

// complete tells an endpoint too many or too few, in the reports or on the routes.
func (c *crash) complete(reports []zarpa.EndpointReport, routes zarpa.Routes) error {
	var wanted, reported, routed []string
	for _, p := range c.endpoints {
		if p.exists {
			wanted = append(wanted, p.endpoint)
		} else {
			delete(c.pids, p.endpoint)
		}
	}
	for _, r := range reports {
		reported = append(reported, r.Endpoint.Name)
	}
	for _, r := range routes.Endpoints {
		routed = append(routed, r.Endpoint)
	}
	slices.Sort(wanted)
	if !slices.Equal(wanted, reported) || !slices.Equal(wanted, routed) {
		return fmt.Errorf("endpoints %v are wanted, %v reported, %v on the routes", wanted, reported, routed)
	}
	return nil
}

// matches holds one report against the wanted spec and the routes, and returns the replicas' pids.
func (c *crash) matches(r zarpa.EndpointReport, routes zarpa.Routes) ([]int, error) {
	name := r.Endpoint.Name
	if r.Phase != zarpa.EndpointReady || len(r.Deployments) != 1 {
		return nil, fmt.Errorf("endpoint %s is %s with %d deployments", name, r.Phase, len(r.Deployments))
	}
	var pids []int
	var addresses, routed []string
	status := r.Deployments[0].Status
	for _, rep := range status.Replicas {
		if rep.Phase != zarpa.ReplicaReady || rep.Revision != status.Revision {
			return nil, fmt.Errorf("endpoint %s: replica %s is %s, revision %s of %s", name, rep.ID, rep.Phase, rep.Revision, status.Revision)
		}
		pids, addresses = append(pids, rep.PID), append(addresses, rep.Address)
	}
	if wanted := r.Effective.Deployments[0].Replicas; len(pids) != wanted {
		return nil, fmt.Errorf("endpoint %s: %d replicas, wanted %d", name, len(pids), wanted)
	}
	for _, route := range routes.Endpoints {
		for _, d := range route.Deployments {
			for _, rep := range d.Replicas {
				if route.Endpoint == name {
					routed = append(routed, rep.Address)
				}
			}
		}
	}
	slices.Sort(pids)
	slices.Sort(addresses)
	slices.Sort(routed)
	if !slices.Equal(addresses, routed) {
		return nil, fmt.Errorf("endpoint %s: replicas at %v, routes to %v", name, addresses, routed)
	}
	return pids, nil
}

// operationsEnded wants no operation to run, and none to have failed: nothing was asked that is
// impossible, and a kill is no reason to give up.
func (c *crash) operationsEnded(ctx context.Context) error {
	ops, err := c.host.client.ListOperations(ctx, "", 1000)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if op.State == zarpa.OperationRunning {
			return fmt.Errorf("operation %s (%s %s) runs since %s", op.ID, op.Kind, op.Endpoint, op.Created.Format(time.StampMilli))
		}
		if op.State == zarpa.OperationFailed {
			text, _ := json.Marshal(op)
			return fatal{fmt.Errorf("operation failed: %s", text)}
		}
	}
	return nil
}

// atATime is how many uploads and bundles may be on their way in at the moment of one kill: those
// of three users, and one bundle for each replica that two of them start.
const atATime = 8

// tidy counts files: what belongs to replicas that are gone is gone, and what a kill interrupted
// is bounded by the number of kills.
func (c *crash) tidy(replicas, endpoints int) error {
	n, err := c.host.files()
	if err != nil {
		return err
	}
	c.stats.temporary = max(c.stats.temporary, n["temporary"])
	bound := c.stats.kills["control plane"] * atATime
	if n["half written"] > 0 || n["replicas"] != replicas || n["sockets"] != replicas || n["wishes"] != endpoints || n["temporary"] > bound {
		return fmt.Errorf("files %v, wanted %d replicas and sockets, %d wishes, at most %d temporary", n, replicas, endpoints, bound)
	}
	return nil
}

// serves asks every endpoint for a prediction with each of its keys, and makes sure that keys and
// endpoints that are gone open nothing. From then on the load is right about what exists.
func (c *crash) serves(ctx context.Context) error {
	via := fresh()
	for _, p := range c.endpoints {
		if !p.exists {
			p.set(false, "")
			if class, detail := c.load.predict(ctx, via, &p.caller, "anything"); class != "status 404" {
				return fmt.Errorf("endpoint %s is gone and answers %s %s", p.endpoint, class, detail)
			}
			continue
		}
		for _, key := range []string{p.keys.Primary, p.keys.Secondary} {
			if class, detail := c.load.predict(ctx, via, &p.caller, key); class != answered {
				return fmt.Errorf("endpoint %s: %s %s", p.endpoint, class, detail)
			}
		}
		if p.retired != "" {
			if class, detail := c.load.predict(ctx, via, &p.caller, p.retired); class != "status 401" {
				return fmt.Errorf("endpoint %s: a key that was replaced: %s %s", p.endpoint, class, detail)
			}
		}
		p.set(true, p.keys.Primary)
	}
	return nil
}

// readBack downloads the models that are new.
func (c *crash) readBack(ctx context.Context) error {
	for _, ref := range c.downloads {
		if c.library.gone(ref) {
			continue
		}
		if err := c.download(ctx, ref); err != nil {
			return err
		}
		c.stats.downloads++
		c.unread = append(c.unread, ref)
	}
	c.downloads = nil
	return nil
}

func (l *library) gone(ref string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.models[ref]
	return !ok
}

// untouched wants endpoints that nobody changed or hurt to run in the processes they ran in:
// a control plane that comes back takes over and starts nothing anew.
func (c *crash) untouched(touched map[string]bool) error {
	for name, pids := range c.pids {
		before, ok := c.stats.pids[name]
		if ok && !touched[name] && !slices.Equal(before, pids) {
			return fmt.Errorf("endpoint %s ran in %v, and now in %v, for no reason", name, before, pids)
		}
	}
	c.stats.remember(c.pids)
	return nil
}

// explain holds every failed prediction of the round against what was done.
func (c *crash) explain(story string) {
	told := 0
	for _, f := range c.load.take() {
		if c.windows.explains(f) {
			c.stats.explained[f.class]++
			continue
		}
		c.stats.unexplained++
		if told++; told <= 5 {
			c.t.Errorf("round %d (%s): a prediction of %s failed for no reason, %s to %s: %s: %s", c.stats.rounds, story,
				f.endpoint, f.start.Format(time.StampMicro), f.end.Format(time.StampMicro), f.class, f.detail)
		}
	}
	c.windows.forget(time.Now().Add(-callTimeout))
}

// state is what the API says, for the reader of a failure.
func (c *crash) state(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var out strings.Builder
	reports, err := c.host.client.ListEndpoints(ctx)
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	for _, r := range reports {
		b, _ := json.Marshal(r)
		fmt.Fprintf(&out, "%s\n", b)
	}
	processes, err := c.host.processes()
	fmt.Fprintf(&out, "%+v %v\n", processes, err)
	return out.String()
}

// finish ends the load, reads every model once more, and stops the product as a user does: then
// nothing runs and nothing listens.
func (c *crash) finish(ctx context.Context) {
	c.load.stop()
	c.load.done.Wait()
	c.explain("the end")
	for _, ref := range c.unread {
		if c.library.gone(ref) {
			continue
		}
		if err := c.download(ctx, ref); err != nil {
			c.t.Error(err)
		}
		c.stats.downloads++
	}
	_ = c.host.up.Process.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := await(ctx, func() error {
		left, err := c.host.processes()
		if len(left) > 0 {
			return fmt.Errorf("after the end there are still %+v", left)
		}
		return err
	})
	select {
	case <-c.host.ended:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	if err == nil && !c.host.up.ProcessState.Success() {
		err = fmt.Errorf("zarpa up ended: %v", c.host.up.ProcessState)
	}
	if n, ferr := c.host.files(); ferr != nil || n["sockets"]+n["replicas"]+n["wishes"] > 0 {
		err = errors.Join(err, ferr, fmt.Errorf("after the end there are files: %v", n))
	}
	if class, _ := c.load.predict(ctx, fresh(), &c.steady.caller, c.steady.keys.Primary); class != noGateway {
		err = errors.Join(err, fmt.Errorf("after the end a prediction gives %s", class))
	}
	if err != nil {
		c.t.Errorf("%v\n%s", err, c.host.tail())
	}
}
