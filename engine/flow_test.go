package engine

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
)

func TestADealOfATemplatePassesEveryPointInTheOrderOfTheTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t), twoSeals(pades.BLTA, signing.Hold))
	d.follow(year(w))
	var passed []string
	d.Hook = func(p string) { passed = append(passed, p) }
	record := w.won()
	s := d.run()
	d.wantDone(s)
	w.wantUses(2)
	w.wantContracts(record, 1)
	w.wantShown(record, "Signed")
	if got := w.shown(record, fieldTx); got != string(s.Tx) {
		t.Errorf("the record names transaction %q, want %q", got, s.Tx)
	}
	if a, ok := deal.ReadAuditRecord(w.shown(record, fieldAudit)); !ok || a.Level != "B-LTA" || a.Fingerprint != s.Facts.Cert.SHA256 || a.TreeSize == 0 {
		t.Errorf("the audit record is %+v", a)
	}
	if n := len(w.org.Files(record)); n != 3 {
		t.Errorf("the record has %d files, want quotation, contract and audit trail", n)
	}
	for _, list := range []string{"", ".begin.", ".call.", ".advance."} {
		if diff := cmp.Diff(grouped(Points(), list), grouped(passed, list)); diff != "" {
			t.Errorf("points passed, by step %s (-table +passed):\n%s", list, diff)
		}
	}
}

// grouped picks the points of one kind in their order; of no kind, all of them in the order of the alphabet.
func grouped(points []string, kind string) (out []string) {
	for _, p := range points {
		if strings.Contains(p, kind) {
			out = append(out, p)
		}
	}
	if kind == "" {
		slices.Sort(out)
	}
	return out
}

func TestTheTableLeadsFromNoticedToDone(t *testing.T) {
	for i, st := range flow {
		if st.from != deal.Steps[i] {
			t.Errorf("step %d (%s) leads on from %q, want %q", i, st.name, st.from, deal.Steps[i])
		}
	}
	if len(flow) != len(deal.Steps)-1 || stepFrom(deal.Done) != nil {
		t.Errorf("%d steps lead through %d states", len(flow), len(deal.Steps))
	}
}

func TestTheNewestMatchingAttachmentIsSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.deal()
	w.tick()
	w.quote(record, 2)
	w.move(record, stageWon)
	d.wantDone(d.run())
	sealed := w.contracts(record)
	if len(sealed) != 1 || !strings.HasPrefix(string(sealed[0]), string(document("", 2))) {
		t.Fatalf("%d sealed files; the newest quotation is not at the head of it", len(sealed))
	}
	w.wantShown(record, "Signed")
}
