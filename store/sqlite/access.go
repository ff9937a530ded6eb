package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

type accesses struct{ run runner }

var _ zarpa.Accesses = accesses{}

const accessColumns = "name, role, digest, created, expires, revoked"

func scanAccess(row scanner) (zarpa.Access, error) {
	var a zarpa.Access
	err := row.Scan(&a.Name, &a.Role, &a.Digest, at(&a.Created), at(&a.Expires), at(&a.Revoked))
	return a, err
}

// Create implements zarpa.Accesses.
func (s accesses) Create(ctx context.Context, a zarpa.Access) error {
	return s.run.write(ctx, "create access "+a.Name, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "INSERT INTO accesses ("+accessColumns+") VALUES (?, ?, ?, ?, ?, ?)",
			a.Name, a.Role, a.Digest, at(&a.Created), at(&a.Expires), at(&a.Revoked))
		if violated(err) {
			return zarpa.Errorf(zarpa.Conflict, "access %q: it exists already", a.Name).
				WithHint("choose another name, or delete that one first: zarpa access delete %s", a.Name).Because(err)
		}
		return err
	})
}

// Revoke implements zarpa.Accesses.
func (s accesses) Revoke(ctx context.Context, name string, when time.Time) error {
	return s.run.write(ctx, "revoke access "+name, func(ctx context.Context, q querier) error {
		var known int
		if err := q.QueryRowContext(ctx, "SELECT count(*) FROM accesses WHERE name = ?", name).Scan(&known); err != nil {
			return err
		}
		if known == 0 {
			return zarpa.Errorf(zarpa.NotFound, "access %q: there is none", name).WithHint("list them with: zarpa access list")
		}
		// The first revocation is the one that ended it.
		_, err := q.ExecContext(ctx, "UPDATE accesses SET revoked = ? WHERE name = ? AND revoked = ''", at(&when), name)
		return err
	})
}

// List implements zarpa.Accesses.
func (s accesses) List(ctx context.Context) (list []zarpa.Access, err error) {
	err = s.run.read(ctx, "list accesses", func(ctx context.Context, q querier) error {
		list, err = all(ctx, q, query("SELECT "+accessColumns+" FROM accesses ORDER BY name"), scanAccess)
		return err
	})
	return list, err
}

// Delete implements zarpa.Accesses.
func (s accesses) Delete(ctx context.Context, name string) error {
	return s.run.write(ctx, "delete access "+name, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM accesses WHERE name = ?", name)
		return err
	})
}

type audits struct{ run runner }

var _ zarpa.Audits = audits{}

const auditColumns = "at, who, role, action, object, changes, request_id, address, refused"

func scanAudit(row scanner) (zarpa.AuditEntry, error) {
	var e zarpa.AuditEntry
	err := row.Scan(&e.ID, at(&e.At), &e.Who, &e.Role, &e.Action, &e.Object, doc(&e.Changes), &e.RequestID, &e.Address, &e.Refused)
	return e, err
}

// Append implements zarpa.Audits.
func (s audits) Append(ctx context.Context, e zarpa.AuditEntry) error {
	return s.run.write(ctx, "append to the audit log", func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "INSERT INTO audit ("+auditColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			at(&e.At), e.Who, e.Role, e.Action, e.Object, doc(&e.Changes), e.RequestID, e.Address, e.Refused)
		return err
	})
}

// List implements zarpa.Audits.
func (s audits) List(ctx context.Context, sel zarpa.AuditQuery) (list []zarpa.AuditEntry, err error) {
	where, args := []string{"at >= ?"}, []any{at(&sel.Since)} // of the zero time it is the empty text, which all are after
	if sel.Object != "" {
		where, args = append(where, "object = ?"), append(args, sel.Object)
	}
	if sel.Before > 0 {
		where, args = append(where, "id < ?"), append(args, sel.Before)
	}
	limit := sel.Limit
	if limit <= 0 {
		limit = -1 // SQLite's "no limit"
	}
	err = s.run.read(ctx, "list the audit log", func(ctx context.Context, q querier) error {
		text := "SELECT id, " + auditColumns + " FROM audit WHERE " + strings.Join(where, " AND ") + " ORDER BY id DESC LIMIT ?"
		list, err = all(ctx, q, query(text, append(args, limit)...), scanAudit)
		return err
	})
	return list, err
}

// Prune implements zarpa.Audits.
func (s audits) Prune(ctx context.Context, before time.Time) error {
	return s.run.write(ctx, "prune the audit log", func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM audit WHERE at < ?", at(&before))
		return err
	})
}
