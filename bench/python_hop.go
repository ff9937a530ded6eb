package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

const (
	emptyName  = "bare Go handler"
	healthName = "zarpa score, GET /"
	oneWorker  = "1 worker"
)

// emptySpec is a server that answers every request with an empty object.
type emptySpec struct {
	Listen string
}

// serveEmpty is as little as net/http allows.
func serveEmpty(ctx context.Context, spec emptySpec) error {
	return serveHTTP(ctx, spec.Listen, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write([]byte("{}"))
	}))
}

// emptyServer is this program in that role.
func (b *bench) emptyServer() server {
	return server{name: emptyName, setting: "–", forms: jsonForm, launch: func(ctx context.Context, m *model) (*running, error) {
		request, err := m.request(formScore)
		if err != nil {
			return nil, err
		}
		ports, err := freePorts(ctx, 1)
		if err != nil {
			return nil, err
		}
		p, err := b.role(ctx, "empty", emptySpec{Listen: ports[0]}, answers(ports[0], request))
		if err != nil {
			return nil, err
		}
		return &running{process: p, http: ports[0]}, nil
	}}
}

// azureScript is azureml-inference-server with a script of bench/peers.
func (b *bench) azureScript(setting, entry string, env ...string) server {
	return b.peerServer(peer{name: azureName, folder: azureFolder}, peerSetting{setting, jsonForm, azureml(entry, env...)})
}

// measureEmpty tells what the way to a worker and back costs: a script that does nothing, beside
// requests that reach no worker.
func (b *bench) measureEmpty(ctx context.Context, r *report, python string) error {
	const entry = "serve_empty.py"
	servers := []server{
		b.scriptServer(scoringScript{name: scriptName, setting: oneWorker, entry: entry, python: python, flags: []string{"--workers", "1"}}),
		b.scriptServer(scoringScript{name: scriptName, setting: "default: " + workersWord(r.machine.cores), entry: entry, python: python}),
		b.emptyServer(),
	}
	if isAsked(r.settings.peers, azureFolder) {
		servers = append(servers, b.azureScript("default", entry), b.azureScript(azureBest, entry, azureTuned...))
	}
	b.say("python: start all for an empty script")
	f, err := b.assemble(ctx, &model{name: "an empty script", shape: []int64{1, 1}, row: []float64{1}}, servers)
	defer f.stop()
	if err != nil {
		return err
	}
	f.list = slices.Insert(f.list, 2, &contestant{
		name: healthName, setting: "no worker", form: formScore, running: f.list[0].running, samples: map[int][]sample{},
		request: []byte("GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: zarpa-bench\r\n\r\n"),
	})
	f.clients = scriptClients
	if err := f.measure(ctx, "python"); err != nil {
		return err
	}
	r.empty(f)
	return nil
}

// empty reports it.
func (r *report) empty(f *contest) {
	s := r.section("Python: the way to a worker and back")
	s.text("`bench/peers/serve_empty.py`, whose `run()` returns `{}`. The bare handler is `net/http` in a process of its own, answering `{}` to everything; `GET /` is answered by `zarpa score` without a worker. "+
		"By TCP on the loopback, closed loop; µs, medians of %d rounds in which all take turns. “Added” is the median of the differences of p50, round by round, to the bare handler. It holds all that `zarpa score` does with a request "+
		"(ids, limits, metrics, the log), the frame to the worker, the script, its answer as JSON, and the frame back; “processor” is the time of all of a server's processes.", f.rounds)
	var rows [][]string
	for _, clients := range f.clients {
		bare := f.find(emptyName, "–", formScore)
		for _, c := range f.list {
			row := []string{c.name, c.setting, strconv.Itoa(clients)}
			list := c.samples[clients]
			if c.absent != "" || len(list) == 0 {
				rows = append(rows, append(row, "not measured: "+c.absent, "–", "–", "–", "–"))
				continue
			}
			added := median(paired(each(list, p50), each(bare.samples[clients], p50), difference))
			rows = append(rows, append(row, spreadWhole(each(list, perSecond)), us(middle(list, p50)), us(middle(list, p99)), us(added), us(middle(list, perRequest))))
		}
	}
	s.table([]string{"server", "setting", "clients", "requests/s", "p50", "p99", "added p50", "processor"}, rows)
	ours, bare, health := f.find(scriptName, oneWorker, formScore), f.find(emptyName, "–", formScore), f.find(healthName, "no worker", formScore)
	added := paired(each(ours.samples[1], p50), each(bare.samples[1], p50), difference)
	for i := range added {
		added[i] /= 1000
	}
	r.aim(aim{
		what: "a request to a Python worker and back, over a bare handler, p50 with one client", want: "≤ 0.2 ms", got: fmt.Sprintf("%.3f (%.3f–%.3f) ms", median(added), slices.Min(added), slices.Max(added)), met: median(added) <= 0.2,
		bound: fmt.Sprintf("Over a request that reaches no worker it is %s µs. Of processor time the request takes %s µs in all processes, the bare handler's %s µs.",
			us(median(paired(each(ours.samples[1], p50), each(health.samples[1], p50), difference))), us(middle(ours.samples[1], perRequest)), us(middle(bare.samples[1], perRequest))),
	})
}
