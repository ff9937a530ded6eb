package main

import (
	"github.com/spf13/cobra"

	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
)

func (c *cli) scoreCommand() *cobra.Command {
	var f scorecmd.Flags
	cmd := &cobra.Command{
		Use: "score " + scorecmd.Use, Short: scorecmd.Short, Long: scorecmd.Long,
		Example: "  zarpa score --bundle ~/.local/share/zarpa/bundles/4f2a… --listen 127.0.0.1:5001\n" +
			"  zarpa score --code ./src --entry score.py --models ./models --python .venv/bin/python",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return scorecmd.Run(cmd.Context(), scorecmd.Process{Stderr: c.stderr, Getenv: c.getenv, Version: version}, f)
		},
	}
	f.Add(cmd.Flags())
	return cmd
}
