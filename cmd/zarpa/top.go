package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// topFlags are the flags of top.
type topFlags struct {
	interval time.Duration
	once     bool
}

func (c *cli) topCommand() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use: "top [NAME]", Short: "Watch the traffic: rates, latencies, queues, replicas",
		Long: `Shows what goes on at all endpoints, or at one, as it happens. On a terminal it is a screen that is
left with q; elsewhere, with --once and with -o json it is one table over one interval.`,
		Example: "  zarpa top\n  zarpa top iris --interval 5s\n  zarpa top --once -o json", Args: cobra.MaximumNArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if f.interval < 100*time.Millisecond || f.interval > time.Minute {
				return zarpa.Errorf(zarpa.Invalid, "--interval: %v is not between 100ms and 1m", f.interval)
			}
			w := &watcher{api: api, interval: f.interval}
			if len(args) == 1 {
				w.only = args[0]
			}
			if err := w.begin(cmd.Context()); err != nil {
				return err
			}
			if f.once || c.output != "table" || !c.terminal {
				return c.topOnce(cmd.Context(), w)
			}
			return c.topScreen(cmd.Context(), w)
		}),
	}
	cmd.Flags().DurationVar(&f.interval, "interval", time.Second, "time between two looks")
	cmd.Flags().BoolVar(&f.once, "once", false, "print one table and end")
	return cmd
}

// watcher looks at the gateway again and again.
type watcher struct {
	api      *client.Client
	interval time.Duration
	only     string // an endpoint; empty for all
	before   zarpa.Load
}

// begin takes the first look.
func (w *watcher) begin(ctx context.Context) (err error) {
	if w.only != "" {
		if _, err := w.api.GetEndpoint(ctx, w.only); err != nil {
			return err
		}
	}
	w.before, err = w.api.Load(ctx, math.MaxInt64, 0)
	return err
}

// next takes a look an interval after the last one, and tells what happened between them.
func (w *watcher) next(ctx context.Context) ([]activity, error) {
	after, err := w.api.Load(ctx, math.MaxInt64, w.interval)
	if err != nil {
		return nil, err
	}
	reports, err := w.reports(ctx)
	if err != nil {
		return nil, err
	}
	list := activities(w.before, after, reports)
	w.before = after
	return list, nil
}

func (w *watcher) reports(ctx context.Context) ([]zarpa.EndpointReport, error) {
	if w.only == "" {
		return w.api.ListEndpoints(ctx)
	}
	r, err := w.api.GetEndpoint(ctx, w.only)
	return []zarpa.EndpointReport{r}, err
}

func (c *cli) topOnce(ctx context.Context, w *watcher) error {
	list, err := w.next(ctx)
	if err != nil {
		return err
	}
	return c.show(list, func(out io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(out, "No endpoints yet. Make one: zarpa deploy NAME --model FILE")
			return
		}
		row(out, toAny(topHeader())...)
		for _, a := range list {
			row(out, toAny(a.cells(layouts()[0].bar))...)
		}
	})
}

func toAny(cells []string) []any {
	out := make([]any, len(cells))
	for i, cell := range cells {
		out[i] = cell
	}
	return out
}

func (c *cli) topScreen(ctx context.Context, w *watcher) error {
	end, err := tea.NewProgram(&screen{ctx: ctx, watch: w}, tea.WithContext(ctx), tea.WithInput(c.stdin), tea.WithOutput(c.stdout)).Run()
	if ctx.Err() != nil {
		return nil //nolint:nilerr // ^C is how it is left, too
	}
	if s, ok := end.(*screen); ok && err == nil {
		return s.err
	}
	return err
}

func topHeader() []string {
	return []string{"ENDPOINT", "DEPLOYMENT", "TRAFFIC", "REQ/S", "P50", "P99", "FAILED", "REFUSED", "BUSY", "QUEUED", "REPLICAS"}
}

// cells are the columns of [topHeader], with a bar of so many characters.
func (a activity) cells(barWidth int) []string {
	replicas := fmt.Sprintf("%d/%d", a.Ready, a.Wanted)
	if a.Ejected > 0 {
		replicas += fmt.Sprintf(" (%d out)", a.Ejected)
	}
	failed := "-"
	if a.Rate > 0 {
		failed = fmt.Sprintf("%.3g%%", 100*a.Failures/a.Rate)
	}
	return []string{
		a.Endpoint, a.Deployment, a.traffic(barWidth), figure(a.Rate), latency(a.P50), latency(a.P99), failed, figure(a.Rejected),
		strconv.Itoa(a.InFlight), strconv.Itoa(a.Queued), replicas,
	}
}

// traffic is the measured share as a bar, and the wanted one as a number.
func (a activity) traffic(barWidth int) string {
	switch {
	case a.Mirrored > 0 && barWidth == 0:
		return "mirror"
	case a.Mirrored > 0:
		return fmt.Sprintf("mirror %s/s", figure(a.Mirrored))
	case barWidth == 0:
		return fmt.Sprintf("%d%%", a.Weight)
	}
	return fmt.Sprintf("%s %3d%%", bar(a.Share/100, barWidth), a.Weight)
}

// bar is a part of the whole, drawn in eighths of a character.
func bar(part float64, width int) string {
	eighths := int(math.Round(min(max(part, 0), 1) * float64(8*width)))
	cells := make([]rune, width)
	for i := range cells {
		cells[i] = []rune(" ▏▎▍▌▋▊▉█")[min(max(eighths-8*i, 0), 8)]
	}
	return string(cells)
}

// spark draws figures as columns, the largest one as the highest.
func spark(figures []float64, width int) string {
	figures = figures[max(0, len(figures)-width):]
	if len(figures) == 0 {
		return ""
	}
	most := slices.Max(figures)
	out := make([]rune, len(figures))
	for i, f := range figures {
		level := 0
		if most > 0 {
			level = int(math.Ceil(f / most * 8))
		}
		out[i] = []rune("▁▁▂▃▄▅▆▇█")[min(max(level, 0), 8)]
	}
	return string(out)
}

// figure is a number with about three figures.
func figure(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case f < 10_000:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f/1000, 'f', 1, 64) + "k"
}

// latency is a time to an answer, with a unit that keeps it short.
func latency(d zarpa.Duration) string {
	t := time.Duration(d)
	switch {
	case t == 0:
		return "-"
	case t < 10*time.Millisecond:
		return strconv.FormatFloat(t.Seconds()*1000, 'f', 2, 64) + "ms"
	case t < time.Second:
		return strconv.FormatFloat(t.Seconds()*1000, 'f', 0, 64) + "ms"
	}
	return strconv.FormatFloat(t.Seconds(), 'f', 1, 64) + "s"
}
