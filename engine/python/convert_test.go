package python

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func TestAConverterThatLacksAPackageSaysWhich(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "model.pkl"), []byte("\x80\x04N."), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("no Python: %v", err)
	}
	bare := filepath.Join(dir, "python") // it sees no package that is installed
	if err := os.WriteFile(bare, []byte("#!/bin/sh\nexec '"+path+"' -S \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	engine, err := New(Options{Python: bare, Dir: t.TempDir(), Env: []string{"PATH=" + os.Getenv("PATH")}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = engine.Convert(t.Context(), Conversion{Dir: dir, File: "model.pkl", Format: zarpa.FormatSklearn, Out: filepath.Join(dir, "out.onnx"), Samples: 10})
	e := zarpa.AsError(err)
	if e == nil || e.Code != zarpa.Invalid || !strings.Contains(e.Message, "module numpy") || !strings.Contains(e.Hint, "numpy") {
		t.Errorf("%v, want invalid, and the module", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "out.onnx")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a model was written all the same: %v", err)
	}
}

func TestAConversionEndsWithItsContext(t *testing.T) {
	t.Parallel()
	engine, err := New(Options{Python: "python3", Dir: t.TempDir()})
	if err != nil {
		t.Skipf("no Python: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := engine.Convert(ctx, Conversion{Dir: t.TempDir(), Out: filepath.Join(t.TempDir(), "x")}); zarpa.AsError(err).Code != zarpa.Canceled {
		t.Errorf("%v, want canceled", err)
	}
}

func TestTheLastLineOfAConverterIsItsAnswer(t *testing.T) {
	t.Parallel()
	var lines []string
	log := &converterLog{progress: func(line string) { lines = append(lines, line) }}
	for _, part := range []string{"conv", "erting\n\n", "comparing\nleft", " over"} {
		if n, err := log.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := []string{"converting", "comparing"}; !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
	got, err := converted([]byte("noise\n"+`{"converter":"skl2onnx 1","samples":10,"max_difference":0.5,"before_ms":2,"after_ms":1}`+"\n"), nil, log)
	if err != nil || got.Converter != "skl2onnx 1" || got.Samples != 10 || got.MaxDifference != 0.5 {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = converted([]byte(`{"error":{"code":"invalid","message":"an unknown operator","hint":"serve it as it is"}}`), errors.New("exit status 3"), log)
	if e := zarpa.AsError(err); e.Code != zarpa.Invalid || !strings.Contains(e.Message, "unknown operator") || e.Hint != "serve it as it is" {
		t.Errorf("%+v", e)
	}
	_, err = converted(nil, errors.New("signal: killed"), log)
	if e := zarpa.AsError(err); e.Code != zarpa.ModelError || !strings.Contains(e.Hint, "comparing") {
		t.Errorf("%+v", e)
	}
}
