package sqlite

import (
	"context"

	"github.com/zarpa-dev/zarpa"
)

type scalings struct{ run runner }

var _ zarpa.Scalings = scalings{}

func scanScaling(row scanner) (zarpa.Scaling, error) {
	var s zarpa.Scaling
	err := row.Scan(doc(&s))
	return s, err
}

// Put implements zarpa.Scalings.
func (s scalings) Put(ctx context.Context, r zarpa.Scaling) error {
	return s.run.write(ctx, "put scaling "+r.Endpoint+"/"+r.Deployment, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "INSERT OR REPLACE INTO scalings (endpoint, deployment, scaling) VALUES (?, ?, ?)", r.Endpoint, r.Deployment, doc(&r))
		return err
	})
}

// List implements zarpa.Scalings.
func (s scalings) List(ctx context.Context, endpoint string) (list []zarpa.Scaling, err error) {
	err = s.run.read(ctx, "list scalings", func(ctx context.Context, q querier) error {
		sel := query("SELECT scaling FROM scalings ORDER BY endpoint, deployment")
		if endpoint != "" {
			sel = query("SELECT scaling FROM scalings WHERE endpoint = ? ORDER BY deployment", endpoint)
		}
		list, err = all(ctx, q, sel, scanScaling)
		return err
	})
	return list, err
}

// Delete implements zarpa.Scalings.
func (s scalings) Delete(ctx context.Context, endpoint, deployment string) error {
	return s.run.write(ctx, "delete scaling "+endpoint+"/"+deployment, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM scalings WHERE endpoint = ? AND deployment = ?", endpoint, deployment)
		return err
	})
}
