package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"
)

// maxRows is how many quarantined rows are listed.
const maxRows = 1000

// seen lists the rows of CRMs that could not be understood, or takes note that somebody has dealt with them.
func seen(ctx context.Context, c *call) error {
	if len(c.args) > 2 {
		return usagef("name one row, or \"all\"; without any they are listed")
	}
	if len(c.args) == 2 && c.why == "" {
		return usagef("say with --why \"…\" what was done about it: it goes into the audit log")
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	if len(c.args) < 2 {
		return c.listRows(ctx, ops)
	}
	row := c.args[1]
	if row == "all" {
		row = ""
	}
	n, err := ops.DealWith(ctx, row, c.why)
	switch {
	case err != nil:
		return err
	case n == 0 && row != "":
		return fmt.Errorf("no row %q waits for anybody: \"dealseal jobs seen\" lists those that do", row)
	}
	_, err = fmt.Fprintf(c.stdout, "dealt with: %s\n", plural(n, "row"))
	return err
}

func (c *call) listRows(ctx context.Context, ops operations) error {
	rows, err := ops.Quarantined(ctx, maxRows)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, rows)
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(c.stdout, "every row of the CRMs was understood, or somebody has dealt with it")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RECORD\tROW\tENTERED\tREASON")
	for _, q := range rows {
		entered := "unknown"
		if !q.At.IsZero() {
			entered = q.At.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", q.Ref, printable(q.Row), entered, printable(q.Reason))
	}
	return w.Flush()
}
