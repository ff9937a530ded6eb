package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa/engine/onnx"
)

// report becomes RESULTS.md.
type report struct {
	bench    *bench
	settings settings
	machine  machine
	started  time.Time
	busy     string // the load of the machine before anything ran
	sections []*section
	aims     []aim
	plot     string // file name of the plot, beside the report; empty for none
	bars     []bar
}

// aim is a figure that was set beforehand.
type aim struct {
	what, want, got string
	met             bool
	bound           string // what keeps it from being met
}

// plotName is the plot's file, beside the report.
const plotName = "results.svg"

// section is one part of the report.
type section struct {
	title string
	body  bytes.Buffer
}

// machine is where it was measured, without names.
type machine struct {
	cores                     int
	processor, memory, kernel string
}

func newReport(b *bench, s settings) *report {
	r := &report{bench: b, settings: s, machine: thisMachine(), started: time.Now(), busy: busy()}
	if s.out != "-" && (s.out != "" || !s.short) {
		r.plot = plotName
	}
	return r
}

func (r *report) section(title string) *section {
	s := &section{title: title}
	r.sections = append(r.sections, s)
	return s
}

func (r *report) aim(a aim) {
	r.aims = append(r.aims, a)
	r.bench.say("   %s: %s (aim %s)", a.what, a.got, a.want)
}

func (r *report) missed() int {
	n := 0
	for _, a := range r.aims {
		if !a.met {
			n++
		}
	}
	return n
}

func (s *section) text(format string, args ...any) {
	fmt.Fprintf(&s.body, "\n"+format+"\n", args...)
}

// table writes a table: the first column is text, numbers stand to the right.
func (s *section) table(head []string, rows [][]string) {
	fmt.Fprintf(&s.body, "\n| %s |\n|---|%s\n", strings.Join(head, " | "), strings.Repeat("---:|", len(head)-1))
	for _, row := range rows {
		fmt.Fprintf(&s.body, "| %s |\n", strings.Join(row, " | "))
	}
}

// markdown is the whole report.
func (r *report) markdown() []byte {
	var b bytes.Buffer
	b.WriteString("# What Zarpa costs\n\nWritten by `go run ./bench`; what is compared, and how, is in [README.md](README.md).\n\n## Machine\n\n")
	m := r.machine
	fmt.Fprintf(&b, "- %d cores (%s), %s of memory, %s/%s, kernel %s\n", m.cores, m.processor, m.memory, runtime.GOOS, runtime.GOARCH, m.kernel)
	fmt.Fprintf(&b, "- %s, ONNX Runtime %s\n", runtime.Version(), onnx.Version)
	fmt.Fprintf(&b, "- load of the machine (1 minute) before the start %s, at the end %s\n", r.busy, busy())
	fmt.Fprintf(&b, "- %s, %s; `%sgo run ./bench%s`\n", r.started.UTC().Format(time.DateOnly), time.Since(r.started).Round(time.Second), priority(), r.command())
	if len(r.aims) > 0 {
		b.WriteString("\n## Aims\n\n| | aim | measured | |\n|---|---:|---:|---|\n")
		for _, a := range r.aims {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", a.what, a.want, a.got, verdict(a.met))
		}
	}
	for _, a := range r.aims {
		if !a.met {
			fmt.Fprintf(&b, "\n**Not met: %s (%s).** %s\n", a.what, a.got, a.bound)
		}
	}
	for _, s := range r.sections {
		fmt.Fprintf(&b, "\n## %s\n%s", s.title, s.body.String())
	}
	return b.Bytes()
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**not met**"
}

func (r *report) command() string {
	c := r.bench.scale.commands
	if r.settings.only != partNames() {
		c += " -only " + r.settings.only
	}
	if r.settings.models != "all" {
		c += " -models " + r.settings.models
	}
	if r.settings.peers != "all" {
		c += " -peers " + r.settings.peers
	}
	return c
}

// save writes the report where it was asked for. A part of it, or a quick one, does not replace the
// figures of a whole run unless told to.
func (r *report) save(whole bool) error {
	out := r.settings.out
	whole = whole && r.settings.models == "all" && r.settings.peers == "all"
	if out == "" && whole && !r.settings.short {
		out = filepath.Join(r.bench.root, "bench", "RESULTS.md")
	}
	if out == "" || out == "-" {
		_, err := r.bench.out.Write(r.markdown())
		return err
	}
	if r.plot != "" && len(r.bars) > 0 {
		title := fmt.Sprintf("Requests per second, %d clients, one row each (%d cores)", halfway, r.machine.cores)
		if err := os.WriteFile(filepath.Join(filepath.Dir(out), r.plot), plot(title, r.bars), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(out, r.markdown(), 0o644)
}

func thisMachine() machine {
	m := machine{cores: runtime.NumCPU(), processor: "unknown", memory: "unknown", kernel: "unknown"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.processor = colonValue(string(text), "model name", m.processor)
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib float64
		_, _ = fmt.Sscanf(colonValue(string(text), "MemTotal", "0"), "%f", &kib)
		m.memory = fmt.Sprintf("%.0f GiB", kib/(1<<20))
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		version, _, _ := strings.Cut(strings.TrimSpace(string(text)), "-") // the rest names who built it
		m.kernel = version
	}
	return m
}

func colonValue(text, key, none string) string {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return none
}

// busy is how many threads wanted a processor, over the last minute.
func busy() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// priority is how the command was begun, when it has another priority than usual: that keeps other
// work on the machine away from what is measured.
func priority() string {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 17 || fields[16] == "0" { // nice, field 19 of proc_pid_stat(5)
		return ""
	}
	return "nice -n " + fields[16] + " "
}

// us and the others write figures as precisely as they are.
func us(v float64) string {
	if v < 100 && v > -100 {
		return fmt.Sprintf("%.1f", v)
	}
	return whole(v)
}

func ms(v float64) string    { return fmt.Sprintf("%.1f", v) }
func whole(v float64) string { return fmt.Sprintf("%.0f", v) }

// spread is a median with the least and the greatest.
func spread(values []float64) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(values), slices.Min(values), slices.Max(values))
}

// spreadWhole is the same for whole numbers.
func spreadWhole(values []float64) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f (%.0f–%.0f)", median(values), slices.Min(values), slices.Max(values))
}

// ratio is a quotient to so many digits, or a dash when there was nothing to divide or to divide by:
// a run so short that the clock of /proc did not move.
func ratio(q float64, digits int) string {
	if math.IsNaN(q) || math.IsInf(q, 0) || q == 0 {
		return "–"
	}
	return strconv.FormatFloat(q, 'f', digits, 64)
}
