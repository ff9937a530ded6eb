package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// explained is how many operations explain shows, and explainedRollouts how many rollouts.
const (
	explained         = 5
	explainedRollouts = 3
)

func (c *cli) explainCommand() *cobra.Command {
	var scaling bool
	cmd := &cobra.Command{
		Use: "explain NAME", Short: "Show the last operations and rollouts of an endpoint, step by step, and what to do",
		Long: `Shows the last operations of an endpoint, phase by phase, its last rollouts, step by step, how replicas
ended, and what to do.

With --scaling it shows why there are as many replicas as there are: the autoscaler's decisions with all
that they followed from, and the starts from zero in their parts, the newest first.`,
		Example: "  zarpa explain iris\n  zarpa explain iris -o json\n  zarpa explain iris --scaling", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if scaling {
				return c.explainScaling(cmd.Context(), api, args[0])
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
			e.Rollouts, err = api.ListRollouts(cmd.Context(), args[0], explainedRollouts)
			if err != nil && !errors.Is(err, zarpa.ErrNotFound) {
				return err
			}
			for _, d := range report.Deployments {
				if e.Failures, err = c.failures(cmd.Context(), api, d, e.Failures); err != nil {
					return err
				}
			}
			c.warnOfCertificate(cmd.Context(), api)
			return c.show(e, func(w io.Writer) { e.table(w, time.Now()) })
		}),
	}
	cmd.Flags().BoolVar(&scaling, "scaling", false, "show the autoscaler's decisions, with their inputs")
	return cmd
}

// explanation is what explain knows of an endpoint.
type explanation struct {
	Endpoint    string            `json:"endpoint"`
	Operations  []zarpa.Operation `json:"operations"`
	Deployments []zarpa.Observed  `json:"deployments,omitempty"`
	Rollouts    []zarpa.Rollout   `json:"rollouts,omitempty"`
	// Failures are the last exceptions of scoring scripts and Python models.
	Failures []failure `json:"failures,omitempty"`
}

// failure is an exception, as a replica logged it.
type failure struct {
	Replica   string `json:"replica"`
	Time      string `json:"time"`
	RequestID string `json:"request_id,omitempty"`
	Message   string `json:"message"`
	Traceback string `json:"traceback"`
}

const (
	// failuresOf is how many lines of a deployment's log are searched, and failuresShown how many
	// exceptions are shown of each.
	failuresOf    = 2000
	failuresShown = 3
)

// failures adds the last exceptions in a deployment's log. A log that cannot be had has none.
func (c *cli) failures(ctx context.Context, api *client.Client, d zarpa.Observed, to []failure) ([]failure, error) {
	tail := failuresOf
	body, err := api.Logs(ctx, d.Endpoint, client.GetLogsParams{Deployment: &d.Deployment, Tail: &tail})
	if err != nil {
		return to, nil // the operations and replicas say what is wrong
	}
	defer body.Close()
	var found []failure
	for lines := bufio.NewReader(body); ; {
		line, err := lines.ReadString('\n')
		if fields := logFields(line); fields["traceback"] != "" {
			found = append(found, failure{
				Replica: strings.Trim(strings.SplitN(line, " ", 2)[0], "[]"), Time: fields["time"], RequestID: fields["request_id"],
				Message: fields["message"], Traceback: fields["traceback"],
			})
		}
		if errors.Is(err, io.EOF) {
			return append(to, found[max(0, len(found)-failuresShown):]...), nil
		}
		if err != nil {
			return to, err
		}
	}
}

// logFields are the fields of a line that log/slog wrote as text.
func logFields(line string) map[string]string {
	fields := map[string]string{}
	for line != "" {
		name, rest, ok := strings.Cut(line, "=")
		if !ok {
			break
		}
		name = name[strings.LastIndexByte(name, ' ')+1:]
		var value string
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			value, _ = strconv.Unquote(quoted)
			rest = rest[len(quoted):]
		} else {
			value, rest, _ = strings.Cut(rest, " ")
		}
		fields[name], line = strings.TrimSpace(value), rest
	}
	return fields
}

func (e explanation) table(w io.Writer, now time.Time) {
	for i, op := range e.Operations {
		if i > 0 {
			row(w)
		}
		operationTable(w, op, now)
	}
	for _, r := range e.Rollouts {
		row(w)
		rolloutTable(w, r, now)
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
	for _, f := range e.Failures {
		fmt.Fprintf(w, "\nReplica %s, %s, request %s: %s\n", f.Replica, f.Time, orDash(f.RequestID), f.Message)
		for line := range strings.Lines(f.Traceback) {
			fmt.Fprintf(w, "    | %s\n", strings.TrimRight(line, "\n"))
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
