package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// deployFlags are the flags of deploy; those that were not given leave what is there as it is.
type deployFlags struct {
	models                   []string
	deployment, target       string
	replicas, maxConcurrency int
	cpu, memory, timeout     string
	env, secrets             []string
	hostname                 string
	modelControl             string
	maxBatchRows             int
	maxBatchDelay            string
	auth, statusCodes        string
	corsOrigins              []string
	noWait                   bool
	reload                   bool
	pythonFlags
	updateFlags
	scaleFlags
}

func (c *cli) deployCommand() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use: "deploy ENDPOINT [--model NAME[:VERSION]|FILE] [--code DIR]", Short: "Make an endpoint of a model, or update it",
		Long: `Makes the endpoint when it does not exist, else changes what the flags name and keeps the rest.
A FILE is registered as a model of the endpoint's name first, unless its newest version has the
same content. Replicas of the old version serve until the new ones are ready.

With --model given several times, every replica serves all of them: the first answers /score, the
others are reached by their names under /v2/models. Files behind the first are registered under
their own names, without their endings.

With --code the scoring script in that folder answers /score; it finds the models where
AZUREML_MODEL_DIR says. --requirements, --conda or --pyproject say what is installed for it. The
environment is built once and shared by all who want the same. With --reload the command stays, and
every change of the code is deployed; the old code serves until the new one is ready.

With --min, --max or another flag of scaling the number of replicas follows the load, and --replicas is
what it begins with.`,
		Example: `  zarpa deploy iris --model iris.onnx
  zarpa deploy iris --model iris:2 --replicas 2 --cpu 0.5 --memory 512Mi
  zarpa deploy iris --model iris:2 --min 0 --max 5 --target-utilization 70 --idle 5m --hold 30s
  zarpa deploy iris --model iris:2 --model rank.onnx --max-batch-rows 16 --max-batch-delay 2ms
  zarpa deploy iris --code ./src --entry score.py --requirements requirements.txt --model model.pkl
  zarpa deploy iris --code ./src --reload`,
		Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if f.reload && f.code == "" {
				return zarpa.Errorf(zarpa.Invalid, "--reload: there is no --code to watch").WithHint("name the folder of the code: --code DIR")
			}
			answer, err := c.deploy(cmd, api, args[0], f)
			if err != nil {
				return err
			}
			if err := c.finish(cmd.Context(), api, answer, f.noWait); err != nil || !f.reload {
				return err
			}
			return c.reload(cmd, api, args[0], f)
		}),
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.models, "model", nil, "registered model, NAME or NAME:VERSION, or a model file or folder; repeat for more; replaces all that was set")
	fl.StringVar(&f.modelControl, "model-control", string(zarpa.ModelControlNone), "none, or explicit: clients of the endpoint may load and unload its models")
	fl.StringVar(&f.deployment, "deployment", zarpa.DefaultDeployment, "deployment within the endpoint")
	fl.StringVar(&f.target, "target", zarpa.DefaultTarget, "where the replicas run")
	fl.IntVar(&f.replicas, "replicas", zarpa.DefaultReplicas, "number of replicas")
	fl.StringVar(&f.cpu, "cpu", "", "processors of one replica, such as 0.5; no limit by default")
	fl.StringVar(&f.memory, "memory", "", "memory of one replica, such as 512Mi; no limit by default")
	fl.StringArrayVar(&f.env, "env", nil, "environment of the replicas, key=value; replaces all that was set; repeat for more")
	fl.StringArrayVar(&f.secrets, "secret", nil, "stored secret that the replicas get as a file; repeat for more; replaces all that was set, '' for none")
	fl.StringVar(&f.hostname, "hostname", "", "name of the gateway at which the endpoint is the only one; '' for none")
	fl.IntVar(&f.maxBatchRows, "max-batch-rows", 0, "rows of several requests that the model runs at once; 0 and 1 do not batch")
	fl.StringVar(&f.maxBatchDelay, "max-batch-delay", "0s", "how long a request waits at most for others to share its run")
	fl.StringVar(&f.auth, "auth", string(zarpa.AuthKey), "key (tokens open it, too), token or none")
	fl.StringVar(&f.statusCodes, "status-codes", string(zarpa.StatusStandard), "statuses of failed predictions: standard, v1 or v2")
	fl.StringArrayVar(&f.corsOrigins, "cors-origin", nil, "origin whose pages may call the endpoint, * for all; repeat for more; replaces all that was set, '' allows none")
	fl.StringVar(&f.timeout, "request-timeout", zarpa.DefaultRequestTimeout.String(), "time limit of one request, then 504")
	fl.IntVar(&f.maxConcurrency, "max-concurrency", zarpa.DefaultMaxConcurrency, "requests that one replica works on at a time; twice --max-batch-rows where that is more")
	fl.BoolVar(&f.noWait, "no-wait", false, "do not wait until it is ready")
	fl.BoolVar(&f.reload, "reload", false, "stay, and deploy the code in --code again whenever it changes")
	f.pythonFlags.add(fl)
	f.updateFlags.add(fl)
	f.scaleFlags.add(fl)
	return cmd
}

