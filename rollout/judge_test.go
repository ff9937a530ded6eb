package rollout

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// TestTheTestsAreThoseOfTheBooks holds the probabilities against ones that were worked out by hand.
func TestTheTestsAreThoseOfTheBooks(t *testing.T) {
	t.Parallel()
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-6*math.Max(want, 1e-3) {
			t.Errorf("%s: %.8g, want %.8g", what, got, want)
		}
	}
	// 1 - 0.9^10 - 10·0.1·0.9^9 - 45·0.01·0.9^8
	near("3 of 10, a tenth expected", atLeast(3, 10, 0.1), 0.0701908264)
	near("all of 5, a half expected", atLeast(5, 5, 0.5), 1.0/32)
	near("4 of 5, a half expected", atLeast(4, 5, 0.5), 6.0/32)
	near("as expected", atLeast(1, 100, 0.01), 1)
	near("one where none may be", atLeast(1, 100, 0), 0)
	near("none", atLeast(0, 0, 0.01), 1)
	// The lady tasting tea: 3 of 4 against 1 of 4 is (16 + 1) of 70.
	near("tea", exceeds(sample{3, 4}, sample{1, 4}), 17.0/70)
	near("tea, all", exceeds(sample{4, 4}, sample{0, 4}), 1.0/70)
	// 7 of 10 against 2 of 10: (C(9,7)·C(11,3) + C(9,8)·C(11,2) + C(9,9)·C(11,1)) of C(20,10)
	near("7 against 2", exceeds(sample{7, 10}, sample{2, 10}), (36*165+9*55+1*11)/184756.0)
	near("nobody to compare with", exceeds(sample{3, 4}, sample{0, 0}), 1)
	near("no worse", exceeds(sample{1, 10}, sample{1, 10}), 1)
	if p := exceeds(sample{1_200_000, 100_000_000}, sample{1_000_000, 100_000_000}); p > 1e-100 || math.IsNaN(p) {
		t.Errorf("of hundreds of millions: %v", p)
	}
}

// TestTheTestsAreMonotonic checks that more failures are never more probable, and a higher limit never stricter.
func TestTheTestsAreMonotonic(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		n := 1 + random.Int64N(5000)
		k, p := random.Int64N(n), random.Float64()
		if a, b := atLeast(k, n, p), atLeast(k+1, n, p); b > a*(1+1e-9) || a > 1 || b < 0 {
			t.Fatalf("atLeast(%d, %d, %v) = %v, and of one more %v", k, n, p, a, b)
		}
		if a, b := atLeast(k, n, p), atLeast(k, n, math.Min(1, p+0.01)); b < a*(1-1e-9) {
			t.Fatalf("atLeast(%d, %d, %v) = %v, and of a higher limit %v", k, n, p, a, b)
		}
		other := sample{random.Int64N(n), n}
		if a, b := exceeds(sample{k, n}, other), exceeds(sample{k + 1, n}, other); b > a*(1+1e-9) {
			t.Fatalf("exceeds(%d of %d, %v) = %v, and of one more %v", k, n, other, a, b)
		}
	}
}

// answers is a histogram: so many at each latency.
func answers(counts map[time.Duration]int64) []int64 {
	h := make([]int64, zarpa.LatencyBuckets)
	for d, n := range counts {
		h[zarpa.LatencyBucket(d)] += n
	}
	return h
}

