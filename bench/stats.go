package main

import (
	"cmp"
	"slices"
)

// quantile is the smallest value that at least the share q of the sorted values does not exceed;
// 0 without values.
func quantile[T cmp.Ordered](sorted []T, q float64) T {
	if len(sorted) == 0 {
		var zero T
		return zero
	}
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// median is the middle value, or the mean of the two in the middle; 0 without values.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// middle is the median of one figure over samples.
func middle(samples []sample, figure func(sample) float64) float64 {
	return median(each(samples, figure))
}

func each(samples []sample, figure func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = figure(s)
	}
	return out
}

// paired combines two contestants' figures round by round: what disturbs the machine for longer
// than a round disturbs both, and falls out of the quotient or the difference.
func paired(a, b []float64, combine func(a, b float64) float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = combine(a[i], b[i])
	}
	return out
}

func quotient(a, b float64) float64   { return a / b }
func difference(a, b float64) float64 { return a - b }

// The figures of a sample.
func perSecond(s sample) float64  { return s.PerSecond }
func p50(s sample) float64        { return s.P50 }
func p99(s sample) float64        { return s.P99 }
func perRequest(s sample) float64 { return s.PerRequest }
func loadCost(s sample) float64   { return s.Processor * 1e6 / float64(s.Sent) }
