package rollout

import (
	"fmt"
	"math/bits"
	"strconv"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const (
	// falseAlarm bounds the probability that a whole rollout of a deployment that is exactly as bad as is
	// allowed is rolled back. It is shared among steps, gates and looks.
	falseAlarm = 0.05
	// firstLook is the number of requests at which a step is first looked at; then whenever they have
	// doubled.
	firstLook = 10
	// worse is the difference of two failure rates below which one is not called worse, whatever a test says:
	// of a million requests, a difference that nobody minds is significant.
	worse = 0.001
	// slowerBy is the same of two latencies, besides a bucket. A deployment with a small share of the traffic
	// has colder caches and connections: so much slower is the very same model.
	slowerBy = 500 * time.Microsecond
	// slowShare is the share of the requests that may be slower than a 99th percentile.
	slowShare = 0.01
)

// The names of the gates.
const (
	gateErrors        = "error_rate"
	gateP99           = "p99"
	gateCompareErrors = "compare_error_rate"
	gateCompareSlower = "compare_latency"
)

// Look is one look at what a step has measured.
type Look struct {
	Step    int // its index
	To      zarpa.RolloutSample
	Compare *zarpa.RolloutSample // nil without a deployment to compare with
	// End tells that the step's time is over and this is the first look since. Of those before, and of
	// those after it, a step has one whenever its requests have doubled; see [Level].
	End bool
	// Over tells that the step's time is over: only then it can pass.
	Over bool
}

// Decision is what follows from a look.
type Decision int

// The decisions.
const (
	Open   Decision = iota // go on measuring
	Passed                 // go on to the next step
	Failed                 // roll back
)

// Level grows by one whenever a number of requests has doubled; 0 before the first look.
func Level(requests int64) int {
	return bits.Len64(uint64(max(0, requests) / firstLook))
}

// finding is a gate, and whether more requests could still change it.
type finding struct {
	zarpa.Gate
	open bool
}

// Judge is the verdict over a step, with the reason of every gate; it depends on nothing but its
// arguments. A gate fails when its null hypothesis, that the deployment is as good as is allowed, is
// rejected: then the step has failed, at any time. It passes when the deployment was as good as is allowed
// when the step's time was over and there were enough requests. In between it is open. At is left to
// the caller.
func Judge(spec zarpa.RolloutSpec, l Look) (zarpa.Judgement, Decision) {
	spec = spec.WithDefaults()
	var findings []finding
	level := significance(spec, l)
	findings = append(findings, errorGate(sample{l.To.Failures, l.To.Requests}, *spec.MaxErrorRate/100, level))
	if spec.MaxP99 > 0 {
		findings = append(findings, p99Gate(l.To, time.Duration(spec.MaxP99), level))
	}
	if l.Compare != nil {
		findings = append(findings, compareErrors(l.To, *l.Compare, level), compareLatency(l.To, *l.Compare, level))
	}
	j := zarpa.Judgement{Step: l.Step, Percent: spec.Steps[l.Step], To: l.To, Compare: l.Compare, Passed: true}
	failed, open := false, !l.Over || l.To.Requests < spec.MinRequests
	for _, f := range findings {
		j.Gates = append(j.Gates, f.Gate)
		j.Passed = j.Passed && f.Passed
		failed = failed || !f.Passed && !f.open
		open = open || f.open
	}
	j.Passed = j.Passed && !open
	switch {
	case failed:
		return j, Failed
	case open:
		return j, Open
	}
	return j, Passed
}

// significance is the probability below which one gate rejects at a look. The whole is shared equally
// among the steps and among the gates of each. One half of a gate's part is for the end of the step, the
// other for the looks whenever the requests have doubled: 1/(j(j+1)) of it for the j-th, which sums to 1
// however many there will be.
func significance(spec zarpa.RolloutSpec, l Look) float64 {
	gates := 1
	if spec.MaxP99 > 0 {
		gates++
	}
	if spec.Compare != "" {
		gates += 2
	}
	half := falseAlarm / float64(len(spec.Steps)*gates*2)
	if l.End {
		return half
	}
	j := float64(max(1, Level(l.To.Requests)))
	return half / (j * (j + 1))
}

// errorGate tests that at most a share of the requests fails.
func errorGate(s sample, limit, level float64) finding {
	p := atLeast(s.k, s.n, limit)
	text := fmt.Sprintf("%d of %d requests failed, %s; at most %s may", s.k, s.n, percentage(s.share()), percentage(limit))
	return limited(gateErrors, text, s.share() <= limit, verdict{p, level, "binomial test"})
}

// p99Gate tests that at most one in a hundred requests is slower than the limit.
func p99Gate(to zarpa.RolloutSample, limit time.Duration, level float64) finding {
	s := slowerThan(to.Latency, zarpa.LatencyBucket(limit))
	p := atLeast(s.k, s.n, slowShare)
	text := fmt.Sprintf("the 99th percentile is %s, at most %s is allowed; %d of %d requests were slower, %s",
		about(zarpa.LatencyQuantile(to.Latency, 1-slowShare)), limit, s.k, s.n, percentage(s.share()))
	return limited(gateP99, text, s.share() <= slowShare, verdict{p, level, "binomial test"})
}

// verdict is a probability and the one below which it is no chance any more.
type verdict struct {
	p, level float64
	test     string
}

func (v verdict) rejects() bool { return v.p < v.level }

// limited is the finding over a limit that was kept, or was not, perhaps by chance.
func limited(name, text string, kept bool, v verdict) finding {
	switch {
	case v.rejects():
		text += fmt.Sprintf("; by chance that has the probability %.2g, less than %.2g (%s)", v.p, v.level, v.test)
		return finding{zarpa.Gate{Name: name, Text: text}, false}
	case kept:
		return finding{zarpa.Gate{Name: name, Passed: true, Text: text}, false}
	}
	text += fmt.Sprintf("; that may be chance, with the probability %.2g (%s)", v.p, v.test)
	return finding{zarpa.Gate{Name: name, Text: text}, true}
}

// compareErrors tests that requests to one deployment fail no more often than those to the other.
func compareErrors(to, other zarpa.RolloutSample, level float64) finding {
	a, b := sample{to.Failures, to.Requests}, sample{other.Failures, other.Requests}
	text := fmt.Sprintf("%s of %d requests failed, and %s of %d there", percentage(a.share()), a.n, percentage(b.share()), b.n)
	return compared(gateCompareErrors, text, a.share()-b.share() > worse, verdict{exceeds(a, b), level, "Fisher's exact test"})
}

// compareLatency tests that one deployment is not slower than the other by more than a bucket of the
// histogram, a fifth, and slowerBy: that no larger share of its requests is slower than that beyond the other's
// median and 99th percentile than of the other's is slower than these.
func compareLatency(to, other zarpa.RolloutSample, level float64) finding {
	text, slow, least := "", false, 1.0
	for _, q := range []float64{0.5, 1 - slowShare} {
		there := zarpa.LatencyQuantile(other.Latency, q)
		bucket := zarpa.LatencyBucket(there)
		a, b := slowerThan(to.Latency, max(bucket+1, zarpa.LatencyBucket(there+slowerBy))), slowerThan(other.Latency, bucket)
		p := exceeds(a, b)
		slow = slow || p < level/2
		least = min(least, p)
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("the %s is %s, and %s there", strconv.FormatFloat(100*q, 'f', -1, 64)+"th percentile", about(zarpa.LatencyQuantile(to.Latency, q)), about(there))
	}
	return compared(gateCompareSlower, text, slow, verdict{least, level / 2, "Fisher's exact test"})
}

// compared is the finding over two deployments. More requests may make one worse, but none is waited for.
func compared(name, text string, matters bool, v verdict) finding {
	if matters && v.rejects() {
		text += fmt.Sprintf("; by chance that has the probability %.2g, less than %.2g (%s)", v.p, v.level, v.test)
		return finding{zarpa.Gate{Name: name, Text: text}, false}
	}
	return finding{zarpa.Gate{Name: name, Passed: true, Text: text}, false}
}

// slowerThan counts the requests in the buckets after one.
func slowerThan(histogram []int64, bucket int) sample {
	var s sample
	for i, n := range histogram {
		s.n += n
		if i > bucket {
			s.k += n
		}
	}
	return s
}

// percentage is a share in per cent, with as many figures as a reader wants.
func percentage(share float64) string {
	return strconv.FormatFloat(100*share, 'g', 3, 64) + " %"
}

// about is an upper bound of a latency, rounded: it is known to a fifth.
func about(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