func TestJudge(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	of := func(requests, failures int64, latency map[time.Duration]int64) zarpa.RolloutSample {
		return zarpa.RolloutSample{Requests: requests, Failures: failures, Latency: answers(latency)}
	}
	other := of(10_000, 10, map[time.Duration]int64{10 * ms: 9950, 100 * ms: 50})
	quick := of(10_000, 10, map[time.Duration]int64{ms * 45 / 100: 10_000})
	errors, latency := zarpa.RolloutSpec{To: "green"}, zarpa.RolloutSpec{To: "green", MaxP99: zarpa.Duration(200 * ms)}
	for _, c := range []struct {
		name    string
		spec    zarpa.RolloutSpec
		look    Look
		want    Decision
		because string
	}{
		{"good", errors, Look{To: of(1000, 3, nil), End: true, Over: true}, Passed, "3 of 1000 requests failed, 0.3 %; at most 1 % may"},
		{"at the limit", errors, Look{To: of(1000, 10, nil), End: true, Over: true}, Passed, "10 of 1000"},
		{"a little above it", errors, Look{To: of(1000, 14, nil), End: true, Over: true}, Open, "that may be chance"},
		{"far above it", errors, Look{To: of(1000, 40, nil), End: true, Over: true}, Failed, "binomial test"},
		{"good, but not for long enough", errors, Look{To: of(1000, 3, nil)}, Open, ""},
		{"good, but too few", errors, Look{To: of(99, 0, nil), End: true, Over: true}, Open, ""},
		{"too few, and all bad", errors, Look{To: of(12, 12, nil)}, Failed, "12 of 12 requests failed, 100 %"},
		{"one failure of the first ten", errors, Look{To: of(10, 1, nil)}, Open, ""},
		{"fast", latency, Look{To: of(1000, 0, map[time.Duration]int64{10 * ms: 995, 300 * ms: 5}), End: true, Over: true}, Passed, "at most 200ms is allowed"},
		{"slow", latency, Look{To: of(1000, 0, map[time.Duration]int64{10 * ms: 950, 300 * ms: 50}), End: true, Over: true}, Failed, "50 of 1000 requests were slower, 5 %"},
		{"slow, perhaps", latency, Look{To: of(200, 0, map[time.Duration]int64{10 * ms: 197, 300 * ms: 3}), End: true, Over: true}, Open, "chance"},
		{"as good as the other", errors, Look{To: of(1000, 1, map[time.Duration]int64{10 * ms: 995, 100 * ms: 5}), Compare: &other, End: true, Over: true}, Passed, "and 0.1 % of 10000 there"},
		{"within the limit, but worse than the other", errors, Look{To: of(10_000, 90, map[time.Duration]int64{10 * ms: 10_000}), Compare: &other, End: true, Over: true}, Failed, "Fisher"},
		{"a difference that nobody minds", errors, Look{To: of(10_000_000, 20_000, nil), Compare: &zarpa.RolloutSample{Requests: 10_000_000, Failures: 15_000}, End: true, Over: true}, Passed, "0.15 %"},
		{"half again as slow as the other", errors, Look{To: of(1000, 0, map[time.Duration]int64{15 * ms: 1000}), Compare: &other, End: true, Over: true}, Failed, "50th percentile"},
		{"a tenth slower", errors, Look{To: of(1000, 0, map[time.Duration]int64{11 * ms: 1000}), Compare: &other, End: true, Over: true}, Passed, "there"},
		{"slower by less than anybody notices", errors, Look{To: of(1000, 0, map[time.Duration]int64{ms * 8 / 10: 1000}), Compare: &quick, End: true, Over: true}, Passed, "800µs, and 476µs there"},
		{"four times as slow as a quick one", errors, Look{To: of(1000, 0, map[time.Duration]int64{2 * ms: 1000}), Compare: &quick, End: true, Over: true}, Failed, "50th percentile"},
		{"a longer tail than the other", errors, Look{To: of(1000, 0, map[time.Duration]int64{10 * ms: 900, 500 * ms: 100}), Compare: &other, End: true, Over: true}, Failed, "99th percentile"},
		{"the other has nothing", errors, Look{To: of(1000, 0, map[time.Duration]int64{10 * ms: 1000}), Compare: &zarpa.RolloutSample{}, End: true, Over: true}, Passed, "of 0 there"},
	} {
		if c.look.Compare != nil {
			c.spec.Compare = "blue"
		}
		j, got := Judge(c.spec, c.look)
		var texts []string
		for _, g := range j.Gates {
			texts = append(texts, g.Text)
		}
		if got != c.want || j.Passed != (c.want == Passed) || !strings.Contains(strings.Join(texts, "\n"), c.because) {
			t.Errorf("%s: %v, passed %t, want %v because of %q:\n%s", c.name, got, j.Passed, c.want, c.because, strings.Join(texts, "\n"))
		}
	}
}

// world of a simulated rollout: how often requests fail and how long they take.
type simulated struct {
	failing float64
	median  time.Duration
	random  *rand.Rand
}

