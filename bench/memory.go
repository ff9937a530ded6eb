package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// holder is a process whose memory is told.
type holder struct {
	name        string
	pid         int
	idle, after memory
	rested      float64 // processor time while idle, in per cent of one core
}

// measureMemory is its part.
func (b *bench) measureMemory(ctx context.Context, r *report) error {
	p, err := b.up(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	var report zarpa.EndpointReport
	var keys zarpa.KeyPair
	file := filepath.Join(b.root, "examples", "iris", "iris.onnx")
	if err := p.cli(ctx, &report, "deploy", "iris", "--model", file); err != nil {
		return err
	}
	if err := p.cli(ctx, &keys, "keys", "iris"); err != nil {
		return err
	}
	gate, err := gatewayOf(p)
	if err != nil {
		return err
	}
	if len(report.Deployments) != 1 || len(report.Deployments[0].Status.Replicas) != 1 {
		return errors.New("the endpoint has not one replica")
	}
	replica := report.Deployments[0].Status.Replicas[0].PID
	list := []*holder{{name: "replica with iris", pid: replica}, {name: "gateway", pid: gate}, {name: "control plane", pid: p.pid}}
	b.say("memory")
	if err := b.rest(ctx, list); err != nil {
		return err
	}
	where, err := url.Parse(report.URLs.Score)
	if err != nil {
		return err
	}
	request := requestText(where.Path, keys.Primary, []byte(irisBody))
	sent := 0
	for range b.scale.rounds {
		s, err := b.load(ctx, &process{name: "gateway", pid: gate}, loadSpec{
			Address: where.Host, Request: request, Clients: hopClients, Duration: b.scale.closed,
		})
		if err != nil {
			return err
		}
		sent += s.Sent
	}
	for _, h := range list {
		if h.after, err = memoryOf(h.pid); err != nil {
			return err
		}
	}
	r.memory(list, sent)
	return nil
}

// rest lets everything be idle and takes what that costs.
func (b *bench) rest(ctx context.Context, list []*holder) error {
	wait := func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}
	if err := wait(b.scale.idle / 5); err != nil { // let the start be over
		return err
	}
	before, start := make([]float64, len(list)), time.Now()
	for i, h := range list {
		before[i] = scheduled(h.pid)
	}
	if err := wait(b.scale.idle); err != nil {
		return err
	}
	for i, h := range list {
		h.rested = 100 * (scheduled(h.pid) - before[i]) / time.Since(start).Seconds()
		var err error
		if h.idle, err = memoryOf(h.pid); err != nil {
			return fmt.Errorf("memory of the %s: %w", h.name, err)
		}
	}
	return nil
}

// gatewayOf finds the gateway that the plane started: it tells its pid to nobody but the plane.
func gatewayOf(p *plane) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile
		}
		args := bytes.Split(line, []byte{0})
		if len(args) > 2 && string(args[1]) == "gateway" && bytes.Contains(line, []byte(p.data)) {
			return strconv.Atoi(filepath.Base(filepath.Dir(f)))
		}
	}
	return 0, errors.New("the gateway of zarpa up is not among the processes")
}

// memory reports it.
func (r *report) memory(list []*holder, sent int) {
	s := r.section("Memory and rest")
	s.text("Of the processes of one `zarpa up` with iris deployed: idle, and right after %d requests from %d clients through the gateway. MiB resident, and of that what "+
		"is no page of a file (programs and libraries are shared between replicas). Rest is the processor time of an idle process over %s, probes "+
		"included, in per cent of one core.", sent, hopClients, r.bench.scale.idle)
	var rows [][]string
	for _, h := range list {
		rows = append(rows, []string{
			h.name, whole(h.idle.Resident), whole(h.idle.Own), whole(h.after.Resident), whole(h.after.Own), fmt.Sprintf("%.2f %%", h.rested),
		})
	}
	s.table([]string{"process", "idle", "of that own", "after load", "of that own", "rest"}, rows)
}
