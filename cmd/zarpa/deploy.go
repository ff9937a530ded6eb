package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// deployFlags are the flags of deploy; those that were not given leave what is there as it is.
type deployFlags struct {
	model, deployment, target string
	replicas, maxConcurrency  int
	cpu, memory, timeout      string
	env                       []string
	auth                      string
	noWait                    bool
}

func (c *cli) deployCommand() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use: "deploy ENDPOINT --model NAME[:VERSION]|FILE", Short: "Make an endpoint of a model, or update it",
		Long: `Makes the endpoint when it does not exist, else changes what the flags name and keeps the rest.
A FILE is registered as a model of the endpoint's name first, unless its newest version has the
same content. Replicas of the old version serve until the new ones are ready.`,
		Example: `  zarpa deploy iris --model iris.onnx
  zarpa deploy iris --model iris:2 --replicas 2 --cpu 0.5 --memory 512Mi`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect()
			if err != nil {
				return err
			}
			answer, err := c.deploy(cmd, api, args[0], f)
			if err != nil {
				return err
			}
			return c.finish(cmd.Context(), api, answer, f.noWait)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "registered model, NAME or NAME:VERSION, or a model file or folder")
	fl.StringVar(&f.deployment, "deployment", zarpa.DefaultDeployment, "deployment within the endpoint")
	fl.StringVar(&f.target, "target", zarpa.DefaultTarget, "where the replicas run")
	fl.IntVar(&f.replicas, "replicas", zarpa.DefaultReplicas, "number of replicas")
	fl.StringVar(&f.cpu, "cpu", "", "processors of one replica, such as 0.5; no limit by default")
	fl.StringVar(&f.memory, "memory", "", "memory of one replica, such as 512Mi; no limit by default")
	fl.StringArrayVar(&f.env, "env", nil, "environment of the replicas, key=value; replaces all that was set; repeat for more")
	fl.StringVar(&f.auth, "auth", string(zarpa.AuthKey), "key or none")
	fl.StringVar(&f.timeout, "request-timeout", zarpa.DefaultRequestTimeout.String(), "time limit of one request, then 504")
	fl.IntVar(&f.maxConcurrency, "max-concurrency", zarpa.DefaultMaxConcurrency, "requests that one replica works on at a time")
	fl.BoolVar(&f.noWait, "no-wait", false, "do not wait until it is ready")
	return cmd
}

// deploy reads the endpoint, changes what the flags name, and writes it back; when somebody else
// changed it meanwhile it does so again.
func (c *cli) deploy(cmd *cobra.Command, api *client.Client, name string, f deployFlags) (zarpa.ChangeSet, error) {
	ctx := cmd.Context()
	if err := zarpa.ValidateName("endpoint", name); err != nil {
		return zarpa.ChangeSet{}, err
	}
	if isFile(f.model) {
		m, err := c.registerOnce(ctx, api, name, f.model)
		if err != nil {
			return zarpa.ChangeSet{}, err
		}
		f.model = m.Ref().String()
	}
	for try := 0; ; try++ {
		report, err := api.GetEndpoint(ctx, name)
		if err != nil && !errors.Is(err, zarpa.ErrNotFound) {
			return zarpa.ChangeSet{}, err
		}
		spec, err := f.merge(report.Endpoint.Spec, cmd.Flags().Changed)
		if err != nil {
			return zarpa.ChangeSet{}, err
		}
		generation := report.Endpoint.Generation
		answer, err := api.PutEndpoint(ctx, name, spec, &client.PutEndpointParams{Generation: &generation})
		var e *zarpa.Error
		if errors.As(err, &e) && e.Code == zarpa.Conflict && e.Operation == "" && !report.Endpoint.Deleting && try < 3 {
			continue
		}
		return answer, err
	}
}

