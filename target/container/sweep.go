package container

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa/internal/child"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// sweepPause is the time between two sweeps.
const sweepPause = 10 * time.Minute

// images remembers which images this driver brought to its engine. Images of a name are shared by all instances on
// an engine, so that labels cannot tell whose they are.
type images struct {
	path string
	now  func() time.Time
	log  *slog.Logger

	mu    sync.Mutex
	locks map[string]lockable
	last  map[string]time.Time // when an image was last used, by name
}

func newImages(o Options) *images {
	m := &images{path: filepath.Join(o.Dir, "images.json"), now: o.Now, log: o.Log, locks: map[string]lockable{}, last: map[string]time.Time{}}
	b, err := os.ReadFile(m.path)
	if err == nil {
		err = json.Unmarshal(b, &m.last)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("the list of images cannot be read; those that are there stay until they are used again", "error", err)
	}
	if m.last == nil {
		m.last = map[string]time.Time{}
	}
	return m
}

// lock keeps an image from being brought twice at a time, and from being removed meanwhile.
func (m *images) lock(ctx context.Context, name string) (func(), error) {
	m.mu.Lock()
	l, ok := m.locks[name]
	if !ok {
		l = make(lockable, 1)
		m.locks[name] = l
	}
	m.mu.Unlock()
	return l.lock(ctx)
}

// used notes that an image is used now.
func (m *images) used(img Image) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, known := m.last[img.Name]
	m.last[img.Name] = m.now()
	for _, stage := range img.Build {
		_, there := m.last[stage.Name]
		known = known && there
		m.last[stage.Name] = m.now()
	}
	if !known {
		m.save()
	}
}

// save needs mu; it is called when an image came or went, which is seldom.
func (m *images) save() {
	b, err := json.Marshal(m.last)
	if err == nil {
		err = child.WriteFile(m.path, b)
	}
	if err != nil {
		m.log.Warn("the list of images cannot be noted", "error", err)
	}
}

// unused are the images that were not used for so long.
func (m *images) unused(d time.Duration) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name, at := range m.last {
		if olderThan(at, m.now(), d) {
			names = append(names, name)
		}
	}
	return names
}

// touch is used for images that are in use still.
func (m *images) touch(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last[name] = m.now()
}

func (m *images) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.last, name)
	m.save()
}

// sweepEvery sweeps at once, after the engine was away, and now and then, until ctx ends. When the engine is back,
// what waits to be started need not wait longer.
func (r *runner) sweepEvery(ctx context.Context, set *replica.Set) {
	for {
		err := r.sweep(ctx)
		if err == nil {
			err = r.sweepImages(ctx, set.Bundles())
		}
		pause := sweepPause
		if err != nil && ctx.Err() == nil {
			r.o.Log.Info("leftovers are not swept yet", "error", err)
			pause = 5 * againEvery
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.back:
			timer.Stop()
			set.Hurry()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Sweep removes the containers of this driver that belong to no replica, and images that were unused for
// [Options].KeepImages. The driver does so by itself; calling it more often does no harm.
func (d *Driver) Sweep(ctx context.Context) error {
	if err := d.runner.sweep(ctx); err != nil {
		return err
	}
	return d.runner.sweepImages(ctx, d.set.Bundles())
}

// sweep removes what belongs to no replica. A replica's directory is there before its first container, and goes after
// its last: a container that is listed, and has no directory after that, is nobody's. Nor is one that the engine has
// started again after the replica's next one.
func (r *runner) sweep(ctx context.Context) error {
	unlock, err := r.sweeps.lock(ctx) // what another one is removing is gone after it
	if err != nil {
		return err
	}
	defer unlock()
	all, err := r.list(ctx, "")
	if err != nil {
		return err
	}
	runs := map[string]bool{} // by replica, whether its newest run was listed, which comes before older ones
	for _, c := range all {
		id := c.Labels[labelReplica]
		former := runs[id] && c.State == container.StateRunning
		runs[id] = runs[id] || c.State == container.StateRunning && r.isNewest(id, c.ID)
		if r.owned(id) && !former {
			continue
		}
		if err := r.remove(ctx, c.ID); unreachable(err) || ctx.Err() != nil {
			return r.failure("remove a leftover container", err)
		} else if err != nil { // it must not keep the others from going
			r.o.Log.Warn("a leftover container stays", "container", c.ID, "replica", c.Labels[labelReplica], "error", err)
			continue
		}
		r.o.Log.Info("a leftover container is removed", "container", c.ID, "replica", c.Labels[labelReplica])
	}
	return r.sweepVolumes(ctx)
}

// isNewest tells whether a container is the newest run of a replica, and watched.
func (r *runner) isNewest(replica, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest[replica] == id && r.watched[id] != nil
}

// owned tells whether a replica of this ID is known.
func (r *runner) owned(id string) bool {
	if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
		return false
	}
	_, err := os.Stat(filepath.Join(r.o.Dir, "replicas", id))
	return !errors.Is(err, fs.ErrNotExist)
}

// sweepVolumes removes volumes of secrets whose container somebody removed without them.
func (r *runner) sweepVolumes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	res, err := r.engine.VolumeList(ctx, client.VolumeListOptions{Filters: r.own().Add("dangling", "true")})
	if err != nil {
		return r.failure("list the volumes", err)
	}
	for _, v := range res.Items {
		_, err := r.engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
		if err != nil && !gone(err) {
			r.o.Log.Info("a leftover volume stays", "volume", v.Name, "error", err)
		}
	}
	return nil
}

// sweepImages removes images that this driver brought, and that neither a container nor a wish uses any more.
func (r *runner) sweepImages(ctx context.Context, bundles []string) error {
	names := r.images.unused(r.o.KeepImages)
	if len(names) == 0 {
		return nil
	}
	wished := map[string]bool{}
	asked := map[string]bool{}
	for _, digest := range bundles {
		if digest == "" || asked[digest] {
			continue
		}
		asked[digest] = true
		img, err := r.o.Images(ctx, digest)
		if err != nil {
			return err // what it needs is unknown: keep all
		}
		wished[img.Name] = true
		for _, stage := range img.Build {
			wished[stage.Name] = true
		}
	}
	for _, name := range names {
		if wished[name] {
			r.images.touch(name)
			continue
		}
		if err := r.removeImage(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) removeImage(ctx context.Context, name string) error {
	unlock, err := r.images.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	_, err = r.engine.ImageRemove(ctx, name, client.ImageRemoveOptions{})
	switch {
	case err == nil, gone(err):
		r.o.Log.Info("an unused image is removed", "image", name)
		r.images.forget(name)
		return nil
	case unreachable(err):
		return r.failure("remove an image", err)
	}
	r.images.touch(name) // a container uses it
	return nil
}

// others counts the containers of other instances and targets.
func (r *runner) others(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	res, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", labelInstance)})
	if err != nil {
		return 0, r.failure("list the containers", err)
	}
	n := 0
	for _, c := range res.Items {
		if c.Labels[labelInstance] != r.o.Instance || c.Labels[labelTarget] != r.o.Target {
			n++
		}
	}
	return n, nil
}
