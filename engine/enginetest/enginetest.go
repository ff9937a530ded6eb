// Package enginetest is the contract of [zarpa.Engine] and [zarpa.Session] as a test suite. An
// engine proves itself by running it over models that it brings along:
//
//	enginetest.Run(t, enginetest.Config{Engine: engine, Cases: …})
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Case is a model, a request for it, and the answer.
type Case struct {
	Name string
	// Dir and File are the model, as in [zarpa.Engine.Load].
	Dir, File string
	In        []zarpa.Tensor
	// Want is the whole answer, in the signature's order.
	Want []zarpa.Tensor
}

// Config says which engine, and with which models. Every part is needed, so that an engine proves
// the whole contract.
type Config struct {
	Engine zarpa.Engine
	// Cases must be answered exactly. One of them at least has two inputs, and one two outputs.
	Cases []Case
	// Fails loads, and its run is a model error.
	Fails Case
	// Slow loads, and its run takes a minute or longer unless it is stopped.
	Slow Case
	// Broken do not load: the error is invalid.
	Broken []Case
	// Streams are models whose sessions are a [zarpa.Streamer], for an engine that has such; the
	// rest of the contract is proven without them.
	Streams []StreamCase
}

// Run runs the suite.
func Run(t *testing.T, c Config) {
	t.Helper()
	if !slices.ContainsFunc(c.Cases, func(k Case) bool { return len(k.In) > 1 }) || !slices.ContainsFunc(c.Cases, func(k Case) bool { return len(k.Want) > 1 }) {
		t.Fatal("enginetest: the cases need a model of two inputs and one of two outputs")
	}
	for _, k := range c.Cases {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			runCase(t, c.Engine, k)
		})
	}
	for _, k := range c.Streams {
		t.Run("stream/"+k.Name, func(t *testing.T) {
			t.Parallel()
			runStream(t, c.Engine, k)
		})
	}
	for name, test := range map[string]func(*testing.T, Config){
		"ABrokenModelIsInvalid":        brokenIsInvalid,
		"AMissingFolderIsInvalid":      missingFolderIsInvalid,
		"LoadOfACanceledContext":       canceledLoad,
		"AFailingModelIsAModelError":   failsIsModelError,
		"ACanceledRunStops":            canceledRunStops,
		"ADeadlineIsATimeout":          deadlineIsTimeout,
		"RunAfterCloseIsUnavailable":   runAfterClose,
		"CloseWaitsForRunningCalls":    closeWaits,
		"ManyGoroutinesLoadAndRun":     manyGoroutines,
		"TheResultBelongsToItsCaller":  resultBelongsToCaller,
		"ACanceledContextRunsNothing":  canceledContextRunsNothing,
		"ThreadsDoNotChangeTheAnswers": threads,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}

// load loads a case's model and closes it with the test.
func load(t *testing.T, e zarpa.Engine, k Case) zarpa.Session {
	t.Helper()
	s, err := e.Load(t.Context(), k.Dir, zarpa.LoadOptions{File: k.File, Threads: 1})
	if err != nil {
		t.Fatalf("%s: load: %v", k.Name, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("%s: close: %v", k.Name, err)
		}
	})
	return s
}

func wantCode(t *testing.T, err error, code zarpa.Code) {
	t.Helper()
	if e, ok := errors.AsType[*zarpa.Error](err); !ok {
		t.Errorf("got error %v, want a zarpa.Error of code %s", err, code)
	} else if e.Code != code {
		t.Errorf("got code %s (%v), want %s", e.Code, err, code)
	}
}

func runCase(t *testing.T, e zarpa.Engine, k Case) {
	s := load(t, e, k)
	before := clone(k.In)
	got, err := s.Run(t.Context(), k.In, nil)
	if err != nil {
		t.Fatal(err)
	}
	Equal(t, got, k.Want)
	if !reflect.DeepEqual(before, k.In) {
		t.Error("Run wrote to its inputs")
	}
	reversed := clone(k.In)
	slices.Reverse(reversed)
	if got, err = s.Run(t.Context(), reversed, nil); err != nil {
		t.Fatalf("inputs in another order: %v", err)
	}
	Equal(t, got, k.Want)
	for i := range k.Want {
		got, err := s.Run(t.Context(), k.In, []string{k.Want[i].Name})
		if err != nil {
			t.Fatalf("wanted %q alone: %v", k.Want[i].Name, err)
		}
		Equal(t, got, k.Want[i:i+1])
	}
	sig := s.Signature()
	if len(sig.Outputs) != len(k.Want) || len(sig.Inputs) < len(k.In) {
		t.Errorf("signature of %d inputs and %d outputs, want %d and %d", len(sig.Inputs), len(sig.Outputs), len(k.In), len(k.Want))
	}
	badInputs(t, s, k)
}

