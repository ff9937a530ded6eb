package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/rollout"
)

// rollouts makes what takes rollouts to their end.
func (p *plane) rollouts() *rollout.Controller {
	set := api.SetWeights(p.store, p.recon.Wake, time.Now)
	return rollout.New(rollout.Options{
		Store: p.store, Loader: p.keeper.client, Log: p.log,
		SetWeights: func(ctx context.Context, w rollout.Weights) error {
			return set(ctx, api.WeightChange{Endpoint: w.Endpoint, Weights: w.Shares, Who: w.Who, Interrupt: w.Urgent})
		},
	})
}

// rolloutMetrics tells Prometheus of rollouts.
type rolloutMetrics struct{ c *rollout.Controller }

var _ prometheus.Collector = rolloutMetrics{}

// Describe names no metric: that makes the collector one whose metrics come and go.
func (m rolloutMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect tells of the last rollout of every endpoint.
func (m rolloutMetrics) Collect(to chan<- prometheus.Metric) {
	state := prometheus.NewDesc("zarpa_rollout_state", "1 for the state of the endpoint's last rollout.", []string{"endpoint", "rollout", "state"}, nil)
	step := prometheus.NewDesc("zarpa_rollout_step", "The step of the endpoint's last rollout, from 1 on; 0 before the first.", []string{"endpoint", "rollout"}, nil)
	percent := prometheus.NewDesc("zarpa_rollout_step_percent", "The share of the traffic of that step, in per cent.", []string{"endpoint", "rollout"}, nil)
	judged := prometheus.NewDesc("zarpa_rollout_judgements_total", "Steps that were judged.", []string{"endpoint", "passed"}, nil)
	for endpoint, r := range m.c.Rollouts() {
		to <- prometheus.MustNewConstMetric(state, prometheus.GaugeValue, 1, endpoint, r.ID, string(r.State))
		to <- prometheus.MustNewConstMetric(step, prometheus.GaugeValue, float64(r.Step+1), endpoint, r.ID)
		share := r.Before[r.Spec.To]
		if r.Step >= 0 {
			share = r.Spec.Steps[r.Step]
		}
		to <- prometheus.MustNewConstMetric(percent, prometheus.GaugeValue, float64(share), endpoint, r.ID)
	}
	for v, n := range m.c.Judged() {
		to <- prometheus.MustNewConstMetric(judged, prometheus.CounterValue, float64(n), v.Endpoint, strconv.FormatBool(v.Passed))
	}
}

// rolloutFlags are the flags of rollout.
type rolloutFlags struct {
	to, compare                        string
	steps                              []int
	interval, maxP99, patience         string
	maxErrorRate                       string
	minRequests                        int64
	pause, resume, abort, noWait, wait bool
}

func (c *cli) rolloutCommand() *cobra.Command {
	var f rolloutFlags
	cmd := &cobra.Command{
		Use: "rollout ENDPOINT [--to DEPLOYMENT]", Short: "Move the traffic to a deployment step by step, as long as it proves itself",
		Long: `Gives a deployment growing shares of the traffic. Each step lasts at least --interval and --min-requests
requests, and is then judged: by the share of failed requests, the 99th percentile of the time to the
answer, and by what the --compare deployment did at the same time. A step that has certainly failed is
taken back at once, with all before it. What is not clear is measured on, for up to --patience; then
the rollout pauses.

The command follows it, and ends with 0 when the deployment has all the traffic. ^C leaves the rollout
under way. Without --to it shows the last rollouts.`,
		Example: `  zarpa rollout iris --to green --steps 5,25,50,100 --interval 1m --max-error-rate 1% --max-p99 200ms
  zarpa rollout iris --to green --compare blue --min-requests 1000 --no-wait
  zarpa rollout iris
  zarpa rollout iris --pause
  zarpa rollout iris --resume
  zarpa rollout iris --abort`,
		Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			ctx, name := cmd.Context(), args[0]
			if err := specWithoutTo(cmd.Flags(), f.to); err != nil {
				return err
			}
			action, err := f.action()
			switch {
			case err != nil:
				return err
			case action == "abort" && !f.noWait:
				return c.abortRollout(ctx, api, name)
			case action != "":
				r, err := api.SteerRollout(ctx, name, action)
				if err != nil {
					return err
				}
				return c.showRollout(r)
			case f.to == "" && !f.wait:
				return c.showRollouts(ctx, api, name)
			case f.to == "":
				return c.followRollout(ctx, api, name, "")
			}
			spec, err := f.spec()
			if err != nil {
				return err
			}
			r, err := api.StartRollout(ctx, name, spec)
			if err != nil {
				return err
			}
			if f.noWait {
				return c.showRollout(r)
			}
			return c.followRollout(ctx, api, name, r.ID)
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.to, "to", "", "deployment that gets the traffic")
	fl.StringVar(&f.compare, "compare", "", "deployment that it is held against; none by default")
	fl.IntSliceVar(&f.steps, "steps", zarpa.DefaultRolloutSteps(), "shares in per cent, growing, the last one 100")
	fl.StringVar(&f.interval, "interval", zarpa.DefaultRolloutInterval.String(), "how long a step lasts at least")
	fl.StringVar(&f.maxErrorRate, "max-error-rate", fmt.Sprintf("%g%%", zarpa.DefaultRolloutErrorRate), "largest share of failed requests")
	fl.StringVar(&f.maxP99, "max-p99", "", "longest 99th percentile of the time to the answer; not looked at by default")
	fl.Int64Var(&f.minRequests, "min-requests", zarpa.DefaultRolloutMinRequests, "requests that a step needs before it can pass")
	fl.StringVar(&f.patience, "patience", "", "how long a step that is not clear is measured, then the rollout pauses; "+zarpa.DefaultRolloutPatience.String()+" by default, or --interval where that is longer")
	fl.BoolVar(&f.pause, "pause", false, "keep the shares of now until --resume")
	fl.BoolVar(&f.resume, "resume", false, "go on; the step's time begins anew")
	fl.BoolVar(&f.abort, "abort", false, "go back to the shares from before the rollout")
	fl.BoolVar(&f.noWait, "no-wait", false, "do not follow it")
	fl.BoolVar(&f.wait, "wait", false, "follow the rollout that is under way")
	return cmd
}

// specWithoutTo refuses flags of a new rollout where none is begun: they would change nothing.
func specWithoutTo(given *pflag.FlagSet, to string) error {
	for _, flag := range []string{"compare", "steps", "interval", "max-error-rate", "max-p99", "min-requests", "patience"} {
		if to == "" && given.Changed(flag) {
			return zarpa.Errorf(zarpa.Invalid, "--%s: without --to", flag).WithHint("name the deployment that gets the traffic: --to DEPLOYMENT")
		}
	}
	return nil
}

// action is what to do to a rollout that is under way, empty for nothing.
func (f rolloutFlags) action() (string, error) {
	action := ""
	for name, given := range map[string]bool{"pause": f.pause, "resume": f.resume, "abort": f.abort} {
		if !given {
			continue
		}
		if action != "" || f.to != "" {
			return "", zarpa.Errorf(zarpa.Invalid, "--%s: not with --to, nor with another of --pause, --resume and --abort", name).WithHint("give one of them")
		}
		action = name
	}
	return action, nil
}

func (f rolloutFlags) spec() (zarpa.RolloutSpec, error) {
	spec := zarpa.RolloutSpec{To: f.to, Compare: f.compare, MinRequests: f.minRequests}
	rate, err := strconv.ParseFloat(strings.TrimSuffix(f.maxErrorRate, "%"), 64)
	if err != nil {
		return spec, zarpa.Errorf(zarpa.Invalid, "--max-error-rate: %.40q is not a share", f.maxErrorRate).WithHint("write 1%% or 0.5%%")
	}
	spec.MaxErrorRate = &rate
	if f.steps != nil && !slices.Equal(f.steps, zarpa.DefaultRolloutSteps()) {
		spec.Steps = f.steps // the usual ones leave those out that are not above the share of now
	}
	for _, t := range []struct {
		flag, text string
		to         *zarpa.Duration
	}{{"interval", f.interval, &spec.Interval}, {"patience", f.patience, &spec.Patience}, {"max-p99", f.maxP99, &spec.MaxP99}} {
		if t.text == "" {
			continue
		}
		if err := flagText(t.flag, t.text, t.to); err != nil {
			return spec, err
		}
	}
	return spec, spec.Validate()
}

// abortRollout aborts the rollout that is under way and waits until it is over.
func (c *cli) abortRollout(ctx context.Context, api *client.Client, name string) error {
	r, err := api.SteerRollout(ctx, name, "abort")
	if err != nil {
		return err
	}
	for !r.State.Over() && pause(ctx, rolloutLook) {
		if r, err = c.lastRollout(ctx, api, name, r.ID); err != nil {
			return err
		}
	}
	return c.showRollout(r)
}

func (c *cli) showRollout(r zarpa.Rollout) error {
	return c.show(r, func(w io.Writer) { rolloutTable(w, r, time.Now()) })
}

// rolloutLook is how often a rollout that is followed is looked at.
const rolloutLook = 300 * time.Millisecond

// shownRollouts is how many rollouts are listed.
const shownRollouts = 10

func (c *cli) showRollouts(ctx context.Context, api *client.Client, name string) error {
	if _, err := api.GetEndpoint(ctx, name); err != nil {
		return err
	}
	list, err := api.ListRollouts(ctx, name, shownRollouts)
	if err != nil {
		return err
	}
	return c.show(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintf(w, "No rollouts yet. Begin one: zarpa rollout %s --to DEPLOYMENT\n", name)
		}
		for i, r := range list {
			if i > 0 {
				row(w)
			}
			rolloutTable(w, r, time.Now())
		}
	})
}

