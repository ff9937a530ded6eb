package main

import (
	"bytes"
	"fmt"
	"html"
	"slices"
)

// bar is one line of the plot.
type bar struct {
	group, label string
	value        float64
	ours         bool
}

// bars are the contestants on one model, the fastest first.
func (f *contest) bars() []bar {
	var list []bar
	for _, c := range f.list {
		if len(c.samples[halfway]) == 0 || c.form == formNone {
			continue
		}
		label := c.name
		if c.setting != "–" {
			label += ", " + c.setting
		}
		list = append(list, bar{f.model.name, label + ", " + string(c.form), middle(c.samples[halfway], perSecond), c.name == zarpaName})
	}
	slices.SortStableFunc(list, func(a, b bar) int { return int(b.value - a.value) })
	return list
}

// The measures of the plot, in pixels.
const (
	plotWidth, plotLabels   = 1000, 460
	plotLine, plotThickness = 20, 14
	plotHead                = 34
)

// plot draws horizontal bars: a group for each model, each with a scale of its own. The figure
// stands behind its bar.
func plot(title string, bars []bar) []byte {
	var b bytes.Buffer
	y := plotHead
	most := map[string]float64{}
	for _, x := range bars {
		most[x.group] = max(most[x.group], x.value)
	}
	height := plotHead + len(bars)*plotLine + len(most)*plotHead + plotLine
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n"+`<text x="8" y="20" font-size="15" font-weight="bold">%s</text>`+"\n", html.EscapeString(title))
	group := ""
	for _, x := range bars {
		if x.group != group {
			group = x.group
			y += plotHead
			fmt.Fprintf(&b, `<text x="8" y="%d" font-weight="bold">%s</text>`+"\n", y-plotLine/2, html.EscapeString(group))
		}
		colour := "#9aa5b1"
		if x.ours {
			colour = "#0b6e99"
		}
		const room = plotWidth - plotLabels - 80 // the figure needs 80
		length := max(room*x.value/most[x.group], 1)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotLabels-8, y+plotThickness-3, html.EscapeString(x.label))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, plotLabels, y, length, plotThickness, colour)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.0f</text>`+"\n", plotLabels+length+6, y+plotThickness-3, x.value)
		y += plotLine
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
