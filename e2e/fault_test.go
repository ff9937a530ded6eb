package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// The settings of the fault test.
const (
	faultRateVariable = "ZARPA_FAULT_RATE" // requests per second; 100 by default
	defaultFaultRate  = 100
	faultTimeout      = 4 * time.Second // the endpoint's request_timeout: what a hanging replica costs
)

// faults is one run of the test.
type faults struct {
	t       *testing.T
	host    *host
	flood   *flood
	endless int // answers that were wrong without a reason
	report  []tally
}

// scene is one fault and what it may cost.
type scene struct {
	name string
	// run does the damage and returns when the product has settled, with a word for the report.
	run func(ctx context.Context) (note string, err error)
	// explains tells whether the fault itself is the reason of a failure; nil for a fault that may cost
	// nothing.
	explains func(f failure) bool
	// most is how many failures the fault explains at most; 0 leaves it to explains.
	most int
}

// TestFaultsUnderLoad lets an endpoint be called all the time, and does to it what happens in its
// life: every failure must be one that the fault itself explains.
func TestFaultsUnderLoad(t *testing.T) {
	t.Parallel()
	rate := setting(t, faultRateVariable, defaultFaultRate)
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	f := &faults{t: t}
	f.host = newHost(t, r)
	defer f.tell(rate)
	ctx := t.Context()
	f.prepare(ctx, int64(rate))
	for _, s := range f.scenes() {
		f.play(ctx, s)
		if t.Failed() {
			break
		}
	}
	f.flood.end()
}

// tell prints what every scene cost.
func (f *faults) tell(rate int) {
	var lines []string
	for _, line := range f.report {
		lines = append(lines, line.String())
	}
	f.t.Logf("%d requests/s\n%s", rate, strings.Join(lines, "\n"))
}

// prepare deploys two versions of the same model beside each other, and begins the load.
func (f *faults) prepare(ctx context.Context, rate int64) {
	f.t.Helper()
	iris := example(f.t, "iris")
	f.cli(ctx, "deploy", "iris", "--model", iris.file, "--replicas", "2")
	f.cli(ctx, "deploy", "iris", "--deployment", "green", "--model", "iris", "--replicas", "2")
	f.cli(ctx, "endpoint", "set", "iris", "--request-timeout", faultTimeout.String(), "--queue-wait", faultTimeout.String())
	keys, err := f.host.client.Keys(ctx, "iris")
	if err != nil {
		f.t.Fatal(err)
	}
	f.flood = newFlood("http://"+f.host.gateway+"/endpoints/iris/score", iris.body, keys.Primary, iris.right)
	f.flood.begin(ctx, rate)
	f.t.Cleanup(f.flood.end)
}

// cli runs a command of the product that must succeed, and returns what it printed.
func (f *faults) cli(ctx context.Context, args ...string) string {
	f.t.Helper()
	out, err := f.command(ctx, args...)
	if err != nil {
		f.t.Fatalf("zarpa %s: %v\n%s\n%s", strings.Join(args, " "), err, out, f.host.tail())
	}
	return out
}

func (f *faults) command(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, f.host.binary, append(args, "--data", f.host.data)...).CombinedOutput()
	return string(out), err
}

// calm is how long the load goes on after a fault before it is counted.
const calm = 500 * time.Millisecond

// play does one scene and looks at what failed meanwhile.
func (f *faults) play(ctx context.Context, s scene) {
	began := time.Now()
	note, err := s.run(ctx)
	pause(ctx, calm)
	took, failures := f.flood.take()
	line := newTally(s.name, took, failures)
	line.took, line.note = time.Since(began), note
	for _, bad := range failures {
		if s.explains != nil && s.explains(bad) {
			line.explained++
			continue
		}
		if f.endless++; f.endless <= 5 {
			f.t.Errorf("%s: %s after %v: %.300s", s.name, bad.class, bad.end.Sub(bad.start), bad.detail)
		}
	}
	if s.most > 0 && line.explained > s.most {
		f.t.Errorf("%s: %d failures, and it explains %d", s.name, line.explained, s.most)
	}
	f.report = append(f.report, line)
	if err != nil {
		f.t.Errorf("%s: %v\n%s", s.name, err, f.host.tail())
	}
	if len(took) == 0 {
		f.t.Errorf("%s: nothing was answered meanwhile", s.name)
	}
}

func (f *faults) scenes() []scene {
	refused := func(bad failure) bool { return bad.class == noGateway }
	return []scene{
		{name: "weights change ten times", run: f.weights},
		{name: "update, two replicas", run: f.update},
		{name: "update with one replica more", run: f.surge},
		{name: "an update that never gets ready", run: f.broken},
		{name: "undo", run: f.undo},
		{name: "rollout", run: f.rollout},
		{name: "rollout that is rolled back", run: f.rollback},
		{name: "mirror", run: f.mirror},
		{name: "key rotation", run: f.keys},
		{name: "scale up and down by hand", run: f.replicas},
		{name: "control plane kill -9", run: f.controlPlane},
		{name: "replica kill -9", run: f.killReplica, explains: broken, most: zarpa.DefaultMaxConcurrency},
		{name: "replica hangs", run: f.hang, explains: func(bad failure) bool {
			return (bad.class == "status 504" || bad.class == "status 502" || bad.class == "status 424") && bad.end.Sub(bad.start) > faultTimeout/2
		}, most: 4 * zarpa.DefaultMaxConcurrency},
		{name: "gateway kill -9", run: f.gateway, explains: refused},
	}
}

// broken is the answer to a request that a dying replica worked on.
func broken(bad failure) bool { return bad.class == "status 502" || bad.class == "status 424" }

