package main

import (
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

func (c *cli) targetCommand() *cobra.Command {
	return withVerbs(&cobra.Command{Use: "target", Short: "Say where replicas can run", Example: "  zarpa target list"},
		c.targetAdd(), c.targetSet(), c.targetList(), c.targetShow(), c.targetDelete())
}

// targetFlags are the options of a target, as flags. What is empty is left at its default.
type targetFlags struct {
	options   map[string]*string // by the option's name
	unchecked bool
}

// register adds a flag for each option: its name with dashes.
func (f *targetFlags) register(cmd *cobra.Command) {
	f.options = map[string]*string{}
	for _, o := range containerOptions() {
		f.options[o.name] = cmd.Flags().String(strings.ReplaceAll(o.name, "_", "-"), "", o.usage)
	}
	cmd.Flags().BoolVar(&f.unchecked, "unchecked", false, "take a target that cannot be reached now")
}

// into writes the flags that were given over options; an empty one takes the option away.
func (f *targetFlags) into(cmd *cobra.Command, options map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, options)
	for name, value := range f.options {
		if !cmd.Flags().Changed(strings.ReplaceAll(name, "_", "-")) {
			continue
		}
		if delete(all, name); *value != "" {
			all[name] = *value
		}
	}
	return all
}

func (c *cli) targetAdd() *cobra.Command {
	var kind string
	var f targetFlags
	cmd := &cobra.Command{
		Use: "add NAME --kind container", Short: "Make a place known where replicas can run",
		Long: `Makes a container engine known, Docker or Podman: zarpa deploy NAME --target TARGET then runs the
replicas as its containers. The engine is asked whether it can be reached; paths are those of the
machine that zarpa up runs on.`,
		Example: `  zarpa target add docker --kind container
  zarpa target add podman --kind container --host unix:///run/podman/podman.sock --quota 40
  zarpa target add far --kind container --host ssh://ops@build-1 --publish 10.0.0.7`,
		Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			t, err := api.CreateTarget(cmd.Context(), zarpa.TargetSpec{Name: args[0], Kind: kind, Options: f.into(cmd, nil), Unchecked: f.unchecked})
			if err != nil {
				return err
			}
			return c.showTarget(cmd, api, t)
		}),
	}
	cmd.Flags().StringVar(&kind, "kind", "", "container")
	_ = cmd.MarkFlagRequired("kind") // it is there
	f.register(cmd)
	return cmd
}

func (c *cli) targetSet() *cobra.Command {
	var f targetFlags
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change a target's options",
		Long: `Changes the options whose flags are given; an empty value brings the default back. Containers that run
are left as they are: replicas that start later follow.`,
		Example: "  zarpa target set docker --quota 40", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			t, err := api.GetTarget(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			t, err = api.UpdateTarget(cmd.Context(), zarpa.TargetSpec{Name: t.Name, Kind: t.Kind, Options: f.into(cmd, t.Options), Unchecked: f.unchecked})
			if err != nil {
				return err
			}
			return c.showTarget(cmd, api, t)
		}),
	}
	f.register(cmd)
	return cmd
}

func (c *cli) targetList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List targets", Example: "  zarpa target list", Args: cobra.NoArgs,
		RunE: c.online(func(cmd *cobra.Command, _ []string, api *client.Client) error {
			list, err := api.ListTargets(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(list, func(w io.Writer) {
				row(w, "TARGET", "KIND", "AGE", "OPTIONS")
				for _, t := range list {
					row(w, t.Name, t.Kind, ago(t.Created, time.Now()), orDash(joinMap(t.Options)))
				}
			})
		}),
	}
}

func (c *cli) targetShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show whether a target can be reached, what it can run and what is reserved",
		Example: "  zarpa target show local", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			return c.showTarget(cmd, api, zarpa.Target{Name: args[0]})
		}),
	}
}

func (c *cli) targetDelete() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Forget a target that no deployment is on",
		Long: `Forgets a target that no deployment is on. Where it is gone for good, what runs there cannot be stopped:
delete or move its deployments, with --no-wait, and --force then forgets what is left. A target of the
same name that is added later sweeps such containers, should the engine come back.`,
		Example: "  zarpa target delete docker\n  zarpa target delete docker --force", Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if force {
				return api.AbandonTarget(cmd.Context(), args[0])
			}
			return api.DeleteTarget(cmd.Context(), args[0])
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "forget deployments that are being removed and cannot be, too")
	return cmd
}

func (c *cli) showTarget(cmd *cobra.Command, api *client.Client, t zarpa.Target) error {
	s, err := api.GetTargetStatus(cmd.Context(), t.Name)
	if err != nil {
		return err
	}
	return c.show(s, func(w io.Writer) { targetTable(w, s) })
}

func targetTable(w io.Writer, s zarpa.TargetStatus) {
	row(w, "Target:", s.Target.Name)
	row(w, "Kind:", s.Target.Kind)
	row(w, "Created:", s.Target.Created.Local().Format(time.DateTime))
	if len(s.Target.Options) > 0 {
		row(w, "Options:", joinMap(s.Target.Options))
	}
	if p := s.Problem; p != nil {
		row(w, "Problem:", p.Message)
		if p.Hint != "" {
			row(w, "", "→ "+p.Hint)
		}
	}
	if s.Info != nil {
		row(w, "Engine:", s.Info.Engine+", "+s.Info.Platform)
		for _, note := range s.Info.Notes {
			row(w, "", note)
		}
	}
	if r := s.Capacity; r != nil {
		row(w, "Replicas:", reserved(strconv.Itoa(r.Replicas), strconv.Itoa(r.MaxReplicas), r.MaxReplicas > 0))
		row(w, "CPU:", reserved(r.UsedCPU.String(), r.CPU.String(), r.CPU > 0)+" reserved")
		row(w, "Memory:", reserved(size(int64(r.UsedMemory)), size(int64(r.Memory)), r.Memory > 0)+" reserved")
	}
	row(w, "Deployments:", orDash(strings.Join(s.Deployments, ", ")))
}

// reserved is what is used of what there is.
func reserved(used, all string, known bool) string {
	if !known {
		return used
	}
	return fmt.Sprintf("%s of %s", used, all)
}
