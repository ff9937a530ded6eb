package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/environment"
	"github.com/zarpa-dev/zarpa/modelfile"
	"github.com/zarpa-dev/zarpa/target"
)

// environment builds what a package runs in, when it runs in Python. Without files of its own, it is
// what its models' formats tell.
func (p *plane) environment(ctx context.Context, pkg target.Package, progress func(string)) (*zarpa.BundleEnvironment, error) {
	if pkg.Spec.Code == "" && !slices.ContainsFunc(pkg.Models, func(m zarpa.Model) bool { return m.Format != zarpa.FormatONNX }) {
		return nil, nil //nolint:nilnil // it needs none
	}
	if _, err := describe(pkg); err != nil {
		return nil, err // before minutes are spent on what cannot be packaged
	}
	var spec zarpa.EnvironmentSpec
	if pkg.Spec.Environment != nil {
		spec = *pkg.Spec.Environment
	}
	var content zarpa.Content
	var err error
	if spec.Content != "" {
		content, err = bundle.ReadContent(ctx, p.blobs, spec.Content)
	} else {
		content, err = p.implied(ctx, pkg, &spec, progress)
	}
	if err != nil {
		return nil, err
	}
	req := environment.Request{Spec: spec, Retry: true}
	if len(content.Files) > 0 {
		req.Spec.Content, req.Files = content.Digest, bundle.ContentFS(ctx, p.blobs, content)
	}
	e, err := p.ensure(ctx, req, progress)
	if err != nil {
		return nil, err
	}
	return &zarpa.BundleEnvironment{ID: e.ID, Python: e.Python, SystemPackages: spec.SystemPackages, Content: content, Lock: e.Packages}, nil
}

// maxBuilds is how many environments are built at a time; more wait their turn, those that are there do
// not.
const maxBuilds = 2

// ensure returns the environment that a request asks for, built where it is not there.
func (p *plane) ensure(ctx context.Context, req environment.Request, progress func(string)) (zarpa.Environment, error) {
	id, err := p.environments.Resolve(ctx, req)
	if err != nil {
		return zarpa.Environment{}, err
	}
	if !p.present(id) {
		select {
		case p.builds <- struct{}{}:
			defer func() { <-p.builds }()
		default:
			progress("waiting: other environments are being built")
			select {
			case p.builds <- struct{}{}:
				defer func() { <-p.builds }()
			case <-ctx.Done():
				return zarpa.Environment{}, ctx.Err()
			}
		}
	}
	return p.environments.Ensure(ctx, req, progress)
}

// environmentUsers are who needs each environment: the deployments that want it, and the replicas that
// run, which may be those of an earlier change.
func (p *plane) environmentUsers(ctx context.Context) (map[string][]string, error) {
	users := map[string][]string{}
	for deployment, id := range p.recon.Environments() {
		users[id] = append(users[id], deployment)
	}
	for _, list := range users {
		slices.Sort(list)
	}
	for _, digest := range p.usedBundles() {
		b, err := bundle.Describe(ctx, p.blobs, digest)
		if errors.Is(err, zarpa.ErrNotFound) {
			continue // it cannot be started again, with an environment or without
		}
		if err != nil {
			return nil, err
		}
		if b.Environment != nil && len(users[b.Environment.ID]) == 0 {
			users[b.Environment.ID] = []string{"replicas that run"}
		}
	}
	return users, nil
}

// present reports whether an environment is there and works.
func (p *plane) present(id string) bool {
	_, err := p.environments.Python(id)
	return err == nil
}

// implied is the content of an environment that nobody described: what the models need. Their
// Python is preferred, where the machine has it.
func (p *plane) implied(ctx context.Context, pkg target.Package, spec *zarpa.EnvironmentSpec, progress func(string)) (zarpa.Content, error) {
	var lines []string
	python := ""
	for _, m := range pkg.Models {
		info, err := modelfile.Inspect(bundle.ContentFS(ctx, p.blobs, m.Content))
		if err != nil {
			continue // a script reads what nobody else knows
		}
		for line := range strings.Lines(modelfile.Requirements(info)) {
			if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
		if python == "" {
			python = minor(info.Python)
		}
	}
	if len(lines) == 0 {
		return zarpa.Content{}, nil
	}
	if spec.Python == "" && python != "" {
		if _, err := p.environments.Resolve(ctx, environment.Request{Spec: zarpa.EnvironmentSpec{Python: python}}); err == nil {
			spec.Python = python
		} else {
			progress(fmt.Sprintf("the model was made with Python %s, which is not on this machine: another one is used", python))
		}
	}
	return p.textContent(ctx, "requirements.txt", strings.Join(lines, "\n")+"\n")
}

// minor is MAJOR.MINOR of a version.
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return ""
	}
	return parts[0] + "." + parts[1]
}

