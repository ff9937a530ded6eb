package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// version is stamped by the build: -ldflags "-X main.version=…".
var version = "devel"

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this binary", Example: "  zarpa version -o json", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return c.show(v, func(w io.Writer) { fmt.Fprintf(w, "zarpa %s %s %s\n", v["version"], v["go"], v["platform"]) })
		},
	}
}
