package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// updateFlags are the flags of deploy that say how an update goes about.
type updateFlags struct {
	maxSurge, maxUnavailable              string
	slowStart, startTimeout, drainTimeout string
	interrupt                             bool
}

func (f *updateFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.maxSurge, "max-surge", zarpa.DefaultMaxSurge, "replicas beyond --replicas that an update may run: a number, or a share such as 25%")
	fl.StringVar(&f.maxUnavailable, "max-unavailable", zarpa.DefaultMaxUnavailable, "replicas below --replicas that may be missing during an update: a number, or a share")
	fl.StringVar(&f.slowStart, "slow-start", zarpa.DefaultSlowStart.String(), "how long a new replica gets fewer requests than its fellows")
	fl.StringVar(&f.startTimeout, "start-timeout", zarpa.DefaultStartTimeout.String(), "time limit from a replica's start to ready; then it is started again")
	fl.StringVar(&f.drainTimeout, "drain-timeout", zarpa.DefaultDrainTimeout.String(), "how long running requests may go on when a replica is stopped; then they are cut off")
	fl.BoolVar(&f.interrupt, "interrupt", false, "take the place of a change that is under way")
}

// merge changes what the given flags name.
func (f updateFlags) merge(d *zarpa.DeploymentSpec, given func(string) bool) error {
	if given("max-surge") {
		d.MaxSurge = f.maxSurge
	}
	if given("max-unavailable") {
		d.MaxUnavailable = f.maxUnavailable
	}
	for _, t := range []struct {
		flag, text string
		to         *zarpa.Duration
	}{{"slow-start", f.slowStart, &d.SlowStart}, {"start-timeout", f.startTimeout, &d.StartTimeout}, {"drain-timeout", f.drainTimeout, &d.DrainTimeout}} {
		if !given(t.flag) {
			continue
		}
		if err := flagText(t.flag, t.text, t.to); err != nil {
			return err
		}
		if t.flag == "slow-start" && *t.to == 0 {
			*t.to = 1 // 0 would be the default; less than a millisecond is none
		}
	}
	return nil
}

// settingFlags are the flags of endpoint set.
type settingFlags struct {
	auth, statusCodes, timeout, queueWait, maxBody, ejectTime string
	maxQueue, retryBudget, ejectAfter, ejectPercent, priority int
	rate                                                      float64
	burst, concurrent                                         int
	corsOrigins                                               []string
	noLimits, interrupt, noWait                               bool
}

func (c *cli) endpointSet() *cobra.Command {
	var f settingFlags
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change settings of an endpoint",
		Long: `Changes what the flags name and keeps the rest. All of them take effect without a new replica, but for
--request-timeout and --max-body, for which the replicas are replaced.`,
		Example: `  zarpa endpoint set iris --rate 100 --burst 200 --concurrent 50
  zarpa endpoint set iris --no-limits
  zarpa endpoint set iris --max-queue 1000 --queue-wait 2s --retry-budget 10
  zarpa endpoint set iris --eject-failures -1`,
		Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			change := func(spec zarpa.EndpointSpec) (zarpa.EndpointSpec, error) { return f.merge(spec, cmd.Flags().Changed) }
			answer, err := c.modify(cmd.Context(), api, args[0], modification{change, f.interrupt})
			if err != nil {
				return err
			}
			return c.changed(cmd.Context(), api, answer, f.noWait)
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.auth, "auth", string(zarpa.AuthKey), "key, token or none")
	fl.StringVar(&f.timeout, "request-timeout", zarpa.DefaultRequestTimeout.String(), "time limit of one request, then 504")
	fl.IntVar(&f.maxQueue, "max-queue", zarpa.DefaultMaxQueue, "waiting requests, then 503")
	fl.StringVar(&f.queueWait, "queue-wait", zarpa.DefaultQueueWait.String(), "how long a request waits for a free replica, then 503")
	fl.StringVar(&f.maxBody, "max-body", zarpa.DefaultMaxBody.String(), "largest request body, then 413")
	fl.StringVar(&f.statusCodes, "status-codes", string(zarpa.StatusStandard), "statuses of failed predictions: standard, v1 or v2")
	fl.StringArrayVar(&f.corsOrigins, "cors-origin", nil, "origin whose pages may call the endpoint, * for all; repeat for more; replaces all that was set, '' allows none")
	fl.IntVar(&f.retryBudget, "retry-budget", zarpa.DefaultRetryBudget, "requests that may go to a second replica, in per cent of all")
	fl.IntVar(&f.ejectAfter, "eject-failures", zarpa.DefaultEjectionFailures, "failures in a row after which a replica gets no requests for a while; -1 is never")
	fl.StringVar(&f.ejectTime, "eject-time", zarpa.DefaultEjectionTime.String(), "how long, the first time")
	fl.IntVar(&f.ejectPercent, "eject-percent", zarpa.DefaultEjectionPercent, "share of a deployment's replicas that may be out at a time")
	fl.IntVar(&f.priority, "priority", 0, "who gives way when a target is full: idle replicas of endpoints with a lower one")
	fl.Float64Var(&f.rate, "rate", 0, "requests per second of each key, then 429; 0 is unlimited")
	fl.IntVar(&f.burst, "burst", 0, "how many of them may come at once; 0 is one second's --rate")
	fl.IntVar(&f.concurrent, "concurrent", 0, "requests of each key at a time, then 429; 0 is unlimited")
	fl.BoolVar(&f.noLimits, "no-limits", false, "end the limits of the keys")
	fl.BoolVar(&f.interrupt, "interrupt", false, "take the place of a change that is under way")
	fl.BoolVar(&f.noWait, "no-wait", false, "do not wait until it is in use")
	return cmd
}

