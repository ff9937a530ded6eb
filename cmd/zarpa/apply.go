package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/internal/endpointfile"
)

func (c *cli) applyCommand() *cobra.Command {
	var file string
	var dryRun, noWait bool
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make endpoints be as a file describes",
		Long: `Reads endpoints from a YAML file (- for standard input; several documents are several endpoints)
and makes them be so. Applying the same file again changes nothing.

  name: iris
  auth: key                  # or none
  request_timeout: 60s       # then 504
  max_queue: 256             # waiting requests, then 503
  queue_wait: 500ms          # then 503
  max_body: 100Mi            # then 413
  deployments:
    - name: blue
      model: iris:1          # or file: ./iris.onnx
      target: local
      replicas: 2
      cpu: 0.5
      memory: 512Mi
      env: {KEY: value}
      max_concurrency: 8
      start_timeout: 5m
      drain_timeout: 30s
      weight: 100            # per cent of the traffic`,
		Example: "  zarpa apply -f endpoint.yaml --dry-run\n  zarpa apply -f endpoint.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, dir, err := c.readEndpointFile(file)
			if err != nil {
				return err
			}
			api, err := c.connect()
			if err != nil {
				return err
			}
			for _, f := range files {
				if err := c.applyOne(cmd, api, f, applyOptions{dir, dryRun, noWait}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the YAML file, - for standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would change")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is ready")
	return cmd
}

type applyOptions struct {
	dir            string // model files are named from here
	dryRun, noWait bool
}

func (c *cli) readEndpointFile(file string) ([]endpointfile.File, string, error) {
	if file == "" {
		return nil, "", zarpa.Errorf(zarpa.Invalid, "--file: not given").WithHint("zarpa apply -f endpoint.yaml")
	}
	in, dir := c.stdin, "."
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, "", zarpa.Errorf(zarpa.Invalid, "--file: %w", err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		in, dir = f, filepath.Dir(file)
	}
	text, err := io.ReadAll(io.LimitReader(in, endpointfile.MaxSize+1))
	if err != nil {
		return nil, "", zarpa.Errorf(zarpa.Invalid, "--file: %w", err)
	}
	files, err := endpointfile.Read(text)
	return files, dir, err
}

func (c *cli) applyOne(cmd *cobra.Command, api *client.Client, f endpointfile.File, o applyOptions) error {
	ctx, spec, pending := cmd.Context(), f.Spec(), []string{}
	for i, d := range f.Deployments {
		if d.File == "" {
			continue
		}
		path := d.File
		if !filepath.IsAbs(path) {
			path = filepath.Join(o.dir, path)
		}
		register := c.registerOnce
		if o.dryRun {
			register = c.wouldRegister
		}
		m, err := register(ctx, api, f.Name, path)
		if err != nil {
			return err
		}
		spec.Deployments[i].Model = m.Ref().String()
		pending = append(pending, m.Ref().String())
	}
	answer, err := api.PutEndpoint(ctx, f.Name, spec, &client.PutEndpointParams{DryRun: &o.dryRun, Pending: &pending})
	if err != nil {
		return err
	}
	if o.dryRun {
		return c.show(answer, func(w io.Writer) {
			if len(answer.Changes) == 0 {
				fmt.Fprintf(w, "%s: nothing would change\n", f.Name)
			}
			for _, ch := range answer.Changes {
				row(w, f.Name, ch.Field, orNone(ch.From)+" → "+orNone(ch.To))
			}
		})
	}
	return c.finish(ctx, api, answer, o.noWait)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
