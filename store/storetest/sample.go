package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// instant is a time with microseconds, which every store must keep.
func instant() time.Time { return time.Date(2026, 3, 29, 1, 59, 59, 123456000, time.UTC) }

const (
	unicode = "tokenizador ñandú – 模型 🚢 <b>&\"'\\ \t\n end"
	hexA    = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

func model(name string) zarpa.Model {
	return zarpa.Model{
		Name:   name,
		Format: "onnx", Framework: "scikit-learn", FrameworkVersion: "1.7.2", Folder: "sklearn_model",
		Content: zarpa.Content{
			Digest: hexA, Size: 1 << 40,
			Files: []zarpa.File{{Path: "model.onnx", Digest: hexA, Size: 1 << 40}, {Path: "datos/ñ.bin", Digest: hexA}},
		},
		Tags:        map[string]string{"stage": "prod", "ñ": unicode},
		Properties:  map[string]string{"accuracy": "0.97"},
		Description: unicode,
		Signature: zarpa.Signature{
			Inputs: []zarpa.ValueInfo{
				{Name: "x", Type: zarpa.Float32, Shape: []zarpa.Dim{{Size: -1, Name: "batch"}, {Size: 4}}},
				{Name: "scalar", Type: zarpa.Int64, Shape: []zarpa.Dim{}, Optional: true},
				{Name: "any", Type: zarpa.String, NoShape: true},
			},
			Outputs: []zarpa.ValueInfo{{Name: "p", Type: zarpa.Sequence, Items: []zarpa.ValueInfo{
				{Type: zarpa.Map, Items: []zarpa.ValueInfo{{Type: zarpa.Int64}, {Type: zarpa.Float16}}},
			}}},
			Opsets:    map[string]int64{"ai.onnx": 21, "ai.onnx.ml": 3},
			IRVersion: 10, Producer: "skl2onnx", Doc: unicode, Metadata: map[string]string{"k": "v"},
		},
	}
}

// bigSignature is that of a model with many inputs: about 2 MB as JSON.
func bigSignature() zarpa.Signature {
	var sig zarpa.Signature
	for i := range 8000 {
		sig.Inputs = append(sig.Inputs, zarpa.ValueInfo{
			Name: fmt.Sprintf("layer_%d_%s", i, strings.Repeat("w", 150)), Type: zarpa.BFloat16,
			Shape: []zarpa.Dim{{Size: -1, Name: "n"}, {Size: 768}},
		})
	}
	sig.Metadata = map[string]string{"labels": strings.Repeat("0123456789", 50_000)}
	return sig
}

func endpoint(name string, generation int64) zarpa.Endpoint {
	weight := 90
	return zarpa.Endpoint{
		Name: name, Generation: generation, Created: instant(), Updated: instant().Add(time.Hour),
		Spec: zarpa.EndpointSpec{
			Auth: zarpa.AuthKey, RequestTimeout: zarpa.Duration(20*time.Minute + 10*time.Second), MaxQueue: 7,
			QueueWait: zarpa.Duration(1500 * time.Microsecond), MaxBody: 123_456_789,
			Deployments: []zarpa.DeploymentSpec{
				{
					Name: "blue", Model: "iris:3", Target: "local", Replicas: 3, CPU: 0.1, Memory: 512 << 20,
					Env: map[string]string{"A": unicode}, MaxConcurrency: 2, Weight: &weight,
					StartTimeout: zarpa.Duration(90 * time.Second), DrainTimeout: zarpa.Duration(time.Hour + 30*time.Second),
				},
				{Name: "green", Model: "iris:4"},
			},
		},
	}
}

func observed(endpoint, deployment, target string) zarpa.Observed {
	return zarpa.Observed{
		Endpoint: endpoint, Deployment: deployment, Target: target, Weight: 37,
		Handle: zarpa.Handle{Version: 2, Data: []byte{0, 1, 0xff, '\n', 0}},
		Status: zarpa.DeploymentStatus{
			Revision: "abc", Enforced: []string{"cpu 0.5 (cgroup v1)"}, Message: unicode,
			Replicas: []zarpa.Replica{{
				ID: "r1", Revision: "abc", Phase: zarpa.ReplicaBackoff, Address: "unix:/run/r1", PID: 4242,
				Started: instant(), Loaded: zarpa.Duration(1234 * time.Millisecond), Restarts: 3, NextStart: instant().Add(time.Minute),
				Last: &zarpa.Exit{At: instant(), Code: -1, Signal: "killed", OutOfMemory: true, Reason: "out of memory", Log: []string{"a", ""}},
			}},
		},
	}
}

func operation(id, endpointName string) zarpa.Operation {
	before := endpoint(endpointName, 4).Spec
	return zarpa.Operation{
		Who: unicode, Before: &before,
		ID: id, Kind: "deploy", Endpoint: endpointName, Generation: 5, State: zarpa.OperationRunning, Created: instant(),
		Phases: []zarpa.Phase{{Name: "validate", State: zarpa.OperationSucceeded, Started: instant(), Ended: instant(), Detail: unicode}},
	}
}

func ended(o zarpa.Operation) zarpa.Operation {
	o.State, o.Ended = zarpa.OperationSucceeded, instant().Add(time.Minute)
	return o
}

func target(name string) zarpa.Target {
	return zarpa.Target{Name: name, Kind: "process", Options: map[string]string{"limit": "4", "ñ": unicode}, Created: instant()}
}

func rollout(id, endpoint string) zarpa.Rollout {
	return zarpa.Rollout{
		ID: id, Endpoint: endpoint, Spec: zarpa.RolloutSpec{To: "green", Compare: "blue"}.WithDefaults(), State: zarpa.RolloutRunning, Step: 1,
		Before: map[string]int{"blue": 95, "green": 5}, Created: instant(), StepStarted: instant().Add(time.Second), Measured: zarpa.Duration(3 * time.Second),
		Reason: unicode, To: zarpa.RolloutSample{Requests: 1 << 40, Failures: 3, Latency: []int64{0, 1, 2}}, Compare: &zarpa.RolloutSample{Requests: 7},
		Judgements: []zarpa.Judgement{{
			At: instant(), Percent: 5, Passed: true, Gates: []zarpa.Gate{{Name: "error_rate", Passed: true, Text: unicode}},
			To: zarpa.RolloutSample{Requests: 120}, Compare: &zarpa.RolloutSample{Requests: 9000, Latency: []int64{4}},
		}},
		Who: "ana",
	}
}
