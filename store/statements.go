package store

import (
	"context"
	"database/sql/driver"
	"strings"
	"sync/atomic"

	"modernc.org/sqlite"
)

// compiling opens connections that compile each statement once. A third of what a commit cost was the same few dozen
// statements, compiled again and again: database/sql keeps statements only for those who prepare them, and River does not.
type compiling struct {
	driver.Connector
	blocked *atomic.Bool // whether another program's lock was met since the last transaction began
}

// Connect implements driver.Connector.
func (c compiling) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &compiledConn{sqliteConn: conn.(sqliteConn), blocked: c.blocked, idle: map[string]compiled{}}, nil
}

// sqliteConn is what SQLite's driver offers.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
	NewBackup(to string) (*sqlite.Backup, error)
}

var _ sqliteConn = (*compiledConn)(nil)

// maxCompiled is how many statements a connection keeps: more than a daemon at work uses. The page's searches have many
// forms, which are compiled for whoever searches: the least recently used statement makes room.
const maxCompiled = 200

// compiledConn is a connection with its statements. As every driver.Conn it is used by one goroutine at a time.
type compiledConn struct {
	sqliteConn
	blocked *atomic.Bool
	idle    map[string]compiled
	uses    uint64 // of statements, so far
}

// compiled is a statement that nobody uses.
type compiled struct {
	driver.Stmt
	last uint64 // the use after which it was given back
}

// see takes in whether another program's lock ended a statement.
func (c *compiledConn) see(err error) {
	if isBusy(err) {
		c.blocked.Store(true)
	}
}

// BeginTx implements driver.ConnBeginTx.
func (c *compiledConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.sqliteConn.BeginTx(ctx, o)
	if c.see(err); err == nil {
		c.blocked.Store(false)
	}
	return tx, err
}

// take returns a statement that nobody uses. SQLite compiles it anew by itself when the schema has changed.
func (c *compiledConn) take(ctx context.Context, query string) (driver.Stmt, error) {
	if kept, ok := c.idle[query]; ok {
		delete(c.idle, query)
		return kept.Stmt, nil
	}
	return c.PrepareContext(ctx, plannedOnce(query))
}

// plannedOnce has a statement of River's planned when it is compiled. SQLite compiles one that ends in LIMIT ?1 each time that
// the number is bound, even to the same value, to plan for it: that was most of what taking jobs cost. It does not look for the
// number behind a plus. Our own statements are left alone: a search may be planned better for ten rows than for all.
func plannedOnce(query string) string {
	if !strings.HasPrefix(query, "-- name: ") {
		return query
	}
	return strings.ReplaceAll(query, "LIMIT ?", "LIMIT +?")
}

// give keeps a statement for the next time.
func (c *compiledConn) give(query string, stmt driver.Stmt) error {
	if _, ok := c.idle[query]; ok {
		return stmt.Close()
	}
	c.uses++
	c.idle[query] = compiled{stmt, c.uses}
	if len(c.idle) <= maxCompiled {
		return nil
	}
	oldest := query
	for q, kept := range c.idle {
		if kept.last < c.idle[oldest].last {
			oldest = q
		}
	}
	closing := c.idle[oldest].Stmt
	delete(c.idle, oldest)
	return closing.Close()
}

// ExecContext implements driver.ExecerContext.
func (c *compiledConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	stmt, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	c.see(err)
	if closing := c.give(query, stmt); err == nil {
		err = closing
	}
	return result, err
}

// QueryContext implements driver.QueryerContext.
func (c *compiledConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	stmt, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		c.see(err)
		_ = c.give(query, stmt)
		return nil, err
	}
	return &compiledRows{rows, func() error { return c.give(query, stmt) }}, nil
}

// Close closes the statements before their connection.
func (c *compiledConn) Close() error {
	for _, stmt := range c.idle {
		_ = stmt.Close()
	}
	c.idle = nil
	return c.sqliteConn.Close()
}

// compiledRows gives its statement back when it is closed, which database/sql does once.
type compiledRows struct {
	driver.Rows
	give func() error
}

// Close implements driver.Rows.
func (r *compiledRows) Close() error {
	err := r.Rows.Close()
	if given := r.give(); err == nil {
		err = given
	}
	return err
}
