package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
)

// compareClients are the numbers of clients that servers are compared with; halfway is the one
// that aims and the plot are about.
var compareClients = []int{1, halfway, mostClients}

const (
	halfway     = 16
	mostClients = 64
)

// measureScoring compares the forms that zarpa score speaks with the bare handler and the raw loop.
func (b *bench) measureScoring(ctx context.Context, r *report) error {
	models, err := b.models(ctx)
	models = slices.DeleteFunc(models, func(m *model) bool { return m.forBatches })
	if err != nil || len(models) == 0 {
		return err
	}
	var fields []*contest
	for _, m := range models {
		f, err := b.scoringField(ctx, m, r.machine.cores)
		if err != nil {
			return err
		}
		fields = append(fields, f)
	}
	r.scoring(fields)
	return nil
}

// scoringField measures one model over Unix sockets.
func (b *bench) scoringField(ctx context.Context, m *model, cores int) (*contest, error) {
	at := b.sockets()
	f, err := b.assemble(ctx, m, []server{
		b.zarpaServer(fitted, ownForms, at, m.tuned(mostClients, cores)...),
		b.bareServer(at),
	})
	defer f.stop()
	if err != nil {
		return nil, err
	}
	f.addRaw(rawName, cores, 1)
	if m.heavy { // where it is held against the raw loop
		f.clients = slices.Compact(slices.Sorted(slices.Values(append([]int{cores}, f.clients...))))
	}
	return f, f.measure(ctx, "scoring")
}

// scoring reports it.
func (r *report) scoring(fields []*contest) {
	s := r.section("Scoring: forms of a request")
	s.text("`zarpa score` (one thread for a run; of the 10 ms model as many runs at a time as there are processors) and the bare server (`net/http`, " +
		"`encoding/json`, and grpc-go as it comes, the same engine: `bench/bare.go`) take requests of one row over a Unix socket, with connections kept; the raw loop runs the " +
		"model in one process with nothing around it.")
	s.legend(fields[0].rounds)
	for _, f := range fields {
		s.field(f)
	}
	for _, f := range fields {
		if f.model.heavy {
			r.rawAim(f, formBinary, 0.97)
			r.rawAim(f, formScore, 0.93)
		} else {
			r.bareAim(f)
		}
	}
}

// legend says what the columns of a field's table are.
func (s *section) legend(rounds int) {
	s.text("JSON is `{\"data\": …}` on `/score`; v2 is the Open Inference Protocol; v2 binary has the tensors behind the JSON, as tritonclient sends them. "+
		"gRPC is ModelInfer with raw contents, on the address of HTTP or on one of its own, over at most %d connections, by a load that costs more of the same processors than that of HTTP does. "+
		"Closed loop; medians of the %d rounds, in which all take turns, with the least and the greatest in parentheses; quotients are medians of those round by round. Processor is the server's time for one request in µs, of all "+
		"its processes, user and system; load is the load generator's. “× bare” compares throughputs with the bare handler's JSON; “by processor” is the bare handler's processor time over the server's, "+
		"and the raw loop's over the server's: what the quotients would be if load and machine cost nothing.", grpcConnections, rounds)
}

// field writes the table of one model.
func (s *section) field(f *contest) {
	s.text("**%s**, %d values; a request has %d bytes as JSON and %d as v2 binary:", f.model.name, len(f.model.row), f.size(formScore), f.size(formBinary))
	var rows [][]string
	for _, clients := range f.clients {
		for _, c := range f.list {
			rows = append(rows, f.row(c, clients))
		}
	}
	s.table([]string{"server", "setting", "form", "clients", "requests/s", "× bare", "p50 µs", "p99 µs", "processor µs", "× bare by processor", "× raw by processor", "load µs"}, rows)
}

// size is how long a request is.
func (f *contest) size(form form) int {
	request, err := f.model.request(form)
	if err != nil {
		return 0
	}
	return len(request)
}

func (f *contest) row(c *contestant, clients int) []string {
	row := []string{c.name, c.setting, string(c.form), strconv.Itoa(clients)}
	list := c.samples[clients]
	if c.absent != "" || len(list) == 0 {
		return append(row, "not measured: "+c.absent, "–", "–", "–", "–", "–", "–", "–")
	}
	load := "–"
	if c.form != formNone {
		load = us(middle(list, loadCost))
	}
	return append(row, spreadWhole(each(list, perSecond)), f.against(bareName, formScore, c, comparison{clients, faster}), us(middle(list, p50)), us(middle(list, p99)),
		us(middle(list, perRequest)), f.against(bareName, formScore, c, comparison{clients, cheaper}), f.against(rawName, formNone, c, comparison{clients, cheaper}), load)
}

