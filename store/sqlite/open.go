package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/zarpa-dev/zarpa"
)

// Migrations are numbered from 1 without gaps; the number of the last that ran is user_version.
// A released one is never changed: write the next.
//
//go:embed migrations/*.sql
var migrations embed.FS

const (
	// applicationID marks the file as Zarpa's: "zrpa".
	applicationID = 0x7a727061
	// busyTimeout is how long a statement waits for another process that writes.
	busyTimeout = 10 * time.Second
	busyPause   = 5 * time.Millisecond // between tries where SQLite itself does not wait
	readers     = 4
)

// Open opens the store in the file at path, and makes it when there is none, readable by its
// owner alone; the folder must be there. It brings the data of an older release up to date.
//
// Errors: conflict when a newer release made the data, invalid when the file is something else,
// internal when it is damaged, unavailable when it cannot be read or written now.
func Open(ctx context.Context, path string) (*Store, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the store %s: %w", path, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, explain(ctx, "open the store "+path, err)
	}
	if err := create(abs); err != nil {
		return nil, err
	}
	s := &Store{}
	if s.writes, err = sql.Open("sqlite", dsn(abs, "_txlock=immediate")); err != nil {
		return nil, fmt.Errorf("open the store %s: %w", abs, err)
	}
	s.writes.SetMaxOpenConns(1)
	if s.reads, err = sql.Open("sqlite", dsn(abs, "_query_only=1")); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store %s: %w", abs, err), s.writes.Close())
	}
	s.reads.SetMaxOpenConns(readers)
	s.reads.SetMaxIdleConns(readers)
	if err := s.prepare(ctx, abs); err != nil {
		_ = s.Close() // the first error tells more
		return nil, explain(ctx, "open the store "+abs, err)
	}
	return s, nil
}

func dsn(abs, more string) string {
	u := url.URL{Scheme: "file", Path: abs}
	return u.String() + "?_busy_timeout=" + strconv.FormatInt(busyTimeout.Milliseconds(), 10) + "&_foreign_keys=1&_synchronous=FULL&_dqs=0&_error_rc=1&" + more
}

// create makes an empty file with narrow permissions, and its name durable. A file that exists is
// not opened here: closing it again would drop the locks that this process may hold on it.
func create(abs string) error {
	info, err := os.Stat(abs)
	switch {
	case err == nil && info.IsDir():
		return zarpa.Errorf(zarpa.Invalid, "store %s: is a folder", abs).WithHint("name a file in it, such as %s", filepath.Join(abs, "zarpa.db"))
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return unreachable(abs, err)
	}
	f, err := os.OpenFile(abs, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	if err != nil {
		return unreachable(abs, err)
	}
	if err := f.Close(); err != nil {
		return unreachable(abs, err)
	}
	folder, err := os.Open(filepath.Dir(abs))
	if err != nil {
		return unreachable(abs, err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return unreachable(abs, err)
	}
	return nil
}

func unreachable(abs string, err error) error {
	e := zarpa.Errorf(zarpa.Unavailable, "store %s: cannot be made: %v", abs, cause(err)).Because(err)
	if errors.Is(err, fs.ErrNotExist) {
		return e.WithHint("make the folder %s first", filepath.Dir(abs))
	}
	return e.WithHint("check that %s is a folder on a disk with room and that this user may write into it", filepath.Dir(abs))
}

// cause is what the system said, without the path, which stands in the message already.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// prepare looks at what the file is before it changes anything, then sets it up.
func (s *Store) prepare(ctx context.Context, abs string) error {
	version, err := s.inspect(ctx, abs)
	if err != nil {
		return err
	}
	steps, err := migrationSteps()
	if err != nil {
		return err
	}
	if version > len(steps) {
		return zarpa.Errorf(zarpa.Conflict, "store %s: made by a newer zarpa (schema %d, this one knows %d)", abs, version, len(steps)).
			WithHint("run that newer zarpa, or restore a backup from before its first start")
	}
	mode, err := s.logAhead(ctx)
	if err != nil {
		return err
	}
	if mode != "wal" {
		return zarpa.Errorf(zarpa.Unavailable, "store %s: its file system has no shared memory (journal mode %s)", abs, mode).
			WithHint("keep the store on a local disk")
	}
	s.reads.SetMaxIdleConns(0) // the connection that inspected saw the file as it was before
	s.reads.SetMaxIdleConns(readers)
	return s.migrate(ctx, steps)
}

// logAhead switches the file to its write-ahead log and returns the mode it is in. SQLite does not
// wait here while another process does the same, so this does.
func (s *Store) logAhead(ctx context.Context) (mode string, err error) {
	deadline := time.Now().Add(busyTimeout)
	for {
		err = s.writes.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
		if !busy(err) || time.Now().After(deadline) {
			return mode, err
		}
		select {
		case <-ctx.Done():
			return mode, ctx.Err()
		case <-time.After(busyPause):
		}
	}
}

// inspect returns the schema's version, 0 for a new file, and refuses what is damaged or is not
// Zarpa's. It reads in one transaction: another process may be migrating.
func (s *Store) inspect(ctx context.Context, abs string) (int, error) {
	tx, err := s.reads.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	var version, application, tables int
	for query, dest := range map[string]*int{
		"SELECT count(*) FROM sqlite_schema": &tables, "PRAGMA user_version": &version, "PRAGMA application_id": &application,
	} {
		if err := tx.QueryRowContext(ctx, query).Scan(dest); err != nil {
			return 0, err
		}
	}
	if application != applicationID && (application != 0 || version != 0 || tables != 0) {
		return 0, zarpa.Errorf(zarpa.Invalid, "store %s: is the database of another program", abs).WithHint("name another file")
	}
	var result string
	if err := tx.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return 0, err
	}
	if result != "ok" {
		return 0, damaged("open the store "+abs, errors.New(result))
	}
	return version, nil
}

func migrationSteps() ([]string, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql") // in the order of names
	if err != nil {
		return nil, err
	}
	steps := make([]string, 0, len(names))
	for i, name := range names {
		var number int
		if _, err := fmt.Sscanf(filepath.Base(name), "%04d_", &number); err != nil || number != i+1 {
			return nil, fmt.Errorf("migration %s: its number should be %04d", name, i+1)
		}
		b, err := migrations.ReadFile(name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, string(b))
	}
	return steps, nil
}

// migrate runs the steps that are missing, each in a transaction that also counts it. The version
// is read within: another process may be migrating, too.
func (s *Store) migrate(ctx context.Context, steps []string) error {
	for i, step := range steps {
		err := s.transact(ctx, "migrate the store", func(tx *sql.Tx) error {
			var version int
			if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil || version > i {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("%s;\nPRAGMA user_version = %d; PRAGMA application_id = %d", step, i+1, applicationID))
			return err
		})
		if err != nil {
			return fmt.Errorf("migration %d: %w", i+1, err)
		}
	}
	return nil
}
