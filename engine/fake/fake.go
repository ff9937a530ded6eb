// Package fake is an engine without a runtime, for tests and for trying things out: a model is a
// folder with a file fake.json that says how it behaves. It keeps the contract of [zarpa.Engine]
// and depends on nothing.
package fake

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inputs"
)

// File is the model's file in its folder, unless LoadOptions.File names another.
const File = "fake.json"

// maxFile bounds the model's file, in bytes.
const maxFile = 1 << 20

// Model is the content of fake.json. The zero Model gives its one input, "x", FP32 of shape [n],
// back as its one output, "y".
type Model struct {
	// Inputs and Outputs are the signature. Without Answer, output i is a copy of input i.
	Inputs  []zarpa.ValueInfo `json:"inputs"`
	Outputs []zarpa.ValueInfo `json:"outputs"`
	// Answer is what every run answers, with one value for each output, in their order.
	Answer []zarpa.Tensor `json:"answer"`
	// Parts make the model one that streams: each is a part of the answer, its values named after
	// outputs. Fail comes after the last one. Run answers the last one, unless Answer is set.
	Parts [][]zarpa.Tensor `json:"parts"`
	// PartDelay is how long each part takes, beside Delay.
	PartDelay zarpa.Duration `json:"part_delay"`
	// LoadDelay and Delay are how long a load and a run take.
	LoadDelay zarpa.Duration `json:"load_delay"`
	Delay     zarpa.Duration `json:"delay"`
	// FailLoad and Fail are the messages that make loads invalid and runs model errors.
	FailLoad string `json:"fail_load"`
	Fail     string `json:"fail"`
	// CrashLoad and Crash make loads and runs call [Options.Crash].
	CrashLoad bool `json:"crash_load"`
	Crash     bool `json:"crash"`
}

// Options are the settings of an [Engine].
type Options struct {
	// Crash is what a crashing model does; nil panics.
	Crash func()
}

// Engine loads fake models.
type Engine struct{ opts Options }

var _ zarpa.Engine = (*Engine)(nil)

// New makes an engine.
func New(opts Options) *Engine {
	if opts.Crash == nil {
		opts.Crash = func() { panic("the fake model crashes, as it was told to") }
	}
	return &Engine{opts: opts}
}

// Write makes dir a model.
func Write(dir string, m Model) error {
	data, err := json.Marshal(m)
	if err != nil {
		return zarpa.Errorf(zarpa.Internal, "fake model: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, File), data, 0o644); err != nil {
		return zarpa.Errorf(zarpa.Internal, "fake model: %w", err)
	}
	return nil
}

// Load reads the model's file; opts.Threads is ignored.
func (e *Engine) Load(ctx context.Context, dir string, opts zarpa.LoadOptions) (zarpa.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, zarpa.AsError(err)
	}
	m, err := read(dir, opts.File)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, time.Duration(m.LoadDelay)); err != nil {
		return nil, err
	}
	switch {
	case m.CrashLoad:
		e.opts.Crash()
	case m.FailLoad != "":
		return nil, zarpa.Errorf(zarpa.Invalid, "%s", m.FailLoad)
	}
	s := &session{model: m, crash: e.opts.Crash, sig: zarpa.Signature{Inputs: m.Inputs, Outputs: m.Outputs, Producer: "fake"}}
	s.checker = inputs.New(s.sig)
	if m.Parts != nil {
		return &streaming{s}, nil
	}
	return s, nil
}

func read(dir, file string) (Model, error) {
	var m Model
	if file == "" {
		file = File
	}
	if err := zarpa.ValidatePath(file); err != nil {
		return m, err
	}
	path := filepath.Join(dir, filepath.FromSlash(file))
	if info, err := os.Stat(path); err != nil || info.Size() > maxFile {
		return m, zarpa.Errorf(zarpa.Invalid, "model file %q: not a small file in the model's folder", file).Because(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return m, zarpa.Errorf(zarpa.Invalid, "model file %q: cannot be read", file).Because(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, zarpa.Errorf(zarpa.Invalid, "model file %q: %w", file, err)
	}
	return m, m.complete()
}

// complete fills the zero model in and checks the rest.
func (m *Model) complete() error {
	if len(m.Inputs) == 0 {
		m.Inputs = []zarpa.ValueInfo{{Name: "x", Type: zarpa.Float32, Shape: []zarpa.Dim{{Size: -1, Name: "n"}}}}
	}
	if len(m.Outputs) == 0 {
		m.Outputs = []zarpa.ValueInfo{{Name: "y", Type: m.Inputs[0].Type, Shape: m.Inputs[0].Shape}}
	}
	for i, part := range m.Parts {
		for _, t := range part {
			if !slices.ContainsFunc(m.Outputs, func(v zarpa.ValueInfo) bool { return v.Name == t.Name }) {
				return zarpa.Errorf(zarpa.Invalid, "fake model: parts[%d]: no output is called %q", i, t.Name)
			}
		}
	}
	if m.Answer == nil && m.Parts == nil && len(m.Outputs) > len(m.Inputs) {
		return zarpa.Errorf(zarpa.Invalid, "fake model: %d outputs of %d inputs", len(m.Outputs), len(m.Inputs)).WithHint("set answer, or give it as many inputs")
	}
	if m.Answer != nil && len(m.Answer) != len(m.Outputs) {
		return zarpa.Errorf(zarpa.Invalid, "fake model: answer has %d values for %d outputs", len(m.Answer), len(m.Outputs))
	}
	return nil
}

// wait lets d pass, or returns when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return zarpa.AsError(ctx.Err())
	}
}

