package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // schedules name time zones, and a bare machine knows none

	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/autoscale"
	"github.com/zarpa-dev/zarpa/client"
)

// openScaler makes the autoscaler. It is told of before the reconciler is made, and tells it later.
func (p *plane) openScaler(ctx context.Context) (err error) {
	p.scaler, err = autoscale.Open(ctx, autoscale.Options{
		Store: p.store, Loader: p.keeper.client, Metrics: autoscale.NewMetrics(p.metrics), Log: p.log,
		Wake: func(endpoint string) { p.recon.Wake(endpoint) },
		Capacity: func(ctx context.Context, target string) (zarpa.CapacityReport, error) {
			return p.recon.Capacity(ctx, target)
		},
	})
	return err
}

// scaleFlags are the flags of deploy that let the number of replicas follow the load.
type scaleFlags struct {
	preset            string
	min, max          int
	targetUtilization int
	window            string
	idle, hold        string
}

func (f *scaleFlags) add(fl *pflag.FlagSet) {
	fl.IntVar(&f.min, "min", zarpa.DefaultScaleMin, "least replicas, where their number follows the load; with 0 the last one goes after --idle")
	fl.IntVar(&f.max, "max", zarpa.DefaultScaleMax, "most replicas, where their number follows the load; 0 turns that off")
	fl.IntVar(&f.targetUtilization, "target-utilization", zarpa.DefaultTargetUtilization, "per cent of --max-concurrency that a replica should work on")
	fl.StringVar(&f.preset, "scale-preset", string(zarpa.ScaleAzure), "rule of scaling: azure or knative")
	fl.StringVar(&f.window, "window", zarpa.DefaultScaleWindow.String(), "how long the load must have been lower before replicas are taken away")
	fl.StringVar(&f.idle, "idle", zarpa.DefaultScaleIdle.String(), "how long no request came before the last replica goes, with --min 0")
	fl.StringVar(&f.hold, "hold", zarpa.DefaultScaleHold.String(), "how long a request waits at most while a first replica starts")
}

// merge changes what the given flags name. Any of them turns scaling on; --max 0 turns it off.
func (f scaleFlags) merge(d *zarpa.DeploymentSpec, given func(string) bool) error {
	if given("max") && f.max == 0 {
		d.Scale = nil
		return nil
	}
	scale := zarpa.ScaleSpec{}
	if d.Scale != nil {
		scale = *d.Scale
	}
	set := map[string]func() error{
		"min":                func() error { scale.Min = &f.min; return nil },
		"max":                func() error { scale.Max = f.max; return nil },
		"target-utilization": func() error { scale.TargetUtilization = f.targetUtilization; return nil },
		"scale-preset":       func() error { scale.Preset = zarpa.ScalePreset(f.preset); return nil },
		"window":             func() error { return flagText("window", f.window, &scale.Window) },
		"idle":               func() error { return flagText("idle", f.idle, &scale.Idle) },
		"hold":               func() error { return flagText("hold", f.hold, &scale.Hold) },
	}
	changed := false
	for name, fn := range set {
		if !given(name) {
			continue
		}
		changed = true
		if err := fn(); err != nil {
			return err
		}
	}
	if changed {
		d.Scale = &scale
	}
	return nil
}

// scaleText is a deployment's scaling in one line; empty when there is none.
func scaleText(s *zarpa.ScaleSpec) string {
	if s == nil {
		return ""
	}
	text := fmt.Sprintf("%d to %d, %s at %d%%, down after %v", *s.Min, s.Max, s.Preset, s.TargetUtilization, s.Window)
	if s.MayIdle() {
		text += fmt.Sprintf(", none after %v, requests wait up to %v", s.Idle, s.Hold)
	}
	return text
}

// scheduleText is a schedule in one line.
func scheduleText(s zarpa.ScaleSchedule) string {
	zone := s.TimeZone
	if zone == "" {
		zone = "UTC"
	}
	bound := func(n *int) string {
		if n == nil {
			return "as set"
		}
		return strconv.Itoa(*n)
	}
	return fmt.Sprintf("%s (%s): min %s, max %s", s.Cron, zone, bound(s.Min), bound(s.Max))
}

// explainScaling shows why an endpoint has as many replicas as it has.
func (c *cli) explainScaling(ctx context.Context, api *client.Client, endpoint string) error {
	report, err := api.GetEndpoint(ctx, endpoint)
	if err != nil {
		return err
	}
	list, err := api.Scaling(ctx, endpoint)
	if err != nil {
		return err
	}
	return c.show(list, func(w io.Writer) {
		switch {
		case len(list) > 0:
			scalingTable(w, list, time.Now())
		case scales(report.Effective):
			fmt.Fprintf(w, "Nothing was decided yet for %s: its load is looked at every second.\n", endpoint)
		default:
			fmt.Fprintf(w, "The replicas of %s follow no load. zarpa deploy %s --min 1 --max 5 lets them.\n", endpoint, endpoint)
		}
	})
}

// scales tells whether the replicas of any deployment follow the load.
func scales(e zarpa.EndpointSpec) bool {
	return slices.ContainsFunc(e.Deployments, func(d zarpa.DeploymentSpec) bool { return d.Scale != nil })
}

// scalingTable shows decisions and cold starts, the newest first.
func scalingTable(w io.Writer, list []zarpa.Scaling, now time.Time) {
	for i, s := range list {
		if i > 0 {
			row(w)
		}
		if len(s.Decisions) == 0 {
			fmt.Fprintf(w, "%s: %d wanted, as it began; nothing was decided yet\n", s.Deployment, s.Wanted)
		} else {
			fmt.Fprintf(w, "%s: %d wanted\n", s.Deployment, s.Wanted)
			row(w, "  WHEN", "FROM", "TO", "WHY")
		}
		for _, d := range s.Decisions {
			row(w, "  "+ago(d.At, now)+" ago", d.From, d.To, d.Reason)
			for _, line := range inputLines(d.Inputs) {
				row(w, "", "", "", "  "+line)
			}
		}
		if len(s.ColdStarts) == 0 {
			continue
		}
		row(w)
		row(w, "  COLD START", "DECIDE", "START", "LOAD", "FIRST BYTE", "ALL")
		for _, c := range s.ColdStarts {
			parts := []zarpa.Duration{c.Decide, c.Start, c.Load, c.FirstByte}
			cells, all := []any{"  " + ago(c.At, now) + " ago"}, time.Duration(0)
			for _, p := range parts {
				all += time.Duration(p)
				cells = append(cells, took(time.Duration(p)))
			}
			row(w, append(cells, took(all))...)
		}
	}
}

// inputLines are what a decision followed from, in a few words: the load, then the bounds.
func inputLines(in zarpa.ScaleInputs) []string {
	load := fmt.Sprintf("stable %.3g, recent %.3g (%d s); %.3g each; %d ready, %d starting", in.Stable, in.Recent, in.Seconds, in.Target, in.Ready, in.Starting)
	bounds := []string{fmt.Sprintf("%d to %d", in.Min, in.Max)}
	if in.Capacity >= 0 {
		bounds = append(bounds, fmt.Sprintf("room for %d", in.Capacity))
	}
	if in.Panicking {
		bounds = append(bounds, "panic")
	}
	if in.StartTime > 0 {
		bounds = append(bounds, "starts in "+took(time.Duration(in.StartTime)))
	}
	return []string{load, strings.Join(bounds, "; ")}
}
