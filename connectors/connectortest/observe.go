package connectortest

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// testObserved holds that every call is told of, with its kind and result, and that no kind names a record.
func testObserved(t *testing.T, w World) {
	crm := w.Connector(quiet())
	observable, ok := crm.(connectors.Observable)
	if !ok {
		t.Fatal("the connector does not tell of its calls: metrics and alerts need them")
	}
	var mu sync.Mutex
	kinds, results, asked := map[string]int{}, map[string]int{}, 0
	observable.Observe(func(c connectors.Call) {
		mu.Lock()
		defer mu.Unlock()
		kinds[c.Endpoint]++
		results[c.Result()]++
		if c.Endpoint != "login" {
			asked++
		}
		if c.Took <= 0 {
			t.Errorf("%+v took no time", c)
		}
	})
	l := newLedger(t, w, crm)
	w.Advance(time.Second)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	w.Advance(time.Second)
	l.poll(crm)
	f, r := file(t, "contract.pdf", 5000), receipt(w, txFor(id), 3, deal.StatusSigned)
	if err := job(callContext(t), t, w, crm, id, f, r); err != nil {
		t.Fatal(err)
	}
	if n := w.Requests(AnyCall); asked != n {
		t.Errorf("%d calls were told of, the CRM has seen %d: %v", asked, n, kinds)
	}
	// A session that had ended is refused first.
	if results["ok"] == 0 || results["failed"]+results["limited"]+results["unanswered"] > 0 {
		t.Errorf("all went well, and told was %v", results)
	}
	if err := w.Fail(ReadCall, Unavailable, 1); err != nil {
		t.Fatal(err)
	}
	_, _ = crm.Record(callContext(t), ref(w, id), []string{w.Traits().Amount}) // fails
	w.Heal()
	if results["failed"] == 0 {
		t.Errorf("a call failed, and told was %v", results)
	}
	for kind := range kinds {
		if kind == "" || kind == "other" || strings.Contains(kind, id) || strings.ContainsAny(kind, "/?0123456789") {
			t.Errorf("%q is no kind of call", kind)
		}
	}
	if len(kinds) < 4 || len(kinds) > 12 || kinds["upload"]+kinds["composite"] != 1 {
		t.Errorf("the kinds are %v", kinds)
	}
}
