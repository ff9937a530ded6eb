package main

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// scriptName is zarpa score with a scoring script, and batchName the same where the script takes
	// several requests at once, as no other server's script does.
	scriptName = "zarpa score, script"
	batchName  = "zarpa score, run_batch"
)

// scriptPeers are the environments of the peers that the script is compared with.
var scriptPeers = []string{azureFolder, "mlserver", "litserve", "bentoml"}

// scriptClients are the numbers of clients that scripts are measured with.
var scriptClients = []int{1, halfway}

// measurePython measures scoring scripts: beside other servers, the way to a worker, memory, and the
// time from a change to its answer.
func (b *bench) measurePython(ctx context.Context, r *report) error {
	python, err := b.scriptPython(ctx, r.settings.peers)
	if err != nil {
		return err
	}
	for _, measure := range []func(context.Context, *report, string) error{b.measureScript, b.measureEmpty, b.measureLarge, b.measureLive} {
		if err := measure(ctx, r, python); err != nil {
			return err
		}
	}
	return nil
}

// scriptPython is the interpreter of the workers: that of azureml-inference-server, so that both run
// the same packages, or without peers any Python.
func (b *bench) scriptPython(ctx context.Context, asked string) (string, error) {
	if !isAsked(asked, azureFolder) {
		return exec.LookPath("python3")
	}
	home, err := b.install(ctx, azureFolder)
	return filepath.Join(home, "bin", "python"), err
}

// isAsked tells whether -peers names a peer.
func isAsked(asked, folder string) bool {
	names := strings.Split(asked, ",")
	return slices.Contains(names, "all") || slices.Contains(names, folder)
}

// scoringScript is how zarpa score serves a script of bench/peers.
type scoringScript struct {
	name, setting string
	entry, python string
	env, flags    []string
}

// scriptServer is zarpa score with a script, on the loopback.
func (b *bench) scriptServer(s scoringScript) server {
	return server{name: s.name, setting: s.setting, forms: jsonForm, launch: func(ctx context.Context, m *model) (*running, error) {
		request, err := m.request(formScore)
		if err != nil {
			return nil, err
		}
		ports, err := freePorts(ctx, 1)
		if err != nil {
			return nil, err
		}
		at := &place{home: filepath.Dir(filepath.Dir(s.python)), scripts: filepath.Join(b.root, "bench", "peers"), model: m}
		args := append([]string{
			"score", "--code", at.scripts, "--entry", s.entry, "--python", s.python, "--listen", ports[0], "--log-level", "warn",
		}, s.flags...)
		cmd := exec.CommandContext(context.WithoutCancel(ctx), b.zarpa, args...)
		cmd.Env = append(environment(b.env, at), s.env...)
		run := &running{http: ports[0]}
		start := time.Now()
		if run.process, err = b.start(s.name, cmd); err != nil {
			return nil, err
		}
		if err := run.await(ctx, answers(run.http, request)); err != nil {
			return nil, err
		}
		run.took = time.Since(start)
		return run, nil
	}}
}

// measureScript lets all serve the same model with the same Python.
func (b *bench) measureScript(ctx context.Context, r *report, python string) error {
	if !isAsked(r.settings.peers, azureFolder) {
		b.say("python: no comparison with other servers: %s is not among -peers", azureFolder)
		return nil
	}
	models, err := b.models(ctx)
	models = slices.DeleteFunc(models, func(m *model) bool { return m.forBatches })
	if err != nil || len(models) == 0 {
		return err
	}
	m := models[max(slices.IndexFunc(models, func(m *model) bool { return m.name == aimed }), 0)]
	const entry = "serve_azureml.py"
	servers := []server{
		b.scriptServer(scoringScript{name: scriptName, setting: "default: " + workersWord(r.machine.cores), entry: entry, python: python}),
		b.scriptServer(scoringScript{name: scriptName, setting: "one thread a run, " + workersWord(r.machine.cores), entry: entry, python: python, env: []string{oneThread}}),
		b.scriptServer(scoringScript{name: scriptName, setting: "one thread a run, 1 worker", entry: entry, python: python, env: []string{oneThread}, flags: []string{"--workers", "1"}}),
		b.scriptServer(scoringScript{
			name: batchName, setting: "one thread a run, 1 worker", entry: "serve_batch.py", python: python,
			env: []string{oneThread}, flags: []string{"--workers", "1", "--max-batch-rows", strconv.Itoa(halfway)},
		}),
	}
	for _, p := range allPeers() {
		if !slices.Contains(scriptPeers, p.folder) || !isAsked(r.settings.peers, p.folder) {
			continue
		}
		for _, s := range p.settings {
			s.forms = s.forms[:1]
			servers = append(servers, b.peerServer(p, s))
		}
	}
	b.say("python: start all for %s", m.name)
	f, err := b.assemble(ctx, m, servers)
	defer f.stop()
	if err != nil {
		return err
	}
	f.clients = scriptClients
	if err := f.measure(ctx, "python"); err != nil {
		return err
	}
	r.script(f)
	return nil
}

