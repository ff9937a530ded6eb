// Package replica keeps replicas alive for drivers that run them from this process: it plans
// what to start and stop, probes, restarts with a growing delay, drains, and remembers on disk
// what a later process needs to go on. A driver brings a [Runner], which starts single runs.
// Engines that do all this by themselves (a cluster) have no use for it.
package replica

import (
	"context"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Start tells a Runner which replica is meant.
type Start struct {
	// ID is the replica's; it is the same for all its runs.
	ID string
	// Deployment is what it was made for.
	Deployment zarpa.Deployment
	// Dir is a directory of the replica's own; empty when the set keeps no notes.
	Dir string
}

// Runner starts single runs. It is called from many goroutines, but never twice at a time for
// one replica (Lines aside).
type Runner interface {
	// Start starts a run and returns when it exists; it need not be ready. The error's text is
	// shown to the user. ctx bounds the start alone.
	Start(ctx context.Context, s Start) (Run, error)
	// Find takes over the run that an earlier process left, dead or alive; fs.ErrNotExist when
	// there is none. Sets that keep no notes never call it.
	Find(ctx context.Context, s Start) (Run, error)
	// Forget removes what the runner keeps of a replica that is gone, its Dir aside.
	Forget(s Start)
	// Lines emits what a replica printed, as the LogRead says.
	Lines(ctx context.Context, s Start, q LogRead, emit func(line string) error) error
}

// Run is one life of a replica.
type Run interface {
	// Info is what is known since the start.
	Info() Info
	// Done is closed when the run has ended.
	Done() <-chan struct{}
	// Exit tells how, once Done is closed.
	Exit() zarpa.Exit
	// Stop asks the run to end, lets requests that are under way end within grace, then kills it.
	// It returns when the run has ended or ctx has, whichever is first.
	Stop(ctx context.Context, grace time.Duration) error
	// Release stops watching the run and leaves it as it is.
	Release()
}

// Remote is an optional power of a Run: telling that what runs it cannot be asked now. Probes that fail meanwhile
// condemn no run: the way to it may be what is broken, and nothing could stop it now.
type Remote interface {
	// Away reports whether it cannot be asked now. It returns at once.
	Away() bool
}

// Info describes a run.
type Info struct {
	Address   string // as in [zarpa.Replica]
	PID       int
	Container string
	Started   time.Time
	Enforced  []string // as in [zarpa.DeploymentStatus]
}

// LogRead says which lines are wanted.
type LogRead struct {
	Tail     int  // 0 is all
	Previous bool // those of the newest run that has ended; the runner alone knows which that is
	Follow   bool
	// Gone ends a Follow when the replica is gone.
	Gone <-chan struct{}
}
