package zarpa_test

import (
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestWeights(t *testing.T) {
	t.Parallel()
	blue, green := zarpa.DeploymentSpec{Name: "blue", Model: "m"}, zarpa.DeploymentSpec{Name: "green", Model: "m"}
	give := func(d zarpa.DeploymentSpec, n int) zarpa.DeploymentSpec { d.Weight = new(n); return d }
	for name, c := range map[string]struct {
		deployments []zarpa.DeploymentSpec
		rest        string
		want        map[string]int
		wrong       string
	}{
		"one":                {deployments: []zarpa.DeploymentSpec{blue}, want: map[string]int{"blue": 100}},
		"nobody says":        {deployments: []zarpa.DeploymentSpec{blue, green}, want: map[string]int{"blue": 100, "green": 0}},
		"the default says":   {deployments: []zarpa.DeploymentSpec{blue, green}, rest: "green", want: map[string]int{"blue": 0, "green": 100}},
		"all":                {deployments: []zarpa.DeploymentSpec{give(blue, 90), give(green, 10)}, want: map[string]int{"blue": 90, "green": 10}},
		"the rest":           {deployments: []zarpa.DeploymentSpec{blue, give(green, 10)}, rest: "blue", want: map[string]int{"blue": 90, "green": 10}},
		"the rest is more":   {deployments: []zarpa.DeploymentSpec{give(blue, 20), give(green, 10)}, rest: "blue", want: map[string]int{"blue": 90, "green": 10}},
		"one without":        {deployments: []zarpa.DeploymentSpec{blue, give(green, 10)}, want: map[string]int{"blue": 90, "green": 10}},
		"none":               {deployments: []zarpa.DeploymentSpec{give(blue, 0), give(green, 0)}, want: map[string]int{"blue": 0, "green": 0}},
		"too much":           {deployments: []zarpa.DeploymentSpec{give(blue, 90), give(green, 20)}, wrong: "sum to 110"},
		"too little":         {deployments: []zarpa.DeploymentSpec{give(blue, 50), give(green, 20)}, wrong: "sum to 70"},
		"an unknown default": {deployments: []zarpa.DeploymentSpec{blue}, rest: "red", wrong: `"red"`},
	} {
		spec := zarpa.EndpointSpec{Deployments: c.deployments, Default: c.rest}
		err := spec.Validate()
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if got := spec.Weights(); err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestLatencyBuckets(t *testing.T) {
	t.Parallel()
	for d := time.Microsecond; d < 5*time.Minute; d = d*11/10 + 1 {
		i := zarpa.LatencyBucket(d)
		if d > zarpa.LatencyBound(i)+1 || i > 0 && d <= zarpa.LatencyBound(i-1)-1 {
			t.Errorf("%v is in bucket %d, up to %v", d, i, zarpa.LatencyBound(i))
		}
	}
	h := make([]int64, zarpa.LatencyBuckets)
	for range 990 {
		h[zarpa.LatencyBucket(time.Millisecond)]++
	}
	for range 10 {
		h[zarpa.LatencyBucket(time.Second)]++
	}
	within := func(q float64, want time.Duration) {
		t.Helper()
		if got := zarpa.LatencyQuantile(h, q); got < want || got > want*6/5 {
			t.Errorf("quantile %v is %v, not %v", q, got, want)
		}
	}
	within(.5, time.Millisecond)
	within(.99, time.Millisecond)
	within(.991, time.Second)
	if zarpa.LatencyQuantile(nil, .5) != 0 {
		t.Error("of nothing")
	}
}

func TestLatencyBucketsAgreeWithTheirBounds(t *testing.T) {
	for i := range zarpa.LatencyBuckets - 1 {
		bound := zarpa.LatencyBound(i)
		off := 2 + bound/1_000_000_000 // the bounds themselves are rounded
		for d, want := range map[time.Duration]int{bound - off: i, bound + off: i + 1} {
			if got := zarpa.LatencyBucket(d); got != want {
				t.Errorf("%d ns is in bucket %d, not %d", d, got, want)
			}
		}
	}
	for _, d := range []time.Duration{time.Hour, math.MaxInt64} {
		if got := zarpa.LatencyBucket(d); got != zarpa.LatencyBuckets-1 {
			t.Errorf("%v is in bucket %d", d, got)
		}
	}
}

func BenchmarkLatencyBucket(b *testing.B) {
	sum := 0
	for i := range b.N {
		sum += zarpa.LatencyBucket(time.Duration(i%1000) * 7919)
	}
	if sum == 0 && b.N > 100 {
		b.Error("everything is in the first bucket")
	}
}
