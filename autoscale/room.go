package autoscale

import (
	"context"
	"fmt"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// rooms is what the targets have room for in one tick: what is decided takes from it.
type rooms struct {
	scaler  *Scaler
	reports map[string]zarpa.CapacityReport
}

func (r *rooms) report(ctx context.Context, target string) zarpa.CapacityReport {
	report, ok := r.reports[target]
	if !ok {
		var err error
		if report, err = r.scaler.o.Capacity(ctx, target); err != nil {
			report = zarpa.CapacityReport{} // unknown
		}
		r.reports[target] = report
	}
	return report
}

// count takes over how many replicas the targets count, where they tell: what was observed of them may be
// older, and a place that a replica took since is no lack of room for it.
func (r *rooms) count(ctx context.Context, all []*scaled) {
	for _, d := range all {
		if of := r.report(ctx, d.spec.Target).Of; of != nil {
			d.present = of[zarpa.ReplicasOf(d.endpoint, d.spec.Name)]
		}
	}
}

// capacity is how many replicas of a deployment its target can run, with those that are there; -1 is
// unknown. Processors and memory bound what scaling adds, never the first replica nor Min: a machine runs
// more than it has, slowly, when a user says so.
func (r *rooms) capacity(ctx context.Context, d *scaled) int {
	report := r.report(ctx, d.spec.Target)
	own := min(d.present, max(d.state.Wanted, 1)) // the others are on their way out
	capacity := -1
	if room := report.Room(d.spec); room >= 0 {
		capacity = max(own+room, d.policy.Min, 1)
	}
	if slots := report.Slots(); slots >= 0 && (capacity < 0 || own+slots < capacity) {
		capacity = own + slots
	}
	return capacity
}

// lacks is how many replicas of a deployment that is not scaled have no place on its target.
func (r *rooms) lacks(ctx context.Context, d *scaled) int {
	slots := r.report(ctx, d.spec.Target).Slots()
	if slots < 0 {
		return 0
	}
	return max(0, d.state.Wanted-d.present-slots)
}

// take takes what a deployment wants beyond what is there, and what it misses: no other one of a lower
// priority shall get that.
func (r *rooms) take(d *scaled) {
	more := max(0, d.state.Wanted-d.present) + d.state.Missing
	r.reports[d.spec.Target] = r.reports[d.spec.Target].With(d.spec, more)
}

// giveWay lowers what is wanted of deployments that have replicas to spare, where one of a higher priority
// has no room on their target: of the one that has been idle for longest first, and never below its Min
// nor what its load needs. Replicas that are on their way out already are waited for first.
func (s *Scaler) giveWay(all []*scaled, now time.Time) {
	leaving := map[string]int{} // by target
	for _, d := range all {
		leaving[d.spec.Target] += max(0, d.there-d.state.Wanted)
	}
	for _, needy := range all {
		freed := min(needy.state.Missing, leaving[needy.spec.Target])
		leaving[needy.spec.Target] -= freed
		for missing := needy.state.Missing - freed; missing > 0; {
			d := idlest(all, needy)
			if d == nil {
				break
			}
			from, n := d.state.Wanted, min(missing, d.spare())
			missing -= n
			d.state.Wanted -= n
			d.state.Peak = min(d.state.Peak, d.state.Wanted) // panic keeps what is left
			if d.state.Wanted == 0 {
				d.state.Panic, d.state.Idled = time.Time{}, now
			}
			gave := zarpa.ScaleDecision{
				At: now.UTC(), From: from, To: d.state.Wanted,
				Reason: fmt.Sprintf("endpoint %s, of priority %d, has no room on %s for %d more: this one, of priority %d, gives way",
					needy.endpoint, needy.priority, d.spec.Target, needy.state.Missing, d.priority),
				Inputs: (&decision{p: d.policy, s: d.state, x: d.sample}).inputs(),
			}
			s.o.Metrics.count(d.key, gave)
			d.decided(gave, now)
		}
	}
}

// spare is how many replicas a deployment has that nothing needs at the moment.
func (d *scaled) spare() int {
	if d.sample.StableSeconds <= 0 || d.sample.RecentSeconds <= 0 || d.waiting || d.starting > 0 {
		return 0
	}
	return d.state.Wanted - max(d.policy.Min, d.policy.need(d.sample.Recent))
}

// idlest is the deployment of a lower priority on the same target that has been idle for longest, of those
// that have a replica to spare.
func idlest(all []*scaled, needy *scaled) *scaled {
	var found *scaled
	for _, d := range all {
		if d.priority >= needy.priority || d.spec.Target != needy.spec.Target || d.spare() <= 0 {
			continue
		}
		if found == nil || d.sample.Busy.Before(found.sample.Busy) {
			found = d
		}
	}
	return found
}