// merge changes what the given flags name.
func (f settingFlags) merge(spec zarpa.EndpointSpec, given func(string) bool) (zarpa.EndpointSpec, error) {
	limits, ejection := zarpa.KeyLimits{}, zarpa.EjectionSpec{}
	if spec.Limits != nil && !f.noLimits {
		limits = *spec.Limits
	}
	if spec.Ejection != nil {
		ejection = *spec.Ejection
	}
	set := map[string]func() error{
		"auth":            func() error { spec.Auth = zarpa.AuthMode(f.auth); return nil },
		"request-timeout": func() error { return flagText("request-timeout", f.timeout, &spec.RequestTimeout) },
		"max-queue":       func() error { spec.MaxQueue = f.maxQueue; return positive("max-queue", f.maxQueue) },
		"queue-wait":      func() error { return flagText("queue-wait", f.queueWait, &spec.QueueWait) },
		"max-body":        func() error { return flagText("max-body", f.maxBody, &spec.MaxBody) },
		"status-codes":    func() error { spec.StatusCodes = zarpa.StatusCodes(f.statusCodes); return nil },
		"cors-origin":     func() error { spec.CORSOrigins = listed(f.corsOrigins); return nil },
		"retry-budget":    func() error { spec.RetryBudget = &f.retryBudget; return nil },
		"eject-failures":  func() error { ejection.Failures = f.ejectAfter; return nil },
		"eject-time":      func() error { return flagText("eject-time", f.ejectTime, &ejection.Time) },
		"eject-percent":   func() error { ejection.MaxPercent = f.ejectPercent; return positive("eject-percent", f.ejectPercent) },
		"priority":        func() error { spec.Priority = f.priority; return nil },
		"rate":            func() error { limits.Rate = f.rate; return nil },
		"burst":           func() error { limits.Burst = f.burst; return nil },
		"concurrent":      func() error { limits.Concurrent = f.concurrent; return nil },
		"no-limits":       func() error { return nil },
	}
	changes := false
	for name, fn := range set {
		if !given(name) {
			continue
		}
		changes = true
		if err := fn(); err != nil {
			return spec, err
		}
	}
	if !changes {
		return spec, zarpa.Errorf(zarpa.Invalid, "no setting is given").WithHint("zarpa endpoint set --help shows them")
	}
	spec.Limits, spec.Ejection = nil, nil
	if limits != (zarpa.KeyLimits{}) {
		spec.Limits = &limits
	}
	if ejection != (zarpa.EjectionSpec{}) {
		spec.Ejection = &ejection
	}
	return spec, nil
}

func limitsLine(l *zarpa.KeyLimits) string {
	if l == nil {
		return "none"
	}
	var parts []string
	if l.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%v requests/s", l.Rate))
	}
	if l.Burst > 0 {
		parts = append(parts, fmt.Sprintf("%d at once", l.Burst))
	}
	if l.Concurrent > 0 {
		parts = append(parts, fmt.Sprintf("%d at a time", l.Concurrent))
	}
	return strings.Join(parts, ", ")
}

