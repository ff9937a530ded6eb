package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

func (c *cli) endpointCommand() *cobra.Command {
	return withVerbs(&cobra.Command{Use: "endpoint", Short: "Show, set, restart, undo and delete endpoints", Example: "  zarpa endpoint list"},
		c.endpointList(), c.endpointShow(), c.endpointSet(), c.endpointRestart(), c.endpointReplace(), c.endpointUndo(), c.endpointDelete())
}

func (c *cli) endpointList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List endpoints", Example: "  zarpa endpoint list", Args: cobra.NoArgs,
		RunE: c.online(func(cmd *cobra.Command, _ []string, api *client.Client) error {
			list, err := api.ListEndpoints(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "No endpoints yet. Make one: zarpa deploy NAME --model FILE")
					return
				}
				row(w, "ENDPOINT", "PHASE", "MODELS", "READY", "AGE", "URL")
				for _, r := range list {
					models, ready, wanted := summary(r)
					row(w, r.Endpoint.Name, r.Phase, strings.Join(models, ","), fmt.Sprintf("%d/%d", ready, wanted),
						ago(r.Endpoint.Created, time.Now()), r.URLs.Score)
				}
			})
		}),
	}
}

func summary(r zarpa.EndpointReport) (models []string, ready, wanted int) {
	for _, d := range r.Effective.Deployments {
		for _, m := range d.AllModels() {
			if !slices.Contains(models, m) { // deployments may share one
				models = append(models, m)
			}
		}
		wanted += wantedReplicas(r, d)
	}
	for _, o := range r.Deployments {
		ready += o.Status.Ready(o.Status.Revision)
	}
	return models, ready, wanted
}

// wantedReplicas is how many replicas a deployment should have: those that the autoscaler has asked for
// where their number follows the load.
func wantedReplicas(r zarpa.EndpointReport, d zarpa.DeploymentSpec) int {
	if d.Scale == nil {
		return d.Replicas
	}
	wanted := 0
	for _, o := range r.Deployments {
		if o.Deployment == d.Name {
			wanted += len(o.Status.Replicas) - o.Status.Count(zarpa.ReplicaDraining)
		}
	}
	if len(d.Scale.Schedules) == 0 { // they have other bounds at times
		wanted = max(wanted, *d.Scale.WithDefaults().Min)
	}
	return wanted
}

func (c *cli) endpointShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show an endpoint: settings in effect, deployments, replicas, URLs",
		Example: "  zarpa endpoint show iris\n  zarpa endpoint show iris -o yaml", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			r, err := api.GetEndpoint(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(r, func(w io.Writer) { endpointTable(w, r) })
		}),
	}
}

func endpointTable(w io.Writer, r zarpa.EndpointReport) {
	e := r.Effective
	row(w, "Endpoint:", r.Endpoint.Name)
	row(w, "Phase:", r.Phase)
	row(w, "Score:", r.URLs.Score)
	if !scripted(e) {
		row(w, "Infer:", r.URLs.Infer)
	}
	row(w, "Swagger:", r.URLs.Swagger)
	row(w, "Auth:", e.Auth)
	row(w, "Request timeout:", e.RequestTimeout)
	row(w, "Queue:", fmt.Sprintf("%d requests, %v", e.MaxQueue, e.QueueWait))
	row(w, "Largest body:", e.MaxBody)
	row(w, "Status codes:", e.StatusCodes)
	row(w, "CORS origins:", orNone(strings.Join(e.CORSOrigins, ", ")))
	row(w, "Traffic:", trafficLine(r))
	row(w, "Limits of a key:", limitsLine(e.Limits))
	if e.RetryBudget != nil && e.Ejection != nil { // a server of before does not tell
		row(w, "Retries, ejection:", fmt.Sprintf("%d %%, %s", *e.RetryBudget, ejectionLine(*e.Ejection)))
	}
	if e.Priority != 0 {
		row(w, "Priority:", e.Priority)
	}
	row(w, "Generation:", r.Endpoint.Generation)
	if op := r.Operation; op != nil {
		row(w, "Last operation:", fmt.Sprintf("%s %s %s", op.ID, op.Kind, op.State))
	}
	for _, d := range e.Deployments {
		row(w)
		deploymentTable(w, d)
		for _, o := range r.Deployments {
			if o.Deployment == d.Name {
				statusTable(w, o)
			}
		}
	}
}

