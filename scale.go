package zarpa

import (
	"context"
	"slices"
	"time"
)

// ScaleSpec lets the number of a deployment's replicas follow its load; Replicas of the deployment is
// then the number that it begins with. Zero values mean the default, which WithDefaults fills in.
type ScaleSpec struct {
	Preset ScalePreset `json:"preset,omitempty"`
	// Min and Max bound the replicas. With a Min of 0 the last one goes after Idle without a request,
	// and the next request waits, at most Hold, while one starts.
	Min *int `json:"min,omitempty"`
	Max int  `json:"max,omitempty"`
	// TargetUtilization is the wanted share, in per cent, of the requests that all replicas may work
	// on at a time (max_concurrency each) that are under way or wait.
	TargetUtilization int `json:"target_utilization,omitempty"`
	// Window is the time over which load is averaged before replicas are taken away.
	Window Duration `json:"window,omitempty"`
	Idle   Duration `json:"idle,omitempty"`
	Hold   Duration `json:"hold,omitempty"`
	// Schedules change Min and Max by the clock.
	Schedules []ScaleSchedule `json:"schedules,omitempty"`
}

// ScalePreset names a rule of scaling.
type ScalePreset string

// The presets.
const (
	// ScaleAzure adds replicas within about a second and takes them away after Window, by
	// (busy + queued) / replicas, as Azure ML's router did.
	ScaleAzure ScalePreset = "azure"
	// ScaleKnative is the Knative pod autoscaler's rule: a stable window, and a panic window of a
	// tenth of it that doubles fast and never takes away.
	ScaleKnative ScalePreset = "knative"
)

// ScaleSchedule sets Min and Max from a moment on until that of another schedule comes. The one
// whose moment was last rules.
type ScaleSchedule struct {
	// Cron is the moment: minute, hour, day of month, month, day of week.
	Cron string `json:"cron"`
	// TimeZone is an IANA name; empty is UTC.
	TimeZone string `json:"time_zone,omitempty"`
	Min      *int   `json:"min,omitempty"` // nil keeps the deployment's own
	Max      *int   `json:"max,omitempty"`
}

// The defaults of scaling, and its bounds.
const (
	DefaultScaleMin          = 1
	DefaultScaleMax          = 10
	DefaultTargetUtilization = 70
	DefaultScaleWindow       = Duration(60 * time.Second)
	DefaultScaleIdle         = Duration(5 * time.Minute)
	DefaultScaleHold         = Duration(30 * time.Second)
	maxReplicas              = 1000
	maxSchedules             = 50
)

// WithDefaults is the spec with every unset field filled in; nil stays nil.
func (s *ScaleSpec) WithDefaults() *ScaleSpec {
	if s == nil {
		return nil
	}
	out := *s
	if out.Preset == "" {
		out.Preset = ScaleAzure
	}
	if out.Min == nil {
		least := DefaultScaleMin
		out.Min = &least
	}
	if out.Max == 0 {
		out.Max = max(DefaultScaleMax, *out.Min)
	}
	if out.TargetUtilization == 0 {
		out.TargetUtilization = DefaultTargetUtilization
	}
	if out.Window == 0 {
		out.Window = DefaultScaleWindow
	}
	if out.Idle == 0 {
		out.Idle = DefaultScaleIdle
	}
	if out.Hold == 0 {
		out.Hold = DefaultScaleHold
	}
	return &out
}

// Validate checks every field and names the first that is wrong. It cannot read cron lines and time
// zones: the autoscaler does, before anything is stored.
func (s *ScaleSpec) Validate() error {
	if s == nil {
		return nil
	}
	full := s.WithDefaults()
	between := func(field string, d, least, most Duration) error {
		if d < least || d > most {
			return Errorf(Invalid, "scale.%s: %v is not between %v and %v", field, d, least, most)
		}
		return nil
	}
	switch {
	case full.Preset != ScaleAzure && full.Preset != ScaleKnative:
		return Errorf(Invalid, "scale.preset: %.40q is not known", s.Preset).WithHint("use azure or knative")
	case *full.Min < 0 || *full.Min > maxReplicas:
		return Errorf(Invalid, "scale.min: %d is not between 0 and %d", *full.Min, maxReplicas)
	case full.Max < 1 || full.Max > maxReplicas:
		return Errorf(Invalid, "scale.max: %d is not between 1 and %d", full.Max, maxReplicas)
	case *full.Min > full.Max:
		return Errorf(Invalid, "scale.min: %d is more than max, %d", *full.Min, full.Max)
	case full.TargetUtilization < 1 || full.TargetUtilization > percent:
		return Errorf(Invalid, "scale.target_utilization: %d is not between 1 and 100 per cent", full.TargetUtilization)
	case len(s.Schedules) > maxSchedules:
		return Errorf(Invalid, "scale.schedules: %d, at most %d", len(s.Schedules), maxSchedules)
	}
	for _, err := range []error{
		between("window", full.Window, Duration(5*time.Second), Duration(time.Hour)),
		between("idle", full.Idle, Duration(time.Second), Duration(24*time.Hour)),
		between("hold", full.Hold, Duration(time.Millisecond), Duration(time.Hour)),
	} {
		if err != nil {
			return err
		}
	}
	for i, sc := range s.Schedules {
		least, most := *full.Min, full.Max
		if sc.Min != nil {
			least = *sc.Min
		}
		if sc.Max != nil {
			most = *sc.Max
		}
		switch {
		case sc.Min == nil && sc.Max == nil:
			return Errorf(Invalid, "scale.schedules[%d]: changes neither min nor max", i)
		case least < 0 || most < 1 || most > maxReplicas || least > most:
			return Errorf(Invalid, "scale.schedules[%d]: min %d and max %d are no bounds", i, least, most).
				WithHint("min is at least 0 and at most max, max at most %d", maxReplicas)
		}
	}
	return nil
}

