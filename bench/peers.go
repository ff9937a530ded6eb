package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// peer is software of others that serves models, in its default setting and in one tuned for a
// machine with two cores.
type peer struct {
	name   string // as its makers write it
	folder string // of its environment, and the name of its pins
	// optional peers take part only when -peers names them.
	optional bool
	least    float64 // the aim: zarpa's requests per second over the peer's; 0 for none
	settings []peerSetting
}

type peerSetting struct {
	name  string
	forms []form
	start func(*place) (command, error)
}

// place is where and for what a peer is started.
type place struct {
	home    string // its environment
	scripts string // bench/peers
	temp    string // a folder of its own
	model   *model
	// Ports on the loopback. HTTP is for requests, the others for what a peer wants besides.
	http, grpc, spare string
}

// command is how a peer is started.
type command struct {
	name string // of whom it starts
	args []string
	env  []string // besides what all get
	grpc bool     // it speaks gRPC on the place's second port
}

func (p *place) bin(name string) string { return filepath.Join(p.home, "bin", name) }

func (p *place) script(name string) string { return filepath.Join(p.scripts, name) }

func (p *place) packages() string { return filepath.Join(p.home, "lib", "python3.11", "site-packages") }

// file writes a file of settings into the place's folder.
func (p *place) file(name, text string) error {
	path := filepath.Join(p.temp, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// oneThread lets a run use one thread, which is best where two workers share two cores.
const oneThread = "BENCH_THREADS=1"

var jsonForm = []form{formScore}

// allPeers are those that are known, from the fastest to the slowest.
func allPeers() []peer {
	return []peer{
		{name: "FastAPI", folder: "fastapi", least: 2.5, settings: []peerSetting{
			{"default", jsonForm, func(p *place) (command, error) {
				return command{args: []string{p.bin("python"), "-m", "uvicorn", "serve_fastapi:app", "--port", p.http}}, nil
			}},
			{"tuned: orjson, 2 workers", jsonForm, func(p *place) (command, error) {
				return command{
					args: []string{p.bin("python"), "-m", "uvicorn", "serve_fastapi_tuned:app", "--port", p.http, "--workers", "2", "--no-access-log"},
					env:  []string{oneThread},
				}, nil
			}},
		}},
		{name: azureName, folder: azureFolder, settings: []peerSetting{
			{"default", jsonForm, azureml("serve_azureml.py")},
			{azureBest, jsonForm, azureml("serve_azureml.py", azureTuned...)},
		}},
		{name: "Triton, Python back end", folder: "triton", settings: []peerSetting{
			{"default", []form{formV2, formBinary, formGRPC}, triton(1)},
			{"tuned: 2 instances", []form{formV2, formBinary, formGRPC}, triton(2, oneThread)},
		}},
		{name: "MLServer", folder: "mlserver", least: 10, settings: []peerSetting{
			{"default", []form{formV2, formGRPC}, mlserver("")},
			{"tuned: no workers, or 2 for the heavy model", []form{formV2, formGRPC}, mlserver(`, "debug": false, "parallel_workers": %d`, oneThread)},
		}},
		{name: "LitServe", folder: "litserve", least: 10, settings: []peerSetting{
			{"default", jsonForm, litserve("1", "1")},
			{"tuned: 2 workers, 2 API servers", jsonForm, litserve("2", "2", oneThread)},
		}},
		{name: "BentoML", folder: "bentoml", least: 10, settings: []peerSetting{
			{"default", jsonForm, bentoml("BENCH_WORKERS=1")},
			{"tuned: 2 workers", jsonForm, bentoml("BENCH_WORKERS=2", oneThread)},
		}},
		{name: "Ray Serve", folder: "ray", optional: true, settings: []peerSetting{
			{"default", jsonForm, ray("1")},
			{"tuned: 2 replicas", jsonForm, ray("2", oneThread)},
		}},
	}
}

const (
	azureName   = "azureml-inference-server"
	azureFolder = "azureml"
	azureBest   = "tuned: 2 workers, gthread, keep-alive"
)

// azureTuned are its settings for two processors.
var azureTuned = []string{oneThread, "WORKER_COUNT=2", "GUNICORN_CMD_ARGS=--worker-class gthread --threads 4 --keep-alive 30"}

// azureml starts azureml-inference-server with a script of bench/peers.
func azureml(entry string, env ...string) func(*place) (command, error) {
	return func(p *place) (command, error) {
		return command{args: []string{p.bin("azmlinfsrv"), "--entry_script", p.script(entry), "--port", p.http}, env: env}, nil
	}
}

func litserve(workers, apiServers string, env ...string) func(*place) (command, error) {
	return func(p *place) (command, error) {
		return command{args: []string{p.bin("python"), p.script("serve_litserve.py"), p.http, workers, apiServers}, env: env}, nil
	}
}

func bentoml(env ...string) func(*place) (command, error) {
	return func(p *place) (command, error) {
		return command{
			args: []string{p.bin("bentoml"), "serve", "serve_bentoml:Score", "--host", "127.0.0.1", "--port", p.http, "--working-dir", p.scripts},
			env:  append([]string{"BENTOML_DO_NOT_TRACK=True", "BENTOML_HOME=" + filepath.Join(p.temp, "home")}, env...),
		}, nil
	}
}

func ray(replicas string, env ...string) func(*place) (command, error) {
	return func(p *place) (command, error) {
		return command{
			args: []string{p.bin("python"), p.script("serve_ray.py"), p.http, replicas},
			env:  append([]string{"RAY_USAGE_STATS_ENABLED=0", "RAY_TMPDIR=" + p.temp}, env...),
		}, nil
	}
}

// mlserver starts MLServer; more are settings, in which a %d stands for the workers.
func mlserver(more string, env ...string) func(*place) (command, error) {
	return func(p *place) (command, error) {
		workers := 0
		if p.model.heavy {
			workers = 2
		}
		settings := more
		if strings.Contains(more, "%d") {
			settings = fmt.Sprintf(more, workers)
		}
		err := p.file("settings.json", fmt.Sprintf(`{"host": "127.0.0.1", "http_port": %s, "grpc_port": %s, "metrics_port": %s%s}`, p.http, p.grpc, p.spare, settings))
		if err != nil {
			return command{}, err
		}
		err = p.file("model-settings.json", fmt.Sprintf(`{"name": %q, "implementation": "serve_mlserver.OnnxModel"}`, p.model.name))
		return command{args: []string{p.bin("mlserver"), "start", p.temp}, env: env, grpc: true}, err
	}
}

// triton starts the Triton that the wheel of pytriton holds, with the wheel's own stub of its
// Python back end; a back end for ONNX is not in the wheel.
func triton(instances int, env ...string) func(*place) (command, error) {
	return func(p *place) (command, error) {
		inside := filepath.Join(p.packages(), "pytriton", "tritonserver")
		backend := filepath.Join(p.temp, "backends", "python")
		if err := os.MkdirAll(backend, 0o755); err != nil {
			return command{}, err
		}
		for _, from := range []string{filepath.Join(inside, "backends", "python"), filepath.Join(inside, "python_backend_stubs", "3.11")} {
			if err := linkAll(from, backend); err != nil {
				return command{}, err
			}
		}
		for to, from := range map[string]string{"model.py": "serve_triton.py", "onnxmodel.py": "onnxmodel.py"} {
			text, err := os.ReadFile(p.script(from))
			if err != nil {
				return command{}, err
			}
			if err := p.file("models/"+p.model.name+"/1/"+to, string(text)); err != nil {
				return command{}, err
			}
		}
		err := p.file("models/"+p.model.name+"/config.pbtxt", fmt.Sprintf("backend: \"python\"\ninstance_group [{ count: %d kind: KIND_CPU }]\n", instances))
		return command{
			args: []string{
				filepath.Join(inside, "bin", "tritonserver"), "--model-repository", filepath.Join(p.temp, "models"), "--backend-directory", filepath.Dir(backend),
				"--http-address", "127.0.0.1", "--http-port", p.http, "--grpc-address", "127.0.0.1", "--grpc-port", p.grpc, "--allow-metrics", "false",
			},
			env:  append([]string{"LD_LIBRARY_PATH=" + filepath.Join(p.packages(), "nvidia_pytriton.libs"), "PYTHONPATH=" + p.packages()}, env...),
			grpc: true,
		}, err
	}
}

// linkAll puts links to all files of a folder into another.
func linkAll(from, to string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Symlink(filepath.Join(from, f.Name()), filepath.Join(to, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// peerServer is a peer in one of its settings.
func (b *bench) peerServer(p peer, s peerSetting) server {
	return server{name: p.name, setting: s.name, forms: s.forms, launch: func(ctx context.Context, m *model) (*running, error) {
		home, err := b.install(ctx, p.folder)
		if err != nil {
			return nil, err
		}
		at := &place{home: home, scripts: filepath.Join(b.root, "bench", "peers"), model: m}
		if at.temp, err = os.MkdirTemp(b.temp, "p"); err != nil {
			return nil, err
		}
		ports, err := freePorts(ctx, 3)
		if err != nil {
			return nil, err
		}
		for i, port := range []*string{&at.http, &at.grpc, &at.spare} {
			*port = ports[i][strings.LastIndexByte(ports[i], ':')+1:]
		}
		c, err := s.start(at)
		if err != nil {
			return nil, err
		}
		c.name = p.name
		return b.startPeer(ctx, at, c, s.forms[0])
	}}
}

// startPeer starts the command and waits until it answers in a form.
func (b *bench) startPeer(ctx context.Context, at *place, c command, f form) (*running, error) {
	request, err := at.model.request(f)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), c.args[0], c.args[1:]...)
	cmd.Dir = at.temp
	cmd.Env = append(environment(b.env, at), c.env...)
	r := &running{http: "127.0.0.1:" + at.http}
	if c.grpc {
		r.other = map[form]string{formGRPC: "127.0.0.1:" + at.grpc}
	}
	start := time.Now()
	if r.process, err = b.start(c.name, cmd); err != nil {
		return nil, err
	}
	err = r.await(ctx, answers(r.http, request))
	r.took = time.Since(start)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// environment is what every peer gets.
func environment(env []string, at *place) []string {
	out := make([]string, 0, len(env)+6)
	path := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
			continue
		}
		out = append(out, kv)
	}
	return append(out, "PATH="+filepath.Join(at.home, "bin")+string(os.PathListSeparator)+path,
		"PYTHONPATH="+at.scripts, "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1",
		"BENCH_MODEL="+at.model.file, "BENCH_THREADS=0")
}
