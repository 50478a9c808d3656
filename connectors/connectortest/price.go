package connectortest

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// testPrice takes a deal its way alone, as the flow does, and compares what it has cost with what the connector says.
func testPrice(t *testing.T, w World) {
	crm := w.Connector(quiet())
	priced, ok := crm.(connectors.Priced)
	if !ok {
		t.Fatal("the connector does not say what a deal costs: a rehearsal cannot tell either")
	}
	id := w.CreateDeals(1, w.Traits().Stage)
	wb := w.Traits().WriteBack
	fields := []string{w.Traits().Amount, wb.TransactionID, wb.Status, wb.Audit} // as the flow reads
	_ = read(t, crm, ref(w, id[0]), fields...)                                   // logs in, and learns what fields there are
	writeBack(t, crm, ref(w, id[0]), receipt(w, txFor(id[0]), 1, deal.StatusQueued))
	attach(t, crm, ref(w, id[0]), txFor(id[0]), deal.RoleContract, file(t, "Contract.pdf", 2000))
	var tally connectors.Tally
	ctx := connectors.WithTally(callContext(t), &tally)
	for _, files := range []int{1, 2} {
		deals := w.CreateDeals(1, w.Traits().Stage)
		w.Advance(time.Second)
		r, tx := ref(w, deals[0]), txFor(deals[0])
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		before := tally.Calls()
		_, err := crm.Record(ctx, r, fields)
		must(err)
		reading := tally.Calls() - before
		must(crm.WriteBack(ctx, r, receipt(w, tx, 2, deal.StatusQueued)))
		w.Advance(3 * time.Second)
		_, err = crm.Record(ctx, r, fields)
		must(err)
		w.Advance(3 * time.Second)
		pieces := []connectors.Piece{{Role: deal.RoleContract, File: file(t, "Contract.pdf", 4000), New: true}, {Role: deal.RoleAuditTrail, File: file(t, "Contract - audit trail.pdf", 3000), New: true}}
		if b, ok := crm.(connectors.Bundler); ok {
			_, err = b.AttachAll(ctx, r, tx, pieces[:files])
			must(err)
		} else {
			for _, p := range pieces[:files] {
				_, err = crm.Attach(ctx, r, tx, p.Role, p.File)
				must(err)
			}
		}
		must(crm.WriteBack(ctx, r, receipt(w, tx, 3, deal.StatusSigned)))
		if got, want := tally.Calls()-before-2*reading, priced.Price(files); got != want {
			t.Errorf("a deal with %d files costs %d calls beside its two readings of %d, and the connector says %d", files, got, reading, want)
		}
	}
}