// lastRollout reads an endpoint's newest rollout, which must be the one with the ID unless that is empty.
func (c *cli) lastRollout(ctx context.Context, api *client.Client, name, id string) (zarpa.Rollout, error) {
	list, err := api.ListRollouts(ctx, name, 1)
	if err != nil {
		return zarpa.Rollout{}, err
	}
	if len(list) == 0 || id != "" && list[0].ID != id {
		return zarpa.Rollout{}, zarpa.Errorf(zarpa.NotFound, "endpoint %q: no such rollout %s", name, id).WithHint("zarpa rollout %s shows those that were", name)
	}
	return list[0], nil
}

// followRollout shows a rollout as it goes and returns an error unless it succeeds.
func (c *cli) followRollout(ctx context.Context, api *client.Client, name, id string) error {
	p, told := c.progress(), 0
	defer p.clear()
	for {
		r, err := c.lastRollout(ctx, api, name, id)
		if ctx.Err() != nil {
			return zarpa.Errorf(zarpa.Canceled, "stopped following; the rollout goes on").WithHint("zarpa rollout %s shows it, --abort ends it", name)
		}
		if err != nil {
			return err
		}
		id = r.ID
		if c.output == "table" {
			for ; told < len(r.Judgements); told++ {
				for _, line := range judgementLines(r.Judgements[told]) {
					p.line("%s", line)
				}
			}
			if !r.State.Over() {
				p.step("… %s", present(r))
			}
		}
		switch {
		case r.State == zarpa.RolloutPaused:
			return zarpa.Errorf(zarpa.Conflict, "rollout %s is paused: %s", r.ID, r.Reason).
				WithHint("zarpa rollout %s --resume goes on, --abort goes back", name)
		case r.State.Over():
			p.clear()
			if c.output == "table" {
				r.Reason = outline(r) // the gates were shown
			}
			return c.rolloutEnd(r)
		}
		pause(ctx, rolloutLook)
	}
}

