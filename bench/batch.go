package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// batchSizes are the static batches that are tried.
var batchSizes = []int{1, 2, 4, 8, 16, 32, 64}

// batchDelay is the longest that a request may wait for company.
const batchDelay = 2 * time.Millisecond

// batchRows bounds zarpa's batches: so that one gathers while another runs with the most clients.
// The replica finds the best size up to it by itself.
const batchRows = mostClients / 2

const (
	batchOff = "batching off"
	batchOn  = "batching on"
)

// batched is batching on one model.
type batched struct {
	*contest
	tried  map[int][]sample // of the raw loop, by rows in a run
	best   int              // of those, the one with most rows per second
	single *contestant      // the raw loop with one row in a run
	static *contestant      // the raw loop with the best batch
}

// measureBatch compares zarpa score with and without dynamic batching, and both with the best batch
// that somebody could choose who knows all requests beforehand.
func (b *bench) measureBatch(ctx context.Context, r *report) error {
	models, err := b.models(ctx)
	if err != nil {
		return err
	}
	var list []*batched
	for _, m := range models {
		if m.name == "iris" { // as cheap as forest
			continue
		}
		x, err := b.batch(ctx, m, r.machine.cores)
		if err != nil {
			return err
		}
		list = append(list, x)
	}
	r.batch(list)
	return nil
}

// batch measures one model.
func (b *bench) batch(ctx context.Context, m *model, cores int) (*batched, error) {
	x := &batched{tried: map[int][]sample{}}
	if err := b.staticBatches(ctx, x, m, cores); err != nil {
		return nil, err
	}
	at, forms := b.sockets(), []form{formScore, formBinary}
	f, err := b.assemble(ctx, m, []server{
		b.zarpaServer(batchOff, forms, at, m.tuned(mostClients, cores)...),
		// Requests that wait for company are in work: there must be room for all of them.
		b.zarpaServer(batchOn, forms, at, "--threads", "1", "--max-concurrency", strconv.Itoa(2*mostClients), "--queue", strconv.Itoa(4*mostClients),
			"--max-batch-rows", strconv.Itoa(batchRows), "--max-batch-delay", batchDelay.String()),
	})
	x.contest = f
	defer f.stop()
	if err != nil {
		return nil, err
	}
	x.single, x.static = f.addRaw(rawName, cores, 1), f.addRaw("static batch", cores, x.best)
	return x, f.measure(ctx, "batch")
}

// staticBatches lets the raw loop run batches of each size, one run at a time on each processor.
func (b *bench) staticBatches(ctx context.Context, x *batched, m *model, cores int) error {
	for round := range b.scale.rounds {
		b.say("batch: %s, static batches, round %d of %d", m.name, round+1, b.scale.rounds)
		for i := range batchSizes {
			size := batchSizes[(i+round)%len(batchSizes)]
			s, err := b.rawOnce(ctx, m, cores, size)
			if err != nil {
				return err
			}
			x.tried[size] = append(x.tried[size], s)
		}
	}
	x.best = slices.MaxFunc(batchSizes, func(a, b int) int {
		return int(middle(x.tried[a], perSecond) - middle(x.tried[b], perSecond))
	})
	return nil
}

// batch reports it.
func (r *report) batch(list []*batched) {
	s := r.section("Batching")
	s.text("The static batch is the raw loop with a batch of each size from %d to %d, one run at a time on each processor: rows per second and processor time for a row, with nothing around it.", batchSizes[0], batchSizes[len(batchSizes)-1])
	head := []string{"model"}
	for _, size := range batchSizes {
		head = append(head, strconv.Itoa(size))
	}
	var rows [][]string
	for _, x := range list {
		row := []string{x.model.name}
		for _, size := range batchSizes {
			row = append(row, fmt.Sprintf("%s/s, %s µs", whole(middle(x.tried[size], perSecond)), us(middle(x.tried[size], perRequest))))
		}
		rows = append(rows, append(row, fmt.Sprintf("%d: %.2f ×", x.best, x.worth())))
	}
	s.table(append(head, "best, against single rows"), rows)
	s.text("`zarpa score` with and without `--max-batch-rows %d` and `--max-batch-delay %s`, one thread for a run, requests of one row over a Unix socket. "+
		"Quotients are medians of those round by round. “Of the bound”, by processor time: the least that a request could cost is what the server spends around the model (its time for a request without batching, less the raw loop's for a single row) and a row's share of the best static batch; "+
		"the figure is that over what a request did cost. “× static” is throughput over that of the best static batch, which has neither HTTP nor load on its processors.", batchRows, batchDelay)
	rows = nil
	for _, x := range list {
		for _, clients := range x.clients {
			for _, c := range x.list {
				rows = append(rows, x.line(c, clients))
			}
		}
	}
	s.table([]string{"model", "server", "setting", "form", "clients", "requests/s", "× off", "p50 µs", "p99 µs", "processor µs", "of the bound", "× static"}, rows)
	for _, x := range list {
		r.batchAims(x)
	}
}

