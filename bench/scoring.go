package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
)

// subject is a model to score.
type subject struct {
	name, file string
	body       []byte
	shape      []int64
	clients    int
	small      bool // held against the bare handler, else against the raw loop
	bundle     string

	zarpa, bare, raw []sample // one for each round
}

// subjects are the models, with requests of one row.
func (b *bench) subjects() ([]*subject, error) {
	digit, err := firstRow(filepath.Join(b.root, "examples", "digits", "heldout.json"))
	if err != nil {
		return nil, err
	}
	pixels := make([]float64, 3072)
	random := rand.New(rand.NewPCG(1, 2)) // the same on every run
	for i := range pixels {
		pixels[i] = float64(int64(random.Float64()*1e8)) / 1e8
	}
	large, err := json.Marshal(map[string]any{"data": [][]float64{pixels}})
	if err != nil {
		return nil, err
	}
	return []*subject{
		{name: "iris", file: filepath.Join(b.root, "examples", "iris", "iris.onnx"), body: []byte(irisBody), shape: []int64{1, 4}, clients: 16, small: true},
		{name: "digits", file: filepath.Join(b.root, "examples", "digits", "digits.onnx"), body: digit, shape: []int64{1, 1, 8, 8}, clients: 16, small: true},
		{name: "ten_ms", file: filepath.Join(b.root, "bench", "models", "ten_ms.onnx"), body: large, shape: []int64{1, 3072}, clients: 2},
	}, nil
}

// firstRow is a request with the first of an example's held-out rows.
func firstRow(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var heldout struct {
		Inputs []json.RawMessage `json:"inputs"`
	}
	if err := json.Unmarshal(text, &heldout); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return json.Marshal(map[string]any{"data": heldout.Inputs[:1]})
}

// measureScoring is part b.
func (b *bench) measureScoring(ctx context.Context, r *report) error {
	list, err := b.subjects()
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.bundle, err = b.unpack(ctx, s); err != nil {
			return err
		}
		if err := b.score(ctx, s); err != nil {
			return err
		}
	}
	r.scoring(list)
	return nil
}

// unpack makes the bundle of a model and unpacks it.
func (b *bench) unpack(ctx context.Context, s *subject) (string, error) {
	home := filepath.Join(b.temp, s.name)
	blobs, err := dir.Open(ctx, filepath.Join(home, "blobs"))
	if err != nil {
		return "", err
	}
	var stream bytes.Buffer // the models are small
	if err := bundle.TarFiles(ctx, &stream, s.file); err != nil {
		return "", err
	}
	content, err := bundle.WriteContent(ctx, blobs, &stream, bundle.Limits{})
	if err != nil {
		return "", err
	}
	digest, err := bundle.Build(ctx, blobs, zarpa.Bundle{Format: bundle.Format, Engine: "onnx", Models: []zarpa.BundleModel{
		{Name: s.name, Version: 1, Content: content, File: content.Files[0].Path},
	}})
	if err != nil {
		return "", err
	}
	return bundle.Unpack(ctx, blobs, digest, filepath.Join(home, "bundles"))
}

// score measures one model: zarpa's server and the bare one take turns, and the raw loop is third.
func (b *bench) score(ctx context.Context, s *subject) error {
	addresses := [2]string{"unix:" + filepath.Join(b.temp, "z.sock"), "unix:" + filepath.Join(b.temp, "b.sock")}
	request := requestText("/score", benchKey, s.body)
	ours, err := b.serve(ctx, "zarpa score", answers(addresses[0], request), "score", "--bundle", s.bundle, "--listen", addresses[0],
		"--threads", "1", "--max-concurrency", strconv.Itoa(s.clients), "--log-level", "warn")
	if err != nil {
		return err
	}
	defer ours.stop()
	spec := modelSpec{
		Listen: addresses[1], File: s.file, Library: b.library, Threads: 1, Shape: s.shape, Body: s.body,
		Concurrent: s.clients, Duration: b.scale.closed,
	}
	bare, err := b.role(ctx, "bare", spec, answers(addresses[1], request))
	if err != nil {
		return err
	}
	defer bare.stop()
	one := func(i int, on *process, into *[]sample) error {
		sm, err := b.load(ctx, on, loadSpec{Address: addresses[i], Request: request, Clients: s.clients, Duration: b.scale.closed})
		*into = append(*into, sm)
		return err
	}
	for round := range b.scale.rounds {
		b.say("b: scoring %s, round %d of %d", s.name, round+1, b.scale.rounds)
		steps := []func() error{
			func() error { return one(0, ours, &s.zarpa) },
			func() error { return one(1, bare, &s.bare) },
			func() error {
				var res loadResult
				err := b.ask(ctx, "raw", spec, &res)
				s.raw = append(s.raw, sample{loadResult: res, PerRequest: res.Processor * 1e6 / float64(max(res.Sent, 1))})
				return err
			},
		}
		for i := range steps {
			if err := steps[(i+round)%len(steps)](); err != nil {
				return err
			}
		}
	}
	return nil
}