// against is the median of a contestant's quotients to another.
func (f *contest) against(name string, form form, c *contestant, at comparison) string {
	quotients := f.quotients(name, form, c, at)
	if len(quotients) == 0 {
		return "–"
	}
	return ratio(median(quotients), 2)
}

// comparison is how many clients a comparison is about, and what is compared.
type comparison struct {
	clients int
	times   func(mine, other sample) float64
}

func faster(mine, other sample) float64  { return mine.PerSecond / other.PerSecond }
func cheaper(mine, other sample) float64 { return other.PerRequest / mine.PerRequest }

// quotients compares a contestant with another round by round; none where one was not measured.
func (f *contest) quotients(name string, form form, c *contestant, at comparison) []float64 {
	i := slices.IndexFunc(f.list, func(o *contestant) bool { return o.name == name && o.form == form })
	if i < 0 || c == nil {
		return nil
	}
	mine, other := c.samples[at.clients], f.list[i].samples[at.clients]
	if len(mine) != len(other) { // one of them failed in some round
		return nil
	}
	out := make([]float64, len(mine))
	for i := range out {
		out[i] = at.times(mine[i], other[i])
	}
	return out
}

// bareAim holds a small model against the bare handler.
func (r *report) bareAim(f *contest) {
	ours := f.find(zarpaName, fitted, formScore)
	bare := f.find(bareName, "–", formScore)
	if ours == nil || bare == nil {
		return
	}
	times, got := judge(f.quotients(bareName, formScore, ours, comparison{halfway, faster}), f.quotients(bareName, formScore, ours, comparison{halfway, cheaper}))
	r.aim(aim{
		what: fmt.Sprintf("scoring %s as JSON against the bare handler, %d clients", f.model.name, halfway), want: "≥ 1.2 ×", got: got, met: times >= 1.2,
		bound: fmt.Sprintf("Of a request zarpa uses %s µs, the bare handler %s µs, the load %s µs of the same processors.",
			us(middle(ours.samples[halfway], perRequest)), us(middle(bare.samples[halfway], perRequest)), us(middle(ours.samples[halfway], loadCost))),
	})
}

// rawAim holds a heavy model against the raw loop, with as many clients as processors.
func (r *report) rawAim(f *contest, form form, least float64) {
	what := fmt.Sprintf("scoring %s as %s against the raw loop, %d clients", f.model.name, form, r.machine.cores)
	want := fmt.Sprintf("≥ %.2f ×", least)
	ours, clients := f.find(zarpaName, fitted, form), r.machine.cores
	raw := f.find(rawName, "–", formNone)
	if ours == nil || raw == nil {
		r.aim(aim{what: what, want: want, got: "not measured", bound: "The server does not speak this form."})
		return
	}
	times, got := judge(f.quotients(rawName, formNone, ours, comparison{clients, faster}), f.quotients(rawName, formNone, ours, comparison{clients, cheaper}))
	model, load := middle(raw.samples[clients], perRequest), middle(ours.samples[clients], loadCost)
	around := middle(ours.samples[clients], perRequest) - model
	r.aim(aim{
		what: what, want: want, got: got, met: times >= least,
		bound: fmt.Sprintf("The model itself takes %s µs of a processor. Zarpa's process uses %s µs more for a request of %d bytes, and the load, on the "+
			"same %d processors that the runs fill, %s µs: together %.1f %% of the model's time.", us(model), us(around), f.size(form), clients, us(load), 100*(around+load)/model),
	})
}

// calm is how far a quotient of throughputs may spread over the rounds, greatest over least, for
// its median to decide on a few per cent.
const calm = 1.15

// judge takes the quotient of throughputs where the machine was calm enough for it, and else that of
// processor times, which other work on the machine harms least; it says which.
func judge(byClock, byProcessor []float64) (times float64, got string) {
	if len(byClock) == 0 {
		return 0, "not measured"
	}
	if slices.Max(byClock)/slices.Min(byClock) <= calm {
		times = median(byClock)
		return times, fmt.Sprintf("%.3f × (by processor time %s ×)", times, ratio(median(byProcessor), 3))
	}
	times = median(byProcessor)
	return times, fmt.Sprintf("%s × by processor time; throughputs spread too far: %s", ratio(times, 3), spread(byClock))
}
