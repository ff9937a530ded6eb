package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/internal/endpointfile"
)

func (c *cli) applyCommand() *cobra.Command {
	var file string
	var dryRun, noWait, interrupt bool
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
  status_codes: standard     # or v1, v2
  cors_origins: ["https://app.example.com"]
  default: blue              # gets what the weights leave
  mirror: {deployment: green, percent: 10}
  sticky: key                # or header:NAME
  limits: {rate: 100, burst: 200, concurrent: 50}   # of each key
  retry_budget: 20           # per cent of the requests
  ejection: {failures: 5, time: 5s, max_percent: 50}
  priority: 0
  deployments:
    - name: blue
      model: iris:1          # or file: ./iris.onnx
      models: [rank:2, ./other.onnx]   # further ones, beside it
      code: ./src            # folder of a scoring script, which then answers /score
      entry: score.py
      environment:           # for Python; or conda: ./conda.yml, pyproject: ./pyproject.toml
        requirements: ./requirements.txt
        python: "3.11"
      workers: 2             # Python processes of each replica
      model_control: none    # or explicit
      target: local
      replicas: 2
      cpu: 0.5
      memory: 512Mi
      env: {KEY: value}
      max_concurrency: 32
      max_batch_rows: 16     # rows that share one run of the model
      max_batch_delay: 2ms   # how long they wait for each other
      start_timeout: 5m
      drain_timeout: 30s
      slow_start: 2s         # a new replica gets fewer requests at first
      max_surge: 100%        # replicas beyond replicas during an update
      max_unavailable: 0     # and below
      weight: 100            # share of the traffic`,
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
				if err := c.applyOne(cmd, api, f, applyOptions{dir, dryRun, noWait, interrupt}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the YAML file, - for standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would change")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is ready")
	cmd.Flags().BoolVar(&interrupt, "interrupt", false, "take the place of a change that is under way")
	return cmd
}

type applyOptions struct {
	dir            string // model files are named from here
	dryRun, noWait bool
	interrupt      bool
}

// at is a path of the file, seen from here.
func (o applyOptions) at(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(o.dir, path)
}

// applied is the spec that a deployment of a file becomes.
type applied struct {
	o    applyOptions
	spec *zarpa.DeploymentSpec
}

// sendFor uploads the code and the environment's files that a deployment names by their paths.
// Content that is not deployed, as after a dry run, is swept after a day.
func sendFor(ctx context.Context, put putter, d endpointfile.FileDeployment, a applied) (err error) {
	if d.Code != "" && !strings.HasPrefix(d.Code, "sha256:") {
		if a.spec.Code, err = sendCode(ctx, put, a.o.at(d.Code)); err != nil {
			return err
		}
	}
	if d.Environment == nil {
		return nil
	}
	files := environmentFiles{
		"requirements.txt": a.o.at(d.Environment.Requirements), "conda.yml": a.o.at(d.Environment.Conda),
		"pyproject.toml": a.o.at(d.Environment.PyProject), "wheels": a.o.at(d.Environment.Wheels),
	}
	if files.any() {
		a.spec.Environment.Content, err = sendEnvironment(ctx, put, files)
	}
	return err
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
	register := c.registerOnce
	if o.dryRun {
		register = c.wouldRegister
	}
	format := ""
	named := func(name, path string) (string, error) {
		m, err := register(ctx, api, zarpa.Registration{Name: name, Format: format}, o.at(path))
		ref := m.Ref().String()
		pending = append(pending, ref)
		return ref, err
	}
	put := func(ctx context.Context, path string) (zarpa.Content, error) { return c.upload(ctx, api, path) }
	for i, d := range f.Deployments {
		if format = ""; d.Code != "" {
			format = zarpa.FormatFiles
		}
		if err := sendFor(ctx, put, d, applied{o, &spec.Deployments[i]}); err != nil {
			return err
		}
		if d.File != "" {
			var err error
			if spec.Deployments[i].Model, err = named(f.Name, d.File); err != nil {
				return err
			}
		}
		further, err := furtherModels(d.Models, named)
		if err != nil {
			return err
		}
		spec.Deployments[i].Models = further
	}
	answer, err := api.PutEndpoint(ctx, f.Name, spec, &client.PutEndpointParams{DryRun: &o.dryRun, Pending: &pending, Interrupt: &o.interrupt})
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

// furtherModels are a deployment's models beside the first, with those that are paths named.
func furtherModels(models []string, named func(name, path string) (string, error)) ([]string, error) {
	out := slices.Clone(models)
	for i, model := range out {
		if !isFile(model) {
			continue
		}
		name, err := fileModel(model)
		if err != nil {
			return nil, err
		}
		if out[i], err = named(name, model); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
