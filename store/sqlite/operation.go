package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/zarpa-dev/zarpa"
)

type operations struct{ run runner }

var _ zarpa.Operations = operations{}

const operationColumns = "id, kind, endpoint, generation, revision, state, created, ended, phases, error, who, before"

func scanOperation(row scanner) (zarpa.Operation, error) {
	var o zarpa.Operation
	err := row.Scan(&o.ID, &o.Kind, &o.Endpoint, &o.Generation, &o.Revision, &o.State,
		at(&o.Created), at(&o.Ended), doc(&o.Phases), doc(&o.Error), &o.Who, doc(&o.Before))
	return o, err
}

func noOperation(id string) error {
	return zarpa.Errorf(zarpa.NotFound, "operation %q: there is none", id).WithHint("old operations are removed some time after their end")
}

// inTheWay is a conflict when another operation than id runs for the endpoint.
func inTheWay(ctx context.Context, q querier, id, endpoint string) error {
	var running, kind string
	err := q.QueryRowContext(ctx, "SELECT id, kind FROM operations WHERE endpoint = ? AND state = ? AND id <> ?",
		endpoint, zarpa.OperationRunning, id).Scan(&running, &kind)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	e := zarpa.Errorf(zarpa.Conflict, "endpoint %q: another operation runs (%s, %s)", endpoint, kind, running).WithHint("wait for its end; zarpa deploy, apply, traffic and endpoint set take its place with --interrupt")
	e.Operation = running
	return e
}

// Create implements zarpa.Operations. The record begins with revision 0.
func (s operations) Create(ctx context.Context, o zarpa.Operation) error {
	return s.run.write(ctx, "create operation "+o.ID, func(ctx context.Context, q querier) error {
		if err := inTheWay(ctx, q, o.ID, o.Endpoint); err != nil {
			return err
		}
		_, err := q.ExecContext(ctx, "INSERT INTO operations ("+operationColumns+") VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
			o.ID, o.Kind, o.Endpoint, o.Generation, zarpa.OperationRunning, at(&o.Created), at(&o.Ended), doc(&o.Phases), doc(&o.Error),
			o.Who, doc(&o.Before))
		if violated(err) {
			return zarpa.Errorf(zarpa.Conflict, "operation %q: it exists already", o.ID).Because(err)
		}
		return err
	})
}

// Update implements zarpa.Operations.
func (s operations) Update(ctx context.Context, o zarpa.Operation) error {
	return s.run.write(ctx, "update operation "+o.ID, func(ctx context.Context, q querier) error {
		var endpoint string
		err := q.QueryRowContext(ctx, "SELECT endpoint FROM operations WHERE id = ?", o.ID).Scan(&endpoint)
		if errors.Is(err, sql.ErrNoRows) {
			return noOperation(o.ID)
		}
		if err != nil {
			return err
		}
		if o.State == zarpa.OperationRunning {
			if err := inTheWay(ctx, q, o.ID, endpoint); err != nil {
				return err
			}
		}
		_, err = q.ExecContext(ctx, "UPDATE operations SET revision = revision + 1, state = ?, ended = ?, phases = ?, error = ? WHERE id = ?",
			o.State, at(&o.Ended), doc(&o.Phases), doc(&o.Error), o.ID)
		return err
	})
}

// Get implements zarpa.Operations.
func (s operations) Get(ctx context.Context, id string) (o zarpa.Operation, err error) {
	err = s.run.read(ctx, "get operation "+id, func(ctx context.Context, q querier) error {
		o, err = scanOperation(q.QueryRowContext(ctx, "SELECT "+operationColumns+" FROM operations WHERE id = ?", id))
		if errors.Is(err, sql.ErrNoRows) {
			return noOperation(id)
		}
		return err
	})
	return o, err
}

// List implements zarpa.Operations.
func (s operations) List(ctx context.Context, endpoint string, limit int) (list []zarpa.Operation, err error) {
	if limit <= 0 {
		limit = -1 // SQLite's "no limit"
	}
	err = s.run.read(ctx, "list operations", func(ctx context.Context, q querier) error {
		sel := query("SELECT "+operationColumns+" FROM operations ORDER BY sequence DESC LIMIT ?", limit)
		if endpoint != "" {
			sel = query("SELECT "+operationColumns+" FROM operations WHERE endpoint = ? ORDER BY sequence DESC LIMIT ?", endpoint, limit)
		}
		list, err = all(ctx, q, sel, scanOperation)
		return err
	})
	return list, err
}

// Prune implements zarpa.Operations.
func (s operations) Prune(ctx context.Context, keep int) error {
	return pruning{"operations", "state <> '" + string(zarpa.OperationRunning) + "'"}.run(ctx, s.run, keep)
}

// pruning deletes rows of a table with a sequence and an endpoint; over says which may go.
type pruning struct{ table, over string }

// run leaves the newest keep of those that are over of every endpoint.
func (p pruning) run(ctx context.Context, r runner, keep int) error {
	if keep < 0 {
		return zarpa.Errorf(zarpa.Invalid, "keep: %d %s is not a number to keep", keep, p.table).WithHint("keep 0 or more")
	}
	return r.write(ctx, "prune "+p.table, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, `DELETE FROM `+p.table+` WHERE sequence IN (
			SELECT sequence FROM (
				SELECT sequence, row_number() OVER (PARTITION BY endpoint ORDER BY sequence DESC) AS age
				FROM `+p.table+` WHERE `+p.over+`)
			WHERE age > ?)`, keep)
		return err
	})
}
