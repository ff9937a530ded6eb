package zarpa

import (
	"context"
	"time"
)

// RolloutSpec moves an endpoint's traffic to one deployment step by step, as long as what is measured
// allows it.
type RolloutSpec struct {
	// To gets the traffic.
	To string `json:"to"`
	// Compare is the deployment that To is held against; empty compares with nothing but the limits.
	Compare string `json:"compare,omitempty"`
	// Steps are To's shares in per cent, growing, the last one 100.
	Steps []int `json:"steps,omitempty"`
	// Interval is how long a step lasts at least.
	Interval Duration `json:"interval,omitempty"`
	// MaxErrorRate is the largest share of failed requests, in per cent; nil does not look.
	MaxErrorRate *float64 `json:"max_error_rate,omitempty"`
	// MaxP99 is the longest 99th percentile of the time to the answer; 0 does not look.
	MaxP99 Duration `json:"max_p99,omitempty"`
	// MinRequests is how many requests of To a step needs before it is judged.
	MinRequests int64 `json:"min_requests,omitempty"`
	// Patience is how long a step waits for MinRequests; then the rollout pauses.
	Patience Duration `json:"patience,omitempty"`
}

// The defaults of a rollout.
const (
	DefaultRolloutInterval    = Duration(time.Minute)
	DefaultRolloutMinRequests = 100
	DefaultRolloutErrorRate   = 1.0 // per cent
	DefaultRolloutPatience    = Duration(time.Hour)
)

// DefaultRolloutSteps are the shares of a rollout whose steps nobody named.
func DefaultRolloutSteps() []int { return []int{5, 25, 50, 100} }

// WithDefaults is the spec with every unset field filled in.
func (s RolloutSpec) WithDefaults() RolloutSpec {
	if len(s.Steps) == 0 {
		s.Steps = DefaultRolloutSteps()
	}
	if s.Interval == 0 {
		s.Interval = DefaultRolloutInterval
	}
	if s.MaxErrorRate == nil {
		rate := DefaultRolloutErrorRate
		s.MaxErrorRate = &rate
	}
	if s.MinRequests == 0 {
		s.MinRequests = DefaultRolloutMinRequests
	}
	if s.Patience == 0 {
		s.Patience = max(DefaultRolloutPatience, s.Interval)
	}
	return s
}

// Validate checks every field and names the first that is wrong.
func (s RolloutSpec) Validate() error {
	switch {
	case s.To == "":
		return Errorf(Invalid, "to: empty").WithHint("name the deployment that gets the traffic")
	case s.To == s.Compare:
		return Errorf(Invalid, "compare: %q is held against itself", s.To)
	case len(s.Steps) > percent:
		return Errorf(Invalid, "steps: %d, at most 100", len(s.Steps))
	}
	s = s.WithDefaults()
	before := 0
	for i, step := range s.Steps {
		if step <= before || step > percent {
			return Errorf(Invalid, "steps[%d]: %d does not grow towards 100", i, step).WithHint("write shares in per cent that grow: 5,25,50,100")
		}
		before = step
	}
	switch {
	case before != percent:
		return Errorf(Invalid, "steps: the last is %d", before).WithHint("end with 100")
	case s.Interval < Duration(time.Second) || s.Interval > Duration(7*24*time.Hour):
		return Errorf(Invalid, "interval: %v is not between 1s and 168h", s.Interval)
	case *s.MaxErrorRate < 0 || *s.MaxErrorRate > percent:
		return Errorf(Invalid, "max_error_rate: %v is not between 0 and 100 per cent", *s.MaxErrorRate)
	case s.MaxP99 < 0 || s.MaxP99 > Duration(24*time.Hour):
		return Errorf(Invalid, "max_p99: %v is not between 0 and 24h", s.MaxP99)
	case s.MinRequests < 1 || s.MinRequests > 1_000_000_000:
		return Errorf(Invalid, "min_requests: %d is not between 1 and 1000000000", s.MinRequests)
	case s.Patience < s.Interval || s.Patience > Duration(30*24*time.Hour):
		return Errorf(Invalid, "patience: %v is not between interval, %v, and 720h", s.Patience, s.Interval)
	}
	return nil
}

