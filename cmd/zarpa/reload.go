package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

const (
	// watchEvery is how often a folder of code is looked at: the notice of a file system does not come
	// through shared folders and containers.
	watchEvery = 150 * time.Millisecond
	// settleFor is how long a folder must stay as it is before it is deployed: editors write in steps.
	settleFor = 100 * time.Millisecond
)

// seen is what a look at a folder of code found: each file's time and size.
type seen map[string]glimpse

type glimpse struct {
	changed time.Time
	size    int64
}

func look(dir string) (seen, error) {
	s := seen{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p != dir && ignored(e.Name()) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err == nil && !e.IsDir() {
			s[p] = glimpse{info.ModTime(), info.Size()}
		}
		return err
	})
	return s, err
}

func (s seen) equal(other seen) bool {
	if len(s) != len(other) {
		return false
	}
	for name, g := range s {
		if o, ok := other[name]; !ok || !o.changed.Equal(g.changed) || o.size != g.size {
			return false
		}
	}
	return true
}

// changed waits until a folder differs from what was seen and stays so for a moment.
func changed(ctx context.Context, dir string, was seen) (seen, error) {
	for {
		if !pause(ctx, watchEvery) {
			return was, ctx.Err()
		}
		now, err := look(dir)
		if errors.Is(err, fs.ErrNotExist) || err == nil && now.equal(was) {
			continue // a folder that is away for a moment is being written anew
		}
		for err == nil {
			if !pause(ctx, settleFor) {
				return was, ctx.Err()
			}
			var again seen
			if again, err = look(dir); err == nil && again.equal(now) {
				return now, nil
			}
			now = again
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return was, err
		}
	}
}

// reload deploys the code again whenever it changes, until ctx ends. What does not become ready is
// told, and the code before it goes on.
func (c *cli) reload(cmd *cobra.Command, api *client.Client, name string, f deployFlags) error {
	ctx := cmd.Context()
	now, err := look(f.code)
	if err != nil {
		return err
	}
	p := c.progress()
	p.line("watching %s; ^C ends it and leaves the endpoint as it is", f.code)
	for {
		if now, err = changed(ctx, f.code, now); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // ^C is how it ends
			}
			return err
		}
		began := time.Now()
		answer, err := c.deploy(cmd, api, name, f)
		if err == nil && answer.Operation != nil {
			_, err = c.follow(ctx, api, *answer.Operation)
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // ^C is how it ends
		case err != nil:
			e := zarpa.AsError(err)
			p.line("✗ the code before it serves on: %s", e.Message)
			if e.Hint != "" {
				p.line("  → %s", e.Hint)
			}
		default:
			p.line("✓ live after %s", took(time.Since(began)))
		}
	}
}
