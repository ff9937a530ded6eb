package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// server is a program in one setting that serves a model.
type server struct {
	name, setting string
	forms         []form
	// launch starts it and returns when it answers.
	launch func(context.Context, *model) (*running, error)
}

// running is a server that runs.
type running struct {
	*process
	http  string          // its address
	other map[form]string // addresses of forms that are spoken elsewhere
	took  time.Duration   // from its start to the first answer
}

// address is where a form is spoken.
func (r *running) address(f form) string {
	if a, ok := r.other[f]; ok {
		return a
	}
	return r.http
}

// contestant is a server in one of the forms that it speaks, or the raw loop.
type contestant struct {
	name, setting string
	form          form
	batch         int      // rows of a run, for the raw loop
	running       *running // nil for the raw loop, and for one that is absent
	absent        string   // why it is not measured
	request       []byte
	samples       map[int][]sample // by clients, one for each round
}

// contest is all contestants on one model.
type contest struct {
	bench   *bench
	model   *model
	clients []int
	list    []*contestant
	cores   int // runs of the raw loop at a time, at most
	rounds  int
	servers []*running
}

// assemble starts servers one after the other. One that does not come up, or does not answer a
// form, is listed with the reason; a zarpa that does not come up is a failure. stop must be called
// in any case.
func (b *bench) assemble(ctx context.Context, m *model, servers []server) (*contest, error) {
	f := &contest{bench: b, model: m, clients: compareClients, rounds: b.scale.rounds}
	for _, s := range servers {
		run, err := s.launch(ctx, m)
		switch {
		case err == nil:
			f.servers = append(f.servers, run)
		case ctx.Err() != nil || isOurs(s.name):
			return f, err
		default:
			b.say("   %s, %s: %.2000v", s.name, s.setting, err)
		}
		for _, form := range s.forms {
			c := &contestant{name: s.name, setting: s.setting, form: form, running: run, samples: map[int][]sample{}}
			request, failed := m.request(form)
			if failed != nil {
				return f, failed
			}
			c.request = request
			if run == nil {
				c.absent = "did not start: " + reason(err)
			} else if err := run.answers(ctx, form, c.request); err != nil {
				c.absent = reason(err)
				b.say("   %s, %s, %s: %v", s.name, s.setting, form, err)
			}
			f.list = append(f.list, c)
		}
	}
	return f, nil
}

// reason is an error in the few words that a table has room for.
func reason(err error) string {
	text := err.Error()
	if len(text) > 80 {
		text = text[:80] + "…"
	}
	return text
}

// answers asks once in a form.
func (r *running) answers(ctx context.Context, f form, request []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if !f.isGRPC() {
		return answers(r.address(f), request)(ctx)
	}
	conn, err := dialGRPC(r.address(f))
	if err != nil {
		return err
	}
	defer conn.Close()
	return inferOnce(ctx, conn, request)
}

// stop ends all servers, the last one first.
func (f *contest) stop() {
	for _, s := range slices.Backward(f.servers) {
		s.stop()
	}
}

// addRaw lets the raw loop take part: as many runs at a time as there are clients or processors,
// each of so many rows.
func (f *contest) addRaw(name string, cores, batch int) *contestant {
	c := &contestant{name: name, setting: "–", form: formNone, batch: batch, samples: map[int][]sample{}}
	f.list = append(f.list, c)
	f.cores = cores
	return c
}

// find is the contestant of a name, setting and form; nil when it is not there or was not measured.
func (f *contest) find(name, setting string, form form) *contestant {
	for _, c := range f.list {
		if c.name == name && c.setting == setting && c.form == form && c.absent == "" {
			return c
		}
	}
	return nil
}

// measure lets the contestants take turns, in another order each round.
func (f *contest) measure(ctx context.Context, part string) error {
	b := f.bench
	for round := range f.rounds {
		b.say("%s: %s, round %d of %d", part, f.model.name, round+1, f.rounds)
		for _, clients := range f.clients {
			for i := range f.list {
				c := f.list[(i+round)%len(f.list)]
				if c.absent != "" {
					continue
				}
				s, err := f.one(ctx, c, clients)
				if ctx.Err() != nil {
					return errors.Join(err, ctx.Err())
				}
				if err != nil && c.mustAnswer() {
					return err
				}
				if err != nil {
					c.absent = reason(err)
					b.say("   %s, %s: %v", c.name, c.form, err)
					continue
				}
				c.samples[clients] = append(c.samples[clients], s)
			}
		}
	}
	return nil
}

// mustAnswer tells a contestant of ours, whose failures are ours.
func (c *contestant) mustAnswer() bool {
	return c.form == formNone || isOurs(c.name)
}