// badInputs proves that wrong requests are invalid, by name, and harm nothing.
func badInputs(t *testing.T, s zarpa.Session, k Case) {
	t.Helper()
	refuse := func(what string, in []zarpa.Tensor, wanted []string, name string) {
		t.Helper()
		_, err := s.Run(t.Context(), in, wanted)
		if err == nil {
			t.Errorf("%s: accepted", what)
			return
		}
		wantCode(t, err, zarpa.Invalid)
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error %q does not name %q", what, err, name)
		}
	}
	refuse("an unknown output", k.In, []string{"nobody knows this"}, "nobody knows this")
	refuse("an unknown input", append(clone(k.In), zarpa.Tensor{Name: "nobody knows this", Type: zarpa.Float32, Shape: []int64{}, Data: make([]byte, 4)}), nil, "nobody knows this")
	sig := s.Signature()
	for i, t := range k.In {
		at := slices.IndexFunc(sig.Inputs, func(v zarpa.ValueInfo) bool { return v.Name == t.Name })
		if at < 0 {
			continue
		}
		info := sig.Inputs[at]
		if !info.Optional {
			refuse("a missing input", slices.Delete(clone(k.In), i, i+1), nil, t.Name)
		}
		refuse("an input given twice", append(clone(k.In), t), nil, t.Name)
		wrong := func(change func(*zarpa.Tensor)) []zarpa.Tensor {
			in := clone(k.In)
			change(&in[i])
			return in
		}
		refuse("a wrong type", wrong(func(x *zarpa.Tensor) {
			x.Type, x.Items, x.Strings = zarpa.Complex128, nil, nil
			x.Data = make([]byte, 16)
			x.Shape = []int64{1}
		}), nil, t.Name)
		if t.Items != nil || t.Type == zarpa.Undefined {
			continue
		}
		refuse("a negative dimension", wrong(func(x *zarpa.Tensor) { x.Shape = append(slices.Clone(x.Shape), -1) }), nil, t.Name)
		refuse("too much data", wrong(func(x *zarpa.Tensor) { x.Data, x.Strings = append(x.Data, 0), append(x.Strings, "") }), nil, t.Name)
		if !info.NoShape {
			refuse("a wrong rank", wrong(func(x *zarpa.Tensor) { x.Shape = append(slices.Clone(x.Shape), 1) }), nil, t.Name)
		}
		if len(info.Shape) > 0 && info.Shape[0].Size > 0 {
			refuse("a wrong size", wrong(func(x *zarpa.Tensor) {
				x.Shape[0] *= 2
				x.Data, x.Strings = append(x.Data, x.Data...), append(x.Strings, x.Strings...)
			}), nil, t.Name)
		}
	}
	got, err := s.Run(t.Context(), k.In, nil)
	if err != nil {
		t.Fatalf("after bad requests: %v", err)
	}
	Equal(t, got, k.Want)
}

func brokenIsInvalid(t *testing.T, c Config) {
	for _, k := range c.Broken {
		s, err := c.Engine.Load(t.Context(), k.Dir, zarpa.LoadOptions{File: k.File, Threads: 1})
		if err == nil {
			s.Close()
			t.Errorf("%s: it loads", k.Name)
			continue
		}
		wantCode(t, err, zarpa.Invalid)
	}
}

func missingFolderIsInvalid(t *testing.T, c Config) {
	_, err := c.Engine.Load(t.Context(), t.TempDir(), zarpa.LoadOptions{File: c.Cases[0].File})
	wantCode(t, err, zarpa.Invalid)
	_, err = c.Engine.Load(t.Context(), c.Cases[0].Dir, zarpa.LoadOptions{File: "../escape"})
	wantCode(t, err, zarpa.Invalid)
}

func canceledLoad(t *testing.T, c Config) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Engine.Load(ctx, c.Cases[0].Dir, zarpa.LoadOptions{File: c.Cases[0].File})
	wantCode(t, err, zarpa.Canceled)
}

func failsIsModelError(t *testing.T, c Config) {
	s := load(t, c.Engine, c.Fails)
	for range 3 {
		_, err := s.Run(t.Context(), c.Fails.In, nil)
		wantCode(t, err, zarpa.ModelError)
	}
}

