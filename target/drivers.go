package target

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/zarpa-dev/zarpa"
)

// drivers are those of all targets by name. They come and go while endpoints are stepped.
type drivers struct {
	mu  sync.RWMutex
	all map[string]zarpa.Driver
}

func (d *drivers) get(target string) (zarpa.Driver, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	driver, ok := d.all[target]
	return driver, ok
}

func (d *drivers) set(target string, driver zarpa.Driver, changed func(key string)) {
	if n, ok := driver.(zarpa.Notifier); ok {
		n.Notify(changed)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[string]zarpa.Driver{}
	}
	d.all[target] = driver
}

// SetDriver makes a target known, or gives it another driver: steps that are under way end with the one
// that they began with.
func (r *Reconciler) SetDriver(target string, d zarpa.Driver) {
	r.drivers.set(target, d, r.notified)
	r.wakeAll(context.Background())
}

// DropDriver forgets a target. Deployments that name it stay as they are; those that are being removed are
// gone when the store does not know the target any more.
func (r *Reconciler) DropDriver(target string) {
	r.drivers.mu.Lock()
	delete(r.drivers.all, target)
	r.drivers.mu.Unlock()
	r.wakeAll(context.Background())
}

// missing says why a target has no driver: not_found when it does not exist, and unavailable when it does.
func (r *Reconciler) missing(ctx context.Context, target string) error {
	_, err := r.o.Store.Nouns().Targets.Get(ctx, target)
	switch {
	case errors.Is(err, zarpa.ErrNotFound):
		return zarpa.Errorf(zarpa.NotFound, "target %q does not exist", target).WithHint("zarpa target list shows those that do")
	case err != nil:
		return err
	}
	return zarpa.Errorf(zarpa.Unavailable, "target %q cannot be used: it could not be opened", target).
		WithHint("the log of zarpa up says why; zarpa target set %s changes its options", target)
}

// notified wakes the endpoint of a deployment, ENDPOINT/DEPLOYMENT, that a driver tells of.
func (r *Reconciler) notified(key string) {
	endpoint, _, _ := strings.Cut(key, "/")
	r.Wake(endpoint)
}

// power is an optional power of a target's driver.
func power[T any](r *Reconciler, target string) (T, bool) {
	d, _ := r.drivers.get(target)
	p, ok := d.(T)
	return p, ok
}

// Logger is the power of an observed deployment's driver to read logs; unavailable without it.
func (r *Reconciler) Logger(o zarpa.Observed) (zarpa.Logger, error) {
	if l, ok := power[zarpa.Logger](r, o.Target); ok {
		return l, nil
	}
	return nil, zarpa.Errorf(zarpa.Unavailable, "target %q keeps no logs", o.Target)
}

// Replace has one replica of an observed deployment replaced by another, which is ready before the
// first goes; unavailable when the deployment's driver has no such power.
func (r *Reconciler) Replace(ctx context.Context, o zarpa.Observed, id string) error {
	d, ok := power[zarpa.Replacer](r, o.Target)
	if !ok {
		return zarpa.Errorf(zarpa.Unavailable, "target %q cannot replace single replicas", o.Target).
			WithHint("zarpa endpoint restart %s replaces all", o.Endpoint)
	}
	if err := d.Replace(ctx, o.Handle, id); err != nil {
		return err
	}
	r.Wake(o.Endpoint)
	return nil
}

// Check asks the deployment's driver, when it has the power, whether it can ever run there. The
// defaults of spec are filled in.
func (r *Reconciler) Check(spec zarpa.DeploymentSpec) error {
	if c, ok := power[zarpa.Checker](r, spec.Target); ok {
		return c.Check(spec)
	}
	return nil
}

// Capacity asks a target's driver, when it has the power, how much the target can run; unavailable
// without it.
func (r *Reconciler) Capacity(ctx context.Context, target string) (zarpa.CapacityReport, error) {
	if c, ok := power[zarpa.Capacity](r, target); ok {
		return c.Capacity(ctx)
	}
	return zarpa.CapacityReport{}, zarpa.Errorf(zarpa.Unavailable, "target %q does not tell its capacity", target)
}

// Describe asks a target's driver, when it has the power, what is there; a target without it tells nothing, and
// one without a driver is an error.
func (r *Reconciler) Describe(ctx context.Context, target string) (zarpa.TargetInfo, error) {
	if _, ok := r.drivers.get(target); !ok {
		return zarpa.TargetInfo{}, r.missing(ctx, target)
	}
	if d, ok := power[zarpa.Describer](r, target); ok {
		return d.Describe(ctx)
	}
	return zarpa.TargetInfo{}, nil
}
