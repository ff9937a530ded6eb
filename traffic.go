package zarpa

import (
	"strings"
	"time"
)

// MirrorSpec copies a share of an endpoint's traffic to one deployment. The copies' answers are
// thrown away, and measured. Requests that name their deployment are never copied.
type MirrorSpec struct {
	// Deployment has no share of the live traffic.
	Deployment string `json:"deployment"`
	// Percent of the requests is copied, 1 to 50.
	Percent int `json:"percent"`
}

// maxMirror is the largest share that is mirrored: more would double the load of a gateway.
const maxMirror = 50

// Sticky values of [EndpointSpec]: the deployment of a request is chosen by a hash of what they
// name, so that one caller stays with one deployment while the weights do not change.
const (
	StickyKey    = "key"     // the caller's key or token
	StickyHeader = "header:" // followed by the name of a header; requests without it are not sticky
)

// KeyLimits bound what one key of an endpoint may do; callers of an open endpoint are told apart
// by their address. Beyond them a request gets 429 with Retry-After. 0 is unlimited.
type KeyLimits struct {
	// Rate is in requests per second, and Burst how many may come at once; 0 is one second's Rate.
	Rate  float64 `json:"rate,omitempty"`
	Burst int     `json:"burst,omitempty"`
	// Concurrent is how many requests may be under way, those that wait included.
	Concurrent int `json:"concurrent,omitempty"`
}

// EjectionSpec says when a replica that keeps failing gets no requests for a while. The last usable
// replica of a deployment is never ejected, unless others are out, which then come back; nor are more
// than MaxPercent of them.
type EjectionSpec struct {
	// Failures in a row that eject a replica: answers 5xx, broken connections and timeouts; -1 never.
	Failures int `json:"failures,omitempty"`
	// Time of the first ejection; each further one of the same replica is longer by it, up to ten times.
	Time Duration `json:"time,omitempty"`
	// MaxPercent of a deployment's replicas are out at a time.
	MaxPercent int `json:"max_percent,omitempty"`
}

// The defaults of traffic.
const (
	DefaultRetryBudget      = 20 // per cent
	DefaultEjectionFailures = 5
	DefaultEjectionTime     = Duration(5 * time.Second)
	DefaultEjectionPercent  = 50
	DefaultSlowStart        = Duration(2 * time.Second)
)

// Its bounds.
const (
	maxKeyRate          = 1_000_000
	maxKeyConcurrent    = 100_000
	maxEjectionFailures = 10_000
	maxEjectionTime     = Duration(time.Hour)
	maxSlowStart        = Duration(time.Hour)
	maxStickyHeader     = 100
	neverEject          = -1 // failures
	percent             = 100
)

// explainWeights is what to do about weights that do not sum up.
const explainWeights = "give weights that sum to 100, or to less and name a default that gets the rest, or all 0 for no traffic"

// WithDefaults is the spec with every unset field filled in; of nil it is all defaults.
func (e *EjectionSpec) WithDefaults() *EjectionSpec {
	out := EjectionSpec{}
	if e != nil {
		out = *e
	}
	if out.Failures == 0 {
		out.Failures = DefaultEjectionFailures
	}
	if out.Time == 0 {
		out.Time = DefaultEjectionTime
	}
	if out.MaxPercent == 0 {
		out.MaxPercent = DefaultEjectionPercent
	}
	return &out
}

// Weights are the shares of the endpoint's traffic in per cent, by deployment: what the weights leave
// goes to Default, or else to the deployment that is the only one without a weight; weights that nobody
// set go to Default, or else to the first deployment. They sum to 100, or to 0 when nobody gets traffic.
func (s EndpointSpec) Weights() map[string]int {
	weights, sum := map[string]int{}, 0
	for _, d := range s.Deployments {
		name := d.WithDefaults().Name
		weights[name] = 0
		if d.Weight != nil {
			weights[name] = *d.Weight
			sum += *d.Weight
		}
	}
	if _, ok := weights[s.rest()]; ok {
		weights[s.rest()] += max(0, percent-sum) // a record of a release that took them for proportions may have more
	}
	return weights
}

