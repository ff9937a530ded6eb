package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/zarpa-dev/zarpa"
)

type secrets struct{ run runner }

var _ zarpa.Secrets = secrets{}

const secretColumns = "name, sealed, created, updated"

func scanSecret(row scanner) (zarpa.Secret, error) {
	var s zarpa.Secret
	err := row.Scan(&s.Name, &s.Sealed, at(&s.Created), at(&s.Updated))
	return s, err
}

// Put implements zarpa.Secrets.
func (s secrets) Put(ctx context.Context, v zarpa.Secret) error {
	return s.run.write(ctx, "put secret "+v.Name, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "INSERT INTO secrets ("+secretColumns+") VALUES (?, ?, ?, ?) "+
			"ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, updated = excluded.updated",
			v.Name, v.Sealed, at(&v.Created), at(&v.Updated))
		return err
	})
}

// Get implements zarpa.Secrets.
func (s secrets) Get(ctx context.Context, name string) (v zarpa.Secret, err error) {
	err = s.run.read(ctx, "get secret "+name, func(ctx context.Context, q querier) error {
		v, err = scanSecret(q.QueryRowContext(ctx, "SELECT "+secretColumns+" FROM secrets WHERE name = ?", name))
		if errors.Is(err, sql.ErrNoRows) {
			return zarpa.Errorf(zarpa.NotFound, "secret %q does not exist", name).WithHint("zarpa secret list shows those that do")
		}
		return err
	})
	return v, err
}

// List implements zarpa.Secrets.
func (s secrets) List(ctx context.Context) (list []zarpa.Secret, err error) {
	err = s.run.read(ctx, "list secrets", func(ctx context.Context, q querier) error {
		list, err = all(ctx, q, query("SELECT "+secretColumns+" FROM secrets ORDER BY name"), scanSecret)
		return err
	})
	return list, err
}

// Delete implements zarpa.Secrets.
func (s secrets) Delete(ctx context.Context, name string) error {
	return s.run.write(ctx, "delete secret "+name, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM secrets WHERE name = ?", name)
		return err
	})
}
