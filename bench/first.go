package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// plane is a running zarpa up.
type plane struct {
	*process
	bench *bench
	data  string
}

// up starts zarpa up on an empty data directory and free ports.
func (b *bench) up(ctx context.Context) (*plane, error) {
	data, err := os.MkdirTemp(b.temp, "up")
	if err != nil {
		return nil, err
	}
	p := &plane{bench: b, data: data}
	check := func(context.Context) error {
		_, err := os.Stat(filepath.Join(data, "server.json"))
		return err
	}
	p.process, err = b.serve(ctx, "zarpa up", check, "up", "--data", data, "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--log-level", "warn")
	return p, err
}

// cli runs a command against the plane and decodes its answer.
func (p *plane) cli(ctx context.Context, into any, args ...string) error {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, p.bench.zarpa, append(args, "--data", p.data, "-o", "json")...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.bench.env, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("zarpa %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return json.Unmarshal(stdout.Bytes(), into)
}

// span is a named time.
type span struct {
	name string
	took time.Duration
}

// measureFirst is its part.
func (b *bench) measureFirst(ctx context.Context, r *report) error {
	p, err := b.up(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	var all [][]span
	for i := range b.scale.deploys {
		b.say("first: answer, %d of %d", i+1, b.scale.deploys)
		spans, err := p.firstAnswer(ctx, fmt.Sprintf("iris-%d", i+1), filepath.Join(b.root, "examples", "iris", "iris.onnx"))
		if err != nil {
			return err
		}
		all = append(all, spans)
	}
	r.first(all)
	return nil
}

// firstAnswer deploys the file as a new endpoint, reads its key, and asks until it answers: what a
// user does. The spans follow each other; the last one is all of it.
func (p *plane) firstAnswer(ctx context.Context, name, file string, args ...string) ([]span, error) {
	var report zarpa.EndpointReport
	var keys zarpa.KeyPair
	start := time.Now()
	if err := p.cli(ctx, &report, append([]string{"deploy", name, "--model", file}, args...)...); err != nil {
		return nil, err
	}
	deployed := time.Now()
	if err := p.cli(ctx, &keys, "keys", name); err != nil {
		return nil, err
	}
	keyed := time.Now()
	if err := firstOK(ctx, report.URLs.Score, keys.Primary); err != nil {
		return nil, err
	}
	answered := time.Now()
	op := report.Operation
	if op == nil {
		return nil, errors.New("the endpoint has no operation")
	}
	spans := []span{{"start the command, upload and register the file", op.Created.Sub(start)}}
	for _, ph := range op.Phases {
		spans = append(spans, span{"phase " + ph.Name, ph.Ended.Sub(ph.Started)})
	}
	return append(spans,
		span{"between the phases", op.Ended.Sub(op.Created) - sum(spans[1:])},
		span{"see the end and print", deployed.Sub(op.Ended)},
		span{"`zarpa keys`", keyed.Sub(deployed)},
		span{"first authenticated answer", answered.Sub(keyed)},
		span{"**all of it**", answered.Sub(start)}), nil
}

func sum(spans []span) (total time.Duration) {
	for _, s := range spans {
		total += s.took
	}
	return total
}

// firstOK asks until the answer is 200.
func firstOK(ctx context.Context, url, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(irisBody))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			return err
		}
		switch res.StatusCode {
		case http.StatusOK:
			return nil
		case http.StatusNotFound, http.StatusServiceUnavailable: // not there yet
		default:
			return fmt.Errorf("first answer: %s: %s", res.Status, text)
		}
	}
}

// stepTimes are those of the i-th step of the first deploy, over all that have it there, in milliseconds.
func stepTimes(all [][]span, i int) []float64 {
	var values []float64
	for _, spans := range all {
		if i < len(spans) && spans[i].name == all[0][i].name {
			values = append(values, spans[i].took.Seconds()*1000)
		}
	}
	return values
}

// first reports it.
func (r *report) first(all [][]span) {
	s := r.section("From a file to the first answer")
	s.text("On a running `zarpa up`: `zarpa deploy NAME --model iris.onnx` from the start of its process until it has ended, `zarpa keys NAME`, " +
		"and a request with that key until the answer is 200. A new endpoint each time. Milliseconds.")
	var rows [][]string
	var last []float64
	for i, sp := range all[0] {
		values := stepTimes(all, i)
		rows = append(rows, []string{sp.name, ms(median(values)), ms(slices.Max(values))})
		last = values
	}
	s.table([]string{"step", fmt.Sprintf("median of %d", len(all)), "longest"}, rows)
	r.aim(aim{
		what: "from `zarpa deploy FILE` to the first answer (longest)", want: "≤ 1 s", got: fmt.Sprintf("%.3f s", slices.Max(last)/1000),
		met: slices.Max(last) <= 1000, bound: "The table says which step takes the time.",
	})
}
