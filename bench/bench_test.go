package main

import (
	"bytes"
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuantileIsTheSmallestValueThatCoversTheShare(t *testing.T) {
	t.Parallel()
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		values []int
		q      float64
		want   int
	}{
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred, 0, 1},
		{[]int{7}, 0.99, 7},
		{[]int{1, 2, 3}, 0.5, 2},
		{nil, 0.5, 0},
	} {
		if got := quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile of %d values at %v: %d, want %d", len(c.values), c.q, got, c.want)
		}
	}
}

func TestMedianLeavesItsValuesInOrder(t *testing.T) {
	t.Parallel()
	values := []float64{3, 1, 2, 10}
	if got := median(values); got != 2.5 {
		t.Errorf("median: %v", got)
	}
	if values[0] != 3 {
		t.Error("median sorted what it was given")
	}
	if median(nil) != 0 || median([]float64{5, 1, 9}) != 5 {
		t.Error("median of none or of three")
	}
}

func TestPairedComparesRoundByRound(t *testing.T) {
	t.Parallel()
	// The second round ran on a machine half as fast: quotients do not show it.
	got := paired([]float64{200, 100}, []float64{100, 50}, quotient)
	if len(got) != 2 || got[0] != 2 || got[1] != 2 {
		t.Errorf("paired: %v", got)
	}
	if got := paired([]float64{5}, []float64{3, 1}, difference); len(got) != 1 || got[0] != 2 {
		t.Errorf("paired with a missing round: %v", got)
	}
}

func TestMessageEndFollowsContentLength(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want int
		bad  bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 40, false},
		{"HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length:2\r\n\r\nokNEXT", 48, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", 0, false},
		{"HTTP/1.1 200 OK\r\nContent-Len", 0, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", 0, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nNEXT", 59, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", 0, true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\noookkk0\r\n\r\n", 0, true},
		{"HTTP/1.1 200 OK\r\n\r\n", 0, true},
		{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, true},
	} {
		got, err := messageEnd([]byte(c.text))
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q: %d, %v; want %d", c.text, got, err, c.want)
		}
	}
}

func TestParseStatSurvivesAnyProcessName(t *testing.T) {
	t.Parallel()
	got, err := parseStat("42 (a) b (c) S 1 42 41 0 -1 4194304 1 0 0 0 150 50 3 1 20 0 5 0 99 1 1")
	if err != nil || got.parent != 1 || got.session != 41 || got.began != "99" || math.Abs(got.used-2.04) > 1e-9 {
		t.Errorf("parseStat: %+v, %v", got, err)
	}
	if _, err := parseStat("42 (x) S 1"); err == nil {
		t.Error("a short line was taken")
	}
}

