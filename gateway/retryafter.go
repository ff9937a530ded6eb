package gateway

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
)

// The bounds of what a client that is refused is told to wait.
const (
	minRetryAfter = time.Second
	maxRetryAfter = time.Minute
	// drainEvery is how often the rate of a queue is measured anew, and drainWeight how much the newest
	// measure counts.
	drainEvery  = time.Second
	drainWeight = 0.5
)

// drain measures how fast a pool's waiters get replicas, to tell those who are refused when it is
// worth coming back. It costs a waiter two counts; the rate is worked out when somebody is refused.
type drain struct {
	waiting atomic.Int64 // in all queues together
	granted atomic.Int64

	mu   sync.Mutex
	last int64 // granted, at
	at   time.Time
	rate float64 // per second; 0 while it is not known
}

// retryAfter is how long it takes for the queue as it is to be served.
func (d *drain) retryAfter(now time.Time) time.Duration {
	granted := d.granted.Load()
	d.mu.Lock()
	switch since := now.Sub(d.at); {
	case d.at.IsZero(), since > time.Minute: // what was long ago says nothing
		d.last, d.at, d.rate = granted, now, 0
	case since >= drainEvery:
		rate := float64(granted-d.last) / since.Seconds()
		if d.rate > 0 {
			rate = drainWeight*rate + (1-drainWeight)*d.rate
		}
		d.last, d.at, d.rate = granted, now, rate
	}
	rate := d.rate
	d.mu.Unlock()
	waiting := float64(d.waiting.Load() + 1)
	if rate <= 0 {
		return jittered(minRetryAfter)
	}
	return jittered(time.Duration(min(waiting/rate, maxRetryAfter.Seconds()) * float64(time.Second)))
}

// jittered makes a wait up to half as long again, so that clients who were refused together do not
// come back together. It is whole seconds, as Retry-After has them, up or down by chance.
func jittered(d time.Duration) time.Duration {
	seconds := max(d, minRetryAfter).Seconds() * (1 + rand.Float64()/2)
	return min(time.Duration(seconds+rand.Float64())*time.Second, maxRetryAfter)
}

// reject counts a refusal and tells its client when to come back.
func (p *pool) reject(reason string, err *zarpa.Error) *zarpa.Error {
	p.metrics.rejected.WithLabelValues(p.endpoint, reason).Inc()
	switch reason {
	case "queue_full", "queue_wait", "no_replica":
		err.RetryAfter = p.drain.retryAfter(time.Now())
	}
	return err
}

func overloaded(endpoint string) *zarpa.Error {
	return zarpa.Errorf(zarpa.Overloaded, "Too many requests for endpoint %s (overloaded)", endpoint)
}

func noReplica(endpoint string) *zarpa.Error {
	return zarpa.Errorf(zarpa.Unavailable, "No ready replicas for endpoint %s", endpoint).
		WithHint("zarpa explain %s says why", endpoint)
}

// crowded refuses a request that could only be refused once its body was read: all places are taken
// and the queue is full. Its client is spared the sending.
func (p *pool) crowded(name string) *zarpa.Error {
	if p.drain.waiting.Load() < p.bound.Load() {
		return nil
	}
	p.mu.Lock()
	full := p.waiting >= p.maxQueue
	for _, d := range p.deployments {
		if full && (name == "" && d.weight > 0 || d.name == name) {
			full = d.queue.length > 0 || !d.room()
		}
	}
	p.mu.Unlock()
	if full {
		p.countRejected(name)
		return p.reject("queue_full", overloaded(p.endpoint))
	}
	return nil
}

// countRejected counts a request that was refused before it had a deployment, at one that would have got it.
func (p *pool) countRejected(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d, err := p.choose(ask{deployment: name}); err == nil {
		d.counts.rejected.Add(1)
	}
}

// limited is a refusal by a limit of the caller's own, which is 429 in every mapping of statuses: that
// of another caller would be served.
type limited struct{ err *zarpa.Error }

func (l limited) Error() string { return l.err.Error() }
func (l limited) Unwrap() error { return l.err }

// The keys of trailing metadata that tell a gRPC client when to come back: the one for those who look,
// the other for gRPC's libraries, which obey it where the client's retry policy allows a retry.
const (
	metaRetryAfter = "retry-after"
	metaPushback   = "grpc-retry-pushback-ms"
)

// statusOf is the end of a gRPC call: what was refused says when to come back, in the trailer and in
// the details of the status.
func (c *call) statusOf(err error) error {
	out := grpcx.Status(err)
	e, ok := errors.AsType[*zarpa.Error](err)
	if !ok || e.RetryAfter <= 0 {
		return out
	}
	seconds := int64((e.RetryAfter + time.Second - 1) / time.Second)
	c.stream.SetTrailer(metadata.Pairs(metaRetryAfter, strconv.FormatInt(seconds, 10), metaPushback, strconv.FormatInt(e.RetryAfter.Milliseconds(), 10)))
	s := status.Convert(out)
	if _, own := err.(limited); own { //nolint:errorlint // it is never wrapped
		s = status.New(codes.ResourceExhausted, s.Message())
	}
	if detailed, bad := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}); bad == nil {
		s = detailed
	}
	return s.Err()
}
