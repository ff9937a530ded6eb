package python

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Conversion asks for a model in ONNX.
type Conversion struct {
	// Dir, File and Format are the model's, as [zarpa.Engine].Load takes them; Out is the file to write.
	Dir, File, Format, Out string
	// Samples is how many rows both models answer.
	Samples int
	// Progress gets each line of what the converter prints; nil drops them.
	Progress func(line string)
}

// Converted is what a conversion found: see [zarpa.Conversion].
type Converted struct {
	Converter     string  `json:"converter"`
	Samples       int     `json:"samples"`
	MaxDifference float64 `json:"max_difference"`
	Before        float64 `json:"before_ms"`
	After         float64 `json:"after_ms"`
}

// ConvertTimeout bounds one conversion.
const ConvertTimeout = 30 * time.Minute

// maxConverterLog bounds what is kept of a converter's output, to tell why it failed.
const maxConverterLog = 64 << 10

// Convert brings a model into ONNX and lets both answer the same rows, in a process of its own that
// ends with ctx, and with this process. Errors: invalid for a model that the converter does not know or that answers
// differently, timeout after [ConvertTimeout], model_error when the process died.
func (e *Engine) Convert(ctx context.Context, c Conversion) (Converted, error) {
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	limited, cancel := context.WithTimeout(ctx, ConvertTimeout)
	defer cancel()
	cmd := exec.CommandContext(limited, e.python, "-m", "zarpa_worker.convert", c.Format, c.Dir, c.File, c.Out, "--samples", strconv.Itoa(c.Samples))
	cmd.Env = append(slices.Clip(e.opts.Env), "PYTHONPATH="+filepath.Dir(e.program), "OMP_NUM_THREADS=1") // one thread, as ONNX Runtime has there
	cmd.Dir = filepath.Dir(c.Out)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = e.opts.Grace
	var answer bytes.Buffer
	log := &converterLog{progress: c.Progress}
	cmd.Stdout, cmd.Stderr = &answer, log
	if _, err := cmd.StdinPipe(); err != nil { // the converter ends when it is closed, as by this process's end
		return Converted{}, zarpa.Errorf(zarpa.Internal, "python: make a converter's pipe: %w", err)
	}
	err := cmd.Run()
	if limited.Err() != nil {
		return Converted{}, zarpa.AsError(limited.Err())
	}
	return converted(answer.Bytes(), err, log)
}

// converted reads the last line of a converter's output: what it found, or why it did not.
func converted(answer []byte, err error, log *converterLog) (Converted, error) {
	line := bytes.TrimSpace(answer)
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	var found struct {
		Converted

		Error *failed `json:"error"`
	}
	switch broken := json.Unmarshal(line, &found); {
	case broken == nil && found.Error != nil:
		code := zarpa.ModelError
		if found.Error.Code == zarpa.Invalid {
			code = zarpa.Invalid
		}
		return Converted{}, zarpa.Errorf(code, "convert: %s", bounded(found.Error.Message)).
			WithHint("%s", bounded(found.Error.Hint)).Because(pythonError(found.Error.Traceback))
	case broken == nil && err == nil:
		return found.Converted, nil
	case err == nil:
		err = broken
	}
	return Converted{}, zarpa.Errorf(zarpa.ModelError, "the converter ended without an answer: %v", err).
		Because(errors.New(log.tail())).WithHint("its last words: %s", log.last)
}

// converterLog gives lines away as they come, and keeps the newest.
type converterLog struct {
	progress func(string)
	kept     []byte
	last     string
	part     []byte
}

func (l *converterLog) Write(p []byte) (int, error) {
	l.kept = append(l.kept, p...)
	if extra := len(l.kept) - maxConverterLog; extra > 0 {
		l.kept = l.kept[extra:]
	}
	l.part = append(l.part, p...)
	for {
		line, rest, whole := bytes.Cut(l.part, []byte("\n"))
		if !whole {
			l.part = line[max(0, len(line)-maxConverterLog):]
			return len(p), nil
		}
		l.part = rest
		if text := strings.TrimSpace(string(line)); text != "" {
			l.last = bounded(text)
			l.progress(l.last)
		}
	}
}

func (l *converterLog) tail() string { return string(l.kept) }
