package main

import (
	"context"
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/zarpa-dev/zarpa"
)

// history is how many intervals the rates at the top go back.
const history = 120

// screen is top on a terminal. Its methods are called by one goroutine, one after the other.
type screen struct {
	ctx           context.Context //nolint:containedctx // of the program, whose commands take none
	watch         *watcher
	list          []activity
	rates         []float64
	away          error // why there is nothing new
	err           error // why it ended
	width, height int
	first         int // the uppermost line that is shown
	paused        bool
}

// looked is what a look brought.
type looked struct {
	list []activity
	err  error
}

func (s *screen) look() tea.Msg {
	list, err := s.watch.next(s.ctx)
	return looked{list, err}
}

// again is look after an interval: an error comes back at once.
func (s *screen) again() tea.Msg {
	pause(s.ctx, s.watch.interval)
	if err := s.watch.begin(s.ctx); err != nil {
		return looked{nil, err}
	}
	return s.look()
}

// Init takes the first look.
func (s *screen) Init() tea.Cmd { return s.look }

// Update takes in what was pressed, what was seen, and how large the terminal is.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return s, s.press(msg.String())
	case looked:
		return s, s.take(msg)
	}
	return s, nil
}

func (s *screen) press(key string) tea.Cmd {
	switch key {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "space", "p":
		s.paused = !s.paused
	case "up", "k":
		s.first--
	case "down", "j":
		s.first++
	case "pgup":
		s.first -= s.lines()
	case "pgdown":
		s.first += s.lines()
	}
	s.first = min(max(s.first, 0), max(0, len(s.list)-s.lines()))
	return nil
}

// take shows what was seen. A server or gateway that is away for a while is no reason to end; an
// endpoint that is gone is.
func (s *screen) take(l looked) tea.Cmd {
	if l.err != nil {
		if code := zarpa.AsError(l.err).Code; code != zarpa.Unavailable && code != zarpa.Internal && code != zarpa.Timeout {
			s.err = l.err
			return tea.Quit
		}
		s.away = l.err
		return s.again
	}
	s.away = nil
	if !s.paused {
		s.list = l.list
		total := 0.0
		for _, a := range l.list {
			total += a.Rate
		}
		s.rates = append(s.rates, total)
		s.rates = s.rates[max(0, len(s.rates)-history):]
	}
	return s.look
}

// frame is how many lines are above and below the table.
const frame = 5

func (s *screen) lines() int { return max(1, s.height-frame) }

// View draws the screen.
func (s *screen) View() tea.View {
	v := tea.NewView(s.draw())
	v.AltScreen = true
	v.WindowTitle = "zarpa top"
	return v
}

func (s *screen) draw() string {
	bold, dim := lipgloss.NewStyle().Bold(true), lipgloss.NewStyle().Faint(true)
	red, yellow := lipgloss.NewStyle().Foreground(lipgloss.Red), lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	var rate, refused float64
	busy, queued := 0, 0
	for _, a := range s.list {
		rate, refused, busy, queued = rate+a.Rate, refused+a.Rejected, busy+a.InFlight, queued+a.Queued
	}
	var b strings.Builder
	head := fmt.Sprintf("%s  %s requests/s  %d busy  %d queued  %s refused/s  %s", bold.Render("zarpa top"),
		figure(rate), busy, queued, figure(refused), spark(s.rates, max(0, min(history, s.width-70))))
	b.WriteString(fit(head, s.width) + "\n\n")
	lines := table(s.list, s.width)
	b.WriteString(dim.Render(fit(lines[0], s.width)) + "\n")
	shown := s.list[min(s.first, len(s.list)):]
	for i, a := range shown[:min(len(shown), s.lines())] {
		line := fit(lines[1+s.first+i], s.width)
		switch {
		case a.Failures > 0 || a.Phase == zarpa.EndpointFailed:
			line = red.Render(line)
		case a.Queued > 0 || a.Rejected > 0 || a.Ejected > 0:
			line = yellow.Render(line)
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("\n" + dim.Render(fit(s.foot(), s.width)))
	return b.String()
}

func (s *screen) foot() string {
	switch {
	case s.away != nil:
		return "The server does not answer: " + zarpa.AsError(s.away).Message
	case s.paused:
		return "paused: space goes on · q quits"
	case len(s.list) == 0:
		return "No endpoints yet. Make one: zarpa deploy NAME --model FILE · q quits"
	}
	return fmt.Sprintf("every %v · space pauses · ↑↓ scroll · q quits", s.watch.interval)
}

// layout is how a table is made narrower.
type layout struct {
	bar, gap int
	names    int    // characters of a name, then it is cut
	without  string // a column that is left out
}

// layouts are tried one after the other until one is narrow enough.
func layouts() []layout {
	return []layout{{10, 2, 63, ""}, {5, 2, 63, ""}, {5, 2, 20, ""}, {5, 1, 20, ""}, {0, 1, 20, ""}, {0, 1, 14, "P50"}, {0, 1, 10, "P50"}}
}

// table is the header, and a line for each activity, within a width where that can be; 0 is any.
func table(list []activity, width int) []string {
	var lines []string
	for _, l := range layouts() {
		rows := [][]string{topHeader()}
		for _, a := range list {
			cells := a.cells(l.bar)
			cells[0], cells[1] = cut(cells[0], l.names), cut(cells[1], l.names)
			rows = append(rows, cells)
		}
		lines = l.aligned(rows)
		widest := 0
		for _, line := range lines {
			widest = max(widest, lipgloss.Width(line))
		}
		if width <= 0 || widest <= width {
			break
		}
	}
	return lines
}

// aligned are the lines of a table: names to the left, figures to the right.
func (l layout) aligned(rows [][]string) []string {
	const names = 3
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], lipgloss.Width(cell))
		}
	}
	lines := make([]string, 0, len(rows))
	for _, r := range rows {
		var cells []string
		for i, cell := range r {
			pad := strings.Repeat(" ", widths[i]-lipgloss.Width(cell))
			switch {
			case rows[0][i] == l.without:
			case i < names:
				cells = append(cells, cell+pad)
			default:
				cells = append(cells, pad+cell)
			}
		}
		lines = append(lines, strings.TrimRight(strings.Join(cells, strings.Repeat(" ", l.gap)), " "))
	}
	return lines
}

// fit is a line that does not wrap; all of it before the terminal's width is known.
func fit(line string, width int) string {
	if width <= 0 {
		return line
	}
	return lipgloss.NewStyle().MaxWidth(width).Render(line)
}
