package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"
)

// document is a column that holds a value of type T as JSON. The value is behind a pointer, to be
// read and written in place.
type document[T any] struct{ value *T }

func doc[T any](v *T) document[T] { return document[T]{v} }

// Value is the JSON text.
func (d document[T]) Value() (driver.Value, error) {
	b, err := json.Marshal(d.value)
	return string(b), err
}

// Scan reads the JSON text.
func (d document[T]) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("a JSON column holds %T", src)
	}
	return json.Unmarshal([]byte(s), d.value)
}

// layout has a fixed width, so that text sorts as time does.
const layout = "2006-01-02T15:04:05.000000000Z"

// moment is a column that holds a time as text in UTC, the zero time as empty text.
type moment struct{ value *time.Time }

func at(t *time.Time) moment { return moment{t} }

// Value is the text.
func (m moment) Value() (driver.Value, error) {
	if m.value.IsZero() {
		return "", nil
	}
	return m.value.UTC().Format(layout), nil
}

// Scan reads the text.
func (m moment) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("a time column holds %T", src)
	}
	if s == "" {
		*m.value = time.Time{}
		return nil
	}
	t, err := time.Parse(layout, s)
	*m.value = t
	return err
}

// scanner is a row, or the present one of many.
type scanner interface{ Scan(dest ...any) error }

// selection is a query with its arguments.
type selection struct {
	query string
	args  []any
}

func query(q string, args ...any) selection { return selection{q, args} }

// all reads every row of a selection; none is an empty list, which is not nil.
func all[T any](ctx context.Context, q querier, sel selection, scan func(scanner) (T, error)) ([]T, error) {
	rows, err := q.QueryContext(ctx, sel.query, sel.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells what went wrong
	out := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// none reports whether a statement touched no row.
func none(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 0, err
}