// rest is the deployment that gets what the weights leave; empty when nobody does.
func (s EndpointSpec) rest() string {
	var without []string
	for _, d := range s.Deployments {
		if d.Weight == nil {
			without = append(without, d.WithDefaults().Name)
		}
	}
	switch {
	case s.Default != "":
		return s.Default
	case len(without) == 1, len(without) > 0 && len(without) == len(s.Deployments):
		return without[0]
	}
	return ""
}

// validateTraffic checks what is said of the endpoint's traffic; the deployments are valid.
func (s EndpointSpec) validateTraffic() error {
	sum, names := 0, map[string]bool{}
	for _, d := range s.Deployments {
		names[d.WithDefaults().Name] = true
		if d.Weight != nil {
			sum += *d.Weight
		}
	}
	switch {
	case sum > percent:
		return Errorf(Invalid, "weight: the deployments' weights sum to %d", sum).WithHint(explainWeights)
	case s.Default != "" && !names[s.Default]:
		return Errorf(Invalid, "default: there is no deployment %.64q", s.Default).WithHint("name one of the endpoint's deployments")
	case sum != 0 && sum != percent && s.rest() == "" && len(s.Deployments) > 0:
		return Errorf(Invalid, "weight: the deployments' weights sum to %d", sum).WithHint(explainWeights)
	}
	if err := s.validateMirror(names); err != nil {
		return err
	}
	if h, ok := strings.CutPrefix(s.Sticky, StickyHeader); s.Sticky != "" && s.Sticky != StickyKey && (!ok || !validHeader(h)) {
		return Errorf(Invalid, "sticky: %.80q is not known", s.Sticky).WithHint("use key, or header:NAME")
	}
	return s.validateGuards()
}

func (s EndpointSpec) validateMirror(names map[string]bool) error {
	m := s.Mirror
	switch {
	case m == nil:
		return nil
	case !names[m.Deployment]:
		return Errorf(Invalid, "mirror.deployment: there is no deployment %.64q", m.Deployment).WithHint("name one of the endpoint's deployments")
	case m.Percent < 1 || m.Percent > maxMirror:
		return Errorf(Invalid, "mirror.percent: %d is not between 1 and %d", m.Percent, maxMirror)
	case s.Weights()[m.Deployment] > 0:
		return Errorf(Invalid, "mirror.deployment: %q has a share of the live traffic", m.Deployment).
			WithHint("a deployment takes live or mirrored traffic: give it the weight 0")
	}
	return nil
}

func (s EndpointSpec) validateGuards() error {
	if l := s.Limits; l != nil {
		switch {
		case l.Rate < 0 || l.Rate > maxKeyRate || l.Rate != l.Rate:
			return Errorf(Invalid, "limits.rate: %v is not between 0 and %d", l.Rate, maxKeyRate)
		case l.Burst < 0 || l.Burst > maxKeyRate:
			return Errorf(Invalid, "limits.burst: %d is not between 0 and %d", l.Burst, maxKeyRate)
		case l.Burst > 0 && l.Rate == 0:
			return Errorf(Invalid, "limits.burst: %d without a rate", l.Burst).WithHint("give limits.rate, in requests per second")
		case l.Concurrent < 0 || l.Concurrent > maxKeyConcurrent:
			return Errorf(Invalid, "limits.concurrent: %d is not between 0 and %d", l.Concurrent, maxKeyConcurrent)
		}
	}
	if b := s.RetryBudget; b != nil && (*b < 0 || *b > percent) {
		return Errorf(Invalid, "retry_budget: %d is not between 0 and 100 per cent", *b)
	}
	e := s.Ejection
	switch {
	case e == nil:
	case e.Failures < neverEject || e.Failures > maxEjectionFailures:
		return Errorf(Invalid, "ejection.failures: %d is not between 1 and %d, or -1 for never", e.Failures, maxEjectionFailures)
	case e.Time < 0 || e.Time > maxEjectionTime:
		return Errorf(Invalid, "ejection.time: %v is not between 0 and %v", e.Time, maxEjectionTime)
	case e.MaxPercent < 0 || e.MaxPercent > percent:
		return Errorf(Invalid, "ejection.max_percent: %d is not between 1 and 100", e.MaxPercent)
	}
	return nil
}

// validHeader accepts a token of RFC 9110, section 5.6.2, of bounded length.
func validHeader(name string) bool {
	if name == "" || len(name) > maxStickyHeader {
		return false
	}
	for _, r := range name {
		if !letter(r) && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r) {
			return false
		}
	}
	return true
}