// more adds n requests to a sample.
func (s simulated) more(to *zarpa.RolloutSample, n int64) {
	for range n {
		to.Requests++
		if s.random.Float64() < s.failing {
			to.Failures++
		}
		to.Latency[zarpa.LatencyBucket(time.Duration(float64(s.median)*math.Exp(s.random.NormFloat64()/2)))]++
	}
}

// course of one simulated step: the decision and after how many requests it came.
func (s simulated) step(spec zarpa.RolloutSpec, other simulated, requests int64) (Decision, int64) {
	to := zarpa.RolloutSample{Latency: make([]int64, zarpa.LatencyBuckets)}
	compare := zarpa.RolloutSample{Latency: make([]int64, zarpa.LatencyBuckets)}
	for ended := false; to.Requests < 8*requests; {
		before := to.Requests
		s.more(&to, requests/40)
		look := Look{To: to, Over: to.Requests >= requests}
		if spec.Compare != "" {
			other.more(&compare, requests/40)
			look.Compare = &compare
		}
		look.End = look.Over && !ended
		ended = look.Over
		if !look.End && Level(before) == Level(to.Requests) {
			continue
		}
		if _, decision := Judge(spec, look); decision != Open {
			return decision, to.Requests
		}
	}
	return Open, to.Requests
}

// TestRolloutsErrAsRarelyAsIsSaid simulates steps of deployments that are good, exactly at the limit, and bad.
func TestRolloutsErrAsRarelyAsIsSaid(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	steps := zarpa.DefaultRolloutSteps()
	plain := zarpa.RolloutSpec{To: "green", Steps: steps}
	both := zarpa.RolloutSpec{To: "green", Compare: "blue", Steps: steps}
	for _, c := range []struct {
		name           string
		spec           zarpa.RolloutSpec
		green, blue    simulated
		atLeast        Decision // what comes out …
		often          float64  // … in at least this share of the steps
		failsAtMost    float64
		passesAtMost   float64
		requestsAtMost int64 // on average
	}{
		{"good", plain, simulated{failing: 0.002}, simulated{}, Passed, 0.99, 0.001, 1, 1100},
		{"exactly as bad as is allowed", plain, simulated{failing: 0.01}, simulated{}, Passed, 0.5, falseAlarm / 4, 1, 8000},
		{"three times as bad", plain, simulated{failing: 0.03}, simulated{}, Failed, 0.95, 1, 0.01, 3000},
		{"ten times as bad", plain, simulated{failing: 0.1}, simulated{}, Failed, 0.999, 1, 0.0001, 500},
		{"the same as the other", both, simulated{failing: 0.005}, simulated{failing: 0.005}, Passed, 0.95, falseAlarm / 4, 1, 1500},
		{"worse than the other", both, simulated{failing: 0.009}, simulated{failing: 0.0001}, Failed, 0.45, 1, 0.55, 3000},
		{"a fifth slower than the other", both, simulated{failing: 0.002, median: 12 * ms}, simulated{failing: 0.002}, Passed, 0.9, 0.1, 1, 1500},
		{"twice as slow as the other", both, simulated{failing: 0.002, median: 20 * ms}, simulated{failing: 0.002}, Failed, 0.99, 1, 0.01, 500},
	} {
		const runs = 600
		counts, requests := map[Decision]int{}, int64(0)
		for run := range uint64(runs) {
			c.green.random, c.blue.random = rand.New(rand.NewPCG(run, 1)), rand.New(rand.NewPCG(run, 2))
			for _, s := range []*simulated{&c.green, &c.blue} {
				if s.median == 0 {
					s.median = 10 * ms
				}
			}
			decision, n := c.green.step(c.spec, c.blue, 1000)
			counts[decision]++
			requests += n
		}
		share := func(d Decision) float64 { return float64(counts[d]) / runs }
		if share(c.atLeast) < c.often || share(Failed) > c.failsAtMost || share(Passed) > c.passesAtMost || requests/runs > c.requestsAtMost {
			t.Errorf("%s: passed %.3f, failed %.3f, open %.3f, after %d requests on average; want %v in %.3f, failed at most %.4f, passed at most %.4f, after %d",
				c.name, share(Passed), share(Failed), share(Open), requests/runs, c.atLeast, c.often, c.failsAtMost, c.passesAtMost, c.requestsAtMost)
		}
	}
}
