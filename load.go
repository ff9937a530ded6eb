package zarpa

import (
	"context"
	"math"
	"math/bits"
	"time"
)

// Load is what a gateway counted since it started: one snapshot, for scaling, rollouts and those who
// look on. Two snapshots of one gateway run give what happened between them.
type Load struct {
	// Run names the gateway's process: counters of another Run begin at 0.
	Run string    `json:"run"`
	At  time.Time `json:"at"`
	// Wake grows when a request begins to wait for a deployment that has no replica.
	Wake        int64            `json:"wake"`
	Deployments []DeploymentLoad `json:"deployments"`
}

// DeploymentLoad is one deployment's part of a [Load]. Counters only grow.
type DeploymentLoad struct {
	Endpoint   string `json:"endpoint"`
	Deployment string `json:"deployment"`
	// InFlight, Queued and Replicas (on the routes) are of this moment, Ejected those of the replicas
	// that get no requests for their failures.
	InFlight int `json:"in_flight"`
	Queued   int `json:"queued"`
	Replicas int `json:"replicas"`
	Ejected  int `json:"ejected"`
	// BusySeconds and QueuedSeconds are the integrals of InFlight and Queued over time: their growth
	// by the time between two snapshots is the mean between them.
	BusySeconds   float64 `json:"busy_seconds"`
	QueuedSeconds float64 `json:"queued_seconds"`
	// Requests that were answered or left; Failures are those of them that the deployment is to blame
	// for: answers 5xx and 424, broken replicas and timeouts. Rejected were refused for overload,
	// the whole gateway's included; what a limit of their caller's refused is not counted.
	Requests int64 `json:"requests"`
	Failures int64 `json:"failures"`
	Rejected int64 `json:"rejected"`
	// Mirrored are the copies that were sent here; they count in Requests, Failures and Latency.
	Mirrored int64 `json:"mirrored"`
	Retries  int64 `json:"retries"`
	// Latency counts the answered requests, WebSockets and streams aside, by the time from arrival to the
	// end of the answer: Latency[i] took at most LatencyBound(i), and more than LatencyBound(i-1). It may be shorter than
	// [LatencyBuckets]: what is missing is 0.
	Latency []int64 `json:"latency,omitempty"`
}

// LatencyBuckets is how many buckets there are; the last has no upper bound.
const LatencyBuckets = 96

// firstBound is the upper bound of the first bucket; every further one is 2^(1/4) times as long, up to
// twelve minutes.
const firstBound = 50 * time.Microsecond

// LatencyBound is the upper bound of a bucket of latencies.
func LatencyBound(bucket int) time.Duration {
	return time.Duration(float64(firstBound) * math.Exp2(float64(bucket)/4))
}

// The bounds of the quarters of an octave: firstBound times 2^(1/4), 2^(1/2) and 2^(3/4), in parts of
// a nanosecond, of which one has 2^finer.
const (
	finer         = 20
	firstQuarter  = 62348701991
	secondQuarter = 74145520018
	thirdQuarter  = 88174379952
)

// LatencyBucket is the bucket of a latency. It is on the way of every request: the octave is the length
// of a number in bits, and no logarithm is taken.
func LatencyBucket(d time.Duration) int {
	if d <= firstBound {
		return 0
	}
	n := uint64(d - 1) //nolint:gosec // positive; an upper bound belongs to its bucket
	octave := bits.Len64(n/uint64(firstBound)) - 1
	bucket := 4*octave + 1
	if bucket >= LatencyBuckets {
		return LatencyBuckets - 1
	}
	switch part := n << finer >> octave; {
	case part >= thirdQuarter:
		bucket += 3
	case part >= secondQuarter:
		bucket += 2
	case part >= firstQuarter:
		bucket++
	}
	return min(bucket, LatencyBuckets-1)
}

// LatencyQuantile is an upper bound of a quantile, 0 to 1, of a histogram of latencies; at most a fifth
// too long. 0 for an empty one.
func LatencyQuantile(histogram []int64, q float64) time.Duration {
	total := int64(0)
	for _, n := range histogram {
		total += n
	}
	rank := max(1, int64(math.Ceil(q*float64(total))))
	for i, n := range histogram {
		if rank -= n; n > 0 && rank <= 0 {
			return LatencyBound(i)
		}
	}
	return 0
}

// Loader tells the load of a gateway.
type Loader interface {
	// Load returns a snapshot: at once when its Wake is past wake, else after at most wait. unavailable
	// when the gateway cannot be reached.
	Load(ctx context.Context, wake int64, wait time.Duration) (Load, error)
}