func deploymentTable(w io.Writer, d zarpa.DeploymentSpec) {
	row(w, "Deployment:", d.Name)
	if d.Code != "" {
		row(w, "  Code:", d.Entry+" in "+short(d.Code))
	}
	row(w, "  Model:", orDash(d.Model))
	if len(d.Models) > 0 {
		row(w, "  Further models:", strings.Join(d.Models, ", "))
	}
	if e := d.Environment; e != nil {
		row(w, "  Python:", strings.TrimSpace(orDefault(e.Python)+" "+short(e.Content)))
	}
	if d.Workers > 0 {
		row(w, "  Workers:", d.Workers)
	}
	row(w, "  Model control:", d.ModelControl)
	row(w, "  Target:", d.Target)
	row(w, "  Replicas:", d.Replicas)
	if d.Scale != nil {
		row(w, "  Scale:", scaleText(d.Scale))
		for _, sc := range d.Scale.Schedules {
			row(w, "    schedule:", scheduleText(sc))
		}
	}
	row(w, "  CPU, memory:", limit(d.CPU != 0, d.CPU)+", "+limit(d.Memory != 0, d.Memory))
	row(w, "  Max concurrency:", d.MaxConcurrency)
	row(w, "  Batching:", batching(d))
	row(w, "  Start, drain:", fmt.Sprintf("%v, %v", d.StartTimeout, d.DrainTimeout))
	row(w, "  Update:", fmt.Sprintf("%s more, %s missing, slow start %v", d.MaxSurge, d.MaxUnavailable, d.SlowStart))
	if len(d.Env) > 0 {
		row(w, "  Variables:", joinMap(d.Env))
	}
}

func orDefault(s string) string {
	if s == "" {
		return "default"
	}
	return s
}

func batching(d zarpa.DeploymentSpec) string {
	if d.MaxBatchRows < 2 {
		return "off"
	}
	return fmt.Sprintf("up to %d rows, gathered for up to %v", d.MaxBatchRows, d.MaxBatchDelay)
}

func limit(set bool, v fmt.Stringer) string {
	if !set {
		return "no limit"
	}
	return v.String()
}

func statusTable(w io.Writer, o zarpa.Observed) {
	if len(o.Status.Enforced) > 0 {
		row(w, "  Limits:", strings.Join(o.Status.Enforced, "; "))
	}
	if o.Status.Message != "" {
		row(w, "  Note:", o.Status.Message)
	}
	for _, rep := range o.Status.Replicas {
		line := string(rep.Phase)
		if rep.PID != 0 {
			line += fmt.Sprintf(", pid %d", rep.PID)
		}
		if rep.Container != "" { // as its engine shortens it
			line += fmt.Sprintf(", container %.12s", rep.Container)
		}
		if !rep.Started.IsZero() {
			line += ", up " + ago(rep.Started, time.Now())
		}
		if rep.Loaded > 0 {
			line += ", loaded in " + took(time.Duration(rep.Loaded))
		}
		if rep.Restarts > 0 {
			line += fmt.Sprintf(", %d restarts", rep.Restarts)
		}
		if rep.Message != "" {
			line += ", " + rep.Message
		}
		row(w, "  "+rep.ID+":", line)
		if rep.Last != nil {
			row(w, "    last end:", rep.Last.At.Local().Format(time.TimeOnly)+" "+rep.Last.Reason)
		}
	}
}

func (c *cli) endpointDelete() *cobra.Command {
	var deployment string
	var noWait bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Stop an endpoint and forget its keys, or remove one deployment of it",
		Example: "  zarpa endpoint delete iris\n  zarpa endpoint delete iris --deployment blue", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if deployment != "" {
				answer, err := c.modify(cmd.Context(), api, args[0], modification{change: without(args[0], deployment)})
				if err != nil {
					return err
				}
				return c.changed(cmd.Context(), api, answer, noWait)
			}
			answer, err := api.DeleteEndpoint(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if answer.Operation != nil && !noWait {
				op, err := c.follow(cmd.Context(), api, *answer.Operation)
				if err != nil && !errors.Is(err, zarpa.ErrNotFound) {
					return err
				}
				answer.Operation = &op
			}
			return c.show(answer, func(w io.Writer) { row(w, "deleted", args[0]) })
		}),
	}
	cmd.Flags().StringVar(&deployment, "deployment", "", "remove this deployment alone, which must have no share of the traffic")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until its replicas have stopped")
	return cmd
}

func (c *cli) keysCommand() *cobra.Command {
	var which, set string
	cmd := &cobra.Command{
		Use: "keys NAME", Short: "Show an endpoint's keys, or change one",
		Long: `Either key opens the endpoint. To change them without a failed call: regenerate the secondary,
give it to the callers, then regenerate the primary.`,
		Example: "  zarpa keys iris\n  zarpa keys iris --regenerate secondary\n  zarpa keys iris --set primary=-", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			var pair zarpa.KeyPair
			var err error
			switch {
			case cmd.Flags().Changed("regenerate"):
				pair, err = api.RegenerateKey(cmd.Context(), args[0], which)
			case cmd.Flags().Changed("set"):
				key, spec, wrong := c.ownKey(set)
				if wrong != nil {
					return wrong
				}
				pair, err = api.SetKey(cmd.Context(), args[0], key, spec)
			default:
				pair, err = api.Keys(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			return c.show(pair, func(w io.Writer) {
				row(w, "primary", pair.Primary)
				row(w, "secondary", pair.Secondary)
			})
		}),
	}
	cmd.Flags().StringVar(&which, "regenerate", "", "primary or secondary: make this one anew; the old one ends at once")
	cmd.Flags().StringVar(&set, "set", "", "primary=VALUE or secondary=VALUE: a key of your own, 16 to 256 characters; - reads it from standard input")
	cmd.MarkFlagsMutuallyExclusive("regenerate", "set")
	return cmd
}