// MayIdle reports whether there may be no replica at times: Min, or that of a schedule, is 0. The
// defaults of s are filled in, or it is nil.
func (s *ScaleSpec) MayIdle() bool {
	if s == nil {
		return false
	}
	return *s.Min == 0 || slices.ContainsFunc(s.Schedules, func(sc ScaleSchedule) bool { return sc.Min != nil && *sc.Min == 0 })
}

// Scaling is what the autoscaler keeps of one deployment, over restarts.
type Scaling struct {
	Endpoint   string `json:"endpoint"`
	Deployment string `json:"deployment"`
	// Wanted is how many replicas there should be.
	Wanted int `json:"wanted"`
	// Missing is how many more there should be, for which the target has no room.
	Missing int       `json:"missing,omitempty"`
	Updated time.Time `json:"updated"`
	// Decisions are the last changes of Wanted, newest first, at most [MaxDecisions].
	Decisions []ScaleDecision `json:"decisions"`
	// ColdStarts are the last starts from zero, newest first, at most [MaxDecisions].
	ColdStarts []ColdStart `json:"cold_starts,omitempty"`
}

// MaxDecisions is how many decisions are kept of each deployment.
const MaxDecisions = 100

// ScaleDecision is one change of the number of wanted replicas, with all that it followed from.
type ScaleDecision struct {
	At   time.Time `json:"at"`
	From int       `json:"from"`
	To   int       `json:"to"`
	// Reason is a sentence: "2.3 requests at a time in the last second, 0.7 × 1 wanted of each replica".
	Reason string      `json:"reason"`
	Inputs ScaleInputs `json:"inputs"`
}

// ScaleInputs are what a decision followed from.
type ScaleInputs struct {
	// Stable and Recent are the mean numbers of requests under way and waiting, over the long window
	// and the short one, in Seconds with data of the long one.
	Stable  float64 `json:"stable"`
	Recent  float64 `json:"recent"`
	Seconds int     `json:"seconds"`
	// Target is how many requests at a time one replica should have.
	Target float64 `json:"target"`
	// Ready and Starting count replicas; Capacity is how many there may be on the target, -1 unknown.
	Ready    int `json:"ready"`
	Starting int `json:"starting"`
	Capacity int `json:"capacity"`
	Min      int `json:"min"`
	Max      int `json:"max"`
	// Panicking tells that load grows so fast that nothing is taken away.
	Panicking bool `json:"panicking,omitempty"`
	// StartTime is how long replicas took lately to become ready; it bounds how long ago panic may have begun.
	StartTime Duration `json:"start_time,omitempty"`
}

// ColdStart is one start from zero in its parts, which follow one another.
type ColdStart struct {
	At        time.Time `json:"at"`
	Decide    Duration  `json:"decide"`     // from the request's arrival to the decision
	Start     Duration  `json:"start"`      // to the replica's process
	Load      Duration  `json:"load"`       // to the replica being ready
	FirstByte Duration  `json:"first_byte"` // to the answer
}

// Scalings keeps what the autoscaler knows, one record per deployment.
type Scalings interface {
	// Put creates or replaces a record.
	Put(ctx context.Context, s Scaling) error
	// List returns the records of an endpoint, of all for an empty name, ordered by endpoint and
	// deployment.
	List(ctx context.Context, endpoint string) ([]Scaling, error)
	// Delete removes the record of a deployment; removing what is gone is no error.
	Delete(ctx context.Context, endpoint, deployment string) error
}
