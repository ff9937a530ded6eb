package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/zarpa-dev/zarpa"
)

// accessFile is the file of the access log. It is opened again when it was moved or removed: what
// rotates logs need tell nobody, and may.
type accessFile struct {
	path string

	mu   sync.Mutex
	file *os.File
}

// openAccess opens the access log at a path, "-" for standard output; nil for an empty one. close, which
// is never nil, comes after the last write.
func (c *cli) openAccess(ctx context.Context, path string, log *slog.Logger) (out io.Writer, closeLog func() error, err error) {
	switch path {
	case "":
		return nil, func() error { return nil }, nil
	case "-":
		return c.stdout, func() error { return nil }, nil
	}
	a := &accessFile{path: path}
	if err := a.reopen(); err != nil {
		return nil, nil, zarpa.Errorf(zarpa.Invalid, "--access-log: %w", err).WithHint("name a file that can be written, or - for standard output")
	}
	ctx, cancel := context.WithCancel(ctx)
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	var wg sync.WaitGroup
	wg.Go(func() { // until close
		for {
			select {
			case <-hangUp:
				if err := a.reopen(); err != nil {
					log.Warn("the access log cannot be opened again", "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return a, func() error {
		signal.Stop(hangUp)
		cancel()
		wg.Wait()
		return a.file.Close()
	}, nil
}

// Write appends to the file that has the path now.
func (a *accessFile) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.moved() {
		if err := a.open(); err != nil {
			return 0, err
		}
	}
	return a.file.Write(b)
}

// moved reports whether the path names another file than the open one, or none. mu is held.
func (a *accessFile) moved() bool {
	named, err := os.Stat(a.path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	open, err := a.file.Stat()
	return err == nil && !os.SameFile(named, open)
}

func (a *accessFile) reopen() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open()
}

// open opens the path, and closes what was open before. mu is held.
func (a *accessFile) open() error {
	f, err := os.OpenFile(filepath.Clean(a.path), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	before := a.file
	a.file = f
	if before == nil {
		return nil
	}
	return before.Close()
}