// textContent stores one file as a content.
func (p *plane) textContent(ctx context.Context, name, text string) (zarpa.Content, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
		return zarpa.Content{}, err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return zarpa.Content{}, err
	}
	if err := w.Close(); err != nil {
		return zarpa.Content{}, err
	}
	return bundle.WriteContent(ctx, p.blobs, &packed, bundle.Limits{})
}

func (c *cli) environmentCommand() *cobra.Command {
	return withVerbs(&cobra.Command{
		Use: "environment", Short: "Show and remove the Python environments that deployments run in",
		Example: "  zarpa environment list",
	}, c.environmentList(), c.environmentShow(), c.environmentLog(), c.environmentPrune())
}

func (c *cli) environmentList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List environments, their sizes and who uses them", Example: "  zarpa environment list",
		Args: cobra.NoArgs,
		RunE: c.online(func(cmd *cobra.Command, _ []string, api *client.Client) error {
			list, err := api.ListEnvironments(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "No environments yet. A deployment with --code or a Python model makes one.")
					return
				}
				row(w, "ENVIRONMENT", "PHASE", "PYTHON", "FROM", "SIZE", "USED", "BY")
				for _, e := range list {
					row(w, e.ID, e.Phase, e.Python, orDash(e.Source), size(e.Size), ago(e.Used, time.Now()), orDash(strings.Join(e.UsedBy, ", ")))
				}
			})
		}),
	}
}

func (c *cli) environmentShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show an environment and the packages in it", Example: "  zarpa environment show 4f1d2a90c3b5e867",
		Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			e, err := api.GetEnvironment(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(e, func(w io.Writer) {
				row(w, "Environment:", e.ID)
				row(w, "Phase:", e.Phase)
				row(w, "Python:", e.Python)
				row(w, "From:", orDash(e.Source)+", by "+orDash(e.Tool))
				row(w, "Size:", size(e.Size))
				row(w, "Built:", e.Created.Local().Format(time.DateTime))
				row(w, "Used:", e.Used.Local().Format(time.DateTime))
				row(w, "By:", orDash(strings.Join(e.UsedBy, ", ")))
				if e.Error != nil {
					row(w, "Error:", e.Error.Message)
					row(w, "Hint:", e.Error.Hint)
				}
				row(w, "Packages:", "")
				for _, name := range e.Packages {
					row(w, "  "+name)
				}
			})
		}),
	}
}

func (c *cli) environmentLog() *cobra.Command {
	return &cobra.Command{
		Use: "log ID", Short: "Print what an environment's build printed", Example: "  zarpa environment log 4f1d2a90c3b5e867",
		Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			r, err := api.EnvironmentLog(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			_, err = io.Copy(c.stdout, r)
			return errors.Join(err, r.Close())
		}),
	}
}

func (c *cli) environmentPrune() *cobra.Command {
	var unused time.Duration
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove environments that no deployment uses",
		Long:    "Removes environments that no deployment uses and that nobody used lately. They are built again when one is wanted.",
		Example: "  zarpa environment prune\n  zarpa environment prune --unused-for 0s", Args: cobra.NoArgs,
		RunE: c.online(func(cmd *cobra.Command, _ []string, api *client.Client) error {
			list, err := api.ListEnvironments(cmd.Context())
			if err != nil {
				return err
			}
			pruned := []zarpa.Environment{}
			var freed int64
			for _, e := range list {
				if len(e.UsedBy) > 0 || e.Phase == zarpa.EnvironmentBuilding || time.Since(e.Used) < unused {
					continue
				}
				if err := api.DeleteEnvironment(cmd.Context(), e.ID); err != nil {
					return err
				}
				pruned, freed = append(pruned, e), freed+e.Size
			}
			return c.show(pruned, func(w io.Writer) {
				for _, e := range pruned {
					row(w, "removed", e.ID, size(e.Size))
				}
				fmt.Fprintf(w, "%d removed, %s freed\n", len(pruned), size(freed))
			})
		}),
	}
	cmd.Flags().DurationVar(&unused, "unused-for", 24*time.Hour, "spare those that were used less long ago")
	return cmd
}
