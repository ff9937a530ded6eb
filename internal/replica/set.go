package replica

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Options configure a Set. Zero fields but Runner take the defaults.
type Options struct {
	Runner Runner
	// Dir keeps the notes; empty keeps none, and a restart finds nothing.
	Dir     string
	Log     *slog.Logger
	Probes  Probes
	Backoff Backoff
	// MaxReplicas bounds the replicas of all deployments together.
	MaxReplicas int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// The defaults of Options. A second death within a minute of being ready is no accident; half a
// minute between attempts neither burns the machine nor makes a repaired one wait long.
const (
	DefaultMaxReplicas  = 256
	DefaultFirstBackoff = 100 * time.Millisecond
	DefaultMaxBackoff   = 30 * time.Second
	DefaultResetBackoff = time.Minute
)

func (o Options) withDefaults() Options {
	o.Probes = o.Probes.withDefaults()
	o.Backoff.First = cmp.Or(o.Backoff.First, DefaultFirstBackoff)
	o.Backoff.Max = cmp.Or(o.Backoff.Max, DefaultMaxBackoff)
	o.Backoff.Reset = cmp.Or(o.Backoff.Reset, DefaultResetBackoff)
	o.MaxReplicas = cmp.Or(o.MaxReplicas, DefaultMaxReplicas)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Set is all the replicas of one target. It is a complete driver.
type Set struct {
	o     Options
	notes notes

	// ctx ends with Close; replicas live in goroutines that life waits for.
	stop context.CancelFunc
	live func(*slot, Run) // starts the goroutine of a slot
	life sync.WaitGroup

	// mu guards what follows and the fields of deployments and slots that say so. It is never
	// held over I/O. A deployment's serial lock is taken before it.
	mu          sync.Mutex
	deployments map[string]*deployment
	notify      func(key string)
	changed     chan struct{} // closed and made anew with every change
	closed      bool
}

var (
	_ zarpa.Driver   = (*Set)(nil)
	_ zarpa.Logger   = (*Set)(nil)
	_ zarpa.Notifier = (*Set)(nil)
	_ zarpa.Checker  = (*Set)(nil)
	_ zarpa.Replacer = (*Set)(nil)
)

// deployment is one wanted deployment and its replicas.
type deployment struct {
	key string
	// serial orders the calls for one deployment, with their I/O.
	serial sync.Mutex

	// guarded by Set.mu
	want    zarpa.Deployment
	removed bool
	slots   []*slot
	message string // of the last Apply
	adding  int    // replicas that an Apply is about to make: their places are taken
}

// Open makes a set and takes over what an earlier one over the same directory left running. It
// returns when everything that was ready is known to be so again; ctx bounds that alone.
func Open(ctx context.Context, o Options) (*Set, error) {
	s := &Set{o: o.withDefaults(), notes: notes{dir: o.Dir}, deployments: map[string]*deployment{}, changed: make(chan struct{})}
	if err := s.notes.open(); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.live = func(l *slot, run Run) { s.life.Go(func() { l.live(running, run) }) }
	if err := s.adopt(ctx); err != nil {
		stop()
		return nil, err
	}
	return s, nil
}

func (s *Set) deployment(key string) *deployment {
	d, ok := s.deployments[key]
	if !ok {
		d = &deployment{key: key}
		s.deployments[key] = d
	}
	return d
}

// Apply is [zarpa.Driver].Apply.
func (s *Set) Apply(ctx context.Context, d zarpa.Deployment) (zarpa.Handle, error) {
	if err := ctx.Err(); err != nil {
		return zarpa.Handle{}, fmt.Errorf("apply %s: %w", d.Key(), err)
	}
	if err := s.check(d); err != nil {
		return zarpa.Handle{}, err
	}
	d.Handle = zarpa.Handle{}
	dep, unlock, err := s.claim(d.Key())
	if err != nil {
		return zarpa.Handle{}, err
	}
	defer unlock()
	if err := s.want(dep, d); err != nil {
		return zarpa.Handle{}, err
	}
	stop, start, full := s.next(dep)
	defer s.giveBack(dep)
	for _, l := range stop {
		l.halt()
	}
	for range start {
		if err := ctx.Err(); err != nil {
			return zarpa.Handle{}, fmt.Errorf("apply %s: %w", d.Key(), err)
		}
		if err := s.add(dep); err != nil {
			return zarpa.Handle{}, err
		}
	}
	return zarpa.Handle{Version: 1, Data: []byte(d.Key())}, full
}

func (s *Set) check(d zarpa.Deployment) error {
	if err := zarpa.ValidateName("endpoint", d.Endpoint); err != nil {
		return err
	}
	if err := zarpa.ValidateName("deployment", d.Spec.Name); err != nil {
		return err
	}
	return s.Check(d.Spec)
}

// Check is [zarpa.Checker].Check.
func (s *Set) Check(spec zarpa.DeploymentSpec) error {
	if spec.Replicas < 0 || spec.Replicas > s.o.MaxReplicas {
		return zarpa.Errorf(zarpa.Invalid, "deployment %q: replicas: %d is not between 0 and %d, the limit of this target",
			spec.Name, spec.Replicas, s.o.MaxReplicas).WithHint("use fewer replicas or another target")
	}
	if spec.Scale != nil && *spec.Scale.Min > s.o.MaxReplicas {
		return zarpa.Errorf(zarpa.Invalid, "deployment %q: scale.min: %d is more than %d, the limit of this target",
			spec.Name, *spec.Scale.Min, s.o.MaxReplicas).WithHint("use a lower min or another target")
	}
	return nil
}

// claim locks a deployment, made when it is new. One that was forgotten while the lock was
// waited for is made anew.
func (s *Set) claim(key string) (*deployment, func(), error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, nil, zarpa.Errorf(zarpa.Unavailable, "the driver is closed")
		}
		dep := s.deployment(key)
		s.mu.Unlock()
		dep.serial.Lock()
		s.mu.Lock()
		same := s.deployments[key] == dep
		s.mu.Unlock()
		if same {
			return dep, dep.serial.Unlock, nil
		}
		dep.serial.Unlock()
	}
}