// isOurs tells zarpa, in whatever way it serves, and this program's own servers from peers.
func isOurs(name string) bool {
	return strings.HasPrefix(name, zarpaName) || name == bareName || name == emptyName
}

// one measures a contestant once.
func (f *contest) one(ctx context.Context, c *contestant, clients int) (sample, error) {
	b := f.bench
	if c.form == formNone {
		return b.rawOnce(ctx, f.model, min(clients, f.cores), c.batch)
	}
	return b.load(ctx, c.running.process, loadSpec{
		Address: c.running.address(c.form), Request: c.request, GRPC: c.form.isGRPC(), Clients: clients, Duration: f.duration(clients),
	})
}

// turn is what a client of a heavy model waits for each other client, generously.
const turn = 20 * time.Millisecond

// duration is that of one run. A heavy model answers less often and gets more time, and more still
// for many clients, so that each of them is answered several times.
func (f *contest) duration(clients int) time.Duration {
	if f.model.heavy {
		return 2*f.bench.scale.compare + time.Duration(clients)*turn
	}
	return f.bench.scale.compare
}

// rawOnce runs the raw loop once, with so many runs at a time of so many rows. The sample counts
// rows, not runs.
func (b *bench) rawOnce(ctx context.Context, m *model, concurrent, batch int) (sample, error) {
	spec := modelSpec{
		File: m.file, Library: b.library, Threads: 1, Input: m.input, Shape: m.shape, Data: m.raw(),
		Batch: batch, Concurrent: concurrent, Duration: b.scale.compare,
	}
	if m.heavy {
		spec.Duration *= 2
	}
	var res loadResult
	if err := b.ask(ctx, "raw", spec, &res); err != nil {
		return sample{}, err
	}
	res.PerSecond *= float64(batch)
	res.Sent *= batch
	return sample{loadResult: res, PerRequest: res.Processor * 1e6 / float64(max(res.Sent, 1))}, nil
}

const (
	zarpaName = "zarpa score"
	bareName  = "bare handler"
	rawName   = "raw loop"
	fitted    = "one thread a run"
)

// ownForms are all that zarpa score speaks.
var ownForms = []form{formScore, formV2, formBinary, formGRPC, formGRPCOwn}

// zarpaServer is zarpa score with flags. Its addresses come from at.
func (b *bench) zarpaServer(setting string, forms []form, at addresser, flags ...string) server {
	return server{name: zarpaName, setting: setting, forms: forms, launch: func(ctx context.Context, m *model) (*running, error) {
		addresses, err := at(ctx, 2)
		if err != nil {
			return nil, err
		}
		address, own := addresses[0], addresses[1]
		request, err := m.request(formScore)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		args := append([]string{"score", "--bundle", m.bundle, "--listen", address, "--log-level", "warn"}, flags...)
		if slices.Contains(forms, formGRPCOwn) {
			args = append(args, "--grpc", own)
		}
		p, err := b.serve(ctx, zarpaName, answers(address, request), args...)
		if err != nil {
			return nil, err
		}
		return &running{process: p, http: address, other: map[form]string{formGRPCOwn: own}, took: time.Since(start)}, nil
	}}
}

// bareServer is this program in the role of the bare handler.
func (b *bench) bareServer(at addresser) server {
	return server{name: bareName, setting: "–", forms: []form{formScore, formGRPC}, launch: func(ctx context.Context, m *model) (*running, error) {
		addresses, err := at(ctx, 2)
		if err != nil {
			return nil, err
		}
		address, second := addresses[0], addresses[1]
		request, err := m.request(formScore)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		p, err := b.role(ctx, "bare", modelSpec{
			Listen: address, ListenGRPC: second, File: m.file, Library: b.library, Threads: 1, Input: m.input, Shape: m.shape,
		}, answers(address, request))
		if err != nil {
			return nil, err
		}
		return &running{process: p, http: address, other: map[form]string{formGRPC: second}, took: time.Since(start)}, nil
	}}
}

// addresser makes addresses that nobody uses.
type addresser func(ctx context.Context, n int) ([]string, error)

// sockets are Unix sockets in the bench's own folder.
func (b *bench) sockets() addresser {
	return func(_ context.Context, n int) ([]string, error) {
		list := make([]string, n)
		for i := range list {
			b.socketCount++
			list[i] = "unix:" + filepath.Join(b.temp, strconv.Itoa(b.socketCount)+".sock")
		}
		return list, nil
	}
}

// tuned are the flags of zarpa score that suit a model best: one thread for a run.
func (m *model) tuned(clients, cores int) []string {
	return []string{"--threads", "1", "--max-concurrency", strconv.Itoa(m.runs(clients, cores)), "--queue", strconv.Itoa(4 * clients)}
}
