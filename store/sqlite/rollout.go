package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/zarpa-dev/zarpa"
)

type rollouts struct{ run runner }

var _ zarpa.Rollouts = rollouts{}

// Create implements zarpa.Rollouts. The record begins with version 0.
func (s rollouts) Create(ctx context.Context, r zarpa.Rollout) error {
	r.Version = 0
	return s.run.write(ctx, "create rollout "+r.ID, func(ctx context.Context, q querier) error {
		var running string
		err := q.QueryRowContext(ctx, "SELECT id FROM rollouts WHERE endpoint = ? AND over = 0", r.Endpoint).Scan(&running)
		if err == nil && !r.State.Over() {
			return zarpa.Errorf(zarpa.Conflict, "endpoint %q: another rollout is under way (%s)", r.Endpoint, running).
				WithHint("wait for its end, or end it: zarpa rollout %s --abort", r.Endpoint)
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		_, err = q.ExecContext(ctx, "INSERT INTO rollouts (id, endpoint, version, over, rollout) VALUES (?, ?, ?, ?, ?)",
			r.ID, r.Endpoint, r.Version, r.State.Over(), doc(&r))
		if violated(err) {
			return zarpa.Errorf(zarpa.Conflict, "rollout %q: it exists already", r.ID).Because(err)
		}
		return err
	})
}

// Update implements zarpa.Rollouts.
func (s rollouts) Update(ctx context.Context, r zarpa.Rollout) error {
	stored := r
	stored.Version++
	return s.run.write(ctx, "update rollout "+r.ID, func(ctx context.Context, q querier) error {
		var version int64
		err := q.QueryRowContext(ctx, "SELECT version, endpoint FROM rollouts WHERE id = ?", r.ID).Scan(&version, &stored.Endpoint)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return zarpa.Errorf(zarpa.NotFound, "rollout %q: there is none", r.ID).WithHint("old rollouts are removed some time after their end")
		case err != nil:
			return err
		case version != r.Version:
			return zarpa.Errorf(zarpa.Conflict, "rollout %q: it has changed meanwhile", r.ID).WithHint("read it again and repeat the change")
		}
		_, err = q.ExecContext(ctx, "UPDATE rollouts SET version = ?, over = ?, rollout = ? WHERE id = ?", stored.Version, r.State.Over(), doc(&stored), r.ID)
		if violated(err) {
			return zarpa.Errorf(zarpa.Conflict, "endpoint %q: another rollout is under way", stored.Endpoint).Because(err)
		}
		return err
	})
}

// List implements zarpa.Rollouts.
func (s rollouts) List(ctx context.Context, endpoint string, limit int) (list []zarpa.Rollout, err error) {
	if limit <= 0 {
		limit = -1 // SQLite's "no limit"
	}
	err = s.run.read(ctx, "list rollouts", func(ctx context.Context, q querier) error {
		sel := query("SELECT rollout FROM rollouts ORDER BY sequence DESC LIMIT ?", limit)
		if endpoint != "" {
			sel = query("SELECT rollout FROM rollouts WHERE endpoint = ? ORDER BY sequence DESC LIMIT ?", endpoint, limit)
		}
		list, err = all(ctx, q, sel, func(row scanner) (r zarpa.Rollout, err error) { return r, row.Scan(doc(&r)) })
		return err
	})
	return list, err
}

// Prune implements zarpa.Rollouts.
func (s rollouts) Prune(ctx context.Context, keep int) error {
	return pruning{"rollouts", "over = 1"}.run(ctx, s.run, keep)
}
