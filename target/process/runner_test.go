package process_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/process"
)

func TestScoreArgsCarryTheSettings(t *testing.T) {
	t.Parallel()
	spec := zarpa.DeploymentSpec{
		Name: "blue", Model: "iris:3", Models: []string{"rank:1"}, ModelControl: zarpa.ModelControlExplicit,
		CPU: 1.5, MaxBatchRows: 16, MaxBatchDelay: zarpa.Duration(2 * time.Millisecond),
	}.WithDefaults()
	args := strings.Join(process.ScoreArgs(process.ReplicaStart{
		Deployment: zarpa.Deployment{Endpoint: "iris", Spec: spec, Request: zarpa.RequestLimits{Timeout: zarpa.Duration(time.Second), MaxBody: 1024}},
		Bundle:     "dir", Listen: "unix:s", Label: "l",
	}), " ")
	for _, want := range []string{
		"score --bundle dir --listen unix:s --label l", "--endpoint iris --deployment blue", "--model iris ", "--model-control explicit",
		"--max-batch-rows 16", "--max-batch-delay 2ms", "--max-concurrency 32", "--threads 2", "--request-timeout 1s", "--max-body 1Ki",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is not in %q", want, args)
		}
	}
	plain := strings.Join(process.ScoreArgs(process.ReplicaStart{Deployment: zarpa.Deployment{Spec: zarpa.DeploymentSpec{Model: "iris:3"}.WithDefaults()}}), " ")
	if strings.Contains(plain, "batch") {
		t.Errorf("%q sets what nobody set", plain)
	}
}

func TestPreviousLogIsThereWhileTheNextRunStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options(dir)
	var starts atomic.Int32
	gate := make(chan struct{})
	o.Bundles = func(ctx context.Context, _ string) (string, error) {
		if starts.Add(1) == 2 { // the second run is on its way, and nothing of it is there
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}
		return dir, nil
	}
	d := open(t, o)
	h := apply(t, d, with(deployment("restarts", "blue"), "REPLICA", "broken"))
	previous := func() string {
		t.Helper()
		r, err := d.Logs(t.Context(), h, zarpa.LogQuery{Previous: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	await(t, d, h, func(s zarpa.DeploymentStatus) bool { return failed(s) && s.Replicas[0].Phase == zarpa.ReplicaStarting })
	if text := previous(); !strings.Contains(text, "loading") {
		t.Errorf("while the second run starts: %q, want what the first one printed", text)
	}
	close(gate)
	await(t, d, h, func(s zarpa.DeploymentStatus) bool { return failed(s) && s.Replicas[0].Restarts >= 2 })
	if text := previous(); !strings.Contains(text, "loading") {
		t.Errorf("later: %q, want what a dead run printed", text)
	}
}
