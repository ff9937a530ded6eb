package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
)

func (c *cli) endpointCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "endpoint", Short: "Show and delete endpoints"}
	cmd.AddCommand(c.endpointList(), c.endpointShow(), c.endpointDelete())
	return cmd
}

func (c *cli) endpointList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List endpoints", Example: "  zarpa endpoint list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.connect()
			if err != nil {
				return err
			}
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
		},
	}
}

func summary(r zarpa.EndpointReport) (models []string, ready, wanted int) {
	for _, d := range r.Effective.Deployments {
		models = append(models, d.Model)
		wanted += d.Replicas
	}
	for _, o := range r.Deployments {
		ready += o.Status.Ready(o.Status.Revision)
	}
	return models, ready, wanted
}

func (c *cli) endpointShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show an endpoint: settings in effect, deployments, replicas, URLs",
		Example: "  zarpa endpoint show iris\n  zarpa endpoint show iris -o yaml", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect()
			if err != nil {
				return err
			}
			r, err := api.GetEndpoint(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(r, func(w io.Writer) { endpointTable(w, r) })
		},
	}
}

func endpointTable(w io.Writer, r zarpa.EndpointReport) {
	e := r.Effective
	row(w, "Endpoint:", r.Endpoint.Name)
	row(w, "Phase:", r.Phase)
	row(w, "Score:", r.URLs.Score)
	row(w, "Infer:", r.URLs.Infer)
	row(w, "Swagger:", r.URLs.Swagger)
	row(w, "Auth:", e.Auth)
	row(w, "Request timeout:", e.RequestTimeout)
	row(w, "Queue:", fmt.Sprintf("%d requests, %v", e.MaxQueue, e.QueueWait))
	row(w, "Largest body:", e.MaxBody)
	row(w, "Generation:", r.Endpoint.Generation)
	if op := r.Operation; op != nil {
		row(w, "Last operation:", fmt.Sprintf("%s %s %s", op.ID, op.Kind, op.State))
	}
	for _, d := range e.Deployments {
		row(w)
		row(w, "Deployment:", d.Name)
		row(w, "  Model:", d.Model)
		row(w, "  Target:", d.Target)
		row(w, "  Replicas:", d.Replicas)
		row(w, "  CPU, memory:", limit(d.CPU != 0, d.CPU)+", "+limit(d.Memory != 0, d.Memory))
		row(w, "  Max concurrency:", d.MaxConcurrency)
		row(w, "  Start, drain:", fmt.Sprintf("%v, %v", d.StartTimeout, d.DrainTimeout))
		if len(d.Env) > 0 {
			row(w, "  Environment:", joinMap(d.Env))
		}
		for _, o := range r.Deployments {
			if o.Deployment == d.Name {
				statusTable(w, o)
			}
		}
	}
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
	var noWait bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Stop an endpoint and forget its keys", Example: "  zarpa endpoint delete iris", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect()
			if err != nil {
				return err
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
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until its replicas have stopped")
	return cmd
}

func (c *cli) keysCommand() *cobra.Command {
	var which string
	cmd := &cobra.Command{
		Use: "keys NAME", Short: "Show an endpoint's keys, or make one anew",
		Long: `Either key opens the endpoint. To change them without a failed call: regenerate the secondary,
give it to the callers, then regenerate the primary.`,
		Example: "  zarpa keys iris\n  zarpa keys iris --regenerate secondary", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect()
			if err != nil {
				return err
			}
			var pair zarpa.KeyPair
			if cmd.Flags().Changed("regenerate") {
				pair, err = api.RegenerateKey(cmd.Context(), args[0], which)
			} else {
				pair, err = api.Keys(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			return c.show(pair, func(w io.Writer) {
				row(w, "primary", pair.Primary)
				row(w, "secondary", pair.Secondary)
			})
		},
	}
	cmd.Flags().StringVar(&which, "regenerate", "", "primary or secondary: make this one anew; the old one ends at once")
	return cmd
}
