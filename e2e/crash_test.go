package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// The settings of the crash test.
const (
	roundsVariable = "ZARPA_CRASH_ROUNDS" // how many rounds; 12 by default
	seedVariable   = "ZARPA_CRASH_SEED"   // repeats the choices of a run, though not its moments
	defaultRounds  = 12
)

// crash is one run of the test.
type crash struct {
	t       *testing.T
	rand    *rand.Rand // used by the test's own goroutine alone
	host    *host
	load    *load
	windows windows
	library *library
	known   map[string]string // content digest → what was registered: a file or a folder
	family  []string          // files whose models can replace each other

	steady    *promised   // nobody changes it, and its replicas are never killed
	victims   []*promised // nobody changes them, but their replicas are killed
	churn     []*promised // they come, change and go
	endpoints []*promised // all of them

	deck      []blow
	wounds    map[string]int // kills by replica
	outages   []window       // open until the round has settled
	restarted time.Time
	pids      map[string][]int // of every endpoint's replicas, when all was settled last
	downloads []string         // models to be read back
	unread    []string         // models of earlier rounds, to be read back once more at the end
	stats     *stats
}

// TestKillsLoseNothing kills the control plane, the gateway and replicas at random moments of
// what users do, under load, and proves after every round that what was acknowledged is there,
// that what is said to run runs, and that only those predictions failed that had to.
func TestKillsLoseNothing(t *testing.T) {
	t.Parallel()
	rounds, seed := setting(t, roundsVariable, defaultRounds), setting(t, seedVariable, int(time.Now().UnixNano()&0xffffff))
	t.Logf("%s=%d %s=%d", roundsVariable, rounds, seedVariable, seed)
	c := &crash{
		t: t, rand: rand.New(rand.NewPCG(uint64(seed), 0)), library: newLibrary(), known: map[string]string{},
		wounds: map[string]int{}, pids: map[string][]int{}, stats: newStats(),
	}
	c.host = newHost(t, c.rand)
	ctx := t.Context()
	c.prepare(ctx)
	for range rounds {
		c.round(ctx)
		if t.Failed() {
			break
		}
	}
	c.finish(ctx)
	if c.stats.failedMeanwhile > 0 {
		t.Errorf("%d predictions failed while only the control plane was away", c.stats.failedMeanwhile)
	}
	t.Logf("\n%s", c.stats.table(c.load.count))
}

func setting(t *testing.T, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: not a positive number", variable, text)
	}
	return n
}

// prepare registers the first models, deploys the endpoints that stay, and begins the load.
func (c *crash) prepare(ctx context.Context) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	zoo := filepath.Join("..", "engine", "enginetest", "testdata")
	for _, kind := range []string{"float", "double", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"} {
		c.family = append(c.family, filepath.Join(zoo, "identity_"+kind+".onnx"))
	}
	iris, digits := example(c.t, "iris"), example(c.t, "digits")
	slow := filepath.Join(zoo, "slow.onnx")
	for _, source := range append([]string{iris.file, digits.file, slow, filepath.Join(zoo, "external")}, c.family...) {
		files, err := readSource(source)
		if err != nil {
			c.t.Fatal(err)
		}
		c.known[contentDigest(files)] = source
	}
	for _, m := range []struct{ name, source string }{
		{"iris", iris.file},
		{"digits", digits.file},
		{"slow", slow},
		{family, c.family[0]},
		{family, c.family[1]},
		{"folder", filepath.Join(zoo, "external")},
	} {
		if err := c.register(ctx, m.name, m.source); err != nil {
			c.t.Fatalf("register %s: %v", m.source, err)
		}
	}
	c.steady = &promised{caller: caller{endpoint: "steady", body: iris.body, right: iris.right}}
	c.victims = []*promised{
		{caller: caller{endpoint: "digits", body: digits.body, right: digits.right}},
		{caller: caller{endpoint: "slow", body: `{"data":{"iterations":[200]}}`, right: same(`{"y":1}`)}},
	}
	for _, name := range []string{"churn-a", "churn-b", "churn-c"} {
		c.churn = append(c.churn, &promised{churn: true, caller: caller{
			endpoint: name, body: `{"data":{"x":[1,2,3]}}`, right: same(`{"y":[1,2,3]}`),
		}})
	}
	c.endpoints = append(append([]*promised{c.steady}, c.victims...), c.churn...)
	for p, d := range map[*promised]zarpa.DeploymentSpec{
		c.steady:     {Model: "iris:1", Replicas: 1},
		c.victims[0]: {Model: "digits:1", Replicas: 2},
		c.victims[1]: {Model: "slow:1", Replicas: 2, CPU: 1},
		c.churn[0]:   {Model: family + ":1", Replicas: 2},
	} {
		if err := c.put(ctx, p, spec(d)); err != nil {
			c.t.Fatalf("deploy %s: %v", p.endpoint, err)
		}
	}
	var loading context.Context
	c.load, loading = newLoad(c.t.Context(), c.host.gateway)
	c.t.Cleanup(func() { c.load.stop(); c.load.done.Wait() })
	for _, p := range c.endpoints {
		workers := 2
		if p.churn {
			workers = 1
		}
		c.load.run(loading, &p.caller, workers)
	}
	if err := c.settle(ctx); err != nil {
		c.t.Fatalf("before the first round: %v\n%s", err, c.host.tail())
	}
	c.stats.remember(c.pids)
}

