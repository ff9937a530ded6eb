package score

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// state is where an entry is, in the words of the protocol's repository extension.
type state string

const (
	stateLoading     state = "LOADING"
	stateReady       state = "READY"
	stateUnloading   state = "UNLOADING"
	stateUnavailable state = "UNAVAILABLE"
)

// untouched is the reason of an entry whose first load has not begun.
const untouched = "not loaded yet"

// entry is one model that the server answers for, in memory or not.
//
//	UNAVAILABLE ──► LOADING ──► READY ──► UNLOADING ──► UNAVAILABLE
//	     ▲             │
//	     └─────────────┘ the load failed: reason says why
type entry struct {
	ModelOptions
	names []string              // the model's and its aliases
	model atomic.Pointer[model] // nil while not ready
	stats statistics            // stays over an unload
	turn  chan struct{}         // of one: held over a load or an unload, which wait for each other

	mu     sync.Mutex // guards what follows
	state  state
	reason string
}

func newEntry(o ModelOptions) *entry {
	if o.Platform == "" {
		o.Platform = "onnx_onnxv1"
	}
	names := []string{o.Name}
	for _, alias := range o.Aliases {
		if !slices.Contains(names, alias) {
			names = append(names, alias)
		}
	}
	return &entry{
		ModelOptions: o, names: names,
		turn: make(chan struct{}, 1), state: stateUnavailable, reason: untouched,
	}
}

func (e *entry) set(s state, reason string) {
	e.mu.Lock()
	e.state, e.reason = s, reason
	e.mu.Unlock()
}

func (e *entry) look() (state, string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state, e.reason
}

// take waits for the turn to load or unload; the caller gives it back with <-e.turn.
func (e *entry) take(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return zarpa.AsError(ctx.Err())
	}
}

// ready is the model, or why there is none.
func (e *entry) ready() (*model, error) {
	if m := e.model.Load(); m != nil {
		return m, nil
	}
	switch s, reason := e.look(); s {
	case stateUnloading, stateUnavailable:
		if reason != untouched {
			return nil, zarpa.Errorf(zarpa.Unavailable, "Request for unknown model: '%s' is not loaded: %s", e.Name, reason).
				WithHint("load it: POST …/v2/repository/models/%s/load at the endpoint or replica that serves it", e.Name)
		}
	case stateLoading, stateReady: // which it became this moment: the caller comes again
	}
	return nil, &zarpa.Error{Code: zarpa.Unavailable, Message: "the model is still loading", Hint: "try again soon", RetryAfter: retryAfter}
}

// load brings the model into memory. A model that is there already stays as it is.
func (s *Server) load(ctx context.Context, e *entry) error {
	if err := e.take(ctx); err != nil {
		return err
	}
	defer func() { <-e.turn }()
	if e.model.Load() != nil {
		return nil
	}
	e.set(stateLoading, "")
	began := time.Now()
	session, err := e.Load(ctx)
	if err != nil {
		e.set(stateUnavailable, zarpa.AsError(err).Message)
		return err
	}
	took := time.Since(began)
	e.model.Store(s.describe(e, session))
	e.set(stateReady, "")
	s.metrics.loaded.WithLabelValues(e.Name).Set(took.Seconds())
	s.opts.Log.Info("model loaded", "model", e.Name, "version", e.Version, "took", took)
	return nil
}

// unload takes the model out of memory when its last run has ended. New requests are refused at
// once. What is not in memory stays so.
func (s *Server) unload(ctx context.Context, e *entry) error {
	if err := e.take(ctx); err != nil {
		return err
	}
	defer func() { <-e.turn }()
	m := e.model.Swap(nil)
	if m == nil {
		e.set(stateUnavailable, "unloaded")
		return nil
	}
	e.set(stateUnloading, "")
	err := m.close()
	e.set(stateUnavailable, "unloaded")
	s.metrics.loaded.WithLabelValues(e.Name).Set(0)
	s.opts.Log.Info("model unloaded", "model", e.Name, "version", e.Version)
	return err
}

// LoadAll loads every model, one after the other, and then makes the server ready. It ends at the
// first that does not load; those before it stay in memory until [Server.Close].
func (s *Server) LoadAll(ctx context.Context) error {
	for _, e := range s.entries {
		if err := s.load(ctx, e); err != nil {
			return s.named(e, err)
		}
	}
	s.started.Store(true)
	s.onReady.Do(func() { close(s.ready) })
	return nil
}

// named puts the model's name before an error of its load, where there are several.
func (s *Server) named(e *entry, err error) error {
	if len(s.entries) == 1 {
		return err
	}
	named := *zarpa.AsError(err)
	named.Message = "model " + e.Name + ": " + named.Message
	return &named
}

// Close unloads every model; it comes after [Server.Serve] has returned. It waits for running
// runs, whose contexts have ended by then.
func (s *Server) Close() error {
	var errs []error
	for _, e := range s.entries {
		errs = append(errs, s.unload(context.Background(), e))
	}
	return errors.Join(errs...)
}

// find is the entry that answers to a name.
func (s *Server) find(name string) (*entry, error) {
	for _, e := range s.entries {
		if slices.Contains(e.names, name) {
			return e, nil
		}
	}
	return nil, s.unknownModel(name)
}

func (s *Server) unknownModel(name string) error {
	var known []string
	for _, e := range s.entries {
		known = append(known, e.names...)
	}
	return zarpa.Errorf(zarpa.NotFound, "Request for unknown model: '%.200s' is not found", name).
		WithHint("this replica serves %s", strings.Join(known, ", "))
}

// version checks a version that a request named; empty is any.
func (e *entry) version(name, version string) error {
	if version == "" || version == e.Version {
		return nil
	}
	return zarpa.Errorf(zarpa.NotFound, "Request for unknown model: '%s' version %.40s is not found", name, version).
		WithHint("this replica serves version %s", e.Version)
}

// controlled refuses clients' loads and unloads where the setting does.
func (s *Server) controlled() error {
	if s.opts.ModelControl == zarpa.ModelControlExplicit {
		return nil
	}
	return zarpa.Errorf(zarpa.Invalid, "explicit model load / unload is not allowed").
		WithHint("set model_control to explicit (zarpa score --model-control explicit)")
}