// want notes what is wanted, on disk first.
func (s *Set) want(dep *deployment, d zarpa.Deployment) error {
	s.mu.Lock()
	same := dep.want.Key() == d.Key() && !dep.removed && equal(dep.want, d)
	s.mu.Unlock()
	if same {
		return nil
	}
	if err := s.notes.saveWish(wish{Deployment: d}); err != nil {
		return unavailable("the wish for "+d.Key()+" cannot be noted", err)
	}
	s.mu.Lock()
	dep.want, dep.removed = d, false
	s.mu.Unlock()
	return nil
}

func equal(a, b zarpa.Deployment) bool {
	return a.Revision() == b.Revision() && a.Spec.Replicas == b.Spec.Replicas && a.Spec.Model == b.Spec.Model &&
		a.Spec.StartTimeout == b.Spec.StartTimeout && a.Spec.DrainTimeout == b.Spec.DrainTimeout &&
		a.Spec.MaxSurge == b.Spec.MaxSurge && a.Spec.MaxUnavailable == b.Spec.MaxUnavailable
}

func unavailable(what string, err error) error {
	text := err.Error()
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		text = pe.Err.Error()
	}
	return zarpa.Errorf(zarpa.Unavailable, "%s: %s", what, text).Because(err).
		WithHint("see that the data directory is writable and its disk is not full")
}

// next decides what to stop and how many to start, whose places it takes; the error says why some are
// missing all the same.
func (s *Set) next(dep *deployment) (stop []*slot, start int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := decide(dep.wanted(s.free()), dep.views())
	for _, i := range p.stop {
		stop = append(stop, dep.slots[i])
	}
	dep.message, dep.adding = "", p.start
	if p.short > 0 {
		err = zarpa.Errorf(zarpa.Overloaded, "%s: this target runs at most %d replicas, and has no room for %d more", dep.key, s.o.MaxReplicas, p.short).
			WithHint("use fewer replicas, another target or a higher limit (zarpa target set --quota; of this machine zarpa up --max-replicas); an update needs room for one more, or --max-unavailable 1")
		dep.message = err.Error()
	}
	return stop, p.start, err
}

func (d *deployment) views() []view {
	revision := d.want.Revision()
	var out []view
	for _, l := range d.slots {
		out = append(out, view{ordinal: l.note.Ordinal, current: l.revision == revision && !l.note.Replace, phase: l.phase, stopping: l.stopping, exposed: l.exposed})
	}
	return out
}

// add makes one more replica.
func (s *Set) add(dep *deployment) error {
	s.mu.Lock()
	want, ordinal := dep.want, dep.ordinal()
	s.mu.Unlock()
	for {
		id := fmt.Sprintf("%s-%d.%s", want.Spec.Name, ordinal, strings.ToLower(rand.Text()[:4]))
		err := s.notes.claim(id)
		if errors.Is(err, fs.ErrExist) || err == nil && s.taken(id) {
			continue
		}
		n := note{ID: id, Ordinal: ordinal, Deployment: want}
		if err == nil {
			err = s.notes.save(n)
		}
		if err != nil {
			_ = s.notes.forget(id) // half made: removed when the driver starts anew at the latest
			return unavailable("replica "+id+" cannot be made", err)
		}
		l := newSlot(s, dep, n)
		s.mu.Lock()
		dep.slots = append(dep.slots, l)
		dep.adding--
		s.mu.Unlock()
		s.live(l, nil)
		return nil
	}
}

// taken only bites in sets without notes: directories are taken by being made.
func (s *Set) taken(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slot(id) != nil
}

func (s *Set) slot(id string) *slot {
	for _, d := range s.deployments {
		for _, l := range d.slots {
			if l.note.ID == id {
				return l
			}
		}
	}
	return nil
}

