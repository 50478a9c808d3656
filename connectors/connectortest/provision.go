package connectortest

import (
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// testProvision holds that what the account lacks is named without being made, made once, and can be written to then.
func testProvision(t *testing.T, w World) {
	p, ok := w.Connector(quiet()).(connectors.Provisioner)
	if !ok {
		t.Fatal("the connector makes no fields: people would have to, one by one")
	}
	object := w.Traits().Object
	wanted := []connectors.Written{{Object: object, WriteBack: w.Traits().WriteBack}, {Object: object, WriteBack: w.Traits().NewWriteBack}, {Object: object, WriteBack: w.Traits().NewWriteBack}}
	lacking := func() []connectors.Provision {
		t.Helper()
		list, err := p.Lacking(callContext(t), wanted)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	w.LetSetUp()
	first := lacking()
	if again := lacking(); len(first) < 6 || len(again) != len(first) {
		t.Fatalf("%d things are missing, and when they are asked for again %d: %+v", len(first), len(again), first)
	}
	for range 2 { // somebody else may have made them meanwhile
		for _, x := range first {
			if x.Make == nil {
				t.Fatalf("%s cannot be made: %s", x.What, x.Cure)
			}
			if err := x.Make(callContext(t)); err != nil {
				t.Fatalf("%s: %v", x.What, err)
			}
		}
	}
	if left := lacking(); len(left) > 0 {
		t.Fatalf("after all was made there is missing %+v", left)
	}
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	r := receipt(w, txFor(id), 3, deal.StatusSigned)
	r.Fields, r.SequenceField = nil, ""
	n := w.Traits().NewWriteBack
	for name, value := range map[string]any{n.TransactionID: "tx", n.Status: n.Word(deal.StatusSigned), n.SignedAt: w.Now(), n.URL: "https://example.com/1", n.Audit: "{}", n.Drift: "differs", n.FollowUp: w.Now()} {
		r.Fields = append(r.Fields, deal.Field{Name: name, Value: value})
	}
	if err := w.Connector(quiet()).WriteBack(callContext(t), ref(w, id), r); err != nil {
		t.Fatal(err)
	}
	if got := w.Field(id, n.Status); got != n.Word(deal.StatusSigned) {
		t.Errorf("%s holds %q", n.Status, got)
	}
}
