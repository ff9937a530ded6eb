package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// hindrance begins the reason of a rollout whose weights could not be changed.
const hindrance = "waits: "

// world is what a decision follows from.
type world struct {
	now time.Time
	// there tells that the endpoint is there and stays.
	there bool
	// wanted are the weights that the endpoint asks for, used those that are in use.
	wanted, used map[string]int
	// able tells that the deployment can answer, lost for how long it has not been able to.
	able bool
	lost time.Duration
	// changed tells that the deployment is being updated, or was since the last look.
	changed bool
	// measured is the time since the last look, with what came in it; 0 when nothing was measured.
	measured    time.Duration
	to, compare zarpa.RolloutSample
}

// action is what is to be done after the decision is stored.
type action struct {
	shares map[string]int
	urgent bool
}

// decide is the next state of a rollout.
func decide(r zarpa.Rollout, w world) (zarpa.Rollout, action) {
	if !w.there {
		return ended(r, w, zarpa.RolloutAborted, "the endpoint was deleted"), action{}
	}
	if _, ok := w.wanted[r.Spec.To]; !ok {
		return ended(r, w, zarpa.RolloutAborted, fmt.Sprintf("the deployment %q was removed", r.Spec.To)), action{}
	}
	if r.State == zarpa.RolloutRollingBack {
		return back(r, w)
	}
	if w.changed && !r.StepStarted.IsZero() { // what was measured is of another revision
		r.StepStarted, r.Measured, r.To, r.Compare = time.Time{}, 0, zarpa.RolloutSample{}, nil
	}
	want := shares(r, r.Step)
	entering := r.StepStarted.IsZero() && r.Step >= 0
	if !sameShares(w.wanted, want) && (!entering || !sameShares(w.wanted, shares(r, r.Step-1))) {
		return ended(r, w, zarpa.RolloutAborted, "somebody else changed the traffic: "+text(w.wanted)), action{}
	}
	switch {
	case r.State == zarpa.RolloutPaused:
		return r, action{}
	case r.Step < 0:
		r.Step = 0
		r.Reason = stepName(r)
		return r, action{}
	case entering:
		return enter(r, w)
	}
	return measure(r, w)
}

// enter brings the weights of a step into use.
func enter(r zarpa.Rollout, w world) (zarpa.Rollout, action) {
	want := shares(r, r.Step)
	switch {
	case r.Step > 0 && w.lost >= lostFor:
		return lost(r, w), action{}
	case !w.able:
		r.Reason = fmt.Sprintf("waits until %s is ready", r.Spec.To)
	case w.changed:
		r.Reason = fmt.Sprintf("%s begins anew: %s is updated", stepName(r), r.Spec.To)
	case !sameShares(w.wanted, want):
		if !strings.HasPrefix(r.Reason, hindrance) {
			r.Reason = stepName(r) + ": the traffic is moved"
		}
		return r, action{shares: want}
	case !sameShares(w.used, want):
		r.Reason = stepName(r) + ": waits until the gateway has it"
	default:
		r.StepStarted, r.Measured, r.To, r.Compare = w.now.UTC(), 0, zarpa.RolloutSample{}, nil
		if want[r.Spec.Compare] > 0 {
			r.Compare = &zarpa.RolloutSample{}
		}
		r.Reason = stepName(r) + ": measures"
	}
	return r, action{}
}

// measure adds what was measured and judges, when it is time to look.
func measure(r zarpa.Rollout, w world) (zarpa.Rollout, action) {
	if w.lost >= lostFor {
		return lost(r, w), action{}
	}
	if w.measured <= 0 {
		return r, action{}
	}
	was := r
	r.Measured += zarpa.Duration(w.measured)
	r.To = sum(r.To, w.to)
	if r.Compare != nil {
		both := sum(*r.Compare, w.compare)
		r.Compare = &both
	}
	look := Look{Step: r.Step, To: r.To, Compare: r.Compare, Over: over(r), End: over(r) && !over(was)}
	if look.End || Level(was.To.Requests) < Level(r.To.Requests) {
		j, decision := Judge(r.Spec, look)
		j.At = w.now.UTC()
		switch decision {
		case Failed:
			return failed(r, j), action{}
		case Passed:
			return passed(r, w, j), action{}
		case Open:
		}
	}
	r.Reason = stepName(r) + ": measures"
	if r.Measured >= r.Spec.Patience {
		r.State, r.Reason = zarpa.RolloutPaused, impatience(r)
	}
	return r, action{}
}

