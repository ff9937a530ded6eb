package main

import (
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestActivitiesAreWhatHappenedBetweenTwoLooks(t *testing.T) {
	t.Parallel()
	one, ten := 1, 10
	reports := []zarpa.EndpointReport{{
		Endpoint: zarpa.Endpoint{Name: "iris"}, Phase: zarpa.EndpointReady,
		Effective: zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{{Name: "blue", Replicas: 2}, {Name: "green", Weight: &ten, Scale: &zarpa.ScaleSpec{Min: &one}}}},
		Deployments: []zarpa.Observed{{Deployment: "blue"}, {Deployment: "green", Status: zarpa.DeploymentStatus{Replicas: []zarpa.Replica{
			{Phase: zarpa.ReplicaReady}, {Phase: zarpa.ReplicaLoading}, {Phase: zarpa.ReplicaDraining},
		}}}},
	}}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	look := func(run string, seconds int, blue, green int64) zarpa.Load {
		latency := make([]int64, zarpa.LatencyBuckets)
		latency[zarpa.LatencyBucket(time.Millisecond)] = blue
		return zarpa.Load{Run: run, At: at.Add(time.Duration(seconds) * time.Second), Deployments: []zarpa.DeploymentLoad{
			{Endpoint: "iris", Deployment: "blue", Requests: blue, Failures: blue / 10, Latency: latency, Replicas: 2},
			{Endpoint: "iris", Deployment: "green", Requests: green, Queued: 3},
			{Endpoint: "gone", Deployment: "blue", Requests: 7},
		}}
	}
	list := activities(look("a", 0, 100, 0), look("a", 2, 280, 20), reports)
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	blue, green := list[0], list[1]
	if blue.Deployment != "blue" || blue.Rate != 90 || blue.Share != 90 || blue.Weight != 90 || blue.Failures != 9 || blue.Ready != 2 || blue.Wanted != 2 {
		t.Errorf("blue: %+v", blue)
	}
	if p := time.Duration(blue.P99); p < time.Millisecond || p > 1200*time.Microsecond {
		t.Errorf("blue's p99: %v", p)
	}
	if green.Rate != 10 || green.Share != 10 || green.Weight != 10 || green.Queued != 3 || green.Wanted != 2 || green.P50 != 0 {
		t.Errorf("green: %+v", green)
	}
	// Another run counts from 0: its counters must not be taken for requests since the look before.
	for _, a := range activities(look("a", 0, 100, 0), look("b", 2, 280, 20), reports) {
		if a.Rate != 0 || a.P99 != 0 || a.Failures != 0 {
			t.Errorf("another run: %+v", a)
		}
	}
}

func TestATopScreenFitsItsTerminal(t *testing.T) {
	t.Parallel()
	s := &screen{watch: &watcher{interval: time.Second}, width: 60, height: 9}
	for range 20 {
		s.list = append(s.list, activity{Endpoint: strings.Repeat("long", 10), Deployment: "blue", Rate: 1e6, Share: 50, Failures: 2})
		s.rates = append(s.rates, float64(len(s.list)))
	}
	s.press("pgdown")
	lines := strings.Split(s.draw(), "\n")
	if len(lines) > s.height {
		t.Errorf("%d lines on a terminal of %d", len(lines), s.height)
	}
	if s.first == 0 {
		t.Error("it does not scroll")
	}
	if s.press("q") == nil {
		t.Error("q does not end it")
	}
}

func TestATopTableLosesNoFigureOnANarrowTerminal(t *testing.T) {
	t.Parallel()
	list := []activity{
		{Endpoint: "iris", Deployment: "blue", Rate: 454, Share: 100, Weight: 100, P50: zarpa.Duration(480 * time.Microsecond), P99: zarpa.Duration(2260 * time.Microsecond), Rejected: 4120, InFlight: 8, Queued: 256, Ready: 10, Wanted: 12},
		{Endpoint: "a-model-of-many-words-2", Deployment: "green-candidate", Mirrored: 226},
	}
	for _, width := range []int{0, 120, 100, 90, 80} {
		lines := table(list, width)
		for i, line := range lines {
			if n := len([]rune(line)); width > 0 && n > width {
				t.Errorf("line %d has %d columns of %d: %s", i, n, width, line)
			}
		}
		for _, want := range []string{"iris", "100%", "454", "2.26ms", "4120", "8", "256", "10/12"} {
			if !strings.Contains(lines[1], want) {
				t.Errorf("at %d columns there is no %s: %s", width, want, lines[1])
			}
		}
	}
	if wide := table(list, 0)[1]; !strings.Contains(wide, bar(1, 10)) {
		t.Errorf("no bar where there is room: %s", wide)
	}
}

func TestBars(t *testing.T) {
	t.Parallel()
	for part, want := range map[float64]string{0: "    ", 1: "████", .5: "██  ", .03: "▏   ", 7: "████", -1: "    "} {
		if got := bar(part, 4); got != want {
			t.Errorf("%v is %q, not %q", part, got, want)
		}
	}
	if got := spark([]float64{9, 0, 1, 2, 4}, 4); got != "▁▂▄█" {
		t.Errorf("spark: %s", got)
	}
	for f, want := range map[float64]string{0: "0", 1.25: "1.2", 123.4: "123", 12_345: "12.3k"} {
		if got := figure(f); got != want {
			t.Errorf("%v is %s, not %s", f, got, want)
		}
	}
}
