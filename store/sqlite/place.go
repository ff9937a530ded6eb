package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/zarpa-dev/zarpa"
)

type deployments struct{ run runner }

var _ zarpa.Deployments = deployments{}

const deploymentColumns = "endpoint, deployment, target, handle_version, handle, status, weight"

func scanDeployment(row scanner) (zarpa.Observed, error) {
	var o zarpa.Observed
	err := row.Scan(&o.Endpoint, &o.Deployment, &o.Target, &o.Handle.Version, &o.Handle.Data, doc(&o.Status), &o.Weight)
	return o, err
}

// Put implements zarpa.Deployments.
func (s deployments) Put(ctx context.Context, o zarpa.Observed) error {
	return s.run.write(ctx, "put deployment "+o.Endpoint+"/"+o.Deployment, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "INSERT OR REPLACE INTO deployments ("+deploymentColumns+") VALUES (?, ?, ?, ?, ?, ?, ?)",
			o.Endpoint, o.Deployment, o.Target, o.Handle.Version, o.Handle.Data, doc(&o.Status), o.Weight)
		return err
	})
}

// List implements zarpa.Deployments.
func (s deployments) List(ctx context.Context, endpoint string) (list []zarpa.Observed, err error) {
	err = s.run.read(ctx, "list deployments", func(ctx context.Context, q querier) error {
		sel := query("SELECT " + deploymentColumns + " FROM deployments ORDER BY endpoint, deployment, target")
		if endpoint != "" {
			sel = query("SELECT "+deploymentColumns+" FROM deployments WHERE endpoint = ? ORDER BY deployment, target", endpoint)
		}
		list, err = all(ctx, q, sel, scanDeployment)
		return err
	})
	return list, err
}

// Delete implements zarpa.Deployments.
func (s deployments) Delete(ctx context.Context, o zarpa.Observed) error {
	return s.run.write(ctx, "delete deployment "+o.Endpoint+"/"+o.Deployment, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM deployments WHERE endpoint = ? AND deployment = ? AND target = ?", o.Endpoint, o.Deployment, o.Target)
		return err
	})
}

type targets struct{ run runner }

var _ zarpa.Targets = targets{}

const targetColumns = "name, kind, options, created"

func scanTarget(row scanner) (zarpa.Target, error) {
	var t zarpa.Target
	err := row.Scan(&t.Name, &t.Kind, doc(&t.Options), at(&t.Created))
	return t, err
}

// Put implements zarpa.Targets.
func (s targets) Put(ctx context.Context, t zarpa.Target) error {
	return s.run.write(ctx, "put target "+t.Name, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "INSERT OR REPLACE INTO targets ("+targetColumns+") VALUES (?, ?, ?, ?)", t.Name, t.Kind, doc(&t.Options), at(&t.Created))
		return err
	})
}

// Get implements zarpa.Targets.
func (s targets) Get(ctx context.Context, name string) (t zarpa.Target, err error) {
	err = s.run.read(ctx, "get target "+name, func(ctx context.Context, q querier) error {
		t, err = scanTarget(q.QueryRowContext(ctx, "SELECT "+targetColumns+" FROM targets WHERE name = ?", name))
		if errors.Is(err, sql.ErrNoRows) {
			return zarpa.Errorf(zarpa.NotFound, "target %q: there is none", name).WithHint("list the targets with: zarpa target list")
		}
		return err
	})
	return t, err
}

// List implements zarpa.Targets.
func (s targets) List(ctx context.Context) (list []zarpa.Target, err error) {
	err = s.run.read(ctx, "list targets", func(ctx context.Context, q querier) error {
		list, err = all(ctx, q, query("SELECT "+targetColumns+" FROM targets ORDER BY name"), scanTarget)
		return err
	})
	return list, err
}

// Delete implements zarpa.Targets.
func (s targets) Delete(ctx context.Context, name string) error {
	return s.run.write(ctx, "delete target "+name, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM targets WHERE name = ?", name)
		return err
	})
}
