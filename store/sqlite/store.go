// Package sqlite keeps the nouns in one SQLite file, by a driver without C. It is the embedded
// store: one control plane on one machine. Other processes may read the file, and may write it
// for moments; a second control plane on the same file is not for it.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/zarpa-dev/zarpa"
)

// Store is a zarpa.Store in one file, with "-wal" and "-shm" beside it while it is open.
//
// One connection writes, in immediate transactions, one after the other; a few others read, and
// neither waits for the other. An acknowledged write was synced to the disk.
type Store struct {
	writes *sql.DB // one connection
	reads  *sql.DB

	mu      sync.RWMutex // guards closed, and the Add of running against Close's Wait
	closed  bool
	running sync.WaitGroup
}

var _ zarpa.Store = (*Store)(nil)

// querier is what a noun needs of a connection, a pool or a transaction.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// runner runs one method of a noun: in a transaction of its own, or in that of Atomically.
// what is "create a model", for the error.
type runner interface {
	read(ctx context.Context, what string, fn work) error
	write(ctx context.Context, what string, fn work) error
}

type work func(ctx context.Context, q querier) error

func nouns(r runner) zarpa.Nouns {
	return zarpa.Nouns{
		Models: models{r}, Endpoints: endpoints{r}, Keys: keys{r},
		Deployments: deployments{r}, Operations: operations{r}, Targets: targets{r},
		Secrets: secrets{r}, Accesses: accesses{r}, Audits: audits{r},
		Rollouts: rollouts{r},
		Scalings: scalings{r},
	}
}

// Nouns work each in a transaction of its own.
func (s *Store) Nouns() zarpa.Nouns { return nouns(s) }

// Close waits for running calls, writes the log back into the file and closes it. Closing twice
// is no error.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	return errors.Join(s.reads.Close(), s.writes.Close())
}

// enter registers a running call; leave it by running.Done.
func (s *Store) enter(ctx context.Context, what string) error {
	if err := ctx.Err(); err != nil {
		return explain(ctx, what, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return zarpa.Errorf(zarpa.Unavailable, "%s: the store is closed", what).WithHint("the server is stopping; try again when it is back")
	}
	s.running.Add(1)
	return nil
}

func (s *Store) read(ctx context.Context, what string, fn work) error {
	if err := s.enter(ctx, what); err != nil {
		return err
	}
	defer s.running.Done()
	return explain(ctx, what, fn(ctx, s.reads))
}

func (s *Store) write(ctx context.Context, what string, fn work) error {
	return s.transact(ctx, what, func(tx *sql.Tx) error { return fn(context.WithoutCancel(ctx), tx) })
}

// Atomically runs fn, once, in the transaction that alone may write: keep fn short.
func (s *Store) Atomically(ctx context.Context, fn func(zarpa.Nouns) error) error {
	return s.transact(ctx, "run a transaction", func(tx *sql.Tx) error {
		t := &transaction{tx: tx}
		if err := fn(nouns(t)); err != nil {
			return err
		}
		return t.failure()
	})
}

// transact commits what fn did, or rolls it back when fn fails, panics or ctx ends before the
// commit. ctx bounds the wait for the writers before.
func (s *Store) transact(ctx context.Context, what string, fn func(*sql.Tx) error) error {
	if err := s.enter(ctx, what); err != nil {
		return err
	}
	defer s.running.Done()
	tx, err := s.writes.BeginTx(ctx, nil)
	if err != nil {
		return explain(ctx, what, err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back, and an error before it is returned
	if err := fn(tx); err != nil {
		return explain(ctx, what, err)
	}
	return explain(ctx, what, tx.Commit())
}

// transaction runs the nouns of Atomically. A statement is not interrupted half-way by the
// context of a single call: SQLite would roll all back and let later statements through. For the
// same reason a failure of the database itself ends the transaction for good.
type transaction struct {
	mu     sync.Mutex // guards tx and broken: fn may use goroutines
	tx     *sql.Tx
	broken error
}

func (t *transaction) read(ctx context.Context, what string, fn work) error {
	return t.write(ctx, what, fn)
}

func (t *transaction) write(ctx context.Context, what string, fn work) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return t.broken
	}
	if err := ctx.Err(); err != nil {
		return explain(ctx, what, err)
	}
	err := fn(context.WithoutCancel(ctx), t.tx)
	var known *zarpa.Error
	if err != nil && !errors.As(err, &known) {
		t.broken = explain(ctx, what, err)
		return t.broken
	}
	return err
}

func (t *transaction) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.broken
}