// lost goes back because nobody answers.
func lost(r zarpa.Rollout, w world) zarpa.Rollout {
	return failed(r, zarpa.Judgement{
		At: w.now.UTC(), Step: r.Step, Percent: r.Spec.Steps[r.Step], To: r.To, Compare: r.Compare,
		Gates: []zarpa.Gate{{Name: gateErrors, Text: fmt.Sprintf("%s has had no ready replica for %v", r.Spec.To, w.lost.Round(time.Second))}},
	})
}

// over reports whether a step has lasted long enough, with enough requests.
func over(r zarpa.Rollout) bool {
	return r.Measured >= r.Spec.Interval && r.To.Requests >= r.Spec.MinRequests
}

// impatience says why a step that was measured for so long has not passed.
func impatience(r zarpa.Rollout) string {
	measured := time.Duration(r.Measured).Round(100 * time.Millisecond)
	if r.To.Requests < r.Spec.MinRequests {
		return fmt.Sprintf("%s: %d of %d requests in %v, which is too few to judge by", stepName(r), r.To.Requests, r.Spec.MinRequests, measured)
	}
	j, _ := Judge(r.Spec, Look{Step: r.Step, To: r.To, Compare: r.Compare, Over: true})
	for _, g := range j.Gates {
		if !g.Passed {
			return fmt.Sprintf("%s: not clear after %v: %s", stepName(r), measured, g.Text)
		}
	}
	return fmt.Sprintf("%s: not clear after %v", stepName(r), measured)
}

// failed goes back, for the reason of the judgement.
func failed(r zarpa.Rollout, j zarpa.Judgement) zarpa.Rollout {
	r.Judgements = append(slices.Clone(r.Judgements), j)
	var why []string
	for _, g := range j.Gates {
		if !g.Passed {
			why = append(why, g.Text)
		}
	}
	r.State, r.Reason = zarpa.RolloutRollingBack, stepName(r)+": "+strings.Join(why, "; ")
	return r
}

// passed goes to the next step, or ends.
func passed(r zarpa.Rollout, w world, j zarpa.Judgement) zarpa.Rollout {
	r.Judgements = append(slices.Clone(r.Judgements), j)
	if r.Step == len(r.Spec.Steps)-1 {
		return ended(r, w, zarpa.RolloutSucceeded, r.Spec.To+" has all the traffic, and every step passed")
	}
	r.Step++
	r.StepStarted, r.Measured, r.To, r.Compare = time.Time{}, 0, zarpa.RolloutSample{}, nil
	r.Reason = stepName(r)
	return r
}

// back brings the weights from before into use.
func back(r zarpa.Rollout, w world) (zarpa.Rollout, action) {
	state := zarpa.RolloutAborted
	if n := len(r.Judgements); n > 0 && !r.Judgements[n-1].Passed {
		state = zarpa.RolloutRolledBack
	}
	want := shares(r, -1)
	if sameShares(w.wanted, want) {
		if sameShares(w.used, want) {
			return ended(r, w, state, r.Reason), action{}
		}
		return r, action{} // the deployments from before are on their way
	}
	for step := range r.Spec.Steps {
		if sameShares(w.wanted, shares(r, step)) {
			return r, action{shares: want, urgent: true}
		}
	}
	return ended(r, w, state, r.Reason+"; somebody else changed the traffic: "+text(w.wanted)), action{}
}

func ended(r zarpa.Rollout, w world, state zarpa.RolloutState, reason string) zarpa.Rollout {
	r.State, r.Reason, r.Ended = state, reason, w.now.UTC()
	return r
}

// stepName is "step 2 of 4, 25 %".
func stepName(r zarpa.Rollout) string {
	return fmt.Sprintf("step %d of %d, %d %%", r.Step+1, len(r.Spec.Steps), r.Spec.Steps[max(0, r.Step)])
}

// shares are the weights of a step, of before the first when it is negative: what the deployment leaves is
// shared by the others as it was before.
func shares(r zarpa.Rollout, step int) map[string]int {
	if step < 0 {
		return r.Before
	}
	given := r.Spec.Steps[step]
	out := map[string]int{r.Spec.To: given}
	names := slices.Sorted(maps.Keys(r.Before))
	all, first := 0, ""
	for _, name := range names {
		if name == r.Spec.To {
			continue
		}
		all += r.Before[name]
		if first == "" || r.Before[name] > r.Before[first] {
			first = name
		}
	}
	left := 100 - given
	for _, name := range names {
		if name != r.Spec.To {
			out[name] = r.Before[name] * (100 - given) / max(1, all)
			left -= out[name]
		}
	}
	if first != "" {
		out[first] += left // what rounding left, to the largest
	}
	return out
}

