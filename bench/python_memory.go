package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	// largeMiB is the size of the model in serve_large.py, and largeWorkers how many processes have it.
	largeMiB     = 200
	largeWorkers = 4
)

// measureLarge tells how much memory several workers take that have one large model.
func (b *bench) measureLarge(ctx context.Context, r *report, python string) error {
	const entry = "serve_large.py"
	count := strconv.Itoa(largeWorkers)
	ours := func(setting, preload string) server {
		return b.scriptServer(scoringScript{name: scriptName, setting: setting, entry: entry, python: python, flags: []string{"--workers", count, "--preload", preload}})
	}
	servers := []server{ours("default: forked after init()", "auto"), ours("`--preload never`", "never")}
	if isAsked(r.settings.peers, azureFolder) {
		servers = append(servers,
			b.azureScript("WORKER_PRELOAD=true", entry, "WORKER_COUNT="+count, "WORKER_PRELOAD=true"),
			b.azureScript("default: WORKER_PRELOAD=false", entry, "WORKER_COUNT="+count))
	}
	m := &model{name: "large", shape: []int64{1, 1}, row: []float64{1}}
	var list []large
	for _, s := range servers {
		b.say("python: memory of %s, %s", s.name, s.setting)
		l, err := b.holdLarge(ctx, m, s)
		if ctx.Err() != nil || err != nil && s.name == scriptName {
			return errors.Join(err, ctx.Err())
		}
		if err != nil {
			l.absent = reason(err)
		}
		list = append(list, l)
	}
	r.large(list)
	return nil
}

// large is a server whose workers have a large model.
type large struct {
	name, setting string
	absent        string
	took          time.Duration // from its start until all workers have it
	processes     int           // after it answered
	idle, after   memory
}

// holdLarge starts a server alone and reads its memory before and after it answers many requests.
func (b *bench) holdLarge(ctx context.Context, m *model, s server) (large, error) {
	l := large{name: s.name, setting: s.setting}
	start := time.Now()
	run, err := s.launch(ctx, m)
	if err != nil {
		return l, err
	}
	if err := run.await(ctx, run.hold); err != nil {
		return l, err
	}
	defer run.stop()
	l.took, l.idle = time.Since(start), run.memory()
	request, err := m.request(formScore)
	if err != nil {
		return l, err
	}
	for range b.scale.rounds {
		if _, err = b.load(ctx, run.process, loadSpec{Address: run.http, Request: request, Clients: halfway, Duration: b.scale.compare}); err != nil {
			return l, err
		}
	}
	l.after, l.processes = run.memory(), len(family(run.pid))
	return l, nil
}

// hold checks that as many processes as there are workers have the model, whether they share it or not.
func (r *running) hold(context.Context) error {
	holders := 0
	for _, member := range family(r.pid) {
		if m, err := memoryOf(member.pid); err == nil && m.Resident > largeMiB {
			holders++
		}
	}
	if holders < largeWorkers {
		return fmt.Errorf("%d of %d processes have the model", holders, largeWorkers)
	}
	return nil
}

// large reports it.
func (r *report) large(list []large) {
	s := r.section("Python: four workers of one large model")
	s.text("`bench/peers/serve_large.py`, whose `init()` makes %d MiB, in %d workers; each server alone. MiB: share is the sum over all processes of a server with shared pages divided among them (PSS), resident the sum without that (RSS); "+
		"idle, and after %d loads from %d clients. “Copies” is the share after the load over the size of the model. “All ready” is from the start of the process until every worker has the model.",
		largeMiB, largeWorkers, r.bench.scale.rounds, halfway)
	var rows [][]string
	for _, l := range list {
		if l.absent != "" {
			rows = append(rows, []string{l.name, l.setting, "not measured: " + l.absent, "–", "–", "–", "–", "–"})
			continue
		}
		rows = append(rows, []string{
			l.name, l.setting, strconv.Itoa(l.processes), fmt.Sprintf("%.2f", l.took.Seconds()), whole(l.idle.Share), whole(l.after.Share),
			fmt.Sprintf("%.2f", l.after.Share/largeMiB), whole(l.after.Resident),
		})
	}
	s.table([]string{"server", "setting", "processes", "all ready, s", "share, idle", "share, after", "copies", "resident, after"}, rows)
}
