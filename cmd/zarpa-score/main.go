// Command zarpa-score runs one replica, as "zarpa score" does, and nothing else: it is the program that
// images carry.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
)

// version is stamped by the build: -ldflags "-X main.version=…".
var version = "devel"

func main() { os.Exit(run(os.Args[1:])) }

// run is the exit code of a command line.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var f scorecmd.Flags
	fl := pflag.NewFlagSet("zarpa-score", pflag.ContinueOnError)
	fl.Usage = func() {}
	f.Add(fl)
	told := fl.Bool("version", false, "show the version of this program")
	err := fl.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Print(scorecmd.Long + "\n\nUsage:\n  zarpa-score " + scorecmd.Use + " [flags]\n\nFlags:\n" + fl.FlagUsages())
		return 0
	case err != nil:
		err = zarpa.Errorf(zarpa.Invalid, "%w", err).WithHint("zarpa-score --help shows the flags")
	case fl.NArg() > 0:
		err = zarpa.Errorf(zarpa.Invalid, "unknown argument %q", fl.Arg(0)).WithHint("zarpa-score --help shows how it is called")
	case *told:
		fmt.Println("zarpa-score " + version)
		return 0
	default:
		err = scorecmd.Run(ctx, scorecmd.Process{Stderr: os.Stderr, Getenv: os.Getenv, Version: version}, f)
	}
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*scorecmd.ExitError](err); ok {
		return exit.Code
	}
	e := zarpa.AsError(err)
	fmt.Fprintln(os.Stderr, "Error: "+e.Error())
	if e.Err != nil && (e.Code == zarpa.Unavailable || e.Code == zarpa.Internal) {
		fmt.Fprintln(os.Stderr, "  cause: "+e.Err.Error())
	}
	return e.Code.ExitCode()
}
