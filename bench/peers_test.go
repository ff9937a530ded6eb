package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa/engine/onnx"
)

func TestEveryPeerHasExactPinsAndASetting(t *testing.T) {
	t.Parallel()
	pin := regexp.MustCompile(`^[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$`)
	for _, p := range allPeers() {
		text, err := os.ReadFile(filepath.Join("peers", p.folder+".txt"))
		if err != nil {
			t.Errorf("%s: %v", p.name, err)
			continue
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "#") && !pin.MatchString(line) {
				t.Errorf("%s: %q is no exact pin", p.name, line)
			}
		}
		if !strings.Contains(string(text), "\nonnxruntime=="+onnx.Version+"\n") {
			t.Errorf("%s has another ONNX Runtime than zarpa", p.name)
		}
		if len(p.settings) != 2 || p.settings[0].name != "default" || !strings.HasPrefix(p.settings[1].name, "tuned: ") {
			t.Errorf("%s: settings %+v", p.name, p.settings)
		}
	}
}

func TestPeersStartWhatIsThere(t *testing.T) {
	t.Parallel()
	script := regexp.MustCompile(`serve_[a-z_]+`)
	for _, p := range allPeers() {
		if p.folder == "triton" {
			continue // its commands need its environment
		}
		for _, s := range p.settings {
			at := &place{home: "home", scripts: "peers", temp: t.TempDir(), model: &model{name: "m", heavy: true}, http: "1", grpc: "2", spare: "3"}
			c, err := s.start(at)
			if err != nil {
				t.Errorf("%s, %s: %v", p.name, s.name, err)
				continue
			}
			line := strings.Join(c.args, " ")
			if p.folder == "mlserver" {
				text, err := os.ReadFile(filepath.Join(at.temp, "settings.json"))
				if err != nil || strings.Contains(string(text), "parallel_workers\": 2") != (s.name != "default") {
					t.Errorf("MLServer, %s: %s, %v", s.name, text, err)
				}
				continue
			}
			name := script.FindString(line)
			if _, err := os.Stat(filepath.Join("peers", name+".py")); name == "" || err != nil || !strings.Contains(line, "1") {
				t.Errorf("%s, %s: %s: %v", p.name, s.name, line, err)
			}
		}
	}
}

func TestPeerServersAreChosenByName(t *testing.T) {
	t.Parallel()
	b := &bench{}
	for _, c := range []struct {
		asked string
		want  []string
	}{
		{"none", nil},
		{"ray", []string{"Ray Serve"}},
		{"mlserver,fastapi", []string{"FastAPI", "MLServer"}},
		{"all", []string{"FastAPI", "azureml-inference-server", "Triton, Python back end", "MLServer", "LitServe", "BentoML"}},
	} {
		list, err := b.peerServers(c.asked)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range list {
			if s.name != zarpaName && s.name != bareName && !slices.Contains(names, s.name) {
				names = append(names, s.name)
			}
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("-peers %s: %q", c.asked, names)
		}
	}
	if _, err := b.peerServers("tensorflow"); err == nil {
		t.Error("an unknown peer was taken")
	}
}

func TestTheEnvironmentOfAPeerComesFirst(t *testing.T) {
	t.Parallel()
	env := environment([]string{"PATH=/usr/bin", "HOME=/h"}, &place{home: "/e", scripts: "/s", model: &model{file: "/m.onnx"}})
	for _, want := range []string{"PATH=/e/bin:/usr/bin", "HOME=/h", "PYTHONPATH=/s", "BENCH_MODEL=/m.onnx"} {
		if !slices.Contains(env, want) {
			t.Errorf("%q is not in %q", want, env)
		}
	}
}
