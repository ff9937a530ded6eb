package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// trafficFlags are what traffic changes; those that were not given leave what is there as it is.
type trafficFlags struct {
	shares                      []string
	fallback, mirror, sticky    string
	noMirror, interrupt, noWait bool
	given                       func(flag string) bool
}

func (c *cli) trafficCommand() *cobra.Command {
	var f trafficFlags
	cmd := &cobra.Command{
		Use: "traffic ENDPOINT [DEPLOYMENT=PERCENT...]", Short: "Show or change which deployments get an endpoint's traffic",
		Long: `Shows the wanted shares and those in use, or changes them. Shares of deployments that are not named:
the --default, or else the only one that is left, gets the rest, and others get nothing.

A share is in use once the deployments that gain by the change have a ready replica; until then
the traffic stays as it was. The command waits for that. No request is lost by a change.`,
		Example: `  zarpa traffic iris
  zarpa traffic iris blue=90 green=10
  zarpa traffic iris green=25 --default blue
  zarpa traffic iris --mirror green=10
  zarpa traffic iris --no-mirror --sticky header:X-User`,
		Args: cobra.MinimumNArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			f.shares, f.given = args[1:], cmd.Flags().Changed
			if !f.any() {
				return c.showTraffic(cmd.Context(), api, args[0])
			}
			answer, err := c.modify(cmd.Context(), api, args[0], modification{f.change, f.interrupt})
			if err != nil {
				return err
			}
			if err := c.changed(cmd.Context(), api, answer, f.noWait); err != nil || c.output != "table" {
				return err
			}
			return c.showTraffic(cmd.Context(), api, args[0])
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.fallback, "default", "", "deployment that gets what the shares leave; '' for none")
	fl.StringVar(&f.mirror, "mirror", "", "DEPLOYMENT=PERCENT: copy so many of the requests, at most 50, and throw the answers away")
	fl.BoolVar(&f.noMirror, "no-mirror", false, "end the mirroring")
	fl.StringVar(&f.sticky, "sticky", "none", "key or header:NAME: its value decides who answers; none decides each time anew")
	fl.BoolVar(&f.interrupt, "interrupt", false, "take the place of a change that is under way")
	fl.BoolVar(&f.noWait, "no-wait", false, "do not wait until it is in use")
	return cmd
}

// any reports whether something shall change.
func (f trafficFlags) any() bool {
	return len(f.shares) > 0 || f.given("default") || f.given("mirror") || f.noMirror || f.given("sticky")
}

// change is the spec with what the flags name.
func (f trafficFlags) change(spec zarpa.EndpointSpec) (zarpa.EndpointSpec, error) {
	if f.given("default") {
		spec.Default = f.fallback
	}
	switch {
	case f.noMirror && f.given("mirror"):
		return spec, zarpa.Errorf(zarpa.Invalid, "--mirror and --no-mirror: both are given").WithHint("give one of them")
	case f.noMirror:
		spec.Mirror = nil
	case f.given("mirror"):
		name, percent, err := shareOf("--mirror", f.mirror)
		if err != nil {
			return spec, err
		}
		spec.Mirror = &zarpa.MirrorSpec{Deployment: name, Percent: percent}
	}
	if f.given("sticky") {
		if spec.Sticky = f.sticky; f.sticky == "none" {
			spec.Sticky = ""
		}
	}
	if len(f.shares) == 0 {
		return spec, nil
	}
	shares := map[string]int{}
	for _, text := range f.shares {
		name, percent, err := shareOf("traffic", text)
		if err != nil {
			return spec, err
		}
		if _, twice := shares[name]; twice {
			return spec, zarpa.Errorf(zarpa.Invalid, "traffic: %q is named twice", name).WithHint("give each deployment one share")
		}
		shares[name] = percent
	}
	return spread(spec, shares)
}

// shareOf reads "blue=90", also with a per cent sign.
func shareOf(what, text string) (string, int, error) {
	name, number, ok := strings.Cut(text, "=")
	percent, err := strconv.Atoi(strings.TrimSuffix(number, "%"))
	if !ok || name == "" || err != nil || percent < 0 || percent > 100 {
		return "", 0, zarpa.Errorf(zarpa.Invalid, "%s: %.80q is not DEPLOYMENT=PERCENT", what, text).WithHint("write it as green=10, with a whole number from 0 to 100")
	}
	return name, percent, nil
}

