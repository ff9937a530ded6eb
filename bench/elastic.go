package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// elastic is what its part measured, one element for each try.
type elastic struct {
	woken   []time.Duration // from the first request to its answer, with no replica before
	starts  []zarpa.ColdStart
	decided []time.Duration // from more load than one replica takes, to the decision
	served  []time.Duration // to two replicas on the routes
}

// measureElastic is its part.
func (b *bench) measureElastic(ctx context.Context, r *report) error {
	p, err := b.up(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	var e elastic
	if err := p.wakes(ctx, &e); err != nil {
		return err
	}
	for i := range min(b.scale.deploys, 5) {
		b.say("scale up, %d", i+1)
		if err := p.growth(ctx, fmt.Sprintf("slow-%d", i+1), &e); err != nil {
			return err
		}
	}
	r.elastic(e)
	return nil
}

// target is how an endpoint is called.
type target struct{ name, url, key, body string }

func (p *plane) target(ctx context.Context, name, body string) (target, error) {
	var report zarpa.EndpointReport
	var keys zarpa.KeyPair
	err := p.cli(ctx, &report, "endpoint", "show", name)
	if err == nil {
		err = p.cli(ctx, &keys, "keys", name)
	}
	return target{name, report.URLs.Score, keys.Primary, body}, err
}

// call sends one request over a connection that stays open.
func (t target) call(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, strings.NewReader(t.body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+t.key)
	resp, err := caller.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
}

var caller = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: hopClients}}

// until looks every few milliseconds.
func until(ctx context.Context, check func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := check(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.New("waited in vain")
		case <-tick.C:
		}
	}
}

// wakes lets an endpoint go to zero and calls it, again and again.
func (p *plane) wakes(ctx context.Context, e *elastic) error {
	var report zarpa.EndpointReport
	file := filepath.Join(p.bench.root, "examples", "iris", "iris.onnx")
	if err := p.cli(ctx, &report, "deploy", "idle", "--model", file, "--min", "0", "--idle", "1s"); err != nil {
		return err
	}
	t, err := p.target(ctx, "idle", irisBody)
	if err != nil {
		return err
	}
	for i := range p.bench.scale.deploys {
		p.bench.say("wake from zero, %d of %d", i+1, p.bench.scale.deploys)
		err := until(ctx, func() (bool, error) {
			err := p.cli(ctx, &report, "endpoint", "show", "idle")
			return report.Phase == zarpa.EndpointIdle && len(report.Deployments) == 1 && len(report.Deployments[0].Status.Replicas) == 0, err
		})
		if err != nil {
			return err
		}
		began := time.Now()
		if err := t.call(ctx); err != nil {
			return err
		}
		e.woken = append(e.woken, time.Since(began))
	}
	var list []zarpa.Scaling
	if err := p.cli(ctx, &list, "explain", "idle", "--scaling"); err != nil {
		return err
	}
	for _, s := range list {
		e.starts = append(e.starts, s.ColdStarts...)
	}
	return nil
}

// growth calls an endpoint of one replica with four times what it takes, and watches.
func (p *plane) growth(ctx context.Context, name string, e *elastic) error {
	var report zarpa.EndpointReport
	file := filepath.Join(p.bench.root, "engine", "enginetest", "testdata", "slow.onnx")
	err := p.cli(ctx, &report, "deploy", name, "--model", file, "--cpu", "1", "--max-concurrency", "1", "--min", "1", "--max", "2")
	if err != nil {
		return err
	}
	t, err := p.target(ctx, name, `{"data":{"iterations":[2000]}}`)
	if err != nil {
		return err
	}
	if err := t.call(ctx); err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	began := time.Now()
	for range 4 {
		load.Go(func() {
			for loading.Err() == nil {
				_ = t.call(loading) // what is refused is load, too
			}
		})
	}
	err = until(ctx, func() (bool, error) {
		err := p.cli(ctx, &report, "endpoint", "show", name)
		ready := 0
		for _, o := range report.Deployments {
			ready += o.Status.Ready("")
		}
		return ready > 1, err
	})
	if err != nil {
		return err
	}
	e.served = append(e.served, time.Since(began))
	var list []zarpa.Scaling
	if err := p.cli(ctx, &list, "explain", name, "--scaling"); err != nil {
		return err
	}
	for _, d := range list[0].Decisions {
		if d.To > 1 && d.From == 1 {
			e.decided = append(e.decided, d.At.Sub(began))
		}
	}
	stop()
	var gone zarpa.ChangeSet
	return p.cli(ctx, &gone, "endpoint", "delete", name)
}

// elastic reports it.
func (r *report) elastic(e elastic) {
	parts := map[string][]float64{}
	for _, c := range e.starts {
		for name, d := range map[string]zarpa.Duration{"decide": c.Decide, "start": c.Start, "load": c.Load, "first byte": c.FirstByte} {
			parts[name] = append(parts[name], time.Duration(d).Seconds()*1000)
		}
	}
	s := r.section("Replicas that follow the load")
	s.text("A deployment of iris without a replica gets one request; ms, median, least and greatest of %d. The parts are what the server itself measured.", len(e.woken))
	rows := [][]string{{"request to answer", ms(median(milliseconds(e.woken))), spreadWhole(milliseconds(e.woken))}}
	for _, name := range []string{"decide", "start", "load", "first byte"} {
		rows = append(rows, []string{name, ms(median(parts[name])), spreadWhole(parts[name])})
	}
	s.table([]string{"from zero", "median", "median (least–greatest)"}, rows)
	s.text("A deployment of one replica that works on one request at a time gets four at a time from one moment to the next (%d tries).", len(e.served))
	s.table([]string{"more load", "median", "median (least–greatest)"}, [][]string{
		{"until the decision", ms(median(milliseconds(e.decided))), spreadWhole(milliseconds(e.decided))},
		{"until the second replica is ready", ms(median(milliseconds(e.served))), spreadWhole(milliseconds(e.served))},
	})
	wake, react := median(milliseconds(e.woken)), median(milliseconds(e.served))
	r.aim(aim{what: "a first answer from zero replicas", want: "≤ 300 ms", got: ms(wake) + " ms", met: wake <= 300})
	r.aim(aim{what: "more load until a second replica is ready", want: "≤ 1 500 ms", got: ms(react) + " ms", met: react <= 1500})
}
