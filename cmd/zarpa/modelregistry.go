package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/registry"
)

// ociScheme begins references of registries where paths could stand, too.
const ociScheme = "oci://"

func insecureFlag(cmd *cobra.Command, hosts *[]string) {
	cmd.Flags().StringArrayVar(hosts, "insecure-registry", nil,
		"registry, HOST or HOST:PORT, that may speak plain HTTP or have a certificate that nobody signed; repeat for more")
}

// registryClient speaks to registries and shows how far it is.
func (c *cli) registryClient(insecure []string, what string) (*registry.Client, func()) {
	p := c.progress()
	return registry.NewClient(registry.ClientOptions{Insecure: insecure, Progress: func(at registry.Progress) {
		if c.terminal && at.BytesTotal > 8<<20 {
			p.step("%s: %d of %d layers, %s of %s", what, at.Layers, at.LayersTotal, size(at.Bytes), size(at.BytesTotal))
		}
	}}), p.clear
}

// inFolder runs fn with a folder of its own, which is then removed.
func inFolder(fn func(dir string) error) error {
	dir, err := os.MkdirTemp("", "zarpa-model-")
	if err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "a temporary folder cannot be made: %w", err).WithHint("name a place with room in TMPDIR")
	}
	return errors.Join(fn(dir), os.RemoveAll(dir))
}

// registerPulled returns what registers the files that a registry has.
func (c *cli) registerPulled(insecure []string) func(ctx context.Context, api *client.Client, ref string, reg zarpa.Registration) (zarpa.Model, error) {
	return func(ctx context.Context, api *client.Client, ref string, reg zarpa.Registration) (zarpa.Model, error) {
		var m zarpa.Model
		if err := zarpa.ValidateName("model", reg.Name); err != nil {
			return m, err
		}
		err := inFolder(func(dir string) error {
			rc, clear := c.registryClient(insecure, "pulling "+ref)
			pulled, err := rc.PullModel(ctx, strings.TrimPrefix(ref, ociScheme), dir, registry.Limits{})
			clear()
			if err != nil {
				return err
			}
			content, err := c.upload(ctx, api, dir)
			if err != nil {
				return err
			}
			told(&reg, pulled.Config)
			reg.Digest = content.Digest
			m, err = api.RegisterModel(ctx, reg)
			return err
		})
		return m, err
	}
}

// told fills in what a pushed model tells of itself; what the user says wins.
func told(reg *zarpa.Registration, config registry.ModelConfig) {
	merge := func(theirs, ours map[string]string) map[string]string {
		all := maps.Clone(theirs)
		if all == nil {
			return ours
		}
		maps.Copy(all, ours)
		return all
	}
	reg.Tags, reg.Properties = merge(config.Tags, reg.Tags), merge(config.Properties, reg.Properties)
	if reg.Description == "" {
		reg.Description = config.Description
	}
	if config.Format == zarpa.FormatFiles {
		reg.Format = config.Format
	}
	if zarpa.ValidatePath(config.Folder) == nil {
		reg.Folder = config.Folder
	}
}

func (c *cli) modelPush() *cobra.Command {
	var insecure []string
	cmd := &cobra.Command{
		Use: "push NAME[:VERSION] oci://REF", Short: "Push a model to a container registry, as an OCI artefact",
		Long: `Pushes a registered model to HOST/REPOSITORY:TAG with your Docker credentials (docker login). The artefact has a
layer for each file, under the file's name: oras pull reads it, and zarpa model register NAME oci://REF. Files that
the registry has already are not sent, so that a push that broke off goes on when it is repeated.`,
		Example: "  zarpa model push iris:1 oci://registry.example.com/models/iris:1", Args: cobra.ExactArgs(2),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			ref, ok := strings.CutPrefix(args[1], ociScheme)
			if !ok {
				return zarpa.Errorf(zarpa.Invalid, "reference %.200q: it does not begin with %s", args[1], ociScheme).
					WithHint("write oci://HOST/REPOSITORY:TAG")
			}
			m, err := api.GetModel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			pushed := ""
			err = inFolder(func(dir string) error {
				body, err := api.ModelContent(cmd.Context(), m.Ref().String())
				if err != nil {
					return err
				}
				defer body.Close()
				if err := untar(body, dir); err != nil {
					return err
				}
				rc, clear := c.registryClient(insecure, "pushing "+m.Ref().String())
				defer clear()
				pushed, err = rc.PushModel(cmd.Context(), ref, dir, m)
				return err
			})
			if err != nil {
				return err
			}
			return c.show(map[string]string{"model": m.Ref().String(), "reference": pushed}, func(w io.Writer) { fmt.Fprintln(w, pushed) })
		}),
	}
	insecureFlag(cmd, &insecure)
	return cmd
}
