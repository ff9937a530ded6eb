package environment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// builder is one build.
type builder struct {
	plan
	cache *Cache
	lock  held
	log   *buildLog
	// files and temp are the folders of the description and of temporary files.
	files, temp string
	tool        tool
	pip         []string // the command that is pip, if it is what installs
	phase       string   // what it does now, for errors
}

// build makes an environment in its place; its lock is held. Whatever was there before goes.
func (c *Cache) build(ctx context.Context, p plan, lock held, progress func(string)) (record, error) {
	if err := c.remove(p.id); err != nil {
		return record{}, err
	}
	began := c.opts.Now()
	b := builder{plan: p, cache: c, lock: lock, files: filepath.Join(c.folder(p.id), "files"), temp: filepath.Join(c.folder(p.id), "tmp")}
	for _, folder := range []string{b.files, b.temp} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return record{}, diskError("make "+folder, err)
		}
	}
	file, err := os.OpenFile(c.logPath(p.id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return record{}, diskError("open the log of environment "+p.id, err)
	}
	b.log = &buildLog{file: file, left: c.opts.LogLimit, redact: c.redact.withSettings(c.pipSettings()), progress: progress}
	c.opts.Log.Info("environment build began", "environment", p.id, "source", p.source, "python", p.python.Version)

	limited, cancel := context.WithTimeout(ctx, c.opts.BuildTimeout)
	defer cancel()
	e, err := b.make(limited)
	b.log.flush()
	if err != nil {
		err = b.failure(ctx, limited, err)
		b.log.say("failed: %v", err)
	} else {
		b.log.say("ready: %d packages, %d bytes", len(e.Packages), e.Size)
	}
	if closing := b.log.close(); err == nil && closing != nil {
		err = diskError("write the log of environment "+p.id, closing)
	}
	return c.conclude(ctx, record{Environment: e}, began, err)
}

// make runs all steps of a build.
func (b *builder) make(ctx context.Context) (zarpa.Environment, error) {
	e := zarpa.Environment{ID: b.id, Python: b.python.Version, Source: b.source}
	b.phase = "copy the files"
	if err := b.copyFiles(ctx); err != nil {
		return e, err
	}
	b.phase = "choose a tool"
	var err error
	if b.tool, err = b.chooseTool(); err != nil {
		return e, err
	}
	e.Tool = b.tool.name
	b.introduce()
	for _, s := range b.tool.steps(b) {
		b.phase = s.phase
		if err := b.run(ctx, s); err != nil {
			return e, err
		}
	}
	b.phase = "list the packages"
	if e.Python, e.Packages, err = b.lockPackages(ctx); err != nil {
		return e, err
	}
	if err := errors.Join(os.RemoveAll(b.files), os.RemoveAll(b.temp)); err != nil {
		return e, err
	}
	if e.Size, err = sizeOf(b.cache.folder(b.id)); err != nil {
		return e, err
	}
	return e, settleDisk(b.cache.folder(b.id))
}

// introduce says in the log what is built and how.
func (b *builder) introduce() {
	b.log.say("environment %s from %s by %s", b.id, orNothing(b.source), b.tool.name)
	if b.python.Path != "" {
		b.log.say("Python %s: %s", b.python.Version, b.python.Path)
	}
	if b.description.python.loose != "" && b.description.python.loose != b.python.Version && b.python.Path != "" {
		b.log.say("%s asks for Python %s: %s of this machine is taken, which differs in the last number only",
			b.source, b.description.python.loose, b.python.Version)
	}
	if b.offline() {
		b.log.say("every requirement has a file in %s/: nothing is fetched", wheelsFolder)
	}
}

func orNothing(s string) string {
	if s == "" {
		return "no file"
	}
	return s
}

// copyFiles lays the description down for the tools, with the requirements files in UTF-8.
func (b *builder) copyFiles(ctx context.Context) error {
	if b.plan.files != nil {
		err := eachFile(ctx, b.plan.files, func(name string, f io.Reader) error {
			if text, ok := b.packages.texts[name]; ok {
				f = bytes.NewReader(text)
			}
			return b.lay(name, f)
		})
		if err != nil {
			return err
		}
	}
	for name, text := range b.packages.texts { // also what was made from another file
		if err := b.lay(name, bytes.NewReader(text)); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) lay(name string, r io.Reader) error {
	path := filepath.Join(b.files, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// conclude records what came of a build. A canceled one leaves nothing: it says nothing about the
// environment.
func (c *Cache) conclude(ctx context.Context, r record, began time.Time, err error) (record, error) {
	now := c.opts.Now().UTC()
	r.Created, r.Used, r.Phase = now, now, zarpa.EnvironmentReady
	if err != nil && ctx.Err() != nil {
		return record{}, errors.Join(err, c.remove(r.ID))
	}
	if err != nil {
		r.Phase, r.Error, r.Packages, r.Size = zarpa.EnvironmentFailed, zarpa.AsError(err), nil, 0
		for _, rest := range []string{c.prefix(r.ID), filepath.Join(c.folder(r.ID), "files"), filepath.Join(c.folder(r.ID), "tmp")} {
			if removing := os.RemoveAll(rest); removing != nil {
				c.opts.Log.Warn("what a failed build left could not be removed", "environment", r.ID, "cause", removing)
			}
		}
	}
	if writing := c.write(r); writing != nil && err == nil {
		err = diskError("record environment "+r.ID, writing)
	}
	took := c.opts.Now().Sub(began).Round(time.Millisecond)
	c.opts.Log.Info("environment build ended", "environment", r.ID, "phase", r.Phase, "tool", r.Tool, "took", took, "size", r.Size)
	return r, err
}

// sizeOf is the size of the files below a folder, in bytes; a file with several names counts once.
func sizeOf(folder string) (int64, error) {
	seen, size := map[fileKey]bool{}, int64(0)
	err := filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		key, shared := keyOf(info)
		if shared && seen[key] {
			return nil
		}
		if shared {
			seen[key] = true
		}
		size += info.Size()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", folder, err)
	}
	return size, nil
}

// sorted returns the strings in order, each once.
func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
