package zarpa

import (
	"context"
	"net/http"
)

// Engine loads models of one format. Implementations prove themselves with package enginetest.
type Engine interface {
	// Load opens the model in dir for running; threads in opts bound the processors that one Run
	// uses. It returns when the model answers, so that a replica that has loaded is ready.
	//
	// Errors: invalid when the model cannot be run (broken file, unknown operator, an opset the
	// runtime lacks), unavailable when the engine's own library is missing or too old. A canceled
	// ctx ends the wait, not always the work. Load may be called from several goroutines.
	Load(ctx context.Context, dir string, opts LoadOptions) (Session, error)
}

// LoadOptions are the settings of a model in memory.
type LoadOptions struct {
	// File is the model's file inside dir, slash-separated; empty lets the engine find it.
	File string
	// Format is the model's; an engine of one format need not look at it.
	Format string
	// Threads is the number of threads one Run may use; 0 lets the engine take one per processor.
	Threads int
}

// Session is one model in memory.
type Session interface {
	// Signature is what the runtime itself says the model takes and gives. The caller must not
	// change it.
	Signature() Signature
	// Run executes the model once. Inputs come by name in any order; optional ones may be left
	// out. Outputs come in the signature's order, each named; wanted limits them to the names in
	// it, nil wants all. The result is the caller's. Run may be called from many goroutines.
	//
	// Errors: invalid for an unknown or missing input, a wrong type, rank or size (named);
	// model_error when the model itself failed; canceled or timeout when ctx ended, in which case
	// the work was told to stop.
	Run(ctx context.Context, in []Tensor, wanted []string) ([]Tensor, error)
	// Close gives the memory back, after running calls have returned. Run after Close is an
	// unavailable error. Closing twice is no error.
	Close() error
}

// Streamer is what a [Session] may be beside: one whose model answers a request in parts, as they
// come to be. Its Run gives the whole answer at once, in the form that the engine finds fit.
type Streamer interface {
	// Stream executes the model once and gives each part of the answer to emit, in order, before
	// it works on the next one. A part has any of the outputs, as Run would give them; wanted
	// limits them, as in Run. A part belongs to emit. There may be no part at all. An error of
	// emit ends the work and is returned as it is. Stream may be called from many goroutines; it
	// calls emit from its own one only, and not after it has returned.
	//
	// Errors are those of Run; they may come after parts. Close waits for it, as for Run.
	Stream(ctx context.Context, in []Tensor, wanted []string, emit func(part []Tensor) error) error
}

// Scorer is what a [Session] may be beside: one whose model, a scoring script, answers the requests
// of /score itself, so that they are not read as tensors. Such a session may have no signature.
type Scorer interface {
	// Score answers one request of /score, of any method; body is what the request had, decompressed,
	// and r.Body is not read. It writes the whole answer, in parts where the script does so. It may be
	// called from many goroutines and waits for its turn. body must not be changed after it returned.
	//
	// Errors mean that nothing was written, unless w was flushed: canceled or timeout when the
	// request's context ended, overloaded, or model_error when the script's process died.
	Score(w http.ResponseWriter, r *http.Request, body []byte) error
	// Swagger is the description of /score in a version of the format: "2" or "2.0", "3" or "3.0", "3.1".
	// Another version, and one that cannot express the script's schemas, is a not_found error.
	Swagger(version string) ([]byte, error)
}
