package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

func (c *cli) logsCommand() *cobra.Command {
	var deployment, replica string
	var follow, previous bool
	var tail int
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Show what an endpoint's replicas printed",
		Example: "  zarpa logs iris --tail 50\n  zarpa logs iris -f\n  zarpa logs iris --previous", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			p := client.GetLogsParams{Follow: &follow, Previous: &previous, Tail: &tail}
			if deployment != "" {
				p.Deployment = &deployment
			}
			if replica != "" {
				p.Replica = &replica
			}
			body, err := api.Logs(cmd.Context(), args[0], p)
			if err != nil {
				return err
			}
			defer body.Close()
			if _, err := io.Copy(c.stdout, body); err != nil && cmd.Context().Err() == nil {
				return zarpa.Errorf(zarpa.Unavailable, "the log broke off").Because(err)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines are written, until ^C")
	cmd.Flags().StringVar(&deployment, "deployment", "", "deployment; needed when there are several")
	cmd.Flags().StringVar(&replica, "replica", "", "one replica's ID; all by default")
	cmd.Flags().BoolVar(&previous, "previous", false, "what the run before printed")
	cmd.Flags().IntVar(&tail, "tail", 0, "lines to begin with, per replica; 0 is all that is kept")
	return cmd
}
