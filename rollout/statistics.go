package rollout

import "math"

// atLeast is the probability of k or more successes in n trials of probability p: the exact one-sided
// binomial test. It is 1 for what is not more than expected, which no test would reject.
func atLeast(k, n int64, p float64) float64 {
	switch {
	case k <= 0 || float64(k) <= float64(n)*p:
		return 1
	case p <= 0:
		return 0
	}
	// Above the mean the terms fall, each by a known factor.
	odds := p / (1 - p)
	return tail(logChoose(n, k)+float64(k)*math.Log(p)+float64(n-k)*math.Log1p(-p), n-k, func(i int64) float64 {
		return float64(n-k-i) / float64(k+i+1) * odds
	})
}

// sample is how many of n had a property.
type sample struct{ k, n int64 }

func (s sample) share() float64 {
	if s.n == 0 {
		return 0
	}
	return float64(s.k) / float64(s.n)
}

// exceeds is the probability, were a's and b's shares the same, that so many or more of all that have the
// property are a's: Fisher's exact test, one-sided. It is 1 where a has no more than its part.
func exceeds(a, b sample) float64 {
	all, total := a.k+b.k, a.n+b.n
	if a.n == 0 || b.n == 0 || float64(a.k)*float64(total) <= float64(all)*float64(a.n) {
		return 1
	}
	last := min(all, a.n)
	first := logChoose(all, a.k) + logChoose(total-all, a.n-a.k) - logChoose(total, a.n)
	return tail(first, last-a.k, func(i int64) float64 {
		k := a.k + i
		return float64(all-k) / float64(k+1) * float64(a.n-k) / float64(total-all-a.n+k+1)
	})
}

// tail sums a term, given by its logarithm, and as many as follow it; factor(i) leads from the i-th to the
// next. The terms fall: it ends where they do not matter any more.
func tail(logFirst float64, more int64, factor func(i int64) float64) float64 {
	sum, term := 1.0, 1.0
	for i := range more {
		term *= factor(i)
		sum += term
		if term < sum*1e-12 {
			break
		}
	}
	return min(1, math.Exp(logFirst)*sum)
}

func logChoose(n, k int64) float64 {
	top, _ := math.Lgamma(float64(n) + 1)
	left, _ := math.Lgamma(float64(k) + 1)
	right, _ := math.Lgamma(float64(n-k) + 1)
	return top - left - right
}
