package zarpa

import (
	"context"
	"time"
)

// Operation is one asynchronous change of an endpoint, with its phases. At most one runs per
// endpoint.
type Operation struct {
	ID string `json:"id"`
	// Kind is "deploy", "update", "delete" or [OperationTraffic].
	Kind     string `json:"kind"`
	Endpoint string `json:"endpoint"`
	// Generation is the endpoint's generation that it brings about.
	Generation int64 `json:"generation"`
	// Revision counts the updates of this record: readers wait for it to grow.
	Revision int64          `json:"revision"`
	State    OperationState `json:"state"`
	Phases   []Phase        `json:"phases"`
	Created  time.Time      `json:"created"`
	Ended    time.Time      `json:"ended,omitzero"`
	// Error is why it failed.
	Error *Error `json:"error,omitempty"`
	// Who asked for it.
	Who string `json:"who,omitempty"`
	// Before is the endpoint's spec from before the change, to go back to; nil when it was new.
	Before *EndpointSpec `json:"before,omitempty"`
}

// OperationTraffic is the kind of an operation that changes nothing but who gets the traffic: it ends
// when the gateway follows, whatever becomes of the replicas.
const OperationTraffic = "traffic"

// OperationState is where an operation is.
type OperationState string

// The states of an operation; the last two are final.
const (
	OperationRunning   OperationState = "running"
	OperationSucceeded OperationState = "succeeded"
	OperationFailed    OperationState = "failed"
)

// Phase is one step of an operation.
type Phase struct {
	// Name is "validate", "environment", "package", "image", "start", "load", "route", "drain" or "remove".
	Name       string         `json:"name"`
	Deployment string         `json:"deployment,omitempty"`
	State      OperationState `json:"state"`
	Started    time.Time      `json:"started"`
	Ended      time.Time      `json:"ended,omitzero"`
	// Detail says what happened: "iris:3, 1 of 2 replicas".
	Detail string `json:"detail,omitempty"`
	// Cause, Hint and Log tell why it failed or waits, what to do, and what was printed last.
	Cause string   `json:"cause,omitempty"`
	Hint  string   `json:"hint,omitempty"`
	Log   []string `json:"log,omitempty"`
}

// Operations keeps operations.
type Operations interface {
	// Create stores a new operation in state running. When another one runs for the same
	// endpoint it is a conflict whose Operation field names that one.
	Create(ctx context.Context, o Operation) error
	// Update replaces State, Phases, Ended and Error and adds one to Revision; not_found when there
	// is none.
	Update(ctx context.Context, o Operation) error
	// Get returns one or not_found.
	Get(ctx context.Context, id string) (Operation, error)
	// List returns the operations of an endpoint, of all for an empty name, newest first, at
	// most limit (0: no limit).
	List(ctx context.Context, endpoint string, limit int) ([]Operation, error)
	// Prune deletes ended operations but the newest keep of every endpoint.
	Prune(ctx context.Context, keep int) error
}
