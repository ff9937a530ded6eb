package oip

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteText writes a report to be read: the server, a line for each group, and what differs, with the choices that
// the server made where the specification leaves them.
func (r Report) WriteText(w io.Writer) error {
	p := &printer{w: w}
	p.head(r)
	for _, g := range Groups() {
		p.group(r, g, func(x Result) bool { return x.Outcome == Fail })
	}
	p.choices(r)
	p.end(r)
	return p.err
}

// WriteVerbose writes the same with every check.
func (r Report) WriteVerbose(w io.Writer) error {
	p := &printer{w: w}
	p.head(r)
	for _, g := range Groups() {
		p.group(r, g, func(Result) bool { return true })
	}
	p.end(r)
	return p.err
}

// printer writes lines until one fails.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) head(r Report) {
	p.line("Open Inference Protocol v2 at %s", r.URL)
	if r.GRPC != "" {
		p.line("  gRPC    %s", r.GRPC)
	}
	p.line("  server  %s %s", r.Server.Name, r.Server.Version)
	p.line("  offers  %s", orNone(r.Server.Extensions))
	p.line("  models  %s", orNone(r.Models))
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (p *printer) group(r Report, g Group, show func(Result) bool) {
	pass, fail, skipped := r.Count(g, Pass), r.Count(g, Fail), r.Count(g, Skip)
	if pass+fail+skipped == 0 {
		return
	}
	p.line("")
	p.line("%-11s %3d kept  %3d differ  %3d skipped", g, pass, fail, skipped)
	for _, x := range r.Results {
		if x.Group == g && show(x) {
			p.result(x)
		}
	}
}

func (p *printer) result(x Result) {
	id := x.ID
	if x.Model != "" {
		id += " [" + x.Model + "]"
	}
	p.line("  %s  %-9s  %s", x.Outcome, x.Level, id)
	if x.Outcome == Fail {
		p.line("        %s (%s)", x.Says, x.Section)
		p.line("        expected  %s", x.Expected)
		p.line("        observed  %s", x.Observed)
	} else if x.Observed != "" {
		p.line("        %s", x.Observed)
	}
}

// choices lists what was seen where there is a choice, once for each check.
func (p *printer) choices(r Report) {
	told := map[string]bool{}
	for _, x := range r.Results {
		if x.Choices == "" || x.Outcome != Pass || told[x.ID] || strings.HasPrefix(x.ID, "errors.") || strings.HasPrefix(x.ID, "grpc.errors.") {
			continue
		}
		if len(told) == 0 {
			p.line("")
			p.line("Where the specification leaves a choice:")
		}
		told[x.ID] = true
		p.line("  %-26s %s", x.ID, x.Observed)
	}
}

func (p *printer) end(r Report) {
	pass, fail := 0, 0
	for _, g := range Groups() {
		pass, fail = pass+r.Count(g, Pass), fail+r.Count(g, Fail)
	}
	p.line("")
	p.line("%d kept, %d differ: %d must, %d should, %d of extensions; %d skipped; %v", pass, fail,
		r.Failed(Must), r.Failed(Should), r.Failed(Extension), len(r.Results)-pass-fail, time.Duration(r.Took).Round(time.Millisecond))
}