// scoring reports part b.
func (r *report) scoring(list []*subject) {
	s := r.section("(b) The scoring server")
	s.text("`zarpa score` and the bare server (`net/http`, `encoding/json`, the same engine: `bench/bare.go`) take requests of one row over a " +
		"Unix socket, with keep-alive; the raw loop runs the model in one process with nothing around it. One thread for a run, as many runs " +
		"at a time as clients. Closed loop; medians of the rounds; quotients are medians of those round by round, with the least and the greatest. " +
		"Processor is the server's time for one request in µs; the load is a process of its own on the same cores, and what it needs for a request is in the last column. “By processor” is the raw loop's processor time for a run over " +
		"the server's for a request: what the quotient would be if load and machine cost nothing.")
	var rows [][]string
	for _, m := range list {
		for _, c := range []struct {
			name    string
			samples []sample
		}{{"zarpa score", m.zarpa}, {"bare handler", m.bare}, {"raw loop", m.raw}} {
			load := "–"
			if c.name != "raw loop" {
				load = us(middle(c.samples, loadCost))
			}
			rows = append(rows, []string{
				m.name, strconv.Itoa(m.clients), strconv.Itoa(len(m.body)), c.name, whole(middle(c.samples, perSecond)), us(middle(c.samples, p50)), us(middle(c.samples, p99)),
				us(middle(c.samples, perRequest)),
				spread(paired(each(c.samples, perSecond), each(m.bare, perSecond), quotient)),
				spread(paired(each(c.samples, perSecond), each(m.raw, perSecond), quotient)),
				fmt.Sprintf("%.3f", median(paired(each(m.raw, perRequest), each(c.samples, perRequest), quotient))), load,
			})
		}
	}
	s.table([]string{"model", "clients", "body, bytes", "server", "requests/s", "p50 µs", "p99 µs", "processor µs", "× bare", "× raw", "× raw by processor", "load µs"}, rows)
	for _, m := range list {
		r.scoringAim(m)
	}
}

func (r *report) scoringAim(m *subject) {
	if m.small {
		times := median(paired(each(m.zarpa, perSecond), each(m.bare, perSecond), quotient))
		r.aim(aim{
			what: "scoring " + m.name + " against the bare handler", want: "≥ 0.8 ×", got: fmt.Sprintf("%.2f ×", times), met: times >= 0.8,
			bound: fmt.Sprintf("Of a request zarpa uses %s µs, the bare handler %s µs, the load %s µs of the same processors.",
				us(middle(m.zarpa, perRequest)), us(middle(m.bare, perRequest)), us(middle(m.zarpa, loadCost))),
		})
		return
	}
	byClock := paired(each(m.zarpa, perSecond), each(m.raw, perSecond), quotient)
	byProcessor := paired(each(m.raw, perRequest), each(m.zarpa, perRequest), quotient)
	times, got := judge(byClock, byProcessor)
	around := middle(m.zarpa, perRequest) - middle(m.raw, perRequest)
	r.aim(aim{
		what: "scoring the 10 ms model against the raw loop", want: "≥ 0.97 ×", got: got, met: times >= 0.97,
		bound: fmt.Sprintf("The model itself takes %s µs of a processor. Zarpa's process uses %s µs more for a request of %d bytes, and the load, on the "+
			"same %d cores that the %d runs fill, %s µs: together %.1f %% of the model's time.", us(middle(m.raw, perRequest)), us(around), len(m.body),
			r.machine.cores, m.clients, us(middle(m.zarpa, loadCost)), 100*(around+middle(m.zarpa, loadCost))/middle(m.raw, perRequest)),
	})
}

// calm is how far a quotient of throughputs may spread over the rounds, greatest over least, for
// its median to decide on a few per cent.
const calm = 1.15

// judge takes the quotient of throughputs where the machine was calm enough for it, and else that of
// processor times, which other work on the machine harms least; it says which.
func judge(byClock, byProcessor []float64) (times float64, got string) {
	if slices.Max(byClock)/slices.Min(byClock) <= calm {
		times = median(byClock)
		return times, fmt.Sprintf("%.3f × (by processor time %.3f ×)", times, median(byProcessor))
	}
	times = median(byProcessor)
	return times, fmt.Sprintf("%.3f × by processor time; throughputs spread too far: %s", times, spread(byClock))
}