// ordinal is the smallest that no replica has.
func (d *deployment) ordinal() int {
	for n := 0; ; n++ {
		if !slices.ContainsFunc(d.slots, func(l *slot) bool { return l.note.Ordinal == n }) {
			return n
		}
	}
}

// Observe is [zarpa.Driver].Observe.
func (s *Set) Observe(ctx context.Context, h zarpa.Handle) (zarpa.DeploymentStatus, error) {
	if err := ctx.Err(); err != nil {
		return zarpa.DeploymentStatus{}, fmt.Errorf("observe: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dep, err := s.find(h)
	if err != nil {
		return zarpa.DeploymentStatus{}, err
	}
	p := decide(dep.wanted(s.free()), dep.views())
	status := zarpa.DeploymentStatus{Revision: dep.want.Revision(), Replicas: []zarpa.Replica{}, Message: dep.message}
	for i, l := range dep.slots {
		leaving := l.stopping || slices.Contains(p.leaving, i)
		r := l.observe(leaving)
		status.Replicas = append(status.Replicas, r)
		if status.Message == "" && r.Phase == zarpa.ReplicaBackoff && r.Message != "" {
			status.Message = "replica " + r.ID + ": " + r.Message
		}
		for _, limit := range l.info.Enforced {
			if !slices.Contains(status.Enforced, limit) {
				status.Enforced = append(status.Enforced, limit)
			}
		}
	}
	return status, nil
}

// find needs mu.
func (s *Set) find(h zarpa.Handle) (*deployment, error) {
	if h.Version > 1 {
		return nil, zarpa.Errorf(zarpa.Invalid, "the driver's handle is of version %d, this program knows 1", h.Version).
			WithHint("run the newer version of zarpa that made it")
	}
	dep, ok := s.deployments[string(h.Data)]
	if !ok || dep.removed && len(dep.slots) == 0 || dep.want.Endpoint == "" {
		return nil, zarpa.Errorf(zarpa.NotFound, "deployment %q does not run on this target", h.Data)
	}
	return dep, nil
}

// Remove is [zarpa.Driver].Remove.
func (s *Set) Remove(ctx context.Context, h zarpa.Handle) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	s.mu.Lock()
	dep, err := s.find(h)
	s.mu.Unlock()
	if errors.Is(err, zarpa.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	dep, unlock, err := s.claim(dep.key)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	want, known := dep.want, dep.want.Endpoint != ""
	s.mu.Unlock()
	if known {
		if err := s.notes.saveWish(wish{Deployment: want, Removed: true}); err != nil {
			return unavailable("the removal of "+dep.key+" cannot be noted", err)
		}
	}
	s.mu.Lock()
	dep.removed, dep.message = true, ""
	slots := slices.Clone(dep.slots)
	s.mu.Unlock()
	for _, l := range slots {
		l.halt()
	}
	s.tidy(dep)
	return nil
}

// tidy forgets a removed deployment that has no replicas left. The caller holds dep.serial.
func (s *Set) tidy(dep *deployment) {
	s.mu.Lock()
	empty := dep.removed && len(dep.slots) == 0 && s.deployments[dep.key] == dep
	s.mu.Unlock()
	if !empty {
		return
	}
	if err := s.notes.forgetWish(dep.key); err != nil {
		s.o.Log.Warn("the note of a removed deployment stays", "deployment", dep.key, "error", err)
	}
	s.mu.Lock()
	delete(s.deployments, dep.key)
	s.mu.Unlock()
	s.tell(dep.key)
}

// Bundles are the digests of what its replicas run, and of what they would be started with again.
func (s *Set) Bundles() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var digests []string
	for _, d := range s.deployments {
		digests = append(digests, d.want.Bundle)
		for _, l := range d.slots {
			digests = append(digests, l.note.Deployment.Bundle)
		}
	}
	return digests
}

// Notify is [zarpa.Notifier].Notify.
func (s *Set) Notify(changed func(key string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify = changed
}

// tell wakes everybody who waits for a change.
func (s *Set) tell(key string) {
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	notify := s.notify
	s.mu.Unlock()
	if notify != nil {
		notify(key)
	}
}

// Close stops watching and leaves every run as it is: a set opened later takes them over.
func (s *Set) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.life.Wait()
	return nil
}

// StopAll removes every deployment and waits until nothing runs or ctx ends.
func (s *Set) StopAll(ctx context.Context) error {
	s.mu.Lock()
	var keys []string
	for key := range s.deployments {
		keys = append(keys, key)
	}
	s.mu.Unlock()
	var failed error
	for _, key := range keys {
		failed = errors.Join(failed, s.Remove(ctx, zarpa.Handle{Version: 1, Data: []byte(key)}))
	}
	for failed == nil {
		s.mu.Lock()
		n, changed := len(s.deployments), s.changed
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("stop all replicas: %w", ctx.Err())
		}
	}
	return failed
}