// rolloutEnd shows a rollout that is over, and is an error unless it succeeded.
func (c *cli) rolloutEnd(r zarpa.Rollout) error {
	if r.State != zarpa.RolloutSucceeded {
		code := zarpa.Conflict
		if r.State == zarpa.RolloutRolledBack {
			code = zarpa.ModelError
		}
		return zarpa.Errorf(code, "rollout %s: %s: %s", r.ID, strings.ReplaceAll(string(r.State), "_", " "), r.Reason).
			WithHint("zarpa explain %s tells more", r.Endpoint)
	}
	return c.show(r, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", r.Endpoint, r.Reason) })
}

// outline is the reason of a rollout without the texts of the gates that did not pass, which stand below it.
func outline(r zarpa.Rollout) string {
	n := len(r.Judgements)
	if n == 0 || r.Judgements[n-1].Passed {
		return r.Reason
	}
	var texts []string
	for _, g := range r.Judgements[n-1].Gates {
		if !g.Passed {
			texts = append(texts, g.Text)
		}
	}
	return strings.Replace(r.Reason, ": "+strings.Join(texts, "; "), " failed", 1)
}

// present is what a rollout that is under way does.
func present(r zarpa.Rollout) string {
	switch {
	case r.State == zarpa.RolloutRollingBack:
		return "the shares from before are brought back"
	case r.State == zarpa.RolloutPaused && r.Step >= 0 && !strings.HasPrefix(r.Reason, "step "):
		return fmt.Sprintf("%s, in step %d of %d, %d %%%s", r.Reason, r.Step+1, len(r.Spec.Steps), r.Spec.Steps[r.Step], sofar(r))
	}
	return r.Reason + sofar(r)
}

// sofar is what the present step has measured.
func sofar(r zarpa.Rollout) string {
	if r.StepStarted.IsZero() || r.To.Requests == 0 {
		return ""
	}
	text := fmt.Sprintf(" (%s, %d requests, %d failed", took(time.Duration(r.Measured)), r.To.Requests, r.To.Failures)
	if p99 := zarpa.LatencyQuantile(r.To.Latency, 0.99); p99 > 0 {
		text += ", p99 " + latency(zarpa.Duration(p99))
	}
	return text + ")"
}

func judgementLines(j zarpa.Judgement) []string {
	mark := func(passed bool) string {
		if passed {
			return "✓"
		}
		return "✗"
	}
	lines := []string{fmt.Sprintf("%s step %d, %d %%", mark(j.Passed), j.Step+1, j.Percent)}
	for _, g := range j.Gates {
		lines = append(lines, fmt.Sprintf("  %s %s: %s", mark(g.Passed), g.Name, g.Text))
	}
	return lines
}

func rolloutTable(w io.Writer, r zarpa.Rollout, now time.Time) {
	fmt.Fprintf(w, "%s  rollout of %s to %s  %s  %s\n", r.ID, r.Endpoint, r.Spec.To, r.State, elapsed(r.Created, r.Ended, now))
	reason := outline(r)
	if !r.State.Over() {
		reason = present(r)
	}
	if reason != "" {
		fmt.Fprintf(w, "  %s\n", reason)
	}
	for _, j := range r.Judgements {
		for _, line := range judgementLines(j) {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}
