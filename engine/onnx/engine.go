//go:build cgo

package onnx

import (
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/zarpa-dev/zarpa"
)

// Engine runs ONNX models. It opens the library at its first Load, and the process keeps it open.
type Engine struct {
	opts    Options
	loading sync.WaitGroup
}

var _ zarpa.Engine = (*Engine)(nil)

// New makes an engine. It does nothing yet: a missing library is the error of the first Load.
func New(opts Options) *Engine { return &Engine{opts: opts} }

// Close waits for loads whose callers have left. Sessions are closed by their owners.
func (e *Engine) Close() error {
	e.loading.Wait()
	return nil
}

type loaded struct {
	session *session
	err     error
}

// Load opens the model as [zarpa.Engine] says. A load whose caller leaves goes on until the runtime
// is done, and then gives its memory back.
func (e *Engine) Load(ctx context.Context, dir string, opts zarpa.LoadOptions) (zarpa.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, zarpa.AsError(err)
	}
	file, err := modelFile(dir, opts.File)
	if err != nil {
		return nil, err
	}
	libraryPath, err := find(e.opts.Library, places())
	if err != nil {
		return nil, err
	}
	lib, err := open(libraryPath, e.opts.Log)
	if err != nil {
		return nil, err
	}
	done := make(chan loaded) // without room: what is not received is closed
	abandoned := make(chan struct{})
	e.loading.Go(func() {
		s, err := load(lib, file, opts.Threads)
		select {
		case done <- loaded{s, err}:
		case <-abandoned:
			if s != nil {
				s.Close() //nolint:errcheck // nobody waits for it any more
			}
		}
	})
	select {
	case l := <-done:
		if l.err != nil {
			return nil, l.err
		}
		return l.session, nil
	case <-ctx.Done():
		close(abandoned)
		return nil, zarpa.AsError(ctx.Err())
	}
}

// modelFile is the path of the model in dir.
func modelFile(dir, file string) (string, error) {
	if file == "" {
		found, err := onlyModel(dir)
		if err != nil {
			return "", err
		}
		file = found
	}
	if err := zarpa.ValidatePath(file); err != nil {
		return "", err
	}
	full := filepath.Join(dir, filepath.FromSlash(file))
	if info, err := os.Stat(full); err != nil || !info.Mode().IsRegular() {
		return "", zarpa.Errorf(zarpa.Invalid, "model file %q: not a file in the model's folder", file).Because(err)
	}
	return full, nil
}

// onlyModel is model.onnx, or else the one .onnx file at the top of dir.
func onlyModel(dir string) (string, error) {
	entries, err := fs.ReadDir(os.DirFS(dir), ".")
	if err != nil {
		return "", zarpa.Errorf(zarpa.Invalid, "the model's folder cannot be read").Because(err)
	}
	var models []string
	for _, entry := range entries {
		if entry.Name() == "model.onnx" {
			return entry.Name(), nil
		}
		if !entry.IsDir() && path.Ext(entry.Name()) == ".onnx" {
			models = append(models, entry.Name())
		}
	}
	switch len(models) {
	case 1:
		return models[0], nil
	case 0:
		return "", zarpa.Errorf(zarpa.Invalid, "no .onnx file in the model's folder")
	}
	return "", zarpa.Errorf(zarpa.Invalid, "several .onnx files in the model's folder: %.200q", models).WithHint("name the main one model.onnx")
}

// load makes a session of a file.
func load(lib *library, file string, threads int) (*session, error) {
	opts, err := sessionOptions(threads)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Internal, "ONNX Runtime: session options: %w", err)
	}
	defer opts.Destroy() //nolint:errcheck // frees memory; says nothing
	native, err := ort.NewDynamicAdvancedSession(file, nil, nil, opts)
	if err != nil {
		return nil, loadError(lib, err)
	}
	s, err := newSession(lib, native)
	if err != nil {
		native.Destroy() //nolint:errcheck // the first error counts
		return nil, err
	}
	return s, nil
}

// sessionOptions are the settings of every session: one Run uses `threads` threads and no other
// pool, and a thread without work sleeps instead of spinning, so that an idle model costs nothing.
func sessionOptions(threads int) (*ort.SessionOptions, error) {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	opts, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	for _, set := range []func() error{
		func() error { return opts.SetIntraOpNumThreads(threads) },
		func() error { return opts.SetInterOpNumThreads(1) },
		func() error { return opts.SetExecutionMode(ort.ExecutionModeSequential) },
		func() error { return opts.SetLogSeverityLevel(ort.LoggingLevelFatal) },
		func() error { return opts.AddSessionConfigEntry("session.intra_op.allow_spinning", "0") },
	} {
		if err := set(); err != nil {
			opts.Destroy() //nolint:errcheck // the first error counts
			return nil, err
		}
	}
	return opts, nil
}

// sessionPointer is the native session inside the binding's, which the binding keeps to itself.
func sessionPointer(native *ort.DynamicAdvancedSession) unsafe.Pointer {
	return reflect.ValueOf(native).Elem().FieldByName("s").Elem().FieldByName("ortSession").UnsafePointer()
}

// loadError says in the runtime's words why a model does not load. The words choose the hint and
// nothing else: the binding drops the runtime's code.
func loadError(lib *library, err error) error {
	text := bounded(innermost(err).Error())
	if head, tail, found := strings.Cut(text, " failed:"); found && strings.HasPrefix(head, "Load model from ") {
		text = tail // without the path
	}
	text, _, _ = strings.Cut(text, " resolved path:") // nor others of this machine
	text = withoutSource(text)
	failure := zarpa.Errorf(zarpa.Invalid, "ONNX Runtime %s cannot load the model: %s", lib.version, text).Because(err)
	for _, h := range loadHints {
		for _, word := range h.words {
			if strings.Contains(text, word) {
				return failure.WithHint("%s", h.hint)
			}
		}
	}
	return failure
}

// withoutSource drops the place in the runtime's own source that leads some of its messages:
// "/onnxruntime_src/…/file.h:46 void f(int, …) message".
func withoutSource(text string) string {
	head, tail, found := strings.Cut(text, "/onnxruntime_src/")
	if !found {
		return text
	}
	_, message, ok := strings.Cut(tail, ") ")
	if !ok {
		return text
	}
	if _, opset, ok := strings.Cut(message, "Opset "); ok {
		number, _, _ := strings.Cut(opset, " ")
		return "it uses opset " + number + ", which this release does not know"
	}
	return strings.TrimSpace(head + message)
}

var loadHints = []struct {
	words []string
	hint  string
}{
	{[]string{"Protobuf parsing failed"}, "the file is damaged or no ONNX model: export it again"},
	{[]string{"Opset", "opset", "IR version"}, "export the model with an older opset"},
	{[]string{"not a registered function/op", "No Op registered", "Could not find an implementation"}, "export the model with operators of ONNX Runtime's CPU build"},
	{[]string{"external data", "External data", "external_data", "ExternalData"}, "put the external data file into the model's folder, where the model says"},
	{[]string{"bad_alloc", "Failed to allocate memory"}, "the model does not fit into memory: give the replica more"},
}
