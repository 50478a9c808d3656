package web

import (
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestThePageShowsWhatTheCRMsDoNotShow(t *testing.T) {
	v := &village{tenants: []Tenant{{ID: "acme", Name: "Acme", Nightly: true, Inferring: []string{"order"}}, {ID: "quiet", Name: "Quiet"}},
		passes: []deal.Pass{{Tenant: "acme", Began: noon.Add(-time.Hour), Entries: 1, Deals: 7, Blind: []string{"order"}, Waits: "81 % of the CRM's API allowance is used",
			Found: map[deal.DiscrepancyKind]int{deal.FileGone: 2, deal.RecordGone: 1}, Mended: map[deal.DiscrepancyKind]int{deal.FileGone: 2}}},
		differing: []deal.Discrepancy{{Kind: deal.RecordGone, Tenant: "acme", Tx: "abcdefghijklmnopqrstuvwxyz", Ref: deal.Ref{Object: "Opportunity", ID: "006A"}, What: "it <is> gone", Since: noon}}}
	h, _, _ := open(v)
	page := get(h, "/").Body.String()
	for _, want := range []string{"1 stage entry, 7 finished deals", "3 discrepancies, 2 mended", "81 %", "it &lt;is&gt; gone", "/deals/abcdefghijklmnopqrstuvwxyz", "record-gone", "dealseal reconcile seen TX",
		"order: inferred from snapshots, short stays are missed", "no missed entries of order"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	text := get(h, "/metrics").Body.String()
	for _, want := range []string{`dealseal_discrepancies{kind="record-gone",tenant="acme"} 1`, `dealseal_discrepancies{kind="file-gone",tenant="acme"} 0`,
		`dealseal_reconcile_age_seconds{tenant="acme"} 3600`, `dealseal_reconcile_mended{kind="file-gone",tenant="acme"} 2`} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(text, `dealseal_reconcile_age_seconds{tenant="quiet"}`) {
		t.Error("a tenant without nights has an age")
	}
	v.differing, v.passes = nil, nil
	if strings.Contains(get(h, "/").Body.String(), "compared with the ledger") {
		t.Error("nothing was compared, and the page speaks of it")
	}
}
