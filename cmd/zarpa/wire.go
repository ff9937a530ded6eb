package main

import (
	"log/slog"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/onnx"
)

// engines are the engines of this build, by the name that bundles call them.
func (c *cli) engines(log *slog.Logger) map[string]zarpa.Engine {
	return map[string]zarpa.Engine{
		"onnx": onnx.New(onnx.Options{Library: c.getenv("ZARPA_ONNXRUNTIME"), Log: log}),
	}
}

// logger writes to standard error, one line of text per record.
func (c *cli) logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "--log-level: %q is not known", level).WithHint("use debug, info, warn or error")
	}
	return slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: l})), nil
}
