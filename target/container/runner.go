package container

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// runner starts and finds the containers of replicas.
type runner struct {
	o       Options
	host    host
	publish netip.Addr
	engine  *client.Client
	images  *images
	ctx     context.Context //nolint:containedctx // of the driver's life: Forget and watches have no other
	wait    sync.WaitGroup
	back    chan struct{} // told when the engine is back
	slack   time.Duration // stopSlack, outside of tests
	sweeps  lockable      // held by the sweep that runs

	// mu guards what follows; it is never held over I/O.
	mu      sync.Mutex
	about   about
	lost    error             // why the engine cannot be reached; nil when it can
	watched map[string]*run   // by container ID
	newest  map[string]string // container ID of the newest run by replica
	changed chan struct{}     // closed and made anew when newest changes
}

var _ replica.Runner = (*runner)(nil)

const (
	runIDLen = 10 // 50 random bits
	// startTries is how often a start is begun anew when its port or name was taken.
	startTries = 3
	// cleanTimeout bounds the removal of a container that could not be started.
	cleanTimeout = 30 * time.Second
)

// note is run.json.
type note struct {
	Version   int       `json:"version"`
	Container string    `json:"container"`
	Run       string    `json:"run"`
	Address   string    `json:"address,omitempty"`
	PID       int       `json:"pid,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Enforced  []string  `json:"enforced,omitempty"`
	// Ended is set when its end was told to the set.
	Ended bool `json:"ended,omitempty"`
}

const noteVersion = 1

func notePath(dir string) string { return filepath.Join(dir, "run.json") }

// save writes a note; a replica whose directory is gone needs none.
func (n note) save(dir string) error {
	n.Version = noteVersion
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := child.WriteFile(notePath(dir), b); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readNote returns a zero note when there is none, or none that can be read: labels are believed before it.
func readNote(dir string) note {
	var n note
	b, err := os.ReadFile(notePath(dir))
	if err != nil || json.Unmarshal(b, &n) != nil || n.Version > noteVersion {
		return note{}
	}
	return n
}

// told reports whether the end of a container was told to the set. A container is noted before it starts, and the
// next one begins when the end of the one before was told.
func (n note) told(c container.Summary) bool {
	if c.ID == n.Container {
		return n.Ended
	}
	return n.Container != "" && c.State == container.StateExited
}

// list returns the containers of a replica, the newest first; with an empty ID those of all replicas.
func (r *runner) list(ctx context.Context, id string) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	filters := r.own()
	if id != "" {
		filters.Add("label", labelReplica+"="+id)
	}
	res, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, r.failure("list the containers", err)
	}
	slices.SortStableFunc(res.Items, func(a, b container.Summary) int { // the engine's own times are in seconds
		return cmp.Or(cmp.Compare(b.Labels[labelMade], a.Labels[labelMade]), cmp.Compare(b.Created, a.Created))
	})
	return res.Items, nil
}

func (r *runner) inspect(ctx context.Context, id string) (container.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	res, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err == nil && (res.Container.State == nil || res.Container.Config == nil || res.Container.HostConfig == nil) {
		err = fmt.Errorf("the engine told nothing of container %s", id)
	}
	return res.Container, err
}

func (r *runner) remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	_, err := r.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if gone(err) || err != nil && strings.Contains(err.Error(), "already in progress") {
		return nil
	}
	return err
}

// Start is [replica.Runner].Start. A container that an earlier Start made, without anybody learning of it, is taken.
func (r *runner) Start(ctx context.Context, s replica.Start) (replica.Run, error) {
	a, err := r.met(ctx)
	if err != nil {
		return nil, err
	}
	before, err := r.list(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	if found, err := r.settle(ctx, s, before); found != nil || err != nil {
		return found, err
	}
	values, err := r.secrets(ctx, s.Deployment.Spec.Secrets)
	if err != nil {
		return nil, err
	}
	img, err := r.image(ctx, a, s.Deployment.Bundle, func(string) {})
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		c := creation{start: s, run: strings.ToLower(rand.Text()[:runIDLen]), image: img.name, about: a}
		run, err := r.launch(ctx, c, secretFiles{values: values, user: img.user})
		if err == nil {
			return run, nil
		}
		if try == startTries || !retryable(err) {
			return nil, r.failure("start the container", err)
		}
		r.o.Log.Info("the start of a container is tried anew", "replica", s.ID, "error", plain(err))
	}
}

// settle looks through the containers of a replica that is about to be started: one that runs is taken; of the
// dead the newest is kept for its log, the others are removed.
func (r *runner) settle(ctx context.Context, s replica.Start, all []container.Summary) (replica.Run, error) {
	var found replica.Run
	var kept bool
	for _, c := range all {
		switch {
		case c.State == container.StateRunning && found == nil:
			i, err := r.inspect(ctx, c.ID)
			if err == nil && i.State.Running {
				found = r.took(s, i)
				continue
			}
		case c.State == container.StateExited && !kept:
			kept = true
			continue
		}
		err := r.remove(ctx, c.ID)
		if err == nil {
			continue
		}
		if unreachable(err) || c.State == container.StateRunning || ctx.Err() != nil {
			if found != nil {
				found.Release()
			}
			return nil, r.failure("remove an old container", err)
		}
		// What is dead is in nobody's way. Docker keeps some for ever when it was killed while it made them.
		r.o.Log.Warn("a dead container stays", "replica", s.ID, "container", c.ID, "error", err)
	}
	return found, nil
}

// launch makes and starts one container. What could not be started is removed.
func (r *runner) launch(ctx context.Context, c creation, files secretFiles) (_ replica.Run, err error) {
	// Who breaks off while the engine makes a container never learns its ID, and nobody would remove it.
	creating, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.CallTimeout)
	defer cancel()
	made, err := r.engine.ContainerCreate(creating, r.options(c))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
			defer cancel()
			if failed := r.remove(cleaning, made.ID); failed != nil {
				r.o.Log.Warn("a container that could not be started stays until the next sweep", "container", made.ID, "error", failed)
			}
		}
	}()
	starting, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	if len(files.values) > 0 {
		if err := r.putSecrets(starting, made.ID, files); err != nil {
			return nil, err
		}
	}
	if err := (note{Container: made.ID, Run: c.run}).save(c.start.Dir); err != nil {
		return nil, zarpa.Errorf(zarpa.Unavailable, "the start of %s cannot be noted: %v", c.start.ID, err).Because(err).
			WithHint("see that the data directory is writable and its disk is not full")
	}
	if _, err := r.engine.ContainerStart(starting, made.ID, client.ContainerStartOptions{}); err != nil {
		return nil, err
	}
	i, err := r.inspect(ctx, made.ID)
	if err != nil {
		return nil, err
	}
	if i.State.Running && r.address(i) == "" {
		return nil, zarpa.Errorf(zarpa.Invalid, "the engine publishes no port of containers in network %q", cmp.Or(r.o.Network, "default")).
			WithHint("the target's network must not be an internal one")
	}
	return r.took(c.start, i), nil
}

// took makes the run of a container that was started, dead or alive, notes it, and watches it.
func (r *runner) took(s replica.Start, i container.InspectResponse) *run {
	n := note{Container: i.ID, Run: i.Config.Labels[labelRun], Address: r.address(i), Started: when(i.State.StartedAt), Enforced: r.known().enforced(s.Deployment.Spec)}
	if r.host.local() {
		n.PID = i.State.Pid
	}
	if err := n.save(s.Dir); err != nil {
		r.o.Log.Warn("the run of a replica cannot be noted", "replica", s.ID, "error", err)
	}
	return r.watch(s, n)
}

// address is where the gateway calls a container.
func (r *runner) address(i container.InspectResponse) string {
	if i.NetworkSettings != nil {
		for _, b := range i.NetworkSettings.Ports[servedPort] {
			if n, err := strconv.Atoi(b.HostPort); err == nil && n > 0 {
				return "http://" + net.JoinHostPort(r.publish.String(), b.HostPort)
			}
		}
	}
	return ""
}

func when(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 1970 {
		return time.Time{}
	}
	return t.UTC()
}

// Find is [replica.Runner].Find. While the engine is away the note is believed: the run's probe decides whether it
// is ready, and it is looked at when the engine is back.
func (r *runner) Find(ctx context.Context, s replica.Start) (replica.Run, error) {
	n := readNote(s.Dir)
	if _, err := r.met(ctx); err != nil {
		return r.remembered(s, n, err)
	}
	all, err := r.list(ctx, s.ID)
	if err != nil {
		return r.remembered(s, n, err)
	}
	for _, c := range all {
		if c.State == container.StateCreated || n.told(c) {
			continue // never started: the next Start removes it; or known to be dead
		}
		i, err := r.inspect(ctx, c.ID)
		if err != nil {
			return r.remembered(s, n, err)
		}
		return r.took(s, i), nil
	}
	if !n.Started.IsZero() && !n.Ended { // somebody removed it: watching will tell
		return r.watch(s, n), nil
	}
	return nil, fs.ErrNotExist
}

// remembered is the run of a note, when the engine cannot be asked.
func (r *runner) remembered(s replica.Start, n note, err error) (replica.Run, error) {
	if !unreachable(err) && zarpa.AsError(err).Code != zarpa.Unavailable {
		return nil, err
	}
	r.o.Log.Warn("the engine cannot tell of a replica; it is taken as it was noted", "replica", s.ID, "error", err)
	if n.Started.IsZero() || n.Ended {
		return nil, fs.ErrNotExist // Start asks the engine before it makes anything
	}
	return r.watch(s, n), nil
}

// Forget is [replica.Runner].Forget. What it cannot remove is swept when the engine is back.
func (r *runner) Forget(s replica.Start) {
	r.mu.Lock()
	delete(r.newest, s.ID)
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.ctx, cleanTimeout)
	defer cancel()
	all, err := r.list(ctx, s.ID)
	for _, c := range all {
		if failed := r.remove(ctx, c.ID); err == nil {
			err = failed
		}
	}
	if err != nil {
		r.o.Log.Warn("containers of a replica that is gone stay until the next sweep", "replica", s.ID, "error", err)
	}
}
