package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

func (c *cli) secretCommand() *cobra.Command {
	return withVerbs(&cobra.Command{
		Use: "secret", Short: "Set, list and delete secrets that replicas get as files",
		Long: `A secret is stored encrypted and nobody reads it back. Replicas of a deployment that names it
(zarpa deploy --secret NAME) find its value in the file NAME of the folder that their variable ZARPA_SECRETS names.`,
		Example: "  zarpa secret list",
	}, c.secretSet(), c.secretList(), c.secretDelete())
}

func (c *cli) secretSet() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "set NAME [--from-file FILE | -]", Short: "Store a secret, read from a file or from standard input",
		Long: `Stores what the file, or standard input, holds, byte for byte: printf %s leaves out the line's end that
echo writes. The value is never an argument: those stand in histories and in lists of processes. Replicas
that start later get the new value: zarpa endpoint restart starts them.`,
		Example: "  zarpa secret set db-password --from-file password.txt\n  printf %s \"$PASSWORD\" | zarpa secret set db-password -", Args: cobra.RangeArgs(1, 2),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			switch {
			case len(args) == 2 && args[1] != "-":
				return zarpa.Errorf(zarpa.Invalid, "a secret's value is no argument").WithHint("give it on standard input, or name a file with --from-file")
			case len(args) == 2 && file != "":
				return zarpa.Errorf(zarpa.Invalid, "--from-file: standard input is named, too").WithHint("give one of the two")
			}
			value, err := c.secretValue(file)
			if err != nil {
				return err
			}
			defer value.Close()
			s, err := api.SetSecret(cmd.Context(), args[0], io.LimitReader(value, zarpa.MaxSecret+1))
			if err != nil {
				return err
			}
			return c.show(s, func(w io.Writer) { row(w, "set", s.Name) })
		}),
	}
	cmd.Flags().StringVar(&file, "from-file", "", "file with the value; standard input by default")
	return cmd
}

// secretValue opens where the value is read from.
func (c *cli) secretValue(file string) (io.ReadCloser, error) {
	if file == "" || file == "-" {
		return io.NopCloser(c.stdin), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "--from-file: %w", err)
	}
	return f, nil
}

func (c *cli) secretList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the names of secrets", Example: "  zarpa secret list", Args: cobra.NoArgs,
		RunE: c.online(func(cmd *cobra.Command, _ []string, api *client.Client) error {
			list, err := api.ListSecrets(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "No secrets yet. Store one: zarpa secret set NAME --from-file FILE")
					return
				}
				row(w, "NAME", "AGE", "CHANGED")
				for _, s := range list {
					row(w, s.Name, ago(s.Created, time.Now()), ago(s.Updated, time.Now()))
				}
			})
		}),
	}
}

func (c *cli) secretDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a secret that no deployment names", Example: "  zarpa secret delete db-password", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if err := api.DeleteSecret(cmd.Context(), args[0]); err != nil {
				return err
			}
			return c.show(map[string]string{"delete": args[0]}, func(w io.Writer) { row(w, "deleted", args[0]) })
		}),
	}
}
