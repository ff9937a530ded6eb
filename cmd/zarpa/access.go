package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

func (c *cli) accessCommand() *cobra.Command {
	return withVerbs(&cobra.Command{
		Use: "access", Short: "Make, list and end named tokens of the control API",
		Long: `A named token has a role: a viewer reads all but keys, a deployer also registers models, changes
endpoints and reads their keys, an admin does everything. The server's own token, in the file
admin-token of its data directory, is an admin's.`,
		Example: "  zarpa access list",
	}, c.accessCreate(), c.accessList(), c.accessEnd("revoke"), c.accessEnd("delete"))
}

func (c *cli) accessCreate() *cobra.Command {
	var role string
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create NAME --role ROLE", Short: "Make a named token and print it, this once",
		Example: "  zarpa access create ci --role deployer --expires 720h", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if cmd.Flags().Changed("expires") && expires <= 0 {
				return zarpa.Errorf(zarpa.Invalid, "--expires: %v is not a time to come", expires).WithHint("leave it out for a token that does not end by itself")
			}
			g, err := api.CreateAccess(cmd.Context(), zarpa.AccessSpec{Name: args[0], Role: zarpa.Role(role), Lifetime: zarpa.Duration(expires)})
			if err != nil {
				return err
			}
			if c.output == "table" { // the token alone, so that a script can take it
				fmt.Fprintf(c.stderr, "The token of %s (%s, %s). It is shown this once:\n", g.Access.Name, g.Access.Role, expiry(g.Access))
			}
			return c.show(g, func(w io.Writer) { row(w, g.Token) })
		}),
	}
	cmd.Flags().StringVar(&role, "role", "", "viewer, deployer or admin")
	cmd.Flags().DurationVar(&expires, "expires", 0, "how long it is valid, such as 720h; for ever by default")
	_ = cmd.MarkFlagRequired("role") // it is there
	return cmd
}

func expiry(a zarpa.Access) string {
	if a.Expires.IsZero() {
		return "does not expire"
	}
	return "expires " + a.Expires.Local().Format(time.DateTime)
}

func (c *cli) accessList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List named tokens, without the tokens themselves", Example: "  zarpa access list", Args: cobra.NoArgs,
		RunE: c.online(func(cmd *cobra.Command, _ []string, api *client.Client) error {
			list, err := api.ListAccesses(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "No named tokens yet. Make one: zarpa access create NAME --role viewer")
					return
				}
				row(w, "NAME", "ROLE", "STATE", "AGE")
				for _, a := range list {
					row(w, a.Name, a.Role, accessState(a, time.Now()), ago(a.Created, time.Now()))
				}
			})
		}),
	}
}

func accessState(a zarpa.Access, now time.Time) string {
	switch {
	case !a.Revoked.IsZero():
		return "revoked " + a.Revoked.Local().Format(time.DateTime)
	case !a.Expires.IsZero() && !now.Before(a.Expires):
		return "expired " + a.Expires.Local().Format(time.DateTime)
	}
	return "valid, " + expiry(a)
}

// accessEnd is revoke or delete: both end a token at once.
func (c *cli) accessEnd(verb string) *cobra.Command {
	short := "End a named token at once, and keep its name in the list"
	if verb == "delete" {
		short = "End a named token at once, and free its name"
	}
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Example: "  zarpa access " + verb + " ci", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			end := api.RevokeAccess
			if verb == "delete" {
				end = api.DeleteAccess
			}
			if err := end(cmd.Context(), args[0]); err != nil {
				return err
			}
			return c.show(map[string]string{verb: args[0]}, func(w io.Writer) { row(w, verb+"d", args[0]) })
		}),
	}
}
