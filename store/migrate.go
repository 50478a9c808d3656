package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
)

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

// SchemaError means that the database was written by a newer dealseal.
type SchemaError struct{ Found, Known int }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("the database has schema %d, this dealseal knows up to %d: start the newer dealseal again, or restore a backup from before the upgrade", e.Found, e.Known)
}

// Permanent is always true.
func (e *SchemaError) Permanent() bool { return true }

// migrate brings the schema up to date, one transaction per step. The number of the last step is SQLite's user_version,
// so that it changes with the step or not at all.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Glob(migrations, "migrations/sqlite/*.sql") // in order of their numbers
	if err != nil {
		return err
	}
	var have int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	if have > len(files) {
		return &SchemaError{Found: have, Known: len(files)}
	}
	for n := have; n < len(files); n++ {
		if err := migrateTo(ctx, db, n+1, files[n]); err != nil {
			return fmt.Errorf("migration %s: %w", files[n], err)
		}
	}
	return nil
}

func migrateTo(ctx context.Context, db *sql.DB, version int, file string) error {
	text, err := migrations.ReadFile(file)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, string(text)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	return tx.Commit()
}