// round lets users change things, strikes in the midst of it, and looks at what is left.
func (c *crash) round(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	c.stats.rounds++
	b, changes := c.deal(), c.choose()
	touched := map[string]bool{}
	for _, p := range c.endpoints {
		touched[p.endpoint] = b.all || b.end
	}
	if b.end {
		changes = nil // calls at an ordinary end are answered in several ways
	}
	if b.endpoint != nil {
		touched[b.endpoint.endpoint] = true
	}
	words := []string{fmt.Sprintf("%s after %v", b.kind, b.after)}
	if b.endpoint != nil {
		words = append(words, "of "+b.endpoint.endpoint)
	}
	var users sync.WaitGroup
	for _, list := range changes {
		for _, ch := range list {
			words = append(words, "; "+ch.kind)
			if ch.endpoint != nil {
				touched[ch.endpoint.endpoint] = true
				words = append(words, ch.endpoint.endpoint)
			}
		}
		users.Go(func() { c.user(ctx, list, b.control) })
	}
	story := strings.ReplaceAll(strings.Join(words, " "), " ;", ";")
	c.stats.story = story
	err := c.strike(ctx, b)
	users.Wait()
	if err == nil {
		err = c.settle(ctx)
	}
	if err == nil {
		err = c.untouched(touched)
	}
	c.explain(story)
	if err != nil {
		c.t.Errorf("round %d (%s): %v\n%s\n%s", c.stats.rounds, story, err, c.state(context.WithoutCancel(ctx)), c.host.tail())
	}
}

// user makes changes until an answer is lost; with mayLose unset none may be.
func (c *crash) user(ctx context.Context, list []change, mayLose bool) {
	for _, ch := range list {
		err := ch.run(ctx)
		c.stats.change(ch.kind, err)
		if err != nil && (!lost(err) || !mayLose) {
			c.t.Errorf("round %d: %s: %v", c.stats.rounds, ch.kind, err)
		}
		if err != nil {
			return
		}
	}
}

// choose picks what users do in a round, each change by change: one or two change an endpoint,
// one changes models.
func (c *crash) choose() [][]change {
	var out [][]change
	used := map[string]bool{}
	for _, p := range c.endpoints {
		for _, d := range p.spec.Deployments {
			used[d.Model] = used[d.Model] || p.exists
		}
	}
	pick := c.rand.Perm(len(c.churn))[:1+c.rand.IntN(2)]
	for _, i := range pick {
		ch, ref := c.chooseChange(c.churn[i])
		used[ref] = true
		out = append(out, []change{ch})
	}
	for _, p := range c.victims { // replicas that died often would stay away longer and longer
		if c.wounded(p) {
			n := strconv.Itoa(c.stats.rounds)
			next := changed(p.spec, func(d *zarpa.DeploymentSpec) { d.Env = map[string]string{"ROUND": n} })
			out = append(out, []change{{"update environment", p, func(ctx context.Context) error { return c.put(ctx, p, next) }}})
		}
	}
	return append(out, c.chooseModels(used))
}

func (c *crash) wounded(p *promised) bool {
	for _, id := range c.replicas(p) {
		if c.wounds[id] >= 2 {
			return true
		}
	}
	return false
}

// replicas are the IDs of an endpoint's replicas that run.
func (c *crash) replicas(p *promised) []string {
	all, err := c.host.processes()
	if err != nil {
		c.t.Fatal(err)
	}
	var ids []string
	for _, r := range all {
		if r.role == "score" && r.endpoint == p.endpoint {
			ids = append(ids, r.replica())
		}
	}
	return ids
}

// chooseChange picks a change of one endpoint, and names the model that it needs.
func (c *crash) chooseChange(p *promised) (change, string) {
	refs := c.library.refs(family)
	model := refs[c.rand.IntN(len(refs))]
	if !p.exists {
		want := spec(zarpa.DeploymentSpec{Model: model, Replicas: 1 + c.rand.IntN(2)})
		return change{"deploy", p, func(ctx context.Context) error { return c.put(ctx, p, want) }}, model
	}
	kind := c.rand.IntN(6)
	if c.wounded(p) {
		kind = 0
	}
	switch kind {
	case 0, 1:
		n := strconv.Itoa(c.stats.rounds) // the same model with another environment is a change, too
		next := changed(p.spec, func(d *zarpa.DeploymentSpec) { d.Model, d.Env = model, map[string]string{"ROUND": n} })
		return change{"update model", p, func(ctx context.Context) error { return c.put(ctx, p, next) }}, model
	case 2:
		next := changed(p.spec, func(d *zarpa.DeploymentSpec) { d.Replicas = 1 + (d.Replicas+c.rand.IntN(2))%3 })
		return change{"update replicas", p, func(ctx context.Context) error { return c.put(ctx, p, next) }}, ""
	case 3, 4:
		which := []string{"primary", "secondary"}[c.rand.IntN(2)]
		return change{"rotate key", p, func(ctx context.Context) error { return c.rotate(ctx, p, which) }}, ""
	}
	return change{"delete endpoint", p, func(ctx context.Context) error { return c.delete(ctx, p) }}, ""
}

// chooseModels picks some changes of models, which one user makes one after the other.
func (c *crash) chooseModels(used map[string]bool) []change {
	refs := c.library.refs(family)
	c.rand.Shuffle(len(refs), func(i, j int) { refs[i], refs[j] = refs[j], refs[i] })
	value := strconv.Itoa(c.stats.rounds)
	var out []change
	for range 4 {
		source := c.family[c.rand.IntN(len(c.family))]
		next := change{"register model", nil, func(ctx context.Context) error { return c.register(ctx, family, source) }}
		if n := c.rand.IntN(3); n < 2 && len(refs) > 3 {
			ref := refs[0]
			refs = refs[1:]
			next = change{"tag model", nil, func(ctx context.Context) error { return c.tag(ctx, ref, value) }}
			if n == 0 && !used[ref] {
				next = change{"delete model", nil, func(ctx context.Context) error { return c.deleteModel(ctx, ref) }}
			}
		}
		out = append(out, next)
	}
	return out
}