// worth is what the best static batch gains on single rows.
func (x *batched) worth() float64 {
	return median(paired(each(x.tried[x.best], perSecond), each(x.tried[1], perSecond), quotient))
}

func (x *batched) line(c *contestant, clients int) []string {
	row := []string{x.model.name, c.name, c.setting, string(c.form), strconv.Itoa(clients)}
	list := c.samples[clients]
	if len(list) == 0 {
		return append(row, "not measured: "+c.absent, "–", "–", "–", "–", "–", "–")
	}
	times, bound, latency := "–", "–", []string{"–", "–"}
	if off := x.find(zarpaName, batchOff, c.form); off != nil {
		times = spread(paired(each(list, perSecond), each(off.samples[clients], perSecond), quotient))
		bound = ratio(median(x.ofBound(c, off, clients)), 2)
		latency = []string{us(middle(list, p50)), us(middle(list, p99))}
	}
	return append(row, spreadWhole(each(list, perSecond)), times, latency[0], latency[1], us(middle(list, perRequest)), bound,
		fmt.Sprintf("%.2f", median(paired(each(list, perSecond), each(x.static.samples[clients], perSecond), quotient))))
}

// ofBound is, round by round, the least processor time that a request could need over what it needed.
func (x *batched) ofBound(c, off *contestant, clients int) []float64 {
	single, static := x.single.samples[clients], x.static.samples[clients]
	out := make([]float64, min(len(c.samples[clients]), len(off.samples[clients])))
	for i := range out {
		around := max(off.samples[clients][i].PerRequest-single[i].PerRequest, 0)
		out[i] = (around + static[i].PerRequest) / c.samples[clients][i].PerRequest
	}
	return out
}

// batchAims: under load near the best static batch, and under light load never later than the
// delay. Around a small model HTTP costs many times what a batch does: there the bound counts that.
func (r *report) batchAims(x *batched) {
	on, off := x.find(zarpaName, batchOn, formBinary), x.find(zarpaName, batchOff, formBinary)
	if on == nil || off == nil {
		return
	}
	busy, static := on.samples[mostClients], x.static.samples[mostClients]
	a := aim{
		what: fmt.Sprintf("batching %s at %d clients, of the bound by processor time", x.model.name, mostClients), want: "≥ 0.95",
		bound: fmt.Sprintf("A request takes %s µs of a processor with batching and %s µs without; a row takes %s µs of it in a batch of %d and %s µs alone. The load takes %s µs for a request.", us(middle(busy, perRequest)),
			us(middle(off.samples[mostClients], perRequest)), us(middle(static, perRequest)), x.best, us(middle(x.single.samples[mostClients], perRequest)), us(middle(busy, loadCost))),
	}
	times := median(x.ofBound(on, off, mostClients))
	a.got = ratio(times, 2)
	if x.model.heavy {
		a.what = fmt.Sprintf("batching %s at %d clients against the best static batch", x.model.name, mostClients)
		byProcessor := paired(each(static, perRequest), each(busy, perRequest), quotient)
		times, a.got = judge(paired(each(busy, perSecond), each(static, perSecond), quotient), byProcessor)
	}
	a.met = times >= 0.95
	r.aim(a)
	later := median(paired(each(on.samples[1], p50), each(off.samples[1], p50), difference))
	r.aim(aim{
		what: fmt.Sprintf("batching %s with one client, later by", x.model.name), want: "≤ " + batchDelay.String(), got: us(later) + " µs",
		met: later <= micro(batchDelay), bound: "One client was kept waiting for company.",
	})
}
