package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/term"
)

// show prints v as JSON or YAML when that was asked for, else by calling table.
func (c *cli) show(v any, table func(w io.Writer)) error {
	switch c.output {
	case "json":
		enc := json.NewEncoder(c.stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case "yaml":
		return writeYAML(c.stdout, v)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// writeYAML writes v with the names and the order that it has in JSON.
func writeYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(b, &node); err != nil { // JSON is YAML
		return err
	}
	block(&node)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return err
	}
	return enc.Close()
}

// block drops JSON's style, so that the writer chooses the usual one and quotes where it must.
func block(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		block(c)
	}
}

// row prints the cells of one line of a table.
func row(w io.Writer, cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, cell)
	}
	fmt.Fprintln(w)
}

// ago is the age of something, for a table.
func ago(t, now time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// took is a duration with three figures at most.
func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// size is a number of bytes with its unit.
func size(n int64) string {
	f, units := float64(n), "kMGT"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	for i := range units {
		if f /= 1000; f < 999.5 || i == len(units)-1 {
			return fmt.Sprintf("%.3g %cB", f, units[i])
		}
	}
	return ""
}

// progress tells a person how long work goes on: on a terminal one line that is written over,
// elsewhere one line per change.
type progress struct {
	w        io.Writer
	terminal bool
	last     string
	said     map[string]bool // elsewhere than on a terminal, nothing is said twice
}

// step shows the state of the work.
func (p *progress) step(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if text == p.last || p.said[text] {
		return
	}
	p.last = text
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K"+cut(text, p.width()))
		return
	}
	p.said[text] = true
	fmt.Fprintln(p.w, text)
}

// width is that of the terminal: a longer line would wrap, and only its last part could be wiped.
func (p *progress) width() int {
	if f, ok := p.w.(interface{ Fd() uintptr }); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 1 {
			return width - 1
		}
	}
	return 79
}

// cut is a text of at most so many characters.
func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// line ends the current line with a finished one that stays.
func (p *progress) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintln(p.w, text)
	p.last = ""
}

// clear wipes an unfinished line off a terminal.
func (p *progress) clear() {
	if p.terminal && p.last != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.last = ""
}

func (c *cli) progress() *progress {
	return &progress{w: c.stderr, terminal: c.terminal, said: map[string]bool{}}
}

func joinMap(m map[string]string) string {
	var out []string
	for _, k := range sortedKeys(m) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}
