package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// activity is what one deployment did between two looks at the gateway.
type activity struct {
	Endpoint   string              `json:"endpoint"`
	Deployment string              `json:"deployment"`
	Phase      zarpa.EndpointPhase `json:"phase"`
	// Weight is the wanted share of the endpoint's traffic in per cent, Share the one that was measured.
	Weight int     `json:"weight"`
	Share  float64 `json:"share"`
	// Rate is in answers per second; so are Failures, Rejected and Mirrored.
	Rate     float64        `json:"rate"`
	Failures float64        `json:"failures"`
	Rejected float64        `json:"rejected"`
	Mirrored float64        `json:"mirrored"`
	P50      zarpa.Duration `json:"p50"`
	P99      zarpa.Duration `json:"p99"`
	InFlight int            `json:"in_flight"`
	Queued   int            `json:"queued"`
	// Ready replicas are on the gateway's routes, of those that are Wanted.
	Ready   int `json:"ready"`
	Wanted  int `json:"wanted"`
	Ejected int `json:"ejected"`
}

// activities are what all deployments did between two looks, by endpoint and deployment. Looks at two
// runs of the gateway have nothing between them, and all rates are 0.
func activities(before, after zarpa.Load, reports []zarpa.EndpointReport) []activity {
	type name struct{ endpoint, deployment string }
	old, now := map[name]zarpa.DeploymentLoad{}, map[name]zarpa.DeploymentLoad{}
	for _, d := range after.Deployments {
		now[name{d.Endpoint, d.Deployment}] = d
		if before.Run != after.Run {
			old[name{d.Endpoint, d.Deployment}] = d
		}
	}
	if before.Run == after.Run {
		for _, d := range before.Deployments {
			old[name{d.Endpoint, d.Deployment}] = d
		}
	}
	seconds := max(after.At.Sub(before.At).Seconds(), time.Millisecond.Seconds())
	out := []activity{}
	for _, r := range reports {
		weights, all := r.Effective.Weights(), 0.0
		first := len(out)
		for _, d := range r.Effective.Deployments {
			key := name{r.Endpoint.Name, d.Name}
			a := between(old[key], now[key], seconds)
			a.Endpoint, a.Deployment, a.Phase, a.Weight = key.endpoint, key.deployment, r.Phase, weights[d.Name]
			a.Wanted = wantedReplicas(r, d)
			all += a.Rate - a.Mirrored
			out = append(out, a)
		}
		for i := first; i < len(out) && all > 0; i++ {
			out[i].Share = 100 * (out[i].Rate - out[i].Mirrored) / all
		}
	}
	slices.SortStableFunc(out, func(a, b activity) int {
		return cmp.Or(cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.Deployment, b.Deployment))
	})
	return out
}

// between is what one deployment did between two looks.
func between(old, now zarpa.DeploymentLoad, seconds float64) activity {
	per := func(a, b int64) float64 { return float64(max(0, b-a)) / seconds }
	latency := slices.Clone(now.Latency)
	for i := range min(len(latency), len(old.Latency)) {
		latency[i] = max(0, latency[i]-old.Latency[i])
	}
	return activity{
		Rate: per(old.Requests, now.Requests), Failures: per(old.Failures, now.Failures),
		Rejected: per(old.Rejected, now.Rejected), Mirrored: per(old.Mirrored, now.Mirrored),
		P50:      zarpa.Duration(zarpa.LatencyQuantile(latency, .5)),
		P99:      zarpa.Duration(zarpa.LatencyQuantile(latency, .99)),
		InFlight: now.InFlight, Queued: now.Queued, Ready: now.Replicas, Ejected: now.Ejected,
	}
}
