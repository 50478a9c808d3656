package connectortest

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func ref(w World, id string) deal.Ref { return deal.Ref{Object: w.Traits().Object, ID: id} }

func read(t *testing.T, crm connectors.CRM, r deal.Ref, fields ...string) deal.Record {
	t.Helper()
	rec, err := crm.Record(callContext(t), r, fields)
	if err != nil {
		t.Fatalf("Record %s: %v", r, err)
	}
	return rec
}

func fingerprint(t *testing.T, r deal.Record) string {
	t.Helper()
	sum, err := r.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// decimal reads a leaf that is a number; CRMs give it as text or as a JSON number, in any notation.
func decimal(t *testing.T, what string, v any) *big.Rat {
	t.Helper()
	if _, isFloat := v.(float64); isFloat {
		t.Errorf("%s is a float64: money must stay exact", what)
	}
	r, ok := new(big.Rat).SetString(fmt.Sprint(v))
	if !ok {
		t.Fatalf("%s is %v (%T), which is no number", what, v, v)
	}
	return r
}

func sameNumber(t *testing.T, what string, got any, want string) {
	t.Helper()
	w, _ := new(big.Rat).SetString(want)
	if g := decimal(t, what, got); g.Cmp(w) != 0 {
		t.Errorf("%s is %v, want %s", what, got, want)
	}
}

// lookup follows a dotted path of parents from any node of a record's tree.
func lookup(node any, path string) any {
	m, _ := node.(map[string]any)
	return deal.Record{Values: m}.Lookup(path)
}

func testIdentity(t *testing.T, w World) {
	account := newLedger(t, w, w.Connector(quiet())).identity(w.Connector(quiet()))
	if account.Kind == "" || account.ID == "" {
		t.Errorf("the account has no kind or ID: %+v", account)
	}
	if !account.Clock.Equal(w.Now()) {
		t.Errorf("the account's clock is %s, the CRM's is %s", account.Clock, w.Now())
	}
}

func testRecord(t *testing.T, w World) {
	traits := w.Traits()
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, traits.Stage)[0]
	lines := []struct{ name, quantity, price string }{
		{"Łódź licence “A”", "3", "100.25"}, {"Backup", "1", "0.01"}, {"Älteste Wartung", "12", "99.99"},
	}
	for _, l := range lines {
		w.AddLine(id, l.name, l.quantity, l.price)
	}
	below := func(p string) string { return traits.Lines + "." + p }
	rec := read(t, crm, ref(w, id), below(traits.LineName), below(traits.LineQuantity), below(traits.LinePrice))

	if rec.Ref != ref(w, id) || rec.Stage != traits.Stage || rec.URL == "" || !rec.Modified.Equal(w.Now()) {
		t.Errorf("record head: %+v, want %s in %s, modified %s, with a URL", rec, id, traits.Stage, w.Now())
	}
	list, _ := rec.Lookup(traits.Lines).([]any)
	if len(list) != len(lines) {
		t.Fatalf("%d line items, want %d", len(list), len(lines))
	}
	for i, l := range lines {
		if got := lookup(list[i], traits.LineName); got != l.name {
			t.Errorf("line %d is %q, want %q: lines keep their order", i+1, got, l.name)
		}
		sameNumber(t, "quantity", lookup(list[i], traits.LineQuantity), l.quantity)
		sameNumber(t, "price", lookup(list[i], traits.LinePrice), l.price)
	}
	again := read(t, w.Connector(quiet()), ref(w, id), below(traits.LinePrice), below(traits.LineName), below(traits.LineQuantity))
	if diff := cmp.Diff(rec.Values, again.Values); diff != "" {
		t.Errorf("a second reading differs (-first +second):\n%s", diff)
	}
}

func testAmount(t *testing.T, w World) {
	path := w.Traits().Amount
	id := w.CreateDeals(1, w.Traits().Stage)[0] // without lines: a CRM may make the amount their sum
	for _, amount := range []string{"12345678901.25", "0.01", "1000000", "12500.5"} {
		w.SetAmount(id, amount)
		sameNumber(t, "the amount", read(t, w.Connector(quiet()), ref(w, id), path).Lookup(path), amount)
	}
}

