package autoscale_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa/autoscale"
)

// update writes the table of docs/scaling.md anew: go test ./autoscale -run Simulation -update.
var update = flag.Bool("update", false, "write the simulation's table into docs/scaling.md")

// pattern is how many requests come in a second.
type pattern struct {
	name string
	rate func(second float64) float64
	// rises is when the load begins to ask for all the replicas, in seconds; NaN where that is no moment.
	rises float64
	// azureFlaps is how many ups within a minute after a down are right for the preset azure: chance, and
	// loads that come back so soon themselves.
	azureFlaps int
}

const low, high = 10, 100 // requests a second

func patterns() []pattern {
	between := func(from, to float64) func(float64) float64 {
		return func(at float64) float64 {
			if at >= from && at < to {
				return high
			}
			return low
		}
	}
	return []pattern{
		{"step", between(60, 180), 60, 1},
		{"spike of 5 s", between(60, 65), 60, 0},
		{"ramp over 2 min", func(at float64) float64 { return low + (high-low)*math.Min(1, math.Max(0, (at-30)/120)) }, math.NaN(), 2},
		{"sine of 2 min", func(at float64) float64 {
			return (high+low)/2 - (high-low)/2*math.Cos(2*math.Pi*at/120)
		}, math.NaN(), 14},
		{"on and off, 30 s each", func(at float64) float64 {
			if math.Mod(at, 60) >= 30 {
				return high
			}
			return 0
		}, 30, 3},
	}
}

// chances is how many times each load is simulated, with requests at other moments; the table shows the
// worst of each number.
const chances = 3

// scenario is one load, start-up time and preset, with what its simulations showed.
type scenario struct {
	pattern pattern
	delay   time.Duration
	preset  string
	policy  autoscale.Policy
	results [chances]result
}

func scenarios() []*scenario {
	var all []*scenario
	for _, p := range patterns() {
		for _, delay := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second} {
			for _, preset := range []string{"azure", "knative"} {
				s := &scenario{pattern: p, delay: delay, preset: preset, policy: azure(1.4, 0, 100)}
				if preset == "knative" {
					s.policy = knative(1.4)
					s.policy.Max, s.policy.MaxDown, s.policy.Idle = 100, 2, 5*time.Minute
				}
				all = append(all, s)
			}
		}
	}
	return all
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	all := scenarios()
	var running sync.WaitGroup
	for _, s := range all {
		running.Go(func() {
			for i := range s.results {
				s.results[i] = (&simulation{pattern: s.pattern.rate, delay: s.delay, policy: s.policy, length: 360, seed: uint64(i)}).simulate(1)
			}
		})
	}
	running.Wait()
	for _, s := range all {
		for _, r := range s.results {
			s.check(t, r)
		}
	}
	if runtime.GOARCH != "amd64" {
		t.Log("the table is of amd64: others round elsewhere")
		return
	}
	compare(t, table(all))
}

// check holds a result against what is promised: how soon there are enough replicas, how many more than
// that at most, and that the number does not flap.
func (s *scenario) check(t *testing.T, r result) {
	t.Helper()
	name := fmt.Sprintf("%s, %s, starts in %v", s.preset, s.pattern.name, s.delay)
	soon := 2 * time.Second // the second that is looked at, and the one that it may begin in
	if s.preset == "knative" {
		soon = s.policy.Recent
	}
	brief := strings.HasPrefix(s.pattern.name, "spike") && s.preset == "knative" // over before the mean tells
	if latest := s.pattern.rises + s.delay.Seconds() + soon.Seconds(); !brief && !math.IsNaN(s.pattern.rises) && !(r.enough <= latest) {
		t.Errorf("%s: enough replicas at %.1f s, promised at %.1f s", name, r.enough, latest)
	}
	if promised := 2 * ideal(s.policy, high); r.most > promised {
		t.Errorf("%s: %d replicas, promised at most %d", name, r.most, promised)
	}
	if s.preset == "azure" && r.flaps > s.pattern.azureFlaps {
		t.Errorf("%s: %d times up within a window after a down, promised at most %d", name, r.flaps, s.pattern.azureFlaps)
	}
	for i := range r.downs {
		if s.preset == "azure" && i == 0 && len(r.ups) > 0 && r.downs[0] < r.ups[0]+s.policy.Window.Seconds() {
			t.Errorf("%s: down at %.0f s, up at %.0f s", name, r.downs[0], r.ups[0])
		}
	}
	if s.delay <= time.Second && float64(r.refused) > 0.05*float64(r.requests) {
		t.Errorf("%s: %d of %d requests were refused", name, r.refused, r.requests)
	}
}

// table is the table of the document.
func table(all []*scenario) string {
	var b strings.Builder
	b.WriteString("| load | start | preset | enough after | at most | replica-seconds | turns | refused |\n|---|---|---|---|---|---|---|---|\n")
	for _, s := range all {
		worst := s.results[0]
		for _, r := range s.results[1:] {
			worst.enough, worst.most = math.Max(worst.enough, r.enough), max(worst.most, r.most)
			worst.used, worst.turns = max(worst.used, r.used), max(worst.turns, r.turns)
			if r.refused*worst.requests > worst.refused*r.requests {
				worst.refused, worst.requests = r.refused, r.requests
			}
		}
		enough := "-"
		if !math.IsNaN(s.pattern.rises) && !math.IsNaN(worst.enough) {
			enough = fmt.Sprintf("%.1f s", worst.enough-s.pattern.rises)
		}
		fmt.Fprintf(&b, "| %s | %v | %s | %s | %d | %.0f | %d | %.1f %% |\n", s.pattern.name, s.delay, s.preset, enough, worst.most, worst.used, worst.turns,
			100*float64(worst.refused)/float64(worst.requests))
	}
	return b.String()
}

// compare holds the document's table against the one that was simulated.
func compare(t *testing.T, table string) {
	t.Helper()
	const begin, end = "<!-- simulation -->\n", "<!-- end of simulation -->"
	file := filepath.Join("..", "docs", "scaling.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	old, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no place for the table", file)
	}
	if old == table {
		return
	}
	if !*update {
		t.Errorf("the table of %s is another one: go test ./autoscale -run Simulation -update\n%s", file, table)
		return
	}
	if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