type session struct {
	model   Model
	sig     zarpa.Signature
	checker *inputs.Checker
	crash   func()

	running sync.RWMutex // held for reading while a run is under way
	mu      sync.Mutex   // guards closed, before running
	closed  bool
}

var _ zarpa.Session = (*session)(nil)

func (s *session) Signature() zarpa.Signature { return s.sig }

func (s *session) Run(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
	want, slots, err := s.begin(ctx, in, wanted)
	if err != nil {
		return nil, err
	}
	defer s.running.RUnlock()
	if err := s.work(ctx); err != nil {
		return nil, err
	}
	if s.model.Fail != "" {
		return nil, zarpa.Errorf(zarpa.ModelError, "%s", s.model.Fail)
	}
	if s.model.Answer == nil && len(s.model.Parts) > 0 {
		return s.part(s.model.Parts[len(s.model.Parts)-1], want), nil
	}
	out := make([]zarpa.Tensor, len(want))
	for k, n := range want {
		out[k] = s.answer(n, in, slots)
		out[k].Name = s.sig.Outputs[n].Name
	}
	return out, nil
}

// begin checks a request and counts its run in; want are the outputs by index and slots the inputs.
// Without an error, the caller unlocks running.
func (s *session) begin(ctx context.Context, in []zarpa.Tensor, wanted []string) (want, slots []int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, zarpa.AsError(err)
	}
	if !s.enter() {
		return nil, nil, zarpa.Errorf(zarpa.Unavailable, "the model was unloaded")
	}
	slots = make([]int, len(s.sig.Inputs))
	if want, err = s.checker.Want(wanted, nil); err == nil {
		err = s.checker.Place(in, slots, s.checker.NewSeen())
	}
	if err != nil {
		s.running.RUnlock()
	}
	return want, slots, err
}

// work takes its time, and crashes as it was told to.
func (s *session) work(ctx context.Context) error {
	if err := wait(ctx, time.Duration(s.model.Delay)); err != nil {
		return err
	}
	if s.model.Crash {
		s.crash()
	}
	return nil
}

// part is a copy of a part's values, in the order of the outputs and of those that are wanted.
func (s *session) part(values []zarpa.Tensor, want []int) []zarpa.Tensor {
	var out []zarpa.Tensor
	for _, n := range want {
		for _, t := range values {
			if t.Name == s.sig.Outputs[n].Name {
				out = append(out, clone(t))
			}
		}
	}
	return out
}

// streaming is the session of a model with parts.
type streaming struct{ *session }

var _ zarpa.Streamer = (*streaming)(nil)

// Stream gives the model's parts to emit.
func (s *streaming) Stream(ctx context.Context, in []zarpa.Tensor, wanted []string, emit func(part []zarpa.Tensor) error) error {
	want, _, err := s.begin(ctx, in, wanted)
	if err != nil {
		return err
	}
	defer s.running.RUnlock()
	if err := s.work(ctx); err != nil {
		return err
	}
	for _, values := range s.model.Parts {
		if err := wait(ctx, time.Duration(s.model.PartDelay)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return zarpa.AsError(err)
		}
		if err := emit(s.part(values, want)); err != nil {
			return err
		}
	}
	if s.model.Fail != "" {
		return zarpa.Errorf(zarpa.ModelError, "%s", s.model.Fail)
	}
	return nil
}

// enter counts a run in, unless the session is closed.
func (s *session) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.RLock()
	return true
}

// answer is output n.
func (s *session) answer(n int, in []zarpa.Tensor, slots []int) zarpa.Tensor {
	switch {
	case s.model.Answer != nil:
		return clone(s.model.Answer[n])
	case slots[n] < 0:
		return zarpa.Tensor{}
	}
	return clone(in[slots[n]])
}

func clone(t zarpa.Tensor) zarpa.Tensor {
	t.Shape = slices.Clone(t.Shape)
	t.Data = slices.Clone(t.Data)
	t.Strings = slices.Clone(t.Strings)
	t.Items = slices.Clone(t.Items)
	for i := range t.Items {
		t.Items[i] = clone(t.Items[i])
	}
	return t
}

func (s *session) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Lock() // after the last run
	defer s.running.Unlock()
	return nil
}