// deploy reads the endpoint, changes what the flags name, and writes it back; when somebody else
// changed it meanwhile it does so again.
func (c *cli) deploy(cmd *cobra.Command, api *client.Client, name string, f deployFlags) (zarpa.ChangeSet, error) {
	ctx := cmd.Context()
	if err := zarpa.ValidateName("endpoint", name); err != nil {
		return zarpa.ChangeSet{}, err
	}
	format := ""
	if f.code != "" {
		format = zarpa.FormatFiles // the script reads what nobody else knows
	}
	if err := c.registerFiles(ctx, api, modelFiles{name, format, f.models}); err != nil {
		return zarpa.ChangeSet{}, err
	}
	sent, err := c.send(ctx, api, f.pythonFlags)
	if err != nil {
		return zarpa.ChangeSet{}, err
	}
	for try := 0; ; try++ {
		report, err := api.GetEndpoint(ctx, name)
		if err != nil && !errors.Is(err, zarpa.ErrNotFound) {
			return zarpa.ChangeSet{}, err
		}
		spec, err := f.merge(report.Endpoint.Spec, cmd.Flags().Changed, sent)
		if err != nil {
			return zarpa.ChangeSet{}, err
		}
		generation := report.Endpoint.Generation
		answer, err := api.PutEndpoint(ctx, name, spec, &client.PutEndpointParams{Generation: &generation, Interrupt: &f.interrupt})
		var e *zarpa.Error
		if errors.As(err, &e) && e.Code == zarpa.Conflict && e.Operation == "" && !report.Endpoint.Deleting && try < 3 {
			continue
		}
		return answer, err
	}
}

