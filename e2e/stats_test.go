package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// stats count what happened. change may be called from many goroutines, all else from the test's.
type stats struct {
	mu           sync.Mutex // guards the changes by kind
	rounds       int
	kills        map[string]int
	acknowledged map[string]int // changes by kind
	unanswered   map[string]int
	refused      map[string]int
	explained    map[string]int // failed predictions by class
	unexplained  int
	// Predictions of all endpoints while the control plane, and nothing else, was away or starting.
	okMeanwhile, failedMeanwhile int
	downloads                    int
	temporary                    int // most leftover files at a time

	gaps, gapsAlone, adoptions, settled []time.Duration

	story   string // of the round
	slowest string // the story of the round that took longest to agree, and what it waited for

	pids map[string][]int // by endpoint, when all was settled last
}

func newStats() *stats {
	return &stats{
		kills: map[string]int{}, acknowledged: map[string]int{}, unanswered: map[string]int{}, refused: map[string]int{},
		explained: map[string]int{}, pids: map[string][]int{},
	}
}

func (s *stats) kill(what string) { s.kills[what]++ }

func (s *stats) change(kind string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.acknowledged[kind]++
	case lost(err):
		s.unanswered[kind]++
	default:
		s.refused[kind]++
	}
}

// settle notes how long a round took to agree, and what was in the way last.
func (s *stats) settle(took time.Duration, last error) {
	s.settled = append(s.settled, took)
	if took == slices.Max(s.settled) {
		s.slowest = fmt.Sprintf("%s: %v", s.story, last)
	}
}

func (s *stats) remember(pids map[string][]int) {
	clear(s.pids)
	for name, p := range pids {
		s.pids[name] = slices.Clone(p)
	}
}

// table is what the run amounts to.
func (s *stats) table(predictions map[string]int) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "rounds\t%d\n", s.rounds)
	for _, what := range slices.Sorted(maps.Keys(s.kills)) {
		fmt.Fprintf(w, "kills of %s\t%d\n", what, s.kills[what])
	}
	kinds := maps.Clone(s.acknowledged)
	maps.Copy(kinds, s.unanswered)
	maps.Copy(kinds, s.refused)
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(w, "%s\t%d acknowledged, %d without an answer, %d refused\n", kind, s.acknowledged[kind], s.unanswered[kind], s.refused[kind])
	}
	for _, class := range slices.Sorted(maps.Keys(predictions)) {
		if class == answered {
			fmt.Fprintf(w, "predictions ok\t%d\n", predictions[class])
			continue
		}
		fmt.Fprintf(w, "predictions failed: %s\t%d, %d of them explained\n", class, predictions[class], s.explained[class])
	}
	fmt.Fprintf(w, "predictions failed for no reason\t%d\n", s.unexplained)
	fmt.Fprintf(w, "predictions while only the control plane was away\t%d ok, %d failed\n", s.okMeanwhile, s.failedMeanwhile)
	fmt.Fprintf(w, "models downloaded and compared\t%d\n", s.downloads)
	fmt.Fprintf(w, "leftover temporary files, most at a time\t%d\n", s.temporary)
	for _, row := range []struct {
		name string
		list []time.Duration
	}{
		{"gateway away, killed alone", s.gaps},
		{"gateway away, from the control plane's start", s.gapsAlone},
		{"control plane's start to its first answer", s.adoptions},
		{"end of a round to agreement", s.settled},
	} {
		fmt.Fprintf(w, "%s\t%s\n", row.name, distribution(row.list))
	}
	fmt.Fprintf(w, "the slowest of these rounds\t%s\n", s.slowest)
	w.Flush()
	return b.String()
}

func distribution(list []time.Duration) string {
	if len(list) == 0 {
		return "never"
	}
	list = slices.Clone(list)
	slices.Sort(list)
	at := func(share float64) time.Duration {
		return list[min(len(list)-1, int(share*float64(len(list))))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p90 %v, max %v, %d times", at(0.5), at(0.9), at(1), len(list))
}
