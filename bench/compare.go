package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// aimed is the model that the aims against peers are about.
const aimed = "forest"

// peerRounds bounds the rounds with peers: there are many of them, and what they differ by is large.
const peerRounds = 3

// weight is what a server takes before and after it answered many requests.
type weight struct {
	model         string
	name, setting string
	absent        string
	took          float64 // seconds from its start to the first answer
	idle, after   memory
}

// measurePeers compares zarpa score with what others serve models with.
func (b *bench) measurePeers(ctx context.Context, r *report) error {
	models, err := b.models(ctx)
	models = slices.DeleteFunc(models, func(m *model) bool { return m.forBatches })
	if err != nil || len(models) == 0 {
		return err
	}
	servers, err := b.peerServers(r.settings.peers)
	if err != nil {
		return err
	}
	lightest := models[max(slices.IndexFunc(models, func(m *model) bool { return m.name == aimed }), 0)]
	weights, err := b.weigh(ctx, lightest, servers)
	if err != nil {
		return err
	}
	var fields []*contest
	for _, m := range models {
		b.say("peers: start all for %s", m.name)
		f, err := b.peersField(ctx, m, servers, r.machine.cores)
		if err != nil {
			return err
		}
		fields = append(fields, f)
	}
	r.peers(fields, weights)
	return nil
}

// peerServers are zarpa and the bare handler, and the peers that were asked for, on the loopback.
func (b *bench) peerServers(asked string) ([]server, error) {
	list := []server{
		b.zarpaServer("default", []form{formScore}, freePorts),
		b.zarpaServer(fitted, ownForms, freePorts, "--threads", "1"),
		b.bareServer(freePorts),
	}
	known := allPeers()
	var names []string
	for _, p := range known {
		names = append(names, p.folder)
	}
	wanted := strings.FieldsFunc(asked, func(r rune) bool { return r == ',' })
	for _, w := range wanted {
		if w != "all" && w != "none" && !slices.Contains(names, w) {
			return nil, fmt.Errorf("-peers: %q is not known; there are all, none, %s", w, strings.Join(names, ", "))
		}
	}
	for _, p := range known {
		if !slices.Contains(wanted, p.folder) && (p.optional || !slices.Contains(wanted, "all")) {
			continue
		}
		for _, s := range p.settings {
			list = append(list, b.peerServer(p, s))
		}
	}
	return list, nil
}

// weigh starts each server alone, so that it shares no page with another, and reads its memory
// before and after a load.
func (b *bench) weigh(ctx context.Context, m *model, servers []server) ([]weight, error) {
	var list []weight
	for _, s := range servers {
		b.say("peers: memory of %s, %s", s.name, s.setting)
		w := weight{model: m.name, name: s.name, setting: s.setting}
		run, err := s.launch(ctx, m)
		if err == nil {
			w.took, w.idle = run.took.Seconds(), run.memory()
			var request []byte
			if request, err = m.request(s.forms[0]); err == nil {
				_, err = b.load(ctx, run.process, loadSpec{Address: run.address(s.forms[0]), Request: request, Clients: halfway, Duration: b.scale.compare})
			}
			w.after = run.memory()
			run.stop()
		}
		if ctx.Err() != nil {
			return nil, errors.Join(err, ctx.Err())
		}
		if err != nil {
			w.absent = reason(err)
			b.say("   %s, %s: %v", s.name, s.setting, err)
		}
		list = append(list, w)
	}
	return list, nil
}

// peersField measures one model in all servers, over TCP on the loopback.
func (b *bench) peersField(ctx context.Context, m *model, servers []server, cores int) (*contest, error) {
	f, err := b.assemble(ctx, m, servers)
	defer f.stop()
	if err != nil {
		return nil, err
	}
	f.addRaw(rawName, cores, 1)
	f.rounds = min(f.rounds, peerRounds)
	return f, f.measure(ctx, "peers")
}

// peers reports it.
func (r *report) peers(fields []*contest, weights []weight) {
	s := r.section("Peers: the same models in other servers")
	s.text("All serve the same ONNX file through the same release of ONNX Runtime and listen on TCP on the loopback. Each peer runs in its default setting and in one tuned for two processors " +
		"(`bench/peers.go`), as its documentation recommends (`bench/peers/*.py`), with the releases that `bench/peers/*.txt` pin. Triton runs with a Python model that calls ONNX Runtime, because the one that can be had from PyPI has no back end for ONNX. " +
		"All run at the same time; those that wait do next to nothing.")
	s.legend(fields[0].rounds)
	r.ratios(s, fields)
	if r.plot != "" {
		s.text("![Requests per second of each server, for each model](%s)", r.plot)
	}
	for _, f := range fields {
		s.field(f)
	}
	s.text("Start and memory with %s, each server alone: seconds from the start of the process to the first answer, MiB before and after %d clients kept it busy. Share is the sum over its processes with shared pages divided "+
		"among them (PSS), resident the sum without that (RSS).", weights[0].model, halfway)
	var rows [][]string
	for _, w := range weights {
		if w.absent != "" {
			rows = append(rows, []string{w.name, w.setting, "not measured: " + w.absent, "–", "–", "–", "–"})
			continue
		}
		rows = append(rows, []string{w.name, w.setting, fmt.Sprintf("%.2f", w.took), whole(w.idle.Share), whole(w.after.Share), whole(w.idle.Resident), whole(w.after.Resident)})
	}
	s.table([]string{"server", "setting", "first answer, s", "share, idle", "share, after", "resident, idle", "resident, after"}, rows)
	for _, f := range fields {
		r.bars = append(r.bars, f.bars()...)
		if f.model.name == aimed {
			r.peerAims(f)
		}
	}
	r.memoryAim(weights)
}

