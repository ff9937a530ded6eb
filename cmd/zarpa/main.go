// Command zarpa deploys trained models: it is the control plane, the gateway, one replica, and
// the client of all of them, in one binary.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/zarpa-dev/zarpa"
	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
)

func main() { os.Exit(Main()) }

// Main runs the command line of this process and returns its exit code.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &cli{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv,
		terminal: term.IsTerminal(int(os.Stdout.Fd())) && term.IsTerminal(int(os.Stderr.Fd())),
	}
	return c.run(ctx, os.Args[1:])
}

// cli is one invocation: the process's surroundings and the flags that every verb has.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	terminal       bool // output is read by a person as it comes

	server, token, data, output string
}

func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[*zarpa.Error](err); !ok && ctx.Err() == nil && isUsage(err) {
		hint := "zarpa help shows what there is"
		if cmd != root {
			hint = cmd.CommandPath() + " --help shows how it is called"
		}
		err = zarpa.Errorf(zarpa.Invalid, "%w", err).WithHint("%s", hint)
	}
	if exit, ok := errors.AsType[*scorecmd.ExitError](err); ok {
		return exit.Code
	}
	c.printError(err)
	return zarpa.AsError(err).Code.ExitCode()
}

// isUsage tells cobra's own complaints about flags and arguments, which have no type, from
// failures: those are all zarpa.Error or come with a cause.
func isUsage(err error) bool { return errors.Unwrap(err) == nil }

func (c *cli) printError(err error) {
	e := zarpa.AsError(err)
	if c.output == "json" {
		_ = json.NewEncoder(c.stderr).Encode(e)
		return
	}
	message := e.Message
	if e.Code == zarpa.Internal && e.Err != nil {
		message = err.Error() // this process's own failure: its cause is for its user
	}
	fmt.Fprintln(c.stderr, "Error: "+message)
	if e.Hint != "" {
		fmt.Fprintln(c.stderr, "  → "+e.Hint)
	}
	if e.Code == zarpa.Unavailable && e.Err != nil {
		fmt.Fprintln(c.stderr, "  cause: "+e.Err.Error())
	}
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "zarpa",
		Short: "From a model file to an authenticated endpoint",
		Long: `Zarpa deploys trained machine-learning models as endpoints.

Start a server with "zarpa up", then deploy a file from another terminal:

  zarpa deploy iris --model iris.onnx
  zarpa invoke iris -d '{"data": [[5.1, 3.5, 1.4, 0.2]]}'`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return c.checkOutput() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return zarpa.Errorf(zarpa.Invalid, "%w", err).WithHint("%s --help shows the flags", cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&c.server, "server", "", "URL of the control API (ZARPA_SERVER); else the server of the data directory")
	f.StringVar(&c.token, "token", "", "token of the control API (ZARPA_TOKEN); else the one in the data directory")
	f.StringVar(&c.data, "data", "", "data directory (ZARPA_DATA; default "+defaultDataHelp+")")
	f.StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	root.AddGroup(&cobra.Group{ID: "use", Title: "Deploy and use models:"}, &cobra.Group{ID: "run", Title: "Run Zarpa:"})
	group := func(id string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = id
			root.AddCommand(cmd)
		}
	}
	group("use", c.deployCommand(), c.applyCommand(), c.invokeCommand(), c.trafficCommand(), c.rolloutCommand(), c.endpointCommand(), c.keysCommand(), c.tokenCommand(),
		c.logsCommand(), c.topCommand(), c.explainCommand(), c.modelCommand(), c.packageCommand(), c.environmentCommand(), c.secretCommand(), c.targetCommand())
	group("run", c.upCommand(), c.gatewayCommand(), c.scoreCommand(), c.accessCommand(), c.auditCommand(), c.conformanceCommand(), c.versionCommand())
	return root
}

// withVerbs is a command that has verbs of its own: alone it shows its help, and another verb is an
// error that suggests the nearest.
func withVerbs(cmd *cobra.Command, verbs ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(verbs...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		var known []string
		for _, v := range verbs {
			known = append(known, v.Name())
		}
		err := zarpa.Errorf(zarpa.Invalid, "%q is no verb of %s", args[0], cmd.CommandPath())
		if near := zarpa.Nearest(args[0], known); near != "" {
			return err.WithHint("did you mean %s?", near)
		}
		return err.WithHint("known are %s", strings.Join(known, ", "))
	}
	return cmd
}

func (c *cli) checkOutput() error {
	switch c.output {
	case "table", "json", "yaml":
		return nil
	}
	return zarpa.Errorf(zarpa.Invalid, "--output: %q is not known", c.output).WithHint("use table, json or yaml")
}

// pairs reads repeated k=v flags.
func pairs(flag string, list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, zarpa.Errorf(zarpa.Invalid, "--%s: %q is not key=value", flag, kv)
		}
		m[k] = v
	}
	return m, nil
}
