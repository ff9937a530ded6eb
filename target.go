package zarpa

import (
	"context"
	"io"
	"time"
)

// Target is a place where replicas run.
type Target struct {
	Name string `json:"name"`
	// Kind names the driver: "process" or "container".
	Kind string `json:"kind"`
	// Options are the driver's settings, by the names that its documentation tells. None is a secret.
	Options map[string]string `json:"options,omitempty"`
	Created time.Time         `json:"created"`
}

// TargetSpec is what a user says of a target that is new or changes.
type TargetSpec struct {
	Name    string            `json:"name"`
	Kind    string            `json:"kind"`
	Options map[string]string `json:"options,omitempty"`
	// Unchecked takes a target that cannot be reached now.
	Unchecked bool `json:"unchecked,omitempty"`
}

// TargetStatus is what is known of a target at this moment.
type TargetStatus struct {
	Target Target `json:"target"`
	// Problem is why it cannot be asked; empty when it was.
	Problem *Error `json:"problem,omitempty"`
	// Info is of targets that tell it, and Capacity as well.
	Info     *TargetInfo     `json:"info,omitempty"`
	Capacity *CapacityReport `json:"capacity,omitempty"`
	// Deployments are those on it, as ENDPOINT/DEPLOYMENT, in order.
	Deployments []string `json:"deployments"`
}

// Targets keeps targets.
type Targets interface {
	// Put creates or replaces a target.
	Put(ctx context.Context, t Target) error
	// Get returns a target or not_found.
	Get(ctx context.Context, name string) (Target, error)
	// List returns all, ordered by name.
	List(ctx context.Context) ([]Target, error)
	// Delete removes a target; removing what is gone is no error.
	Delete(ctx context.Context, name string) error
}

// Driver makes one target match deployments. It is declarative: a crash at any point heals by
// calling again. The driver labels all that it makes, and Observe trusts labels before memory:
// a driver made anew over the same target sees what an earlier one left running.
//
// All methods may be called from many goroutines; the reconciler never calls two for one
// deployment at a time. They return soon (seconds, not minutes): starting and stopping go on
// behind them. Implementations prove themselves with package targettest.
type Driver interface {
	// Apply takes one idempotent step towards d: starts replicas that are missing and stops
	// replicas that are too many, of another revision or broken. It need not wait for them.
	//
	// Replacement loses no request: a replica of an earlier revision, or one too many, stays
	// ready until enough replicas of the wanted revision are ready; then Observe reports it as
	// draining, and only an Apply that follows such an Observe stops it, so that the routes can
	// leave it in between. A broken replica is started again with a growing delay.
	//
	// Errors: invalid when d can never run here, unavailable when it cannot now, overloaded when the
	// target is full: what had room was started, and the handle is valid.
	Apply(ctx context.Context, d Deployment) (Handle, error)
	// Observe reports what runs now, or not_found when nothing of the handle does. It changes
	// nothing but the marks that Apply's comment tells of.
	Observe(ctx context.Context, h Handle) (DeploymentStatus, error)
	// Remove stops every replica of the handle, letting running requests end within the
	// deployment's drain timeout, and forgets it. It need not wait: Observe answers not_found
	// when nothing is left. Removing what is gone is no error.
	Remove(ctx context.Context, h Handle) error
}

// Handle is a driver's own note about one deployment. Others store it unread.
type Handle struct {
	Version int    `json:"version"`
	Data    []byte `json:"data"`
}

// IsZero reports whether there is no note.
func (h Handle) IsZero() bool { return h.Version == 0 && len(h.Data) == 0 }

// Logger is an optional power of a driver: reading what replicas printed.
type Logger interface {
	// Logs streams lines until ctx ends (Follow) or all is read. The caller closes it.
	// not_found when the handle or the replica is unknown.
	Logs(ctx context.Context, h Handle, q LogQuery) (io.ReadCloser, error)
}

// LogQuery selects log lines.
type LogQuery struct {
	// Replica is a replica's ID; empty takes all, each line led by "[ID] ".
	Replica string
	// Previous reads the last dead run of a replica in place of the running one.
	Previous bool
	// Follow goes on as lines are written.
	Follow bool
	// Tail is the number of lines to begin with, per replica; 0 is all that is kept.
	Tail int
}

