package zarpa

import "context"

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
