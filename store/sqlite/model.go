package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/zarpa-dev/zarpa"
)

type models struct{ run runner }

var _ zarpa.Models = models{}

const modelColumns = "name, version, format, created, description, tags, properties, content, signature, framework, framework_version, folder"

func scanModel(row scanner) (zarpa.Model, error) {
	var m zarpa.Model
	err := row.Scan(&m.Name, &m.Version, &m.Format, at(&m.Created), &m.Description,
		doc(&m.Tags), doc(&m.Properties), doc(&m.Content), doc(&m.Signature), &m.Framework, &m.FrameworkVersion, &m.Folder)
	return m, err
}

func noModel(ref zarpa.ModelRef) error {
	return zarpa.Errorf(zarpa.NotFound, "model %q: there is none", ref).WithHint("list the registered models with: zarpa model list")
}

// Create implements zarpa.Models.
func (s models) Create(ctx context.Context, m zarpa.Model) (zarpa.Model, error) {
	err := s.run.write(ctx, "register model "+m.Name, func(ctx context.Context, q querier) error {
		m.Created = time.Now().UTC().Truncate(time.Microsecond)
		err := q.QueryRowContext(ctx, `INSERT INTO model_names (name, last_version) VALUES (?, 1)
			ON CONFLICT (name) DO UPDATE SET last_version = last_version + 1 RETURNING last_version`, m.Name).Scan(&m.Version)
		if err != nil {
			return err
		}
		_, err = q.ExecContext(ctx, "INSERT INTO models ("+modelColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			m.Name, m.Version, m.Format, at(&m.Created), m.Description,
			doc(&m.Tags), doc(&m.Properties), doc(&m.Content), doc(&m.Signature), m.Framework, m.FrameworkVersion, m.Folder)
		return err
	})
	if err != nil {
		return zarpa.Model{}, err
	}
	return m, nil
}

// Get implements zarpa.Models.
func (s models) Get(ctx context.Context, ref zarpa.ModelRef) (m zarpa.Model, err error) {
	err = s.run.read(ctx, "get model "+ref.String(), func(ctx context.Context, q querier) error {
		m, err = scanModel(q.QueryRowContext(ctx, "SELECT "+modelColumns+` FROM models
			WHERE name = ?1 AND (version = ?2 OR ?2 = 0) ORDER BY version DESC LIMIT 1`, ref.Name, ref.Version))
		if errors.Is(err, sql.ErrNoRows) {
			return noModel(ref)
		}
		return err
	})
	return m, err
}

// List implements zarpa.Models.
func (s models) List(ctx context.Context, name string) (list []zarpa.Model, err error) {
	err = s.run.read(ctx, "list models", func(ctx context.Context, q querier) error {
		sel := query("SELECT " + modelColumns + " FROM models ORDER BY name, version DESC")
		if name != "" {
			sel = query("SELECT "+modelColumns+" FROM models WHERE name = ? ORDER BY version DESC", name)
		}
		list, err = all(ctx, q, sel, scanModel)
		return err
	})
	return list, err
}

// Update implements zarpa.Models.
func (s models) Update(ctx context.Context, m zarpa.Model) error {
	return s.run.write(ctx, "update model "+m.Ref().String(), func(ctx context.Context, q querier) error {
		gone, err := none(q.ExecContext(ctx, "UPDATE models SET tags = ?, description = ? WHERE name = ? AND version = ?",
			doc(&m.Tags), m.Description, m.Name, m.Version))
		if gone {
			return noModel(m.Ref())
		}
		return err
	})
}

// Delete implements zarpa.Models.
func (s models) Delete(ctx context.Context, ref zarpa.ModelRef) error {
	return s.run.write(ctx, "delete model "+ref.String(), func(ctx context.Context, q querier) error {
		gone, err := none(q.ExecContext(ctx, "DELETE FROM models WHERE name = ? AND version = ?", ref.Name, ref.Version))
		if gone {
			return noModel(ref)
		}
		return err
	})
}
