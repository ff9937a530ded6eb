package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
	"github.com/zarpa-dev/zarpa/oip"
)

// conformanceFlags are the flags of conformance.
type conformanceFlags struct {
	grpc               string
	models, headers    []string
	extensions         []string
	only               string
	timeout            time.Duration
	verbose, harsh     bool
	catalogue          bool
	url, authorization string // from the arguments and --token
}

func (c *cli) conformanceCommand() *cobra.Command {
	var f conformanceFlags
	cmd := &cobra.Command{
		Use: "conformance URL", Short: "See how a server keeps the Open Inference Protocol v2",
		Long: `Asks any server of the Open Inference Protocol v2, Zarpa or another, what the specification says
about every model, with inputs made up from the models' metadata, and reports what differs. It changes
nothing at the server unless --extensions load is given. --token is the server's own key, sent as
"Authorization: Bearer". It ends with 1 when the server differs from something that the protocol demands.`,
		Example: `  zarpa conformance http://127.0.0.1:8000 --grpc 127.0.0.1:8001
  zarpa conformance http://127.0.0.1:8080/endpoints/iris --model iris --token KEY
  zarpa conformance --list`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.catalogue {
				return c.listChecks()
			}
			if len(args) == 0 {
				return zarpa.Errorf(zarpa.Invalid, "URL: not given").WithHint("name where /v2 is, such as http://127.0.0.1:8000")
			}
			f.url = args[0]
			if cmd.Flags().Changed("token") {
				f.authorization = "Bearer " + c.token
			}
			return c.conformance(cmd, f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.grpc, "grpc", "", "HOST:PORT of the gRPC service, https://HOST:PORT with TLS; without it gRPC is skipped")
	fl.StringArrayVar(&f.models, "model", nil, "a model to ask about (repeatable); else those that the repository index lists as ready")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "a header of every request, 'Name: value' (repeatable)")
	fl.StringVar(&f.only, "only", "", "ids of the checks to make, with * for any part: 'rest.infer.*'")
	fl.DurationVar(&f.timeout, "timeout", oip.DefaultTimeout, "time limit of one request")
	fl.BoolVar(&f.verbose, "verbose", false, "show every check, not only differences")
	fl.StringSliceVar(&f.extensions, "extensions", nil, "what is asked for only on demand: load unloads each model and loads it again")
	fl.BoolVar(&f.harsh, "harsh", false, "send what some servers die of: very deep JSON, a body that unpacks to 1 GiB")
	fl.BoolVar(&f.catalogue, "list", false, "list the checks and ask nobody")
	return cmd
}

func (c *cli) conformance(cmd *cobra.Command, f conformanceFlags) error {
	if f.timeout <= 0 {
		return zarpa.Errorf(zarpa.Invalid, "--timeout: %v is no time to wait", f.timeout)
	}
	header, err := headers(f.headers)
	if err != nil {
		return err
	}
	if f.authorization != "" {
		header.Set("Authorization", f.authorization)
	}
	report, err := oip.Run(cmd.Context(), oip.Target{
		URL: f.url, GRPC: f.grpc, Header: header, Models: f.models, Only: f.only, Timeout: f.timeout,
		Extensions: f.extensions, Harsh: f.harsh,
	})
	if err != nil {
		return err
	}
	switch {
	case c.output != "table":
		err = c.show(report, nil)
	case f.verbose:
		err = report.WriteVerbose(c.stdout)
	default:
		err = report.WriteText(c.stdout)
	}
	if err != nil {
		return err
	}
	if n := report.Failed(oip.Must); n > 0 {
		return &scorecmd.ExitError{Code: 1, Err: fmt.Errorf("the server differs from the protocol in %d checks", n)}
	}
	return nil
}

// headers reads 'Name: value' flags.
func headers(list []string) (http.Header, error) {
	h := http.Header{}
	for _, text := range list {
		name, value, ok := strings.Cut(text, ":")
		if !ok || strings.TrimSpace(name) == "" || strings.ContainsAny(text, "\r\n") {
			return nil, zarpa.Errorf(zarpa.Invalid, "--header: %q is not 'Name: value'", text)
		}
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return h, nil
}

func (c *cli) listChecks() error {
	list := oip.Catalogue()
	return c.show(list, func(w io.Writer) {
		row(w, "CHECK", "LEVEL", "SAYS")
		for _, x := range list {
			row(w, x.ID, x.Level, x.Says)
		}
	})
}
