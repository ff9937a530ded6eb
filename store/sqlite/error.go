package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/zarpa-dev/zarpa"
)

// explain turns what the database says into what a user can act on. An Error goes through as it
// is, and when the caller has left, that is the reason, whatever the database made of it.
func explain(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*zarpa.Error](err); ok {
		return err
	}
	if left := ctx.Err(); left != nil {
		return fmt.Errorf("%s: %w", what, left)
	}
	if errors.Is(err, sql.ErrTxDone) {
		return zarpa.Errorf(zarpa.Internal, "%s: the transaction is over", what).Because(err)
	}
	var e *driver.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch e.Code() & 0xff { // the upper bits tell details
	case codes.SQLITE_FULL:
		return zarpa.Errorf(zarpa.Unavailable, "%s: the disk of the store is full", what).Because(err).WithHint("make room on it, then try again; nothing was changed")
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		busy := zarpa.Errorf(zarpa.Unavailable, "%s: another process holds the store", what).Because(err).WithHint("let only one zarpa write this file")
		busy.RetryAfter = time.Second
		return busy
	case codes.SQLITE_NOTADB:
		return zarpa.Errorf(zarpa.Invalid, "%s: the file is not a database", what).Because(err).WithHint("name another file, or restore this one from a backup")
	case codes.SQLITE_CORRUPT:
		return damaged(what, err)
	case codes.SQLITE_CANTOPEN, codes.SQLITE_PERM, codes.SQLITE_READONLY, codes.SQLITE_AUTH:
		return zarpa.Errorf(zarpa.Unavailable, "%s: the file cannot be opened for writing", what).Because(err).WithHint("check that this user may write the file and its folder")
	case codes.SQLITE_IOERR:
		return zarpa.Errorf(zarpa.Unavailable, "%s: the disk of the store cannot be read or written", what).Because(err).WithHint("check the disk and the system's log")
	case codes.SQLITE_TOOBIG:
		return zarpa.Errorf(zarpa.TooLarge, "%s: a record is over 1 GB", what).Because(err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func damaged(what string, err error) error {
	return zarpa.Errorf(zarpa.Internal, "%s: the file is damaged", what).Because(err).WithHint("restore it from a backup; keep the damaged file and those beside it")
}

// violated reports whether a UNIQUE or PRIMARY KEY constraint refused a row.
func violated(err error) bool {
	var e *driver.Error
	return errors.As(err, &e) && (e.Code() == codes.SQLITE_CONSTRAINT_UNIQUE || e.Code() == codes.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// busy reports whether another connection held what was asked for.
func busy(err error) bool {
	var e *driver.Error
	return errors.As(err, &e) && e.Code()&0xff == codes.SQLITE_BUSY
}