func workersWord(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return strconv.Itoa(n) + " workers"
}

// script reports it.
func (r *report) script(f *contest) {
	s := r.section("Python: one scoring script in several servers")
	s.text("`bench/peers/serve_azureml.py` (`init()`, `run()`, NumPy and ONNX Runtime on %s) in `zarpa score --code` and in azureml-inference-server-http, unchanged and with the same interpreter and "+
		"packages; the same model class in MLServer, LitServe and BentoML as each of them wants it. Default settings, where ONNX Runtime takes as many threads as there are cores, and tuned ones with one thread for a run. "+
		"`run_batch` is `bench/peers/serve_batch.py`: the requests that wait are one run of the model (`--max-batch-rows %d`). Requests of one row (%d bytes) by TCP on the loopback, closed loop, medians of %d rounds in which all take turns, "+
		"with the least and the greatest in parentheses; processor is the time of all of a server's processes for one request in µs, load the load generator's. "+
		"“× azureml” and “× by processor” compare with azureml-inference-server in its faster setting (that of its best round): throughput, and its processor time over the server's.",
		f.model.name, halfway, f.size(formScore), f.rounds)
	var rows [][]string
	for _, clients := range f.clients {
		theirs := f.quickest(azureName, clients)
		for _, c := range f.list {
			rows = append(rows, scriptRow(c, theirs, clients))
		}
	}
	s.table([]string{"server", "setting", "clients", "requests/s", "× azureml", "p50 µs", "p99 µs", "processor µs", "× by processor", "load µs"}, rows)
	r.scriptAims(f)
}

func scriptRow(c, theirs *contestant, clients int) []string {
	row := []string{c.name, c.setting, strconv.Itoa(clients)}
	list := c.samples[clients]
	if c.absent != "" || len(list) == 0 {
		return append(row, "not measured: "+c.absent, "–", "–", "–", "–", "–", "–")
	}
	faster, cheaper := "–", "–"
	if theirs != nil {
		others := theirs.samples[clients]
		faster = ratio(median(paired(each(list, perSecond), each(others, perSecond), quotient)), 2)
		cheaper = ratio(median(paired(each(others, perRequest), each(list, perRequest), quotient)), 2)
	}
	return append(row, spreadWhole(each(list, perSecond)), faster, us(middle(list, p50)), us(middle(list, p99)), us(middle(list, perRequest)), cheaper, us(middle(list, loadCost)))
}

// quickest is the contestant of a name that had the most answers per second in any round for so many
// clients: other work on the machine only takes some away. It is nil when none was measured.
func (f *contest) quickest(name string, clients int) *contestant {
	var list []*contestant
	for _, c := range f.list {
		if c.name == name && c.absent == "" && len(c.samples[clients]) > 0 {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return slices.MaxFunc(list, func(a, b *contestant) int {
		return cmp.Compare(slices.Max(each(a.samples[clients], perSecond)), slices.Max(each(b.samples[clients], perSecond)))
	})
}

// scriptAims hold zarpa against azureml-inference-server, each in its faster setting.
func (r *report) scriptAims(f *contest) {
	ours, theirs := f.quickest(scriptName, halfway), f.quickest(azureName, halfway)
	if ours == nil || theirs == nil {
		r.aim(aim{what: "the same script against " + azureName, want: "≥ 2 ×", got: "not measured", bound: "One of the two did not run."})
		return
	}
	mine, other := ours.samples[halfway], theirs.samples[halfway]
	against := fmt.Sprintf("the same script in Python on %s against %s (%s), %d clients", f.model.name, azureName, theirs.setting, halfway)
	bound := fmt.Sprintf("Of processor time zarpa needs %s µs for a request and %s %s µs, which is %s ×; the load needs %s µs of the same processors.",
		us(middle(mine, perRequest)), azureName, us(middle(other, perRequest)), ratio(middle(other, perRequest)/middle(mine, perRequest), 2), us(middle(mine, loadCost)))
	times := paired(each(mine, perSecond), each(other, perSecond), quotient)
	r.aim(aim{what: against, want: "≥ 2 ×", got: spread(times) + " ×", met: median(times) >= 2, bound: bound})
	later := paired(each(mine, p99), each(other, p99), quotient)
	r.aim(aim{what: "its p99", want: "≤ 0.5 ×", got: spread(later) + " ×", met: median(later) <= 0.5, bound: bound})
}