func (f *faults) weights(ctx context.Context) (string, error) {
	for i := range 10 {
		f.cli(ctx, "traffic", "iris", fmt.Sprintf("blue=%d", 100-10*i), fmt.Sprintf("green=%d", 10*i))
	}
	f.cli(ctx, "traffic", "iris", "blue=50", "green=50")
	return "", nil
}

func (f *faults) update(ctx context.Context) (string, error) {
	f.cli(ctx, "deploy", "iris", "--deployment", "blue", "--model", "iris:1", "--env", "ROUND=1")
	return "", nil
}

func (f *faults) surge(ctx context.Context) (string, error) {
	f.cli(ctx, "deploy", "iris", "--deployment", "blue", "--model", "iris:1", "--env", "ROUND=2", "--max-surge", "1", "--max-unavailable", "0")
	return "", nil
}

// broken deploys what cannot run: the replicas from before go on.
func (f *faults) broken(ctx context.Context) (string, error) {
	bad := filepath.Join("..", "engine", "enginetest", "testdata", "custom_op.onnx")
	out, err := f.command(ctx, "deploy", "iris", "--deployment", "blue", "--model", bad)
	if err == nil {
		return "", fmt.Errorf("a model that cannot run was deployed:\n%s", out)
	}
	return "", nil
}

func (f *faults) undo(ctx context.Context) (string, error) {
	f.cli(ctx, "endpoint", "undo", "iris")
	return "", nil
}

func (f *faults) rollout(ctx context.Context) (string, error) {
	f.cli(ctx, "traffic", "iris", "blue=100", "green=0")
	f.cli(ctx, "rollout", "iris", "--to", "green", "--steps", "10,50,100", "--interval", "1s", "--max-error-rate", "1%", "--max-p99", "10s", "--min-requests", "20")
	return "", nil
}

// rollback rolls out what is slower than anything can be.
func (f *faults) rollback(ctx context.Context) (string, error) {
	out, err := f.command(ctx, "rollout", "iris", "--to", "blue", "--steps", "10,100", "--interval", "1s", "--max-p99", "1us", "--min-requests", "20")
	if err == nil || !strings.Contains(out, "p99") {
		return "", fmt.Errorf("a rollout with an impossible limit: %w\n%s", err, out)
	}
	return "", nil
}

func (f *faults) mirror(ctx context.Context) (string, error) {
	f.cli(ctx, "traffic", "iris", "blue=0", "green=100", "--mirror", "blue=50")
	pause(ctx, time.Second)
	f.cli(ctx, "traffic", "iris", "blue=50", "green=50", "--no-mirror")
	return "", nil
}

// keys replaces the key that nobody uses, lets callers change to it, and replaces the other.
func (f *faults) keys(ctx context.Context) (string, error) {
	for range 3 {
		for _, which := range []string{"secondary", "primary"} {
			pair, err := f.host.client.RegenerateKey(ctx, "iris", which)
			if err != nil {
				return "", err
			}
			key := pair.Secondary
			if which == "primary" {
				key = pair.Primary
			}
			f.flood.key.Store(&key)
			if !pause(ctx, 2*calm) { // callers that read the old one are answered by now
				return "", ctx.Err()
			}
		}
	}
	return "", nil
}

func (f *faults) replicas(ctx context.Context) (string, error) {
	for _, n := range []string{"4", "1", "2"} {
		f.cli(ctx, "deploy", "iris", "--deployment", "blue", "--model", "iris:1", "--replicas", n)
	}
	return "", nil
}

func (f *faults) controlPlane(ctx context.Context) (string, error) {
	f.host.kill()
	pause(ctx, calm)
	if err := f.host.start(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return "", f.host.awaitAPI(ctx)
}

// victim is one replica of a deployment that runs.
func (f *faults) victim() (running, error) {
	all, err := f.host.processes()
	if err != nil {
		return running{}, err
	}
	for _, p := range all {
		if p.role == "score" {
			return p, nil
		}
	}
	return running{}, errors.New("no replica runs")
}

func (f *faults) killReplica(ctx context.Context) (string, error) {
	p, err := f.victim()
	if err != nil {
		return "", err
	}
	if err := killProcess(ctx, p.pid); err != nil {
		return "", err
	}
	return "", f.settled(ctx)
}

// hang stops a replica: it takes requests and does not answer.
func (f *faults) hang(ctx context.Context) (string, error) {
	p, err := f.victim()
	if err != nil {
		return "", err
	}
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		return "", err
	}
	pause(ctx, 3*faultTimeout)
	if err := syscall.Kill(p.pid, syscall.SIGCONT); err != nil && err != syscall.ESRCH {
		return "", err
	}
	return "", f.settled(ctx)
}

func (f *faults) gateway(ctx context.Context) (string, error) {
	all, err := f.host.processes()
	if err != nil {
		return "", err
	}
	for _, p := range all {
		if p.role != "gateway" {
			continue
		}
		began := time.Now()
		if err := killProcess(ctx, p.pid); err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		err := await(ctx, func() error {
			if class, detail := f.flood.predict(ctx); class != answered {
				return fmt.Errorf("%s: %s", class, detail)
			}
			return nil
		})
		return fmt.Sprintf("back after %v", time.Since(began).Round(time.Millisecond)), err
	}
	return "", errors.New("no gateway runs")
}

// settled returns when every wanted replica is ready.
func (f *faults) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return await(ctx, func() error {
		report, err := f.host.client.GetEndpoint(ctx, "iris")
		if err == nil && report.Phase != zarpa.EndpointReady {
			err = fmt.Errorf("endpoint iris is %s", report.Phase)
		}
		return err
	})
}