func ejectionLine(e zarpa.EjectionSpec) string {
	if e.Failures < 0 {
		return "never ejected"
	}
	return fmt.Sprintf("ejected for %v after %d failures, at most %d %%", e.Time, e.Failures, e.MaxPercent)
}

func (c *cli) endpointRestart() *cobra.Command {
	var deployment string
	var interrupt, noWait bool
	cmd := &cobra.Command{
		Use: "restart NAME", Short: "Replace all replicas of an endpoint without downtime",
		Long:    `Replaces the replicas as an update does: the old ones serve until new ones are ready.`,
		Example: "  zarpa endpoint restart iris\n  zarpa endpoint restart iris --deployment blue", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			mark := time.Now().UTC().Format(time.RFC3339Nano)
			change := func(spec zarpa.EndpointSpec) (zarpa.EndpointSpec, error) {
				found := false
				for i, d := range spec.Deployments {
					if deployment == "" || d.Name == deployment {
						spec.Deployments[i].Restarted, found = mark, true
					}
				}
				if !found {
					return spec, zarpa.Errorf(zarpa.NotFound, "endpoint %q has no deployment %.80q", args[0], deployment).
						WithHint("zarpa endpoint show %s shows those that it has", args[0])
				}
				return spec, nil
			}
			answer, err := c.modify(cmd.Context(), api, args[0], modification{change, interrupt})
			if err != nil {
				return err
			}
			return c.changed(cmd.Context(), api, answer, noWait)
		}),
	}
	cmd.Flags().StringVar(&deployment, "deployment", "", "only this deployment; all by default")
	cmd.Flags().BoolVar(&interrupt, "interrupt", false, "take the place of a change that is under way")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the new ones are ready")
	return cmd
}

func (c *cli) endpointReplace() *cobra.Command {
	return &cobra.Command{
		Use: "replace NAME REPLICA", Short: "Replace one replica without downtime",
		Long:    `Has one replica replaced: it serves until another one is ready. zarpa endpoint show NAME tells their IDs.`,
		Example: "  zarpa endpoint replace iris blue-0.k3fq", Args: cobra.ExactArgs(2),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if err := api.ReplaceReplica(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			return c.show(map[string]string{"endpoint": args[0], "replica": args[1]}, func(w io.Writer) {
				fmt.Fprintf(w, "%s serves until another replica is ready\n", args[1])
			})
		}),
	}
}

func (c *cli) endpointUndo() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "undo NAME", Short: "Go back to what was before the last change of an endpoint",
		Long:    `Goes back, also from a change that failed, and from one that is under way, which ends. Undoing twice brings the change back.`,
		Example: "  zarpa endpoint undo iris", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			answer, err := api.UndoEndpoint(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.changed(cmd.Context(), api, answer, noWait)
		}),
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is so")
	return cmd
}

// without is the change that removes a deployment. One that has traffic is not taken away by a slip.
func without(endpoint, deployment string) func(zarpa.EndpointSpec) (zarpa.EndpointSpec, error) {
	return func(spec zarpa.EndpointSpec) (zarpa.EndpointSpec, error) {
		share, found := spec.Weights()[deployment]
		switch {
		case !found:
			return spec, zarpa.Errorf(zarpa.NotFound, "endpoint %q has no deployment %.80q", endpoint, deployment).
				WithHint("zarpa endpoint show %s shows those that it has", endpoint)
		case len(spec.Deployments) == 1:
			return spec, zarpa.Errorf(zarpa.Conflict, "deployment %q is the only one of %q", deployment, endpoint).
				WithHint("zarpa endpoint delete %s removes the endpoint", endpoint)
		case share > 0:
			return spec, zarpa.Errorf(zarpa.Conflict, "deployment %q has %d %% of the traffic", deployment, share).
				WithHint("move that first: zarpa traffic %s %s=0", endpoint, deployment)
		}
		spec.Deployments = slices.DeleteFunc(slices.Clone(spec.Deployments), func(d zarpa.DeploymentSpec) bool { return d.Name == deployment })
		if spec.Default == deployment {
			spec.Default = ""
		}
		if spec.Mirror != nil && spec.Mirror.Deployment == deployment {
			spec.Mirror = nil
		}
		return spec, nil
	}
}