func canceledContextRunsNothing(t *testing.T, c Config) {
	s := load(t, c.Engine, c.Cases[0])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Run(ctx, c.Cases[0].In, nil)
	wantCode(t, err, zarpa.Canceled)
}

// stopLimit is how long a run that was told to stop may take.
const stopLimit = 20 * time.Second

func canceledRunStops(t *testing.T, c Config) {
	s := load(t, c.Engine, c.Slow)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(20*time.Millisecond, cancel)
		start := time.Now()
		_, err := s.Run(ctx, c.Slow.In, nil)
		timer.Stop()
		cancel()
		wantCode(t, err, zarpa.Canceled)
		if took := time.Since(start); took > stopLimit {
			t.Errorf("it stopped after %v", took)
		}
	}
}

func deadlineIsTimeout(t *testing.T, c Config) {
	s := load(t, c.Engine, c.Slow)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.Run(ctx, c.Slow.In, nil)
	wantCode(t, err, zarpa.Timeout)
}

func runAfterClose(t *testing.T, c Config) {
	s := load(t, c.Engine, c.Cases[0])
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Run(t.Context(), c.Cases[0].In, nil)
	wantCode(t, err, zarpa.Unavailable)
}

func closeWaits(t *testing.T, c Config) {
	s := load(t, c.Engine, c.Slow)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ran, closed := make(chan error, 1), make(chan error, 2)
	go func() {
		_, err := s.Run(ctx, c.Slow.In, nil)
		ran <- err
	}()
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	for range 2 {
		go func() { closed <- s.Close() }()
	}
	timer.Reset(20 * time.Millisecond)
	select {
	case <-closed:
		t.Error("Close returned while a call was running")
	case <-timer.C:
	}
	cancel()
	wantCode(t, <-ran, zarpa.Canceled)
	for range 2 {
		if err := <-closed; err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func manyGoroutines(t *testing.T, c Config) {
	const goroutines, runs = 8, 20
	shared := load(t, c.Engine, c.Cases[0])
	done := make(chan []zarpa.Tensor)
	for g := range goroutines {
		go func() {
			k := c.Cases[g%len(c.Cases)]
			s := shared
			if g >= goroutines/2 {
				own, err := c.Engine.Load(t.Context(), k.Dir, zarpa.LoadOptions{File: k.File, Threads: 1})
				if err != nil {
					t.Errorf("load: %v", err)
					done <- nil
					return
				}
				defer own.Close()
				s = own
			} else {
				k = c.Cases[0]
			}
			for range runs {
				got, err := s.Run(t.Context(), k.In, nil)
				if err != nil {
					t.Errorf("run: %v", err)
				}
				Equal(t, got, k.Want)
			}
			done <- nil
		}()
	}
	for range goroutines {
		<-done
	}
}

func resultBelongsToCaller(t *testing.T, c Config) {
	for _, k := range c.Cases {
		s := load(t, c.Engine, k)
		first, err := s.Run(t.Context(), k.In, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range first {
			for j := range first[i].Data {
				first[i].Data[j] ^= 0xff
			}
			for j := range first[i].Shape {
				first[i].Shape[j] = -7
			}
		}
		again, err := s.Run(t.Context(), k.In, nil)
		if err != nil {
			t.Fatal(err)
		}
		Equal(t, again, k.Want)
	}
}

func threads(t *testing.T, c Config) {
	for n := range 4 {
		k := c.Cases[n%len(c.Cases)]
		s, err := c.Engine.Load(t.Context(), k.Dir, zarpa.LoadOptions{File: k.File, Threads: n})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Run(t.Context(), k.In, nil)
		if err != nil {
			t.Fatal(err)
		}
		Equal(t, got, k.Want)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Equal compares values bit by bit; nil and empty are equal.
func Equal(t *testing.T, got, want []zarpa.Tensor) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("got %d values, want %d", len(got), len(want))
		return
	}
	for i := range want {
		g, w := got[i], want[i]
		if g.Name != w.Name || g.Type != w.Type || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) || !slices.Equal(g.Strings, w.Strings) {
			t.Errorf("value %d:\n got %+v\nwant %+v", i, g, w)
		}
		Equal(t, g.Items, w.Items)
	}
}

func clone(in []zarpa.Tensor) []zarpa.Tensor {
	out := slices.Clone(in)
	for i := range out {
		out[i].Shape = slices.Clone(out[i].Shape)
		out[i].Data = slices.Clone(out[i].Data)
		out[i].Strings = slices.Clone(out[i].Strings)
		out[i].Items = clone(out[i].Items)
	}
	return out
}