// spread gives the named deployments their shares, and what is left to the default, or else to the
// only one that is not named.
func spread(spec zarpa.EndpointSpec, shares map[string]int) (zarpa.EndpointSpec, error) {
	var names, others []string
	sum := 0
	for _, d := range spec.Deployments {
		names = append(names, d.Name)
		if percent, ok := shares[d.Name]; ok {
			sum += percent
		} else {
			others = append(others, d.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		if !slices.Contains(names, name) {
			return spec, zarpa.Errorf(zarpa.NotFound, "traffic: the endpoint has no deployment %.80q", name).WithHint("it has %s", strings.Join(names, ", "))
		}
	}
	if sum > 100 {
		return spec, zarpa.Errorf(zarpa.Invalid, "traffic: the shares sum to %d", sum).WithHint("they may sum to 100")
	}
	rest := spec.Default
	if !slices.Contains(others, rest) {
		rest = ""
	}
	if rest == "" && len(others) == 1 {
		rest = others[0]
	}
	spec.Deployments = slices.Clone(spec.Deployments)
	for i, d := range spec.Deployments {
		percent := shares[d.Name]
		if d.Name == rest {
			percent = 100 - sum
		}
		spec.Deployments[i].Weight = &percent
	}
	return spec, nil
}

// modification is a change of an endpoint that is there.
type modification struct {
	change    func(zarpa.EndpointSpec) (zarpa.EndpointSpec, error)
	interrupt bool
}

// modify reads an endpoint, changes it and writes it back; when somebody else changed it meanwhile it
// does so again.
func (c *cli) modify(ctx context.Context, api *client.Client, name string, m modification) (zarpa.ChangeSet, error) {
	for try := 0; ; try++ {
		report, err := api.GetEndpoint(ctx, name)
		if err != nil {
			return zarpa.ChangeSet{}, err
		}
		spec, err := m.change(report.Endpoint.Spec)
		if err != nil {
			return zarpa.ChangeSet{}, err
		}
		generation := report.Endpoint.Generation
		answer, err := api.PutEndpoint(ctx, name, spec, &client.PutEndpointParams{Generation: &generation, Interrupt: &m.interrupt})
		var e *zarpa.Error
		if errors.As(err, &e) && e.Code == zarpa.Conflict && e.Operation == "" && !report.Endpoint.Deleting && try < 3 {
			continue
		}
		return answer, err
	}
}

// changed prints what a change changed and waits for it.
func (c *cli) changed(ctx context.Context, api *client.Client, answer zarpa.ChangeSet, noWait bool) error {
	if answer.Operation != nil && !noWait {
		op, err := c.follow(ctx, api, *answer.Operation)
		if err != nil {
			return err
		}
		answer.Operation = &op
	}
	return c.show(answer, func(w io.Writer) {
		if len(answer.Changes) == 0 {
			fmt.Fprintf(w, "%s: nothing to change\n", answer.Endpoint)
		}
		for _, ch := range answer.Changes {
			row(w, answer.Endpoint, ch.Field, orNone(ch.From)+" → "+orNone(ch.To))
		}
	})
}

// traffic is what the command shows.
type traffic struct {
	Endpoint string            `json:"endpoint"`
	Shares   []share           `json:"shares"`
	Default  string            `json:"default,omitempty"`
	Mirror   *zarpa.MirrorSpec `json:"mirror,omitempty"`
	Sticky   string            `json:"sticky,omitempty"`
}

// share is that of one deployment.
type share struct {
	Deployment string `json:"deployment"`
	Wanted     int    `json:"wanted"`
	InUse      int    `json:"in_use"`
	Ready      int    `json:"ready"`
	// Leaving tells that it is removed once the others have its share.
	Leaving bool `json:"leaving,omitempty"`
}

func trafficOf(r zarpa.EndpointReport) traffic {
	t := traffic{Endpoint: r.Endpoint.Name, Shares: []share{}, Default: r.Effective.Default, Mirror: r.Effective.Mirror, Sticky: r.Effective.Sticky}
	wanted := r.Effective.Weights()
	for _, d := range r.Effective.Deployments {
		t.Shares = append(t.Shares, share{Deployment: d.Name, Wanted: wanted[d.Name]})
	}
	for _, o := range r.Deployments {
		i := slices.IndexFunc(t.Shares, func(s share) bool { return s.Deployment == o.Deployment })
		if i < 0 {
			t.Shares, i = append(t.Shares, share{Deployment: o.Deployment, Leaving: true}), len(t.Shares)
		}
		t.Shares[i].InUse = max(t.Shares[i].InUse, o.Weight)
		t.Shares[i].Ready += o.Status.Ready("")
	}
	return t
}

// trafficLine is the shares in one line: "blue 90 %, green 10 % (wanted 20 %)".
func trafficLine(r zarpa.EndpointReport) string {
	var parts []string
	for _, s := range trafficOf(r).Shares {
		part := fmt.Sprintf("%s %d %%", s.Deployment, s.InUse)
		if s.InUse != s.Wanted {
			part += fmt.Sprintf(" (wanted %d %%)", s.Wanted)
		}
		parts = append(parts, part)
	}
	if m := r.Effective.Mirror; m != nil {
		parts = append(parts, fmt.Sprintf("%d %% copied to %s", m.Percent, m.Deployment))
	}
	if r.Effective.Sticky != "" {
		parts = append(parts, "sticky by "+r.Effective.Sticky)
	}
	return orNone(strings.Join(parts, ", "))
}

func (c *cli) showTraffic(ctx context.Context, api *client.Client, name string) error {
	r, err := api.GetEndpoint(ctx, name)
	if err != nil {
		return err
	}
	t := trafficOf(r)
	return c.show(t, func(w io.Writer) {
		row(w, "DEPLOYMENT", "WANTED", "IN USE", "READY")
		for _, s := range t.Shares {
			name := s.Deployment
			if s.Leaving {
				name += " (to be removed)"
			}
			row(w, name, fmt.Sprintf("%d %%", s.Wanted), fmt.Sprintf("%d %%", s.InUse), s.Ready)
		}
		row(w)
		row(w, "Default:", orNone(t.Default))
		mirror := ""
		if t.Mirror != nil {
			mirror = fmt.Sprintf("%d %% copied to %s", t.Mirror.Percent, t.Mirror.Deployment)
		}
		row(w, "Mirror:", orNone(mirror))
		row(w, "Sticky:", orNone(t.Sticky))
	})
}
