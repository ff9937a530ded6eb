package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// defaultAuditKeep is how long entries of the audit log are kept: 90 days.
const defaultAuditKeep = 90 * 24 * time.Hour

func (c *cli) auditCommand() *cobra.Command {
	var since time.Duration
	var limit int
	cmd := &cobra.Command{
		Use: "audit [OBJECT]", Short: "Show who changed what, from what, to what",
		Long: `Shows the audit log, newest first: every change of models, endpoints, keys and tokens, and calls that
were refused to somebody who is known. OBJECT is an endpoint, a model as NAME:VERSION, access/NAME,
environment/ID or signing-key. The whole log needs the role admin, that of an endpoint or a model deployer.`,
		Example: "  zarpa audit\n  zarpa audit iris --since 24h --limit 20", Args: cobra.MaximumNArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if since < 0 {
				return zarpa.Errorf(zarpa.Invalid, "--since: %v is not a time that passed", since).WithHint("write --since 24h")
			}
			q := zarpa.AuditQuery{Limit: limit}
			if len(args) > 0 {
				q.Object = args[0]
			}
			if since > 0 {
				q.Since = time.Now().Add(-since)
			}
			if limit < 1 {
				return zarpa.Errorf(zarpa.Invalid, "--limit: %d is not between 1 and 10000", limit)
			}
			list, err := api.Audit(cmd.Context(), q)
			if err != nil {
				return err
			}
			return c.show(list, func(w io.Writer) { auditTable(w, list) })
		}),
	}
	cmd.Flags().DurationVar(&since, "since", 0, "only of so long, such as 24h; all that is kept by default")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many entries")
	return cmd
}

func auditTable(w io.Writer, list []zarpa.AuditEntry) {
	if len(list) == 0 {
		fmt.Fprintln(w, "Nothing was changed.")
		return
	}
	row(w, "TIME", "WHO", "ROLE", "ACTION", "OBJECT", "CHANGES")
	for _, e := range list {
		var what []string
		if e.Refused != "" {
			what = append(what, "refused: "+e.Refused)
		}
		for _, c := range e.Changes {
			what = append(what, changeText(c))
		}
		const shown = 3
		if more := len(what) - shown; more > 0 {
			what = append(what[:shown], fmt.Sprintf("and %d more (-o json shows all)", more))
		}
		row(w, e.At.Local().Format(time.DateTime), e.Who, orDash(string(e.Role)), e.Action, e.Object, orDash(strings.Join(what, "; ")))
	}
}

// changeText is one difference in a few words; that of a key has no values.
func changeText(c zarpa.Change) string {
	const most = 60
	cut := func(s string) string {
		if r := []rune(s); len(r) > most {
			return string(r[:most]) + "…"
		}
		return s
	}
	switch {
	case c.From == "" && c.To == "":
		return c.Field
	case c.From == "":
		return c.Field + " = " + cut(c.To)
	case c.To == "":
		return c.Field + " was " + cut(c.From)
	}
	return c.Field + ": " + cut(c.From) + " → " + cut(c.To)
}
