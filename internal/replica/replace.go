package replica

import (
	"context"
	"fmt"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

// Replace is [zarpa.Replacer].Replace.
func (s *Set) Replace(ctx context.Context, h zarpa.Handle, id string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("replace %s: %w", id, err)
	}
	s.mu.Lock()
	dep, err := s.find(h)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	dep, unlock, err := s.claim(dep.key) // the slots stay while it is held
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	i := slices.IndexFunc(dep.slots, func(l *slot) bool { return l.note.ID == id && !l.stopping })
	if i < 0 {
		s.mu.Unlock()
		return zarpa.Errorf(zarpa.NotFound, "replica %q does not run on this target", id).WithHint("it may have been replaced already")
	}
	l := dep.slots[i]
	s.mu.Unlock()
	if err := l.alter(true, func() { l.note.Replace = true }); err != nil {
		l.change(false, func() { l.note.Replace = false })
		return unavailable("the replacement of "+id+" cannot be noted", err)
	}
	return nil
}