// Notifier is an optional power of a driver: saying at once that something changed.
type Notifier interface {
	// Notify sets the function that is called, from any goroutine and without blocking, with the
	// key (ENDPOINT/DEPLOYMENT) of a deployment whose status changed. It is set before first use.
	Notify(changed func(key string))
}

// Checker is an optional power of a driver: telling what can never run before anything is stored.
type Checker interface {
	// Check returns invalid for a deployment that Apply would refuse as invalid whatever else runs. The
	// defaults of spec are filled in. It changes nothing and asks nobody.
	Check(spec DeploymentSpec) error
}

// Describer is an optional power of a driver: telling what is at the other end of it.
type Describer interface {
	// Describe asks the target itself; unavailable when it cannot be reached.
	Describe(ctx context.Context) (TargetInfo, error)
}

// TargetInfo is what a target tells of itself.
type TargetInfo struct {
	// Engine is its name and version: "Docker 28.1.0", "Podman 4.3.1".
	Engine string `json:"engine"`
	// Platform is what its replicas run on: "linux/amd64".
	Platform string `json:"platform"`
	// Notes are what it cannot do, in words for the user.
	Notes []string `json:"notes,omitempty"`
}

// Preparer is an optional power of a driver: bringing what a deployment runs from to its target, which
// may take minutes, before it is applied.
type Preparer interface {
	// Prepare returns when all that d needs is on the target: soon, when it is there already. It may be
	// called again at any time, and for several deployments at a time. progress gets the lines of a log.
	// Errors: invalid or not_found when trying again does not help, unavailable otherwise.
	Prepare(ctx context.Context, d Deployment, progress func(line string)) error
}

// Replacer is an optional power of a driver: replacing one replica without downtime.
type Replacer interface {
	// Replace marks a replica, durably: it becomes like one of an earlier revision, which serves until
	// another one is ready, and the Applies that follow replace it. Marking twice is marking once.
	// not_found when the handle or the replica is unknown.
	Replace(ctx context.Context, h Handle, id string) error
}

// Capacity is an optional power of a driver: telling how much its target can run.
type Capacity interface {
	// Capacity returns what the target has and what its replicas take of it, at this moment.
	Capacity(ctx context.Context) (CapacityReport, error)
}

// CapacityReport is what a target can run, and what runs there. What is 0 of MaxReplicas, CPU and Memory
// is unknown, or unbounded.
type CapacityReport struct {
	// MaxReplicas is what the target refuses to go beyond, and Replicas how many there are.
	MaxReplicas int `json:"max_replicas,omitempty"`
	Replicas    int `json:"replicas"`
	// Of are the replicas by [ReplicasOf]; nil is unknown.
	Of map[string]int `json:"of,omitempty"`
	// CPU and Memory are the machine's, UsedCPU and UsedMemory what the deployments ask for all their
	// replicas. The target may run more than that, slowly: scaling does not.
	CPU        CPU   `json:"cpu,omitempty"`
	UsedCPU    CPU   `json:"used_cpu"`
	Memory     Bytes `json:"memory,omitempty"`
	UsedMemory Bytes `json:"used_memory"`
}

// ReplicasOf is the key of a deployment in [CapacityReport].Of.
func ReplicasOf(endpoint, deployment string) string { return endpoint + "/" + deployment }

// Slots is how many more replicas the target accepts; -1 is unknown.
func (r CapacityReport) Slots() int {
	if r.MaxReplicas == 0 {
		return -1
	}
	return max(0, r.MaxReplicas-r.Replicas)
}

// Room is how many more replicas of a deployment the machine has processors and memory for; -1 is
// unknown: it has no such bound, or the deployment asks for none.
func (r CapacityReport) Room(d DeploymentSpec) int {
	room := -1
	if r.CPU > 0 && d.CPU > 0 {
		room = max(0, int((r.CPU-r.UsedCPU)/d.CPU+1e-9))
	}
	if r.Memory > 0 && d.Memory > 0 {
		fits := max(0, int((r.Memory-r.UsedMemory)/d.Memory))
		if room < 0 || fits < room {
			room = fits
		}
	}
	return room
}