func TestLoadCountsWhatTheReplicaAnswered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	address := "unix:" + filepath.Join(dir, "r.sock")
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- serveReplica(ctx, replicaSpec{Addresses: []string{address}, Answer: irisAnswer})
	}()
	request := requestText("/score", benchKey, []byte(irisBody))
	for check := answers(address, request); check(ctx) != nil; {
		if ctx.Err() != nil {
			t.Fatal("the replica does not answer")
		}
	}
	for _, rate := range []float64{0, 500} {
		res, err := generate(ctx, loadSpec{
			Address: address, Request: request, Clients: 2, Rate: rate, Warm: 20 * time.Millisecond, Duration: 100 * time.Millisecond,
		})
		if err != nil || res.Failed > 0 || res.Measured == 0 || res.Measured > res.Sent || res.P50 <= 0 || res.P99 < res.P50 {
			t.Errorf("rate %v: %+v, %v", rate, res, err)
		}
		if rate > 0 && res.Sent > 62 {
			t.Errorf("%d requests were sent in 0.12 s at %v/s", res.Sent, rate)
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestReportTellsWhatBoundsAMissedAim(t *testing.T) {
	t.Parallel()
	r := newReport(&bench{progress: &bytes.Buffer{}, scale: settings{}.scale()}, settings{only: "hop", peers: "all", models: "all"})
	var list []*way
	for i := range ways {
		s := sample{loadResult: loadResult{Sent: 10, P50: 100 * float64(i+1), P99: 900, PerSecond: 1000, Processor: 1}, PerRequest: 10}
		list = append(list, &way{name: "way", open: []sample{s}, closed: []sample{s}})
	}
	r.hop(list)
	text := string(r.markdown())
	for _, want := range []string{"0.200 ms | **not met**", "1.00 × | **not met**", "**Not met: the hop adds", "-only hop", "| way |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "NaN") || r.missed() != 2 {
		t.Errorf("%d aims missed:\n%s", r.missed(), text)
	}
}

func TestScriptsAreHeldAgainstTheFasterSettingOfAzure(t *testing.T) {
	t.Parallel()
	r := newReport(&bench{progress: &bytes.Buffer{}, scale: settings{}.scale()}, settings{only: "python", peers: "all", models: "all"})
	runs := func(perSecond, p99, processor float64) map[int][]sample {
		s := sample{loadResult: loadResult{Sent: 10, P50: p99 / 2, P99: p99, PerSecond: perSecond, Processor: 1e-4}, PerRequest: processor}
		return map[int][]sample{1: {s}, halfway: {s}}
	}
	f := &contest{model: &model{name: "m", shape: []int64{1, 1}, row: []float64{1}}, clients: scriptClients, rounds: 1, list: []*contestant{
		{name: scriptName, setting: "slow", form: formScore, samples: runs(1500, 300, 40)},
		{name: scriptName, setting: "fast", form: formScore, samples: runs(3000, 600, 50)},
		{name: batchName, setting: "unfair", form: formScore, samples: runs(9000, 100, 10)},
		{name: azureName, setting: "default", form: formScore, samples: runs(100, 9000, 900)},
		{name: azureName, setting: azureBest, form: formScore, samples: runs(1000, 1000, 150)},
		{name: "LitServe", setting: "default", form: formScore, absent: "did not start"},
	}}
	r.script(f)
	text := string(r.markdown())
	for _, want := range []string{
		"against azureml-inference-server (" + azureBest + "), 16 clients | ≥ 2 × | 3.00 (3.00–3.00) × | met |", "its p99 | ≤ 0.5 × | 0.60 (0.60–0.60) × | **not met** |",
		"| zarpa score, run_batch | unfair | 16 | 9000 (9000–9000) | 9.00 | 50.0 | 100 | 10.0 | 15.00 | 10.0 |", "| LitServe | default | 1 | not measured: did not start |",
		"zarpa needs 50.0 µs",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if r.missed() != 1 || strings.Contains(text, "NaN") {
		t.Errorf("%d aims missed:\n%s", r.missed(), text)
	}
}

func TestFlattenKeepsTheOrderOfNestedData(t *testing.T) {
	t.Parallel()
	b, shape := flatten([][][][]float32{{{{1, 2}, {3, 4}}}})
	if len(b) != 16 || len(shape) != 4 || shape[2] != 2 || b[12] != 0 || b[15] != byte(math.Float32bits(4)>>24) {
		t.Errorf("flatten: %v, shape %v", b, shape)
	}
}

func TestJudgeTurnsToProcessorTimeWhenTheMachineIsBusy(t *testing.T) {
	t.Parallel()
	if times, got := judge([]float64{0.97, 0.98, 0.99}, []float64{0.5}); times != 0.98 || strings.Contains(got, "spread") {
		t.Errorf("calm: %v, %s", times, got)
	}
	if times, got := judge([]float64{0.6, 0.98, 1.9}, []float64{0.975}); times != 0.975 || !strings.Contains(got, "0.60–1.90") {
		t.Errorf("busy: %v, %s", times, got)
	}
}
