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

// migration is one step of the schema. Its version is SQLite's user_version afterwards.
type migration struct {
	version int
	file    string
}

// pendingSteps lists those that the database has not seen yet; a database of a newer dealseal is refused.
func pendingSteps(ctx context.Context, db *sql.DB) ([]migration, error) {
	files, err := fs.Glob(migrations, "migrations/sqlite/*.sql") // in order of their numbers
	if err != nil {
		return nil, err
	}
	var have int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return nil, fmt.Errorf("read the schema's version: %w", err)
	}
	if have > len(files) {
		return nil, &SchemaError{Found: have, Known: len(files)}
	}
	var steps []migration
	for n := have; n < len(files); n++ {
		steps = append(steps, migration{n + 1, files[n]})
	}
	return steps, nil
}

// migrate brings the schema up to date, one transaction per step: the version changes with the step or not at all.
func migrate(ctx context.Context, db *sql.DB, steps []migration) error {
	for _, m := range steps {
		if err := migrateTo(ctx, db, m); err != nil {
			return fmt.Errorf("migration %s: %w", m.file, err)
		}
	}
	return nil
}

func migrateTo(ctx context.Context, db *sql.DB, m migration) error {
	text, err := migrations.ReadFile(m.file)
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
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", m.version)); err != nil {
		return err
	}
	return tx.Commit()
}