// RolloutState is where a rollout is.
//
//	running ⇄ paused
//	   │  └──────┴──► rolling_back ──► rolled_back │ aborted
//	   └──► succeeded
type RolloutState string

// The states of a rollout; succeeded, rolled_back and aborted are final.
const (
	RolloutRunning     RolloutState = "running"
	RolloutPaused      RolloutState = "paused"
	RolloutRollingBack RolloutState = "rolling_back" // the weights of before are on their way back
	RolloutSucceeded   RolloutState = "succeeded"
	RolloutRolledBack  RolloutState = "rolled_back" // a gate was not passed
	RolloutAborted     RolloutState = "aborted"     // somebody said so
)

// Over reports whether the state is final.
func (s RolloutState) Over() bool {
	return s == RolloutSucceeded || s == RolloutRolledBack || s == RolloutAborted
}

// Rollout is one rollout, with all that it measured. At most one that is not over is there per endpoint.
type Rollout struct {
	ID       string       `json:"id"`
	Endpoint string       `json:"endpoint"`
	Spec     RolloutSpec  `json:"spec"` // defaults filled in
	State    RolloutState `json:"state"`
	// Step is the index in Spec.Steps that it is at; -1 before the first.
	Step int `json:"step"`
	// Before are the weights to go back to.
	Before  map[string]int `json:"before"`
	Created time.Time      `json:"created"`
	// StepStarted is when the step's weights came into use, Measured how long of it was measured: the
	// times when the rollout was paused or nobody measured are not in it.
	StepStarted time.Time `json:"step_started,omitzero"`
	Measured    Duration  `json:"measured,omitempty"`
	Ended       time.Time `json:"ended,omitzero"`
	// Reason is a sentence about the state.
	Reason string `json:"reason,omitempty"`
	// To and Compare are what the step has measured so far.
	To      RolloutSample  `json:"sample_to"`
	Compare *RolloutSample `json:"sample_compare,omitempty"`
	// Judgements are one per step that was judged, oldest first.
	Judgements []Judgement `json:"judgements"`
	// Version counts the updates of this record.
	Version int64 `json:"version"`
	// Who started it.
	Who string `json:"who,omitempty"`
}

// RolloutSample is what was measured of one deployment in one step.
type RolloutSample struct {
	Requests int64 `json:"requests"`
	Failures int64 `json:"failures"`
	// Latency is a histogram, as in [DeploymentLoad].
	Latency []int64 `json:"latency,omitempty"`
}

// Judgement is the verdict over one step.
type Judgement struct {
	At      time.Time      `json:"at"`
	Step    int            `json:"step"`
	Percent int            `json:"percent"`
	Passed  bool           `json:"passed"`
	Gates   []Gate         `json:"gates"`
	To      RolloutSample  `json:"sample_to"`
	Compare *RolloutSample `json:"sample_compare,omitempty"`
}

// Gate is one condition of a judgement.
type Gate struct {
	// Name is "error_rate", "p99", "compare_error_rate" or "compare_latency".
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	// Text is a sentence with the figures, the limit and the test: "0.3 % of 1204 requests failed, …".
	Text string `json:"text"`
}

// Rollouts keeps rollouts.
type Rollouts interface {
	// Create stores a new rollout. When another of the endpoint is not over it is a conflict that names
	// that one.
	Create(ctx context.Context, r Rollout) error
	// Update replaces a rollout whose stored Version is r.Version, and adds one to it; else conflict.
	// not_found when there is none.
	Update(ctx context.Context, r Rollout) error
	// List returns the rollouts of an endpoint, of all for an empty name, newest first, at most limit
	// (0: no limit).
	List(ctx context.Context, endpoint string, limit int) ([]Rollout, error)
	// Prune deletes rollouts that are over but the newest keep of every endpoint.
	Prune(ctx context.Context, keep int) error
}
