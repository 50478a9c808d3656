package connectortest

import (
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// direct is the connector's ability to read the entries of named records; a connector without it polls when it is pushed.
func direct(t *testing.T, crm connectors.CRM) connectors.Direct {
	t.Helper()
	d, ok := crm.(connectors.Direct)
	if !ok {
		t.Skipf("%T polls when it is pushed", crm)
	}
	return d
}

// push has the records looked at as the engine does: what is found is noticed, and the cursor stays.
func (l *ledger) push(crm connectors.Direct, ids ...string) []sealing {
	l.t.Helper()
	var refs []deal.Ref
	for _, id := range ids {
		refs = append(refs, ref(l.w, id))
	}
	page, err := crm.EntriesOf(callContext(l.t), refs, l.watches)
	if err != nil {
		l.t.Fatalf("EntriesOf: %v", err)
	}
	page.Next = l.cursor
	return l.notice(page)
}

// testPushFindsWhatAPollWould compares the transactions of a ledger that is pushed with those of one that only polls.
func testPushFindsWhatAPollWould(t *testing.T, w World) {
	crm, pushed := begin(t, w)
	d := direct(t, crm)
	polled := newLedger(t, w, w.Connector(quiet()))
	w.DelayVisibility(w.Traits().Overlap / 2)
	ids := w.CreateDeals(4, w.Traits().Other)
	w.Advance(time.Second)
	for _, id := range ids[:3] { // one enters and leaves, one enters twice
		w.Move(id, w.Traits().Stage)
		w.Advance(time.Second)
	}
	w.Move(ids[1], w.Traits().Other)
	w.Advance(time.Second)
	w.Move(ids[2], w.Traits().Third)
	w.Advance(time.Second)
	w.Move(ids[2], w.Traits().Stage)
	w.DelayVisibility(0)

	expect(t, "in any order, with one that has not moved and one that is none", pushed.push(d, ids[3], ids[2], "4711", ids[0]), ids[0], ids[2], ids[2])
	expect(t, "pushed again", pushed.push(d, ids[0], ids[2], ids[0]))
	expect(t, "polled before anything is listed", pushed.poll(crm))
	expect(t, "one push was lost", later(w, pushed, crm, w.Traits().Overlap/2), ids[1])
	expect(t, "pushed late", pushed.push(d, ids...))
	polled.poll(w.Connector(quiet()))
	got, want := transactions(pushed), transactions(polled)
	if !slices.Equal(got, want) {
		t.Errorf("pushes make the transactions %q, polls %q", got, want)
	}
}

func transactions(l *ledger) (all []string) {
	for _, s := range l.fresh {
		all = append(all, string(s.tx))
	}
	slices.Sort(all)
	return all
}

// testPushOfWhatIsOld: an entry from before its rule is none, and a merged deal's are those that were known.
func testPushOfWhatIsOld(t *testing.T, w World) {
	early := w.CreateDeals(1, w.Traits().Stage)[0]
	w.Advance(time.Second)
	crm, l := begin(t, w)
	d := direct(t, crm)
	expect(t, "entered before the rule", l.push(d, early))
	ids := w.CreateDeals(2, w.Traits().Other)
	for _, id := range ids {
		w.Advance(time.Second)
		w.Move(id, w.Traits().Stage)
	}
	expect(t, "both entered", l.push(d, ids...), ids...)
	merged, err := w.Merge(ids[0], ids[1])
	supported(t, err)
	expect(t, "merged", l.push(d, append(ids, merged)...))
	w.Delete(merged)
	expect(t, "deleted", l.push(d, merged))
}