// With is the report when so many more replicas of a deployment ran.
func (r CapacityReport) With(d DeploymentSpec, replicas int) CapacityReport {
	r.Replicas += replicas
	r.UsedCPU += CPU(replicas) * d.CPU
	r.UsedMemory += Bytes(replicas) * d.Memory
	return r
}

// DeploymentStatus is what a driver observed.
type DeploymentStatus struct {
	// Revision is the one that the last Apply asked for.
	Revision string    `json:"revision,omitempty"`
	Replicas []Replica `json:"replicas"`
	// Enforced names the limits that the target really enforces ("cpu 0.5 (cgroup v1)"), and
	// those it cannot, with the reason.
	Enforced []string `json:"enforced,omitempty"`
	// Message says what is in the way, in words for the user; empty when nothing is.
	Message string `json:"message,omitempty"`
}

// Ready counts the replicas of a revision that may get requests; "" counts all.
func (s DeploymentStatus) Ready(revision string) int {
	n := 0
	for _, r := range s.Replicas {
		if r.Phase == ReplicaReady && (revision == "" || r.Revision == revision) {
			n++
		}
	}
	return n
}

// Count counts the replicas in a phase.
func (s DeploymentStatus) Count(phase ReplicaPhase) int {
	n := 0
	for _, r := range s.Replicas {
		if r.Phase == phase {
			n++
		}
	}
	return n
}

// ReplicaPhase is where a replica is in its life.
//
//	starting ──► loading ──► ready ⇄ unready
//	    │           │          │        │
//	    └───────────┴──────────┴────────┴──► backoff ──► starting …
//	                           └──► draining ──► (gone)
type ReplicaPhase string

// The phases of a replica.
const (
	ReplicaStarting ReplicaPhase = "starting" // the process or container is being made
	ReplicaLoading  ReplicaPhase = "loading"  // it runs and loads the model
	ReplicaReady    ReplicaPhase = "ready"    // it may get requests
	ReplicaUnready  ReplicaPhase = "unready"  // it runs but failed its readiness probe
	ReplicaDraining ReplicaPhase = "draining" // it gets no new requests and will be stopped
	ReplicaBackoff  ReplicaPhase = "backoff"  // it died and is started again after a delay
)

// Replica is one running copy of a deployment.
type Replica struct {
	// ID is unique within the target and stays the same over restarts.
	ID       string       `json:"id"`
	Revision string       `json:"revision"`
	Phase    ReplicaPhase `json:"phase"`
	// Address is how the gateway reaches it: "unix:/path" or "http://host:port"; empty before it is known.
	Address string `json:"address,omitempty"`
	PID     int    `json:"pid,omitempty"`
	// Container is the id of the container that it runs in; empty for one that runs in none.
	Container string    `json:"container,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	// Loaded is how long the start took, from the start of the process to ready.
	Loaded   Duration `json:"loaded,omitempty"`
	Restarts int      `json:"restarts,omitempty"`
	// NextStart is when a replica in backoff is started again.
	NextStart time.Time `json:"next_start,omitzero"`
	// Last is how the run before ended; nil when there was none.
	Last *Exit `json:"last,omitempty"`
	// Message says what is in the way; empty when nothing is.
	Message string `json:"message,omitempty"`
}

// Exit is how one run of a replica ended.
type Exit struct {
	At time.Time `json:"at"`
	// Code is the exit code; -1 when a signal ended it, when it ended unseen (Unknown), or when it
	// could not be started.
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"`
	// OutOfMemory is set when the kernel ended it for going over its memory limit.
	OutOfMemory bool `json:"out_of_memory,omitempty"`
	// Unknown is set when nobody was there to see the exit code: the control plane was down.
	Unknown bool `json:"unknown,omitempty"`
	// Ready tells whether this run ever became ready.
	Ready bool `json:"ready,omitempty"`
	// Reason is a sentence: "the model could not be loaded: …".
	Reason string `json:"reason"`
	// Log holds the last lines it printed, at most 20.
	Log []string `json:"log,omitempty"`
}

// ExitLoadFailed is the exit code of a replica whose model cannot be loaded: starting it again
// will not help until something changes.
const ExitLoadFailed = 3