// standing is zarpa against a peer on one model: the fastest of each that speaks JSON.
type standing struct {
	ours, theirs *contestant
}

// faster is the quotient of throughputs, round by round; none when one was not measured.
func (s standing) faster() []float64 {
	if s.ours == nil || s.theirs == nil {
		return nil
	}
	return paired(each(s.ours.samples[halfway], perSecond), each(s.theirs.samples[halfway], perSecond), quotient)
}

// cheaper is how many times the peer's processor time for a request is zarpa's.
func (s standing) cheaper() float64 {
	return middle(s.theirs.samples[halfway], perRequest) / middle(s.ours.samples[halfway], perRequest)
}

// ratios is the table of zarpa against each other server.
func (r *report) ratios(s *section, fields []*contest) {
	s.text("How many times as many requests per second zarpa answers as each, with %d clients and JSON, each in its faster setting; and in brackets how many times as much processor time the other needs for one.", halfway)
	head := []string{"zarpa score against"}
	for _, f := range fields {
		head = append(head, f.model.name)
	}
	names := []string{bareName}
	for _, p := range allPeers() {
		names = append(names, p.name)
	}
	var rows [][]string
	for _, name := range names {
		row := []string{name}
		measured := false
		for _, f := range fields {
			st := standing{f.fastest(zarpaName), f.fastest(name)}
			times := st.faster()
			if len(times) == 0 {
				row = append(row, "–")
				continue
			}
			measured = true
			row = append(row, fmt.Sprintf("%.2f × [%s]", median(times), ratio(st.cheaper(), 2)))
		}
		if measured {
			rows = append(rows, row)
		}
	}
	s.table(head, rows)
}

// peerAims holds zarpa against each peer that there is an aim for, on one model.
func (r *report) peerAims(f *contest) {
	for _, p := range allPeers() {
		st := standing{f.fastest(zarpaName), f.fastest(p.name)}
		quotients := st.faster()
		if p.least == 0 || len(quotients) == 0 {
			continue
		}
		mine, other := st.ours.samples[halfway], st.theirs.samples[halfway]
		r.aim(aim{
			what: fmt.Sprintf("scoring %s as JSON against %s (%s), %d clients", f.model.name, p.name, st.theirs.setting, halfway),
			want: "≥ " + strconv.FormatFloat(p.least, 'g', -1, 64) + " ×", got: spread(quotients) + " ×", met: median(quotients) >= p.least,
			bound: fmt.Sprintf("Of processor time zarpa needs %s µs for a request and %s %s µs, which is %s ×; the load needs %s µs of the same processors.",
				us(middle(mine, perRequest)), p.name, us(middle(other, perRequest)), ratio(st.cheaper(), 2), us(middle(mine, loadCost))),
		})
	}
}

// fastest is the contestant of a name that answers most requests as JSON; nil when none was measured.
func (f *contest) fastest(name string) *contestant {
	var best *contestant
	for _, c := range f.list {
		asJSON := c.form == formScore || c.form == formV2
		if c.name != name || !asJSON || c.absent != "" || len(c.samples[halfway]) == 0 {
			continue
		}
		if best == nil || middle(c.samples[halfway], perSecond) > middle(best.samples[halfway], perSecond) {
			best = c
		}
	}
	return best
}

// memoryAim holds zarpa's memory against the least of all others.
func (r *report) memoryAim(weights []weight) {
	var ours, least *weight
	for i := range weights {
		w := &weights[i]
		switch {
		case w.absent != "" || w.after.Share == 0: // no /proc
		case w.name == zarpaName:
			if ours == nil || w.after.Share > ours.after.Share {
				ours = w
			}
		case least == nil || w.after.Share < least.after.Share:
			least = w
		}
	}
	if ours == nil || least == nil {
		return
	}
	r.aim(aim{
		what: "memory with a small model under load, against the least of the others (" + least.name + ")", want: "less",
		got: fmt.Sprintf("%s MiB, and %s", whole(ours.after.Share), whole(least.after.Share)), met: ours.after.Share < least.after.Share,
		bound: "ONNX Runtime's library and the model are most of it in both.",
	})
}