// sameShares compares the shares in use, which may lack those of 0, with those wanted.
func sameShares(used, wanted map[string]int) bool {
	for name, share := range wanted {
		if used[name] != share {
			return false
		}
	}
	for name, share := range used {
		if wanted[name] != share {
			return false
		}
	}
	return true
}

// text writes shares out: "blue=90 green=10".
func text(shares map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		parts = append(parts, fmt.Sprintf("%s=%d", name, shares[name]))
	}
	return strings.Join(parts, " ")
}

// look reads what a decision about a rollout needs.
func (c *Controller) look(ctx context.Context, k *course, load zarpa.Load) (world, error) {
	r := k.rollout
	w := world{now: c.o.Now(), used: map[string]int{}}
	e, err := c.o.Store.Nouns().Endpoints.Get(ctx, r.Endpoint)
	if errors.Is(err, zarpa.ErrNotFound) || err == nil && (e.Deleting || e.Created.After(r.Created)) { // or another one has its name
		return w, nil
	}
	if err != nil {
		return w, err
	}
	seen, err := c.o.Store.Nouns().Deployments.List(ctx, r.Endpoint)
	if err != nil {
		return w, err
	}
	w.there, w.wanted = true, e.Spec.Weights()
	for _, d := range e.Spec.WithDefaults().Deployments {
		w.able = w.able || d.Name == r.Spec.To && d.Scale.MayIdle()
	}
	for _, o := range seen {
		w.used[o.Deployment] = max(w.used[o.Deployment], o.Weight)
		if o.Deployment == r.Spec.To {
			w.able = w.able || o.Status.Ready("") > 0
			w.changed = w.changed || o.Status.Ready(o.Status.Revision) < o.Status.Ready("") || k.revision != "" && k.revision != o.Status.Revision
			k.revision = o.Status.Revision
		}
	}
	switch {
	case w.able:
		k.lost = time.Time{}
	case k.lost.IsZero():
		k.lost = w.now
	default:
		w.lost = w.now.Sub(k.lost)
	}
	if r.State == zarpa.RolloutRunning && !r.StepStarted.IsZero() && load.Run != "" {
		if k.before != nil {
			w.measured = since(*k.before, load)
			w.to, w.compare = grown(k, load, r.Spec.To), grown(k, load, r.Spec.Compare)
		}
		k.before = &load
	}
	return w, nil
}

// since is the time between two snapshots. Of a gateway that is new only its own time counts, which is not
// known: nothing does.
func since(before, now zarpa.Load) time.Duration {
	if before.Run != now.Run {
		return time.Nanosecond
	}
	return max(time.Nanosecond, now.At.Sub(before.At))
}

// grown is what a deployment's counters grew by. Those of a new gateway began with 0.
func grown(k *course, load zarpa.Load, deployment string) zarpa.RolloutSample {
	now := counted(load, k.rollout.Endpoint, deployment)
	if k.before.Run != load.Run {
		return now
	}
	was := counted(*k.before, k.rollout.Endpoint, deployment)
	out := zarpa.RolloutSample{Requests: max(0, now.Requests-was.Requests), Failures: max(0, now.Failures-was.Failures)}
	out.Latency = slices.Clone(now.Latency)
	for i := range min(len(out.Latency), len(was.Latency)) {
		out.Latency[i] = max(0, out.Latency[i]-was.Latency[i])
	}
	return out
}

func counted(load zarpa.Load, endpoint, deployment string) zarpa.RolloutSample {
	for _, d := range load.Deployments {
		if d.Endpoint == endpoint && d.Deployment == deployment {
			return zarpa.RolloutSample{Requests: d.Requests, Failures: d.Failures, Latency: d.Latency}
		}
	}
	return zarpa.RolloutSample{}
}

// sum adds two samples.
func sum(a, b zarpa.RolloutSample) zarpa.RolloutSample {
	out := zarpa.RolloutSample{Requests: a.Requests + b.Requests, Failures: a.Failures + b.Failures}
	out.Latency = make([]int64, max(len(a.Latency), len(b.Latency)))
	for i := range out.Latency {
		if i < len(a.Latency) {
			out.Latency[i] += a.Latency[i]
		}
		if i < len(b.Latency) {
			out.Latency[i] += b.Latency[i]
		}
	}
	return out
}
