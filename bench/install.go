package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// installWait bounds the installation of one peer: some fetch half a gigabyte.
const installWait = 20 * time.Minute

// pinsMark is the file in an environment that holds the digest of the pins it was made from.
const pinsMark = "zarpa-bench-pins"

// install makes the Python environment of a peer, .cache/bench/NAME, hold what bench/peers/NAME.txt
// pins, and returns its folder. One that does already is left alone.
func (b *bench) install(ctx context.Context, name string) (string, error) {
	pins := filepath.Join(b.root, "bench", "peers", name+".txt")
	text, err := os.ReadFile(pins)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])
	home := filepath.Join(b.root, ".cache", "bench", name)
	mark := filepath.Join(home, pinsMark)
	if made, err := os.ReadFile(mark); err == nil && string(made) == digest {
		return home, nil
	}
	b.say("peers: install %s", name)
	ctx, cancel := context.WithTimeout(ctx, installWait)
	defer cancel()
	if err := os.RemoveAll(home); err != nil { // another list of pins, or half an installation
		return "", err
	}
	python, err := python311(ctx)
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{python, "-m", "venv", home},
		// The pins name everything, so that nothing is resolved; wheels alone, so that nothing is compiled.
		{filepath.Join(home, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "-r", pins},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("install %s: %w: %s", name, err, lastLine(string(out)))
		}
	}
	return home, os.WriteFile(mark, []byte(digest), 0o644)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// python311 finds a Python 3.11, for which the pins were chosen. The system's own comes first:
// Triton's Python back end needs its shared library.
func python311(ctx context.Context) (string, error) {
	for _, name := range []string{"/usr/bin/python3.11", "python3.11", "python3"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, path, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])").Output()
		if err == nil && strings.TrimSpace(string(out)) == "3.11" {
			return path, nil
		}
	}
	return "", errors.New("no Python 3.11 with venv here")
}
