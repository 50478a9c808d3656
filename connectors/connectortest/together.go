package connectortest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// waiting is how many deals wait together, enough for calls that carry many.
const waiting = 30

// testTogether takes many deals their way at the same time. Sharing calls must change nothing of what each of them gets,
// and what is wrong with one is no other's trouble.
func testTogether(t *testing.T, w World) {
	ids := w.CreateDeals(waiting+1, w.Traits().Stage)
	for i, id := range ids {
		w.SetAmount(id, fmt.Sprint(1000+i))
		for line := range i % 3 {
			w.AddLine(id, fmt.Sprintf("Seat %d of %d", line, i), "2", "10.50")
		}
		if i%4 == 0 {
			w.AddFile(id, "Quote.pdf", content(2000+i))
		}
	}
	deleted := ids[waiting]
	w.Delete(deleted)
	fields := []string{w.Traits().Amount, w.Traits().Lines + "." + w.Traits().LineName, w.Traits().Lines + "." + w.Traits().LineQuantity}
	crm := w.Connector(quiet())
	_ = read(t, crm, ref(w, ids[0]), fields...) // logs in, and learns what fields there are
	before := w.Requests(AnyCall)
	alone := read(t, crm, ref(w, ids[1]), fields...)
	costsAlone := w.Requests(AnyCall) - before

	before = w.Requests(AnyCall)
	records := make([]deal.Record, len(ids))
	atOnce(ids, func(i int, id string) {
		var err error
		if records[i], err = crm.Record(callContext(t), ref(w, id), fields); errors.Is(err, deal.ErrGone) != (id == deleted) || err != nil && id != deleted {
			t.Errorf("deal %d is read with %v", i, err)
		}
	})
	if n := w.Requests(AnyCall) - before; n > len(ids)*costsAlone*2/3 {
		t.Errorf("%d deals that were read together cost %d calls, one alone costs %d", len(ids), n, costsAlone)
	}
	ids, records = ids[:waiting], records[:waiting]
	if fingerprint(t, alone) != fingerprint(t, records[1]) {
		t.Error("a record that is read together with others is another than when it is read alone")
	}
	for i, rec := range records {
		if i%3 == 0 { // a CRM may make the amount of the lines
			sameNumber(t, "the amount", rec.Lookup(w.Traits().Amount), fmt.Sprint(1000+i))
		}
		if want := map[bool]int{true: 1}[i%4 == 0]; len(rec.Files) != want {
			t.Errorf("deal %d has %d files, want %d", i, len(rec.Files), want)
		}
		if fingerprint(t, rec) != fingerprint(t, read(t, w.Connector(quiet()), ref(w, ids[i]), fields...)) {
			t.Errorf("deal %d has got the values of another, or not all of its own", i)
		}
	}
	togetherOnTheirRecords(t, w, crm, ids)
}

// togetherOnTheirRecords lets many deals write at the same time. One of them wants a status that an account need not have.
func togetherOnTheirRecords(t *testing.T, w World, crm connectors.CRM, ids []string) {
	const odd = 7
	tell := func(status deal.Status, sequence int64) {
		atOnce(ids, func(i int, id string) {
			r := receipt(w, txFor(id), sequence, status)
			if i == odd {
				for n, f := range r.Fields {
					if f.Name == w.Traits().WriteBack.Status {
						r.Fields[n].Value = "no word of anybody"
					}
				}
			}
			if err := crm.WriteBack(callContext(t), ref(w, id), r); err != nil && i != odd {
				t.Errorf("deal %d: WriteBack: %v", i, err)
			}
		})
		for i, id := range ids {
			if i != odd {
				shown(t, w, id, receipt(w, txFor(id), sequence, status))
			}
		}
	}
	tell(deal.StatusQueued, 1)
	pieces := func(i int) []connectors.Piece {
		return []connectors.Piece{
			{Role: deal.RoleContract, File: file(t, "contract.pdf", 5000+i), New: true},
			{Role: deal.RoleAuditTrail, File: file(t, "contract - audit trail.pdf", 3000+i), New: true},
		}
	}
	attached := make([][]deal.Attachment, len(ids))
	for range 2 { // the second time they are found
		again := make([][]deal.Attachment, len(ids))
		atOnce(ids, func(i int, id string) {
			var err error
			if again[i], err = crm.(connectors.Bundler).AttachAll(callContext(t), ref(w, id), txFor(id), pieces(i)); err != nil {
				t.Errorf("deal %d: AttachAll: %v", i, err)
			}
			if attached[i] != nil && !slices.Equal(again[i], attached[i]) {
				t.Errorf("deal %d: a second AttachAll gives %v, the first gave %v", i, again[i], attached[i])
			}
		})
		attached = again
	}
	for i, id := range ids {
		rec := read(t, crm, ref(w, id))
		for n, p := range pieces(i) {
			if f, ok := rec.Sealed(txFor(id), p.Role); !ok || f.ID != attached[i][n].ID || f.Size != p.File.Length {
				t.Errorf("deal %d: its %s is %+v, want %s with %d bytes", i, p.Role, f, attached[i][n].ID, p.File.Length)
			}
		}
	}
	tell(deal.StatusSigned, 2)
}

// atOnce does something for all deals at the same time.
func atOnce(ids []string, do func(i int, id string)) {
	var g sync.WaitGroup
	for i, id := range ids {
		g.Go(func() { do(i, id) })
	}
	g.Wait()
}