// merge changes what the given flags name.
func (f deployFlags) merge(spec zarpa.EndpointSpec, given func(string) bool, sent sentCode) (zarpa.EndpointSpec, error) {
	i := -1
	for j, d := range spec.Deployments {
		if d.Name == f.deployment {
			i = j
		}
	}
	if i < 0 {
		if (len(f.models) == 0 || f.models[0] == "") && f.code == "" {
			return spec, zarpa.Errorf(zarpa.Invalid, "--model: not given").WithHint("name a registered model or a file, or the folder of a scoring script with --code")
		}
		spec.Deployments = append(spec.Deployments, zarpa.DeploymentSpec{Name: f.deployment})
		i = len(spec.Deployments) - 1
	}
	d := &spec.Deployments[i]
	if err := f.pythonFlags.merge(d, given, sent); err != nil {
		return spec, err
	}
	if err := errors.Join(f.updateFlags.merge(d, given), f.scaleFlags.merge(d, given)); err != nil {
		return spec, err
	}
	set := map[string]func() error{
		"model":         func() error { d.Model, d.Models = f.models[0], f.models[1:]; return nil },
		"model-control": func() error { d.ModelControl = zarpa.ModelControl(f.modelControl); return nil },
		"target":        func() error { d.Target = f.target; return nil },
		"replicas":      func() error { d.Replicas = f.replicas; return positive("replicas", f.replicas) },
		"max-concurrency": func() error {
			d.MaxConcurrency = f.maxConcurrency
			return positive("max-concurrency", f.maxConcurrency)
		},
		"max-batch-rows": func() error {
			if d.MaxBatchRows = f.maxBatchRows; f.maxBatchRows <= 1 && !given("max-batch-delay") {
				d.MaxBatchDelay = 0 // nothing is left to wait for
			}
			return nil
		},
		"max-batch-delay": func() error { return flagText("max-batch-delay", f.maxBatchDelay, &d.MaxBatchDelay) },
		"auth":            func() error { spec.Auth = zarpa.AuthMode(f.auth); return nil },
		"status-codes":    func() error { spec.StatusCodes = zarpa.StatusCodes(f.statusCodes); return nil },
		"cors-origin":     func() error { spec.CORSOrigins = listed(f.corsOrigins); return nil },
		"cpu":             func() error { return flagText("cpu", f.cpu, &d.CPU) },
		"memory":          func() error { return flagText("memory", f.memory, &d.Memory) },
		"request-timeout": func() error { return flagText("request-timeout", f.timeout, &spec.RequestTimeout) },
		"env":             func() (err error) { d.Env, err = pairs("env", f.env); return err },
		"secret":          func() error { d.Secrets = listed(f.secrets); return nil },
		"hostname":        func() error { spec.Hostname = f.hostname; return nil },
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

// listed are the values of a flag that is repeated; one empty text is none.
func listed(values []string) []string {
	if len(values) == 1 && values[0] == "" {
		return nil
	}
	return values
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
	if answer.Operation == nil && !noWait { // what was asked for may be on its way already
		report, err := api.GetEndpoint(ctx, answer.Endpoint)
		if err != nil {
			return err
		}
		if op := report.Operation; op != nil && op.State == zarpa.OperationRunning {
			answer.Operation = op
		}
	}
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
	err = c.show(report, func(w io.Writer) {
		if answer.Operation == nil {
			fmt.Fprintf(w, "%s is as described; nothing to change\n", answer.Endpoint)
		}
		row(w, "Endpoint:", answer.Endpoint+" ("+string(report.Phase)+")")
		row(w, "Score:", report.URLs.Score)
		if !scripted(report.Effective) {
			row(w, "Infer:", report.URLs.Infer)
		}
		if report.Effective.Auth == zarpa.AuthKey {
			row(w, "Keys:", "zarpa keys "+answer.Endpoint)
		}
		row(w, "Call it:", fmt.Sprintf("zarpa invoke %s -d '%s'", answer.Endpoint, c.exampleBody(ctx, api, report)))
	})
	if err == nil && answer.Operation == nil && !noWait {
		err = unchangedFailure(report)
	}
	return err
}

// unchangedFailure is the failure of an endpoint whose settings are as they should be, and which failed all the same.
func unchangedFailure(r zarpa.EndpointReport) error {
	op := r.Operation
	if r.Phase != zarpa.EndpointFailed || op == nil || op.State != zarpa.OperationFailed || op.Error == nil {
		return nil
	}
	return zarpa.Errorf(op.Error.Code, "nothing was changed, and the last operation of %s failed: %s", op.Endpoint, op.Error.Message).
		WithHint("zarpa explain %s tells more; zarpa endpoint restart %s tries again at once", op.Endpoint, op.Endpoint)
}

// scripted reports whether scoring scripts answer for all of an endpoint.
func scripted(spec zarpa.EndpointSpec) bool {
	return !slices.ContainsFunc(spec.Deployments, func(d zarpa.DeploymentSpec) bool { return d.Code == "" })
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
	if r.Effective.Deployments[0].Code != "" {
		return "{}"
	}
	m, err := api.GetModel(ctx, r.Effective.Deployments[0].Model)
	if err != nil || len(m.Signature.Inputs) == 0 {
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
