package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/zarpa-dev/zarpa"
)

type endpoints struct{ run runner }

var _ zarpa.Endpoints = endpoints{}

const endpointColumns = "name, generation, deleting, created, updated, spec"

func scanEndpoint(row scanner) (zarpa.Endpoint, error) {
	var e zarpa.Endpoint
	err := row.Scan(&e.Name, &e.Generation, &e.Deleting, at(&e.Created), at(&e.Updated), doc(&e.Spec))
	return e, err
}

// Put implements zarpa.Endpoints.
func (s endpoints) Put(ctx context.Context, e zarpa.Endpoint) error {
	return s.run.write(ctx, "put endpoint "+e.Name, func(ctx context.Context, q querier) error {
		var stored int64
		err := q.QueryRowContext(ctx, "SELECT generation FROM endpoints WHERE name = ?", e.Name).Scan(&stored)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if stored != e.Generation-1 {
			return zarpa.Errorf(zarpa.Conflict, "endpoint %q: somebody else changed it meanwhile (generation %d is stored, this change makes %d)", e.Name, stored, e.Generation).
				WithHint("read the endpoint again and repeat the change")
		}
		_, err = q.ExecContext(ctx, "INSERT INTO endpoints ("+endpointColumns+`) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET generation = excluded.generation, deleting = excluded.deleting,
			updated = excluded.updated, spec = excluded.spec`,
			e.Name, e.Generation, e.Deleting, at(&e.Created), at(&e.Updated), doc(&e.Spec))
		return err
	})
}

// Get implements zarpa.Endpoints.
func (s endpoints) Get(ctx context.Context, name string) (e zarpa.Endpoint, err error) {
	err = s.run.read(ctx, "get endpoint "+name, func(ctx context.Context, q querier) error {
		e, err = scanEndpoint(q.QueryRowContext(ctx, "SELECT "+endpointColumns+" FROM endpoints WHERE name = ?", name))
		if errors.Is(err, sql.ErrNoRows) {
			return zarpa.Errorf(zarpa.NotFound, "endpoint %q: there is none", name).WithHint("list the endpoints with: zarpa endpoint list")
		}
		return err
	})
	return e, err
}

// List implements zarpa.Endpoints.
func (s endpoints) List(ctx context.Context) (list []zarpa.Endpoint, err error) {
	err = s.run.read(ctx, "list endpoints", func(ctx context.Context, q querier) error {
		list, err = all(ctx, q, query("SELECT "+endpointColumns+" FROM endpoints ORDER BY name"), scanEndpoint)
		return err
	})
	return list, err
}

// Delete implements zarpa.Endpoints.
func (s endpoints) Delete(ctx context.Context, name string) error {
	return s.run.write(ctx, "delete endpoint "+name, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM endpoints WHERE name = ?", name)
		return err
	})
}

type keys struct{ run runner }

var _ zarpa.Keys = keys{}

// Put implements zarpa.Keys.
func (s keys) Put(ctx context.Context, k zarpa.SealedKeys) error {
	return s.run.write(ctx, "put the keys of "+k.Endpoint, func(ctx context.Context, q querier) error {
		sealed := append([]byte{}, k.Sealed...) // never NULL
		_, err := q.ExecContext(ctx, "INSERT OR REPLACE INTO keys (endpoint, sealed, updated) VALUES (?, ?, ?)", k.Endpoint, sealed, at(&k.Updated))
		return err
	})
}

// Get implements zarpa.Keys.
func (s keys) Get(ctx context.Context, endpoint string) (zarpa.SealedKeys, error) {
	k := zarpa.SealedKeys{Endpoint: endpoint}
	err := s.run.read(ctx, "get the keys of "+endpoint, func(ctx context.Context, q querier) error {
		err := q.QueryRowContext(ctx, "SELECT sealed, updated FROM keys WHERE endpoint = ?", endpoint).Scan(&k.Sealed, at(&k.Updated))
		if errors.Is(err, sql.ErrNoRows) {
			return zarpa.Errorf(zarpa.NotFound, "endpoint %q: it has no keys", endpoint)
		}
		return err
	})
	return k, err
}

// Delete implements zarpa.Keys.
func (s keys) Delete(ctx context.Context, endpoint string) error {
	return s.run.write(ctx, "delete the keys of "+endpoint, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM keys WHERE endpoint = ?", endpoint)
		return err
	})
}
