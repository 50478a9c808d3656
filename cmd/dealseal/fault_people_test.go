package main

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// busy are deals that people touch while they are being sealed; each is named by what must become of it.
type busy struct {
	c crm
	// edited after it was read, for the first time; the others of one entry have left their stage at that moment.
	edited, leftHeld, leftVoided, leftSealed string
	// entered twice before the CRM was asked again.
	twiceHeld, twiceSealed string
}

const anotherSubject = "Quite another subject"

// TestDealsThatPeopleTouchMeanwhileEndAsTheirRulesSay edits records and moves them out of their stage between the reading
// for the document and the look just before the key is used, and has others enter a stage twice between two polls.
func TestDealsThatPeopleTouchMeanwhileEndAsTheirRulesSay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	for _, c := range w.crms {
		file := "tenants/" + c.tenant() + ".yaml"
		w.rewrite(t, file, "{id: "+ruleQuote+",", "{id: "+ruleQuote+", if_left: void,")
		w.rewrite(t, file, "{id: "+ruleLenient+",", "{id: "+ruleLenient+", if_left: seal,")
		w.rewrite(t, file, "{id: "+ruleStrict+",", "{id: "+ruleStrict+", re_entry: seal,")
		for _, rule := range []string{"normal, audit_trail: audit-trail@1", "lenient"} { // documents that are made, so that their reading is known
			w.rewrite(t, file, `{attachment: "Quote*.pdf"}, seal: `+rule, "{template: order-form@1}, seal: "+rule)
		}
	}
	s := w.begin(t)
	var all []busy
	for _, c := range s.crms {
		all = append(all, s.touch(c))
	}
	for _, b := range all {
		s.endsAsTheRulesSay(t, b)
	}
	auditIsWhole(t, s.ops, nil)
	s.daemon.stop(t)
	state := s.openState(t)
	for _, b := range all {
		sealing, err := state.Load(context.Background(), sealings(t, &local{Store: state}, b.edited)[0].Tx)
		must(t, err)
		document := sealing.Private.Document
		if !bytes.Contains(document, []byte(anotherSubject)) || bytes.Contains(document, []byte(hiddenSubject)) {
			t.Errorf("%s was not sealed as it was edited: %s", b.edited, document)
		}
		if out := s.outcomeOf(t, state, b.c, b.edited); out.Status != "Signed" || out.Digests != 1 {
			t.Errorf("%s: %+v", b.edited, out)
		}
	}
}

// touch makes the deals of one CRM, and has them touched at their moments.
func (s *stage) touch(c crm) busy {
	touched := func(rule string, do func(record string)) string {
		r := c.open(sale{})
		reads := c.reads(r) // before the document there are one or two: the flow takes what a poll has read, unless that was long ago
		s.at(0, func(q *http.Request) bool { return reads(q) && s.isGathered(r) }, func() { do(r) })
		c.move(r, rule)
		return r
	}
	leave := func(record string) { c.move(record, stageLost) }
	b := busy{c: c, twiceHeld: c.open(sale{quote: quotation(1)}), twiceSealed: c.open(sale{quote: quotation(1)})}
	s.at(0, c.watches, func() {
		for record, rule := range map[string]string{b.twiceHeld: ruleMemo, b.twiceSealed: ruleStrict} {
			c.move(record, rule)
			leave(record)
			nextMillisecond() // a HubSpot deal has no two changes at the same one
			c.move(record, rule)
		}
	})
	b.edited = touched(ruleContract, func(record string) { c.rename(record, anotherSubject) })
	b.leftHeld = touched(ruleContract, leave)
	b.leftVoided = touched(ruleQuote, leave)
	b.leftSealed = touched(ruleLenient, leave)
	return b
}

// isGathered reports whether the document of a record's only deal is made of what was read.
func (s *stage) isGathered(record string) bool {
	list, err := s.ops.List(context.Background(), store.Filter{Record: record})
	return err == nil && len(list) == 1 && list[0].Step != deal.Noticed
}

func nextMillisecond() {
	for began := time.Now().UnixMilli(); time.Now().UnixMilli() <= began; {
	}
}

func (s *stage) endsAsTheRulesSay(t *testing.T, b busy) {
	t.Helper()
	story := awaitDone(t, s.ops, b.edited)
	if g := story.Sealing.Facts.Generation; g != 2 || entries(story, "gather-again") != 1 || entries(story, "digest-committed") != 1 {
		t.Errorf("%d documents were prepared, gathered again %d times, and %d digests committed; want 2, 1 and 1", g, entries(story, "gather-again"), entries(story, "digest-committed"))
	}

	held := awaitHeld(t, s.ops, b.leftHeld, 1, "[left]", "release to seal it all the same, or drop")
	mustUseTheKey(t, held, 0)
	mustShow(t, b.c, b.leftHeld, deal.StatusHeld)
	mustBear(t, b.c, b.leftHeld, 0)
	conclude(t, s.ops, "release", held.Sealing.Tx)

	voided := await(t, s.ops, b.leftVoided, 1, "voided", func(m store.Summary) bool { return m.Condition == deal.Ended })
	if !strings.Contains(voided.Sealing.Reason, "voided: the deal left its stage before it was sealed") {
		t.Errorf("the reason of a voided deal: %s", voided.Sealing.Reason)
	}
	mustUseTheKey(t, voided, 0)
	mustShow(t, b.c, b.leftVoided, deal.StatusActionRequired)
	mustBear(t, b.c, b.leftVoided, 0)
	if err := s.ops.Decide(context.Background(), decision{Verb: "release", Tx: voided.Sealing.Tx, Why: "on second thoughts"}); err == nil {
		t.Error("a voided deal was released")
	}

	for _, r := range []string{b.edited, b.leftHeld, b.leftSealed} {
		mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
		mustBear(t, b.c, r, 1)
		mustShow(t, b.c, r, deal.StatusSigned)
	}
	s.bothEntries(t, b)
}

// bothEntries is about records that have entered their stage twice before the CRM was asked.
func (s *stage) bothEntries(t *testing.T, b busy) {
	t.Helper()
	second := awaitHeld(t, s.ops, b.twiceHeld, 2, "[re-entry]", "release to seal it again, or drop")
	mustUseTheKey(t, second, 0)
	conclude(t, s.ops, "release", second.Sealing.Tx)
	for _, r := range []string{b.twiceHeld, b.twiceSealed} {
		newest := await(t, s.ops, r, 2, "done", isDone)
		eventually(t, "the first entry of "+r+" is done", func() (bool, string) {
			m := sealings(t, s.ops, r)[1]
			return isDone(m), m.Reason
		})
		list := sealings(t, s.ops, r)
		if len(list) != 2 {
			t.Fatalf("%s: %d sealings of two entries", r, len(list))
		}
		for _, m := range list {
			mustUseTheKey(t, storyOf(t, s.ops, m.Tx), 1)
		}
		mustBear(t, b.c, r, 2)
		mustShow(t, b.c, r, deal.StatusSigned)
		if tx := b.c.shown(r)["transaction_id"]; tx != string(newest.Sealing.Tx) {
			t.Errorf("%s shows %s, its newest entry is %s", r, tx, newest.Sealing.Tx)
		}
	}
	if entries(storyOf(t, s.ops, sealings(t, s.ops, b.twiceSealed)[0].Tx), "held") > 0 {
		t.Errorf("%s was held although its rule says re_entry: seal", b.twiceSealed)
	}
}
