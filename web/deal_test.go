package web

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

func TestTimelineTellsWhatIsBehindNextAndAhead(t *testing.T) {
	s := &deal.Sealing{Step: deal.Gathered, Condition: deal.Held, Noticed: noon, Facts: deal.Facts{Times: map[deal.Step]time.Time{
		deal.Gathered: noon.Add(250 * time.Millisecond), deal.Rendered: noon.Add(time.Hour)}}}
	got := timeline(s, noon)
	marks := func(steps []stepView) (m []string) {
		for _, s := range steps {
			m = append(m, s.Mark+" "+s.Took)
		}
		return m
	}
	want := []string{"done ", "done 250 ms", "held ", "ahead ", "ahead ", "ahead ", "ahead ", "ahead ", "ahead "}
	if diff := cmp.Diff(want, marks(got)); diff != "" {
		t.Error(diff)
	}
	if got[2].At != nil {
		t.Error("a step that was taken back still shows its time")
	}
	s.Condition = deal.Running
	if got := timeline(s, noon)[2]; got.Mark != "running" || got.Word != "under way" {
		t.Errorf("%+v", got)
	}
	s.Facts.Times[deal.Gathered] = noon.Add(-time.Second)
	if got := timeline(s, noon)[1]; got.Took != "" {
		t.Errorf("a clock that was set back gives %q", got.Took)
	}
	s.Step = "damaged"
	if got := timeline(s, noon); len(got) != len(deal.Steps) {
		t.Errorf("%d steps", len(got))
	}
}

func TestAWaitingDealThatCanBePreparedAnewSaysHow(t *testing.T) {
	const tx = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	for name, tc := range map[string]struct {
		condition deal.Condition
		facts     deal.Facts
		want      bool
		plan      deal.Plan
		step      deal.Step
	}{
		"held, signed at a vendor":       {deal.Held, deal.Facts{}, true, deal.Plan{Delegated: &deal.Delegated{}}, deal.Sealed},
		"held, to be signed at a vendor": {deal.Held, deal.Facts{}, false, deal.Plan{Delegated: &deal.Delegated{}}, deal.Noticed},

		"dead, its key can sign no more": {deal.Dead, deal.Facts{Digest: "d"}, true, deal.Plan{}, deal.Rendered},
		"held with a digest":             {deal.Held, deal.Facts{Digest: "d"}, true, deal.Plan{}, deal.Rendered},
		"held, adopted":                  {deal.Held, deal.Facts{Adopted: true}, true, deal.Plan{}, deal.Rendered},
		"dead, nothing to sign yet":      {deal.Dead, deal.Facts{}, false, deal.Plan{}, deal.Rendered},
		"dead, signed":                   {deal.Dead, deal.Facts{Digest: "d", Signature: true}, false, deal.Plan{}, deal.Rendered},
		"tried again":                    {deal.Retrying, deal.Facts{Digest: "d"}, false, deal.Plan{}, deal.Rendered},
	} {
		v := &village{deals: []*Deal{{Sealing: &deal.Sealing{Tx: tx, Step: tc.step, Plan: tc.plan, Condition: tc.condition, Noticed: noon, Facts: tc.facts}}}}
		h, _, _ := open(v)
		page := checkOutline(t, get(h, path(v.deals[0])).Body.String())
		if got := strings.Contains(page.text, "dealseal jobs prepare "+tx); got != tc.want {
			t.Errorf("%s: prepare is offered: %v", name, got)
		}
	}
}

func TestAnAdoptedDealShowsWhatIsKnown(t *testing.T) {
	s := &deal.Sealing{Tx: "aaaaaaaaaaaaaaaaaaaaaaaaaa", Step: deal.Attached, Noticed: noon, Facts: deal.Facts{Adopted: true,
		Attachment: &deal.Attachment{ID: "069", URL: "https://crm.example/069"}}}
	v := &village{deals: []*Deal{{Sealing: s}}}
	h, _, _ := open(v)
	page := checkOutline(t, get(h, path(v.deals[0])).Body.String())
	for _, want := range []string{"found on the record, not made by this ledger", "on the record, file 069"} {
		if !strings.Contains(page.text, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
}

func TestWhatTheCRMKnowsIsSaid(t *testing.T) {
	const tx, other = deal.TxID("aaaaaaaaaaaaaaaaaaaaaaaaaa"), deal.TxID("bbbbbbbbbbbbbbbbbbbbbbbbbb")
	for _, c := range []struct {
		name    string
		step    deal.Step
		receipt deal.ReceiptState
		word    string
		status  string
		later   string
	}{
		{"nothing yet", deal.Noticed, deal.ReceiptState{}, "nothing to tell yet", "", ""},
		{"told", deal.Done, deal.ReceiptState{Owner: tx, Status: deal.StatusSigned, Sequence: 7, Sent: 7}, "CRM told", "shows “Signed”", ""},
		{"queued, not told", deal.Rendered, deal.ReceiptState{Owner: tx, Status: deal.StatusQueued, Sequence: 7}, "CRM not told", "should show “Queued”", ""},
		{"sealed, not told", deal.Attached, deal.ReceiptState{Owner: tx, Status: deal.StatusSigned, Sequence: 7, Sent: 6}, "sealed, CRM not told", "should show “Signed”", ""},
		{"overtaken", deal.Done, deal.ReceiptState{Owner: other, Status: deal.StatusQueued, Sequence: 9, Sent: 7}, "the record speaks of a later deal", "", string(other)},
	} {
		got := viewCRM(&Deal{Sealing: &deal.Sealing{Tx: tx, Step: c.step}, Receipt: c.receipt})
		if got.Word != c.word || got.Status != c.status || got.Later != c.later {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestTheSealSaysWhatItDoesNotProve(t *testing.T) {
	text := func(f deal.Facts) string {
		var b strings.Builder
		for _, x := range seal(&Deal{Sealing: &deal.Sealing{Facts: f}}, noon) {
			b.WriteString(x.Name + "|" + x.Mark + "|" + x.Text + "\n")
		}
		return b.String()
	}
	got := text(deal.Facts{Level: "B-B", SealedAt: noon, Verdict: "INVALID", Conclusion: "TOTAL-FAILED, HASH_FAILURE", SecondOpinion: "not applicable", Flagged: "level B-T was asked for, B-B was reached", Generation: 2})
	for _, want := range []string{"Claimed time|", "Verdict|dead|invalid", "EN 319 102-1|dead|TOTAL-FAILED, HASH_FAILURE", "Second opinion|retrying|not applicable", "Flagged|retrying|level B-T", "Prepared||2 times"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if got := text(deal.Facts{Digest: "ab"}); got != "Digest to be signed||ab\n" {
		t.Error(got)
	}
	if got := text(deal.Facts{Digest: "ab", Signature: true}); got != "Signed digest||ab\n" {
		t.Error(got)
	}
	if got := text(deal.Facts{Level: "B-T", SealedAt: noon, Verdict: "VALID"}); !strings.Contains(got, "Proven time|") || !strings.Contains(got, "Verdict|done|valid") {
		t.Error(got)
	}
}

func TestEarlierDealsAndErasureAreShown(t *testing.T) {
	v := settle()
	d := v.deals[len(v.deals)-1]
	d.Earlier, d.Erased = []deal.TxID{v.deals[0].Sealing.Tx}, true
	h, _, _ := open(v)
	body := get(h, path(d)).Body.String()
	if !strings.Contains(body, `href="/deals/`+string(d.Earlier[0])) || !strings.Contains(body, "its data key is destroyed") {
		t.Error("the earlier deal or the erasure is not on the page")
	}
}
