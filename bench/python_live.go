package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const (
	// askEvery is how often the endpoint is asked whether it answers with the new code: seldom enough to
	// leave the processors to the deployment.
	askEvery = 10 * time.Millisecond
	// liveWait bounds the wait for it.
	liveWait = 30 * time.Second
)

// change is one edit of a script and what came of it.
type change struct {
	spans  []span // the last is all of it
	asked  int
	failed int // answers other than 200
}

// watched is an endpoint whose code is deployed whenever it changes.
type watched struct {
	plane  *plane
	folder string
	url    string
	key    string
	client *http.Client
}

// measureLive tells how long an edited script takes to answer.
func (b *bench) measureLive(ctx context.Context, r *report, _ string) error {
	p, err := b.up(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	w := &watched{plane: p, folder: filepath.Join(b.temp, "live"), client: &http.Client{Timeout: 10 * time.Second}}
	defer w.client.CloseIdleConnections()
	if err := os.Mkdir(w.folder, 0o755); err != nil {
		return err
	}
	stop, err := w.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	var all []change
	for i := range max(b.scale.deploys/2, 1) {
		b.say("python: change of a script, %d", i+1)
		c, err := w.edit(ctx, fmt.Sprintf("edition %d", i+2))
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	r.live(all)
	return nil
}

// write writes the script in an edition, as an editor does.
func (w *watched) write(edition string) error {
	text := fmt.Sprintf("def init():\n    pass\n\n\ndef run(data):\n    return %q\n", edition)
	return os.WriteFile(filepath.Join(w.folder, "score.py"), []byte(text), 0o644)
}

// watch deploys the first edition and keeps the command that deploys the next ones.
func (w *watched) watch(ctx context.Context) (stop func(), err error) {
	if err := w.write("edition 1"); err != nil {
		return nil, err
	}
	b := w.plane.bench
	deploy, err := b.start("zarpa deploy --reload", exec.CommandContext(context.WithoutCancel(ctx), b.zarpa, "deploy", "live", "--code", w.folder, "--reload", "--data", w.plane.data))
	if err != nil {
		return nil, err
	}
	watching := func(context.Context) error {
		if !strings.Contains(deploy.said.String(), "watching ") {
			return errors.New("it does not watch yet")
		}
		return nil
	}
	if err := deploy.await(ctx, watching); err != nil {
		return nil, err
	}
	var report zarpa.EndpointReport
	var keys zarpa.KeyPair
	if err := errors.Join(w.plane.cli(ctx, &report, "endpoint", "show", "live"), w.plane.cli(ctx, &keys, "keys", "live")); err != nil {
		deploy.stop()
		return nil, err
	}
	w.url, w.key = report.URLs.Score, keys.Primary
	return deploy.stop, nil
}

// edit writes an edition and asks until it answers.
func (w *watched) edit(ctx context.Context, edition string) (change, error) {
	ctx, cancel := context.WithTimeout(ctx, liveWait)
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var c change
	start := time.Now()
	if err := w.write(edition); err != nil {
		return c, err
	}
	for live := false; !live; {
		status, text, err := w.ask(ctx)
		if err != nil {
			return c, fmt.Errorf("wait for %s: %w\n%s", edition, err, w.plane.said)
		}
		c.asked++
		if status != http.StatusOK {
			c.failed++
		}
		live = bytes.Contains(text, []byte(edition))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return c, fmt.Errorf("%s does not answer: %w\n%s", edition, ctx.Err(), w.plane.said)
		}
	}
	answered := time.Now()
	var report zarpa.EndpointReport
	if err := w.settled(ctx, &report); err != nil {
		return c, err
	}
	c.spans = []span{{"see the change, upload it, begin the operation", report.Operation.Created.Sub(start)}}
	for _, ph := range report.Operation.Phases {
		c.spans = append(c.spans, span{"phase " + ph.Name, ph.Ended.Sub(ph.Started)})
	}
	c.spans = append(c.spans, span{"**from the edit to the new answer**", answered.Sub(start)})
	return c, nil
}

// settled waits until the operation of the last edit has ended.
func (w *watched) settled(ctx context.Context, report *zarpa.EndpointReport) error {
	for {
		if err := w.plane.cli(ctx, report, "endpoint", "show", "live"); err != nil {
			return err
		}
		if report.Operation == nil {
			return errors.New("the endpoint has no operation")
		}
		if !report.Operation.Ended.IsZero() {
			return nil
		}
	}
}

func (w *watched) ask(ctx context.Context) (status int, text []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, strings.NewReader("{}"))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.key)
	res, err := w.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	text, err = io.ReadAll(res.Body)
	return res.StatusCode, text, errors.Join(err, res.Body.Close())
}

// live reports it.
func (r *report) live(all []change) {
	asked, failed := 0, 0
	for _, c := range all {
		asked += c.asked
		failed += c.failed
	}
	s := r.section("Python: from a change to its answer")
	s.text("On a running `zarpa up` with `zarpa deploy --code DIR --reload`: a script is written anew, and the endpoint asked every %v until it answers with the new text. "+
		"The phases are the operation's; what it does after the switch of the routes is not waited for. Milliseconds. Of %d requests meanwhile, %d were answered otherwise than with 200.", askEvery, asked, failed)
	var rows [][]string
	var last []float64
	for i, sp := range all[0].spans {
		var values []float64
		for _, c := range all {
			if i < len(c.spans) && c.spans[i].name == sp.name {
				values = append(values, c.spans[i].took.Seconds()*1000)
			}
		}
		rows = append(rows, []string{sp.name, ms(median(values)), ms(slices.Max(values))})
		last = values
	}
	s.table([]string{"step", fmt.Sprintf("median of %d", len(all)), "longest"}, rows)
	r.aim(aim{
		what: "from a changed script to its answer (median)", want: "≤ 1 s", got: fmt.Sprintf("%.3f s", median(last)/1000), met: median(last) <= 1000,
		bound: "The table says which step takes the time.",
	})
}
