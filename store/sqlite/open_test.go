package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func mustOpen(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func expectError(t *testing.T, err error, code zarpa.Code, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, expected %s", code)
	}
	e := zarpa.AsError(err)
	if e.Code != code {
		t.Fatalf("%v: code %s, expected %s", err, e.Code, code)
	}
	for _, part := range parts {
		if !strings.Contains(e.Error(), part) {
			t.Fatalf("error %q does not say %q", e, part)
		}
	}
}

// raw changes a store's file behind its back.
func raw(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range statements {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenTellsWhatIsWrongWithTheFile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		make  func(t *testing.T, path string)
		code  zarpa.Code
		parts []string
	}{
		{"NewerSchema", func(t *testing.T, path string) {
			_ = mustOpen(t, path).Close()
			raw(t, path, "PRAGMA user_version = 7")
		}, zarpa.Conflict, []string{"made by a newer zarpa (schema 7, this one knows 4)", "backup"}},
		{"NotADatabase", func(t *testing.T, path string) { write(t, path, strings.Repeat("not a database\n", 200)) }, zarpa.Invalid, []string{"not a database"}},
		{"ShortGarbage", func(t *testing.T, path string) { write(t, path, "hello") }, zarpa.Invalid, []string{"not a database"}},
		{"AnotherProgramsDatabase", func(t *testing.T, path string) { raw(t, path, "CREATE TABLE songs (title TEXT)") }, zarpa.Invalid, []string{"another program"}},
		{"AnotherApplicationID", func(t *testing.T, path string) { raw(t, path, "PRAGMA application_id = 42") }, zarpa.Invalid, []string{"another program"}},
		{"Damaged", damage, zarpa.Internal, []string{"damaged", "backup"}},
		{"AFolder", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, zarpa.Invalid, []string{"is a folder"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "zarpa.db")
			test.make(t, path)
			s, err := Open(t.Context(), path)
			if err == nil {
				_ = s.Close()
			}
			expectError(t, err, test.code, append(test.parts, path)...)
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// damage writes over every page of a filled store but the first.
func damage(t *testing.T, path string) {
	t.Helper()
	s := mustOpen(t, path)
	for i := range 50 {
		fill(t, s, i)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b); i++ {
		b[i] = 0x5a
	}
	write(t, path, string(b))
}

func fill(t *testing.T, s *Store, i int) {
	t.Helper()
	err := s.Nouns().Targets.Put(t.Context(), zarpa.Target{Name: fmt.Sprint("t", i), Kind: strings.Repeat("k", 2000)})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenNamesTheFolderThatIsMissing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "missing")
	_, err := Open(t.Context(), filepath.Join(dir, "zarpa.db"))
	expectError(t, err, zarpa.Unavailable, "cannot be made", "make the folder "+dir)
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	_, err = Open(t.Context(), filepath.Join(file, "zarpa.db"))
	expectError(t, err, zarpa.Unavailable, "cannot be made", "check that "+file+" is a folder")
}

func TestOpenOfACanceledCallerMakesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "zarpa.db")
	_, err := Open(ctx, path)
	expectError(t, err, zarpa.Canceled)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the file is there: %v", err)
	}
}

func TestOpenMakesAPrivateDurableFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "zarpa.db")
	s := mustOpen(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("permissions %v, want 0600", info.Mode().Perm())
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000", "user_version": "4"} {
		for name, db := range map[string]*sql.DB{"writer": s.writes, "reader": s.reads} {
			var got string
			if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s: %s = %q (%v), want %q", name, pragma, got, err, want)
			}
		}
	}
	if _, err := s.reads.ExecContext(t.Context(), "DELETE FROM targets"); err == nil {
		t.Error("a reader may write")
	}
}

func TestManyOpenAtOnceMigrateOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "zarpa.db")
	type opened struct {
		s   *Store
		err error
	}
	results := make(chan opened)
	for range 6 {
		go func() {
			s, err := Open(t.Context(), path)
			results <- opened{s, err}
		}()
	}
	for range 6 {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
			continue
		}
		defer r.s.Close()
	}
}

func TestMigrationIsAllOrNothing(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, filepath.Join(t.TempDir(), "zarpa.db"))
	steps, err := migrationSteps()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.migrate(t.Context(), append(steps, "CREATE TABLE half (a); CREATE TABLE half (a)")); err == nil {
		t.Fatal("a broken migration passed")
	}
	var version, tables int
	if err := s.writes.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version); err != nil {
		t.Fatal(err)
	}
	if err := s.writes.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema WHERE name = 'half'").Scan(&tables); err != nil {
		t.Fatal(err)
	}
	if version != len(steps) || tables != 0 {
		t.Fatalf("version %d with %d halves after a broken migration", version, tables)
	}
	if err := s.migrate(t.Context(), append(steps, "CREATE TABLE whole (a)")); err != nil {
		t.Fatal(err)
	}
}

func TestFullDiskSaysSoAndHarmsNothing(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, filepath.Join(t.TempDir(), "zarpa.db"))
	n := s.Nouns()
	fill(t, s, 0)
	var pages int
	if err := s.writes.QueryRowContext(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit := func(max int) {
		t.Helper()
		if _, err := s.writes.ExecContext(t.Context(), fmt.Sprint("PRAGMA max_page_count = ", max)); err != nil {
			t.Fatal(err)
		}
	}
	limit(pages)
	big := zarpa.Target{Name: "big", Kind: strings.Repeat("k", 1<<20)}
	expectError(t, n.Targets.Put(t.Context(), big), zarpa.Unavailable, "full", "make room")
	err := s.Atomically(t.Context(), func(n zarpa.Nouns) error {
		if err := n.Targets.Delete(t.Context(), "t0"); err != nil {
			return err
		}
		_ = n.Targets.Put(t.Context(), big) // the database ended the transaction: nothing may follow
		_ = n.Targets.Put(t.Context(), zarpa.Target{Name: "after"})
		return nil
	})
	expectError(t, err, zarpa.Unavailable, "full")
	limit(1 << 30)
	list, err := n.Targets.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "t0" {
		t.Fatalf("after a full disk: %v, %v", list, err)
	}
	if err := n.Targets.Put(t.Context(), big); err != nil {
		t.Fatal(err)
	}
}

func TestWaitForTheWriterEndsWithTheCaller(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "zarpa.db")
	mine, other := mustOpen(t, path), mustOpen(t, path) // as two processes would
	err := other.Atomically(t.Context(), func(zarpa.Nouns) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		expectError(t, mine.Nouns().Targets.Put(ctx, zarpa.Target{Name: "late"}), zarpa.Timeout)
		expectError(t, other.Nouns().Targets.Put(ctx, zarpa.Target{Name: "late"}), zarpa.Timeout)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Nouns().Targets.Put(t.Context(), zarpa.Target{Name: "now"}); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedRecordIsNamed(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, filepath.Join(t.TempDir(), "zarpa.db"))
	fill(t, s, 0)
	for _, q := range []string{"UPDATE targets SET options = '{'", "UPDATE targets SET options = 'null', created = 'yesterday'"} {
		if _, err := s.writes.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Nouns().Targets.Get(t.Context(), "t0"); err == nil || !strings.Contains(err.Error(), "get target t0") {
			t.Fatalf("after %s: %v", q, err)
		}
	}
}