// isFile tells a path from the name of a registered model: a path has a slash or ends as models
// do, so that a file in the working directory never takes a model's place.
func isFile(model string) bool {
	return strings.ContainsAny(model, `/\`) || strings.HasSuffix(model, ".onnx")
}

// registerOnce registers a file, unless the newest version of the name has the same content.
func (c *cli) registerOnce(ctx context.Context, api *client.Client, name, path string) (zarpa.Model, error) {
	m, err := c.wouldRegister(ctx, api, name, path)
	if err != nil || !m.Created.IsZero() {
		return m, err
	}
	return api.RegisterModel(ctx, zarpa.Registration{Name: name, Digest: m.Content.Digest})
}

// wouldRegister uploads a file and returns the newest version of the name when it has the same
// content, else the version, not created yet, that registering it would make. Content that is
// not registered is swept after a day.
func (c *cli) wouldRegister(ctx context.Context, api *client.Client, name, path string) (zarpa.Model, error) {
	content, err := c.upload(ctx, api, path)
	if err != nil {
		return zarpa.Model{}, err
	}
	newest, err := api.GetModel(ctx, name)
	switch {
	case err == nil && newest.Content.Digest == content.Digest:
		return newest, nil
	case err != nil && !errors.Is(err, zarpa.ErrNotFound):
		return zarpa.Model{}, err
	}
	return zarpa.Model{Name: name, Version: newest.Version + 1, Content: content}, nil
}

// merge changes what the given flags name.
func (f deployFlags) merge(spec zarpa.EndpointSpec, given func(string) bool) (zarpa.EndpointSpec, error) {
	i := -1
	for j, d := range spec.Deployments {
		if d.Name == f.deployment {
			i = j
		}
	}
	if i < 0 {
		if f.model == "" {
			return spec, zarpa.Errorf(zarpa.Invalid, "--model: not given").WithHint("name a registered model or a file")
		}
		spec.Deployments = append(spec.Deployments, zarpa.DeploymentSpec{Name: f.deployment})
		i = len(spec.Deployments) - 1
	}
	d := &spec.Deployments[i]
	set := map[string]func() error{
		"model":    func() error { d.Model = f.model; return nil },
		"target":   func() error { d.Target = f.target; return nil },
		"replicas": func() error { d.Replicas = f.replicas; return positive("replicas", f.replicas) },
		"max-concurrency": func() error {
			d.MaxConcurrency = f.maxConcurrency
			return positive("max-concurrency", f.maxConcurrency)
		},
		"auth":            func() error { spec.Auth = zarpa.AuthMode(f.auth); return nil },
		"cpu":             func() error { return flagText("cpu", f.cpu, &d.CPU) },
		"memory":          func() error { return flagText("memory", f.memory, &d.Memory) },
		"request-timeout": func() error { return flagText("request-timeout", f.timeout, &spec.RequestTimeout) },
		"env":             func() (err error) { d.Env, err = pairs("env", f.env); return err },
	}
	for name, fn := range set {
		if !given(name) {
			continue
		}
		if err := fn(); err != nil {
			return spec, err
		}
	}
	return spec, nil
}

func positive(flag string, n int) error {
	if n < 1 {
		return zarpa.Errorf(zarpa.Invalid, "--%s: %d is less than 1", flag, n)
	}
	return nil
}

func flagText(flag, text string, v interface{ UnmarshalText(b []byte) error }) error {
	if err := v.UnmarshalText([]byte(text)); err != nil {
		e := *zarpa.AsError(err)
		e.Message = "--" + flag + ": " + e.Message
		return &e
	}
	return nil
}

// finish waits for the operation of a change and says where the endpoint is.
func (c *cli) finish(ctx context.Context, api *client.Client, answer zarpa.ChangeSet, noWait bool) error {
	if answer.Operation != nil && !noWait {
		op, err := c.follow(ctx, api, *answer.Operation)
		if err != nil {
			return err
		}
		answer.Operation = &op
	}
	report, err := api.GetEndpoint(ctx, answer.Endpoint)
	if err != nil {
		return err
	}
	return c.show(report, func(w io.Writer) {
		if answer.Operation == nil {
			fmt.Fprintf(w, "%s is as described; nothing to change\n", answer.Endpoint)
		}
		row(w, "Endpoint:", answer.Endpoint+" ("+string(report.Phase)+")")
		row(w, "Score:", report.URLs.Score)
		row(w, "Infer:", report.URLs.Infer)
		if report.Effective.Auth == zarpa.AuthKey {
			row(w, "Keys:", "zarpa keys "+answer.Endpoint)
		}
		row(w, "Call it:", fmt.Sprintf("zarpa invoke %s -d '%s'", answer.Endpoint, c.exampleBody(ctx, api, report)))
	})
}

// follow shows the phases of an operation as they come and returns its failure as an error.
func (c *cli) follow(ctx context.Context, api *client.Client, op zarpa.Operation) (zarpa.Operation, error) {
	p, done := c.progress(), map[string]bool{}
	op, err := api.Wait(ctx, op, func(o zarpa.Operation) {
		if c.output != "table" {
			return
		}
		for _, ph := range o.Phases {
			key := ph.Deployment + "/" + ph.Name
			switch {
			case ph.State == zarpa.OperationSucceeded && !done[key]:
				done[key] = true
				p.line("%s", phaseLine("✓", ph))
			case ph.State == zarpa.OperationRunning:
				p.step("%s", phaseLine("…", ph))
			}
		}
	})
	p.clear()
	switch {
	case err != nil && ctx.Err() != nil:
		return op, zarpa.Errorf(zarpa.Canceled, "stopped waiting; operation %s goes on", op.ID).
			WithHint("zarpa explain %s shows it", op.Endpoint)
	case err != nil:
		return op, err
	case op.State == zarpa.OperationFailed:
		if c.output == "table" {
			c.printFailure(op)
		}
		return op, op.Error
	}
	return op, nil
}

func phaseLine(mark string, ph zarpa.Phase) string {
	name := ph.Name
	if ph.Deployment != "" {
		name = ph.Deployment + " " + name
	}
	line := mark + " " + name
	if !ph.Ended.IsZero() {
		line += " " + took(ph.Ended.Sub(ph.Started))
	}
	if ph.Detail != "" {
		line += "  " + ph.Detail
	}
	if ph.Cause != "" {
		line += "  " + ph.Cause
	}
	return line
}

// printFailure shows what a failed operation's replica printed last.
func (c *cli) printFailure(op zarpa.Operation) {
	for _, ph := range op.Phases {
		if ph.State != zarpa.OperationFailed {
			continue
		}
		ph.Cause = "" // the error that follows says it
		fmt.Fprintln(c.stderr, phaseLine("✗", ph))
		for _, line := range ph.Log {
			fmt.Fprintln(c.stderr, "    "+line)
		}
	}
}

// maxExample is the most elements of an input that an example shows.
const maxExample = 16

// exampleBody is a body that the endpoint's first model takes; "@body.json" when it would be long.
func (c *cli) exampleBody(ctx context.Context, api *client.Client, r zarpa.EndpointReport) string {
	const unknown = "@body.json"
	if len(r.Effective.Deployments) == 0 {
		return unknown
	}
	m, err := api.GetModel(ctx, r.Effective.Deployments[0].Model)
	if err != nil {
		return unknown
	}
	data := map[string]any{}
	for _, in := range m.Signature.Inputs {
		shape, elements := in.Sizes(), int64(1)
		for i, n := range shape {
			shape[i] = max(n, 1) // a dynamic dimension of one
			elements *= shape[i]
		}
		if elements > maxExample || in.NoShape || in.Type == zarpa.Sequence || in.Type == zarpa.Map {
			return unknown
		}
		data[in.Name] = zeros(in.Type, shape)
	}
	body := map[string]any{"data": data}
	if len(m.Signature.Inputs) == 1 {
		body["data"] = data[m.Signature.Inputs[0].Name]
	}
	text, err := json.Marshal(body)
	if err != nil {
		return unknown
	}
	return string(text)
}

// zeros is a nested list of a shape.
func zeros(t zarpa.ElementType, shape []int64) any {
	if len(shape) == 0 {
		switch t {
		case zarpa.String:
			return ""
		case zarpa.Bool:
			return false
		default:
			return 0
		}
	}
	list := make([]any, shape[0])
	for i := range list {
		list[i] = zeros(t, shape[1:])
	}
	return list
}

// elapsed is how long a phase took, or takes.
func elapsed(start, end, now time.Time) string {
	if end.IsZero() {
		return took(now.Sub(start)) + "…"
	}
	return took(end.Sub(start))
}
