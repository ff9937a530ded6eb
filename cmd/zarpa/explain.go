package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
)

// explained is how many operations explain shows.
const explained = 5

func (c *cli) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain NAME", Short: "Show the last operations of an endpoint, phase by phase, and what to do",
		Example: "  zarpa explain iris\n  zarpa explain iris -o json", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect()
			if err != nil {
				return err
			}
			ops, err := api.ListOperations(cmd.Context(), args[0], explained)
			if err != nil {
				return err
			}
			if len(ops) == 0 {
				return zarpa.Errorf(zarpa.NotFound, "endpoint %q has no operations", args[0]).WithHint("zarpa endpoint list shows the endpoints")
			}
			e := explanation{Endpoint: args[0], Operations: ops}
			report, err := api.GetEndpoint(cmd.Context(), args[0])
			if err != nil && !errors.Is(err, zarpa.ErrNotFound) {
				return err // an endpoint that was deleted still has its operations
			}
			e.Deployments = report.Deployments
			return c.show(e, func(w io.Writer) { e.table(w, time.Now()) })
		},
	}
}

// explanation is what explain knows of an endpoint.
type explanation struct {
	Endpoint    string            `json:"endpoint"`
	Operations  []zarpa.Operation `json:"operations"`
	Deployments []zarpa.Observed  `json:"deployments,omitempty"`
}

func (e explanation) table(w io.Writer, now time.Time) {
	for i, op := range e.Operations {
		if i > 0 {
			row(w)
		}
		operationTable(w, op, now)
	}
	for _, o := range e.Deployments {
		for _, rep := range o.Status.Replicas {
			if rep.Last == nil {
				continue
			}
			fmt.Fprintf(w, "\nReplica %s (%s) is %s; its last run ended %s ago: %s\n", rep.ID, o.Deployment, rep.Phase, ago(rep.Last.At, now), rep.Last.Reason)
			for _, line := range rep.Last.Log {
				fmt.Fprintf(w, "    | %s\n", line)
			}
			fmt.Fprintf(w, "  → zarpa logs %s --previous shows all of it\n", e.Endpoint)
		}
	}
}

func operationTable(w io.Writer, op zarpa.Operation, now time.Time) {
	fmt.Fprintf(w, "%s  %s %s (generation %d)  %s  %s\n", op.ID, op.Kind, op.Endpoint, op.Generation, op.State,
		elapsed(op.Created, op.Ended, now))
	row(w, "  PHASE", "DEPLOYMENT", "START", "TOOK", "STATE", "DETAIL")
	for _, ph := range op.Phases {
		row(w, "  "+ph.Name, orDash(ph.Deployment), "+"+took(ph.Started.Sub(op.Created)), elapsed(ph.Started, ph.Ended, now), ph.State, ph.Detail)
	}
	for _, ph := range op.Phases {
		if ph.Cause == "" {
			continue
		}
		fmt.Fprintf(w, "  %s: %s\n", ph.Name, ph.Cause)
		if ph.Hint != "" {
			fmt.Fprintf(w, "    → %s\n", ph.Hint)
		}
		for _, line := range ph.Log {
			fmt.Fprintf(w, "    | %s\n", line)
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (c *cli) targetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "target", Short: "Show where replicas can run"}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List targets", Example: "  zarpa target list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.connect()
			if err != nil {
				return err
			}
			list, err := api.ListTargets(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(list, func(w io.Writer) {
				row(w, "TARGET", "KIND", "AGE")
				for _, t := range list {
					row(w, t.Name, t.Kind, ago(t.Created, time.Now()))
				}
			})
		},
	}, &cobra.Command{
		Use: "show NAME", Short: "Show a target", Example: "  zarpa target show local", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect()
			if err != nil {
				return err
			}
			t, err := api.GetTarget(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(t, func(w io.Writer) {
				row(w, "Target:", t.Name)
				row(w, "Kind:", t.Kind)
				row(w, "Created:", t.Created.Local().Format(time.DateTime))
				row(w, "Options:", joinMap(t.Options))
			})
		},
	})
	return cmd
}
