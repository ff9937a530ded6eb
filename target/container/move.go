package container

import (
	"context"
	"path/filepath"

	"github.com/zarpa-dev/zarpa"
)

// CheckMove asks the engine of the options whether it holds what runs by the state directory's notes, before a driver
// is opened over it with another host: conflict when it does not, as another engine would run it once more, and
// unavailable when it cannot be asked.
func CheckMove(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	o = o.withDefaults()
	h, err := o.endpoint()
	if err != nil {
		return err
	}
	noted, err := running(o.Dir)
	if err != nil || len(noted) == 0 {
		return err
	}
	engine, err := dial(o, h)
	if err != nil {
		return err
	}
	defer engine.Close() //nolint:errcheck // idle connections
	all, err := (&runner{o: o, host: h, engine: engine}).list(ctx, "")
	if err != nil {
		return err
	}
	for _, c := range all {
		delete(noted, c.ID)
	}
	if len(noted) == 0 {
		return nil
	}
	return zarpa.Errorf(zarpa.Conflict, "target %q: the engine at %v lacks %d containers that run on this target: it is another one", o.Target, h, len(noted)).
		WithHint("add it as a target of its own, and move the deployments there; where the containers are gone for good, --unchecked takes it all the same")
}

// running are the containers that the notes of a state directory tell to run, by ID.
func running(dir string) (map[string]bool, error) {
	folders, err := filepath.Glob(filepath.Join(dir, "replicas", "*"))
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, folder := range folders {
		if n := readNote(folder); !n.Started.IsZero() && !n.Ended {
			ids[n.Container] = true
		}
	}
	return ids, nil
}