func testRecordWithoutLines(t *testing.T, w World) {
	traits := w.Traits()
	id := w.CreateDeals(1, traits.Other)[0]
	rec := read(t, w.Connector(quiet()), ref(w, id), traits.Lines+"."+traits.LineName)
	if list, ok := rec.Lookup(traits.Lines).([]any); ok && len(list) != 0 {
		t.Errorf("a deal without lines has %d", len(list))
	}
	if len(rec.Files) != 0 {
		t.Errorf("a deal without files has %+v", rec.Files)
	}
}

func testUnknownField(t *testing.T, w World) {
	id := w.CreateDeals(1, w.Traits().Other)[0]
	_, err := w.Connector(quiet()).Record(callContext(t), ref(w, id), []string{w.Traits().NoSuchField})
	if !deal.IsPermanent(err) || !strings.Contains(fmt.Sprint(err), w.Traits().NoSuchField) {
		t.Errorf("reading a field that does not exist gives %v, want a permanent error that names it", err)
	}
}

// testHostileNames holds that names and IDs from outside stay data.
func testHostileNames(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Other)[0]
	for _, field := range []string{"Id FROM User", "Id,Name", "a'b", "a/../b", "", ".", "a..b", "a.b.c.d.e.f.g.h", "\x00", "(SELECT Id FROM Contacts)"} {
		if _, err := crm.Record(callContext(t), ref(w, id), []string{field}); !deal.IsPermanent(err) {
			t.Errorf("reading field %q gives %v, want a permanent error", field, err)
		}
	}
	for _, bad := range []string{"", "'", "x' OR Id != '", "../" + id, id + "/x", "1 2"} {
		if _, err := crm.Record(callContext(t), ref(w, bad), nil); !deal.IsPermanent(err) {
			t.Errorf("reading record %q gives %v, want a permanent error", bad, err)
		}
	}
}

func testGone(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	w.Advance(time.Second)
	w.Delete(id)
	tx := txFor(id)
	for what, call := range map[string]func() error{
		"Record": func() error { _, err := crm.Record(callContext(t), ref(w, id), nil); return err },
		"Attach": func() error {
			_, err := crm.Attach(callContext(t), ref(w, id), tx, deal.RoleContract, file(t, "contract.pdf", 100))
			return err
		},
		"WriteBack": func() error {
			return crm.WriteBack(callContext(t), ref(w, id), receipt(w, tx, 1, deal.StatusSigned))
		},
	} {
		if err := call(); !errors.Is(err, deal.ErrGone) {
			t.Errorf("%s of a deleted deal gives %v, want deal.ErrGone", what, err)
		}
	}
}

func testUserFiles(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	quote := []byte("%PDF-1.7 a quote that a user has made")
	w.AddFile(id, "Quote 17.pdf", quote)
	w.Advance(time.Second)
	w.AddFile(id, "contract.pdf", content(4000))
	rec := read(t, crm, ref(w, id))
	if len(rec.Files) != 2 {
		t.Fatalf("%d files, want the user's two: %+v", len(rec.Files), rec.Files)
	}
	for _, f := range rec.Files {
		if f.Tx != "" || f.Role != "" || f.ID == "" || f.Created.IsZero() {
			t.Errorf("a user's file is taken for ours, or has no ID or date: %+v", f)
		}
	}

	// The same name and the same bytes are still not ours.
	tx := txFor(id)
	att := attach(t, crm, ref(w, id), tx, deal.RoleContract, file(t, "contract.pdf", 4000))
	if files := w.Files(id); len(files) != 3 {
		t.Errorf("%d files after Attach, want 3", len(files))
	}
	for _, f := range rec.Files {
		if f.ID == att.ID {
			t.Error("Attach has adopted a user's file")
		}
	}

	files, ok := crm.(connectors.Files)
	if !ok {
		return
	}
	for _, f := range rec.Files {
		if f.Name != "Quote 17.pdf" {
			continue
		}
		var got bytes.Buffer
		if err := files.Download(callContext(t), ref(w, id), f.ID, &got, 1<<20); err != nil || !bytes.Equal(got.Bytes(), quote) {
			t.Errorf("Download gives %d bytes and %v, want the user's %d", got.Len(), err, len(quote))
		}
		got.Reset()
		if err := files.Download(callContext(t), ref(w, id), f.ID, &got, 10); err == nil || got.Len() > 10 {
			t.Errorf("Download of more than its limit gives %d bytes and %v", got.Len(), err)
		}
	}
}
