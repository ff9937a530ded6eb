// Package autoscale says how many replicas a deployment should have. [Decide] is the rule: a pure
// function over the load that was measured, with the presets azure and knative of one engine. [Window]
// turns the counters of a gateway into that load, and [Scaler] acts: it reads the load twice a second,
// decides, keeps what was decided and tells the reconciler. It starts and stops no replica itself.
package autoscale

import (
	"math"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Policy is the rule of one deployment, in the numbers that [Decide] works with.
type Policy struct {
	// Target is how many requests at a time one replica should have.
	Target float64
	// Min and Max bound what is wanted, schedules included.
	Min, Max int
	// Window is the time of the stable mean, and Recent that of the mean that panic looks at.
	Window, Recent time.Duration
	// Idle is how long nothing came before the last replica goes, where Min is 0.
	Idle time.Duration
	// Threshold is how many times the replicas there are the recent load must ask for to be panic.
	Threshold float64
	// Peak lets the highest second of the window, and not its mean, say what may be taken away: load that
	// goes up and down by chance takes no replica away and brings it back.
	Peak bool
	// MaxUp and MaxDown bound one step: to MaxUp times the replicas, and to one MaxDown-th of them.
	MaxUp, MaxDown float64
}

// The numbers of the presets. Those of knative are the defaults of its autoscaler.
const (
	knativePanicShare     = 10 // of the window
	knativePanicThreshold = 2
	azureRecent           = time.Second
	// azurePanicThreshold lets every rise be a panic: it is acted on at once, and nothing is taken away
	// until the load has stayed below it for a whole window.
	azurePanicThreshold = 1
	maxUpRate           = 1000
	maxDownRate         = 2
	leastTarget         = 0.01
	percent             = 100
)

// NewPolicy is the policy of a deployment with Scale set, whose defaults are filled in, at a moment:
// schedules move its bounds.
func NewPolicy(d zarpa.DeploymentSpec, now time.Time) Policy {
	s := d.Scale
	p := Policy{
		Target: max(leastTarget, float64(d.MaxConcurrency)*float64(s.TargetUtilization)/percent),
		Window: time.Duration(s.Window), Idle: time.Duration(s.Idle),
		Recent: azureRecent, Threshold: azurePanicThreshold, Peak: true, MaxUp: maxUpRate, MaxDown: maxDownRate,
	}
	if s.Preset == zarpa.ScaleKnative {
		p.Recent, p.Threshold, p.Peak = p.Window/knativePanicShare, knativePanicThreshold, false
	}
	p.Min, p.Max = Bounds(s, now)
	return p
}

// Clamp brings a number of replicas within the bounds.
func (p Policy) Clamp(n int) int { return min(max(n, p.Min), p.Max) }

// need is how many replicas a load asks for.
func (p Policy) need(load float64) int {
	// A hair less than a whole number of replicas' worth is no reason for one more.
	const tolerance = 1e-9
	return int(min(math.Ceil(load/p.Target-tolerance), math.MaxInt32))
}

// Initial is what is wanted of a deployment that was never scaled: the replicas that its spec names,
// and at least one, so that a deploy shows that its model loads.
func (p Policy) Initial(replicas int) int { return min(max(replicas, p.Min, 1), p.Max) }
