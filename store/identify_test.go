package store

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
)

func TestAnEndedDealIsAnEarlierOneOnlyIfItHasAContract(t *testing.T) {
	s, _ := newStore(t)
	ended := func(occurrence, reason string, facts func(*deal.Sealing)) deal.TxID {
		sl := load(t, s, notice(t, s, change("006A", occurrence))[0])
		sl.Condition, sl.Reason = deal.Ended, reason
		facts(sl)
		advance(t, s, sl, "ended")
		return sl.Tx
	}
	ended("h1", "dropped: not wanted", func(*deal.Sealing) {})
	ended("h2", "voided: it left its stage", func(*deal.Sealing) {})
	want := []deal.TxID{
		ended("h3", "dropped: not wanted", func(sl *deal.Sealing) { sl.Step, sl.Facts.Signature = deal.Rendered, true }),
		ended("h4", "dropped: not wanted", func(sl *deal.Sealing) { sl.Step, sl.Facts.Adopted = deal.Attached, true }),
		ended("h5", "voided: it left its stage", func(sl *deal.Sealing) { sl.Step, sl.Facts.Signature = deal.Rendered, true }),
	}
	running := notice(t, s, change("006A", "h6"))[0]
	got, err := s.Earlier(t.Context(), load(t, s, notice(t, s, change("006A", "h7"))[0]))
	if want = append(want, running); err != nil || !cmp.Equal(got, want) {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
}

func TestALaterDealIsAnEarlierOneOnceItHasAContract(t *testing.T) {
	for name, c := range map[string]struct {
		later func(*deal.Sealing)
		want  bool
	}{
		"only noticed":          {func(*deal.Sealing) {}, false},
		"held":                  {func(sl *deal.Sealing) { sl.Condition = deal.Held }, false},
		"signed":                {func(sl *deal.Sealing) { sl.Step, sl.Facts.Signature = deal.Rendered, true }, true},
		"done":                  {func(sl *deal.Sealing) { sl.Step, sl.Facts.Signature = deal.Done, true }, true},
		"found on the record":   {func(sl *deal.Sealing) { sl.Step, sl.Facts.Adopted = deal.Sealed, true }, true},
		"dropped once signed":   {func(sl *deal.Sealing) { sl.Condition, sl.Facts.Signature = deal.Ended, true }, true},
		"dropped with no trace": {func(sl *deal.Sealing) { sl.Condition = deal.Ended }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			waiting := one(t, s, "006A")
			waiting.Condition = deal.Held
			advance(t, s, waiting, "held")
			later := load(t, s, notice(t, s, change("006A", "h2"))[0])
			c.later(later)
			advance(t, s, later, "so")
			var want []deal.TxID
			if c.want {
				want = []deal.TxID{later.Tx}
			}
			if got, err := s.Earlier(t.Context(), waiting); err != nil || !cmp.Equal(got, want) {
				t.Fatalf("got %v, %v, want %v", got, err, want)
			}
		})
	}
}

// merged notices a deal in each of two records; a person has since merged the first into the second.
func merged(t *testing.T, s *Store, c *testClock) (older, newer *deal.Sealing) {
	t.Helper()
	older = one(t, s, "100")
	c.advance(time.Second)
	entry := change("101", "h2")
	entry.At = start.Add(time.Second)
	return older, load(t, s, notice(t, s, entry)[0])
}

// The CRM has chosen which of the two receipts the merged record shows. Nothing is left to do for either deal, so only the
// poll can see it.
func TestAKnownEntryOfAMergedRecordHasTheNewestReceiptToldAnew(t *testing.T) {
	s, c := newStore(t)
	older, newer := merged(t, s, c)
	for _, sl := range []*deal.Sealing{older, newer} {
		if err := s.Told(t.Context(), sl.Tx, receipt(t, s, sl.Tx).Sequence, 0); err != nil {
			t.Fatal(err)
		}
	}
	entry := older.Change
	entry.Ref.ID, entry.Aliases = "102", []string{"100", "101"}
	for range 2 { // the second time there is nothing new
		if fresh := notice(t, s, entry); len(fresh) > 0 {
			t.Fatalf("%v is fresh", fresh)
		}
	}
	of, nf := receipt(t, s, older.Tx), receipt(t, s, newer.Tx)
	if of != nf || of.Owner != newer.Tx || !of.Due() {
		t.Fatalf("the receipts are %+v and %+v, want one of %s that is due", of, nf, newer.Tx)
	}
	if err := s.Told(t.Context(), newer.Tx, nf.Sequence, 0); err != nil {
		t.Fatal(err)
	}
	notice(t, s, entry)
	if st := receipt(t, s, newer.Tx); st.Due() {
		t.Fatalf("the receipt is due again: %+v", st)
	}
	if _, err := s.VerifyAudit(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

func TestIdentifyMakesOneRecordOfThoseThatWereMerged(t *testing.T) {
	s, c := newStore(t)
	older, newer := merged(t, s, c)
	for _, sl := range []*deal.Sealing{older, newer} {
		if err := s.Told(t.Context(), sl.Tx, receipt(t, s, sl.Tx).Sequence, 0); err != nil {
			t.Fatal(err)
		}
	}
	highest, before := receipt(t, s, newer.Tx).Sequence, *newer
	if err := s.Identify(t.Context(), newer, []string{"200", "100", "101"}); err != nil {
		t.Fatal(err)
	}
	earlier, err := s.Earlier(t.Context(), newer)
	if err != nil || !cmp.Equal(earlier, []deal.TxID{older.Tx}) {
		t.Errorf("earlier: %v, %v, want %s", earlier, err, older.Tx)
	}
	want := deal.ReceiptState{Owner: newer.Tx, Status: deal.StatusQueued, Sequence: highest + 1}
	for _, sl := range []*deal.Sealing{older, newer} {
		got := receipt(t, s, sl.Tx)
		if got.Sent >= got.Sequence {
			t.Errorf("the merged record is not told anew: %+v", got)
		}
		got.Sent = 0
		if got != want {
			t.Errorf("%s: receipt %+v, want %+v", sl.Tx, got, want)
		}
	}
	if n := query[int](t, s, `SELECT count(*) FROM jobs WHERE kind = 'tell'`); n != 1 {
		t.Errorf("%d jobs tell one record", n)
	}
	if !cmp.Equal(before, *newer) || !cmp.Equal(before, *load(t, s, newer.Tx)) {
		t.Error("the sealing itself was changed")
	}
	later := change("200", "h3") // the CRM does not repeat the aliases
	later.At = start.Add(time.Hour)
	last := load(t, s, notice(t, s, later)[0])
	if got := receipt(t, s, older.Tx); got.Owner != last.Tx {
		t.Errorf("a later entry does not own the record's receipt: %+v", got)
	}
	verified(t, s)
}

func TestIdentifyIsTheSameWhicheverOfTheRecordsComesFirst(t *testing.T) {
	s, c := newStore(t)
	older, newer := merged(t, s, c)
	if err := s.Identify(t.Context(), older, []string{"101"}); err != nil {
		t.Fatal(err)
	}
	for _, sl := range []*deal.Sealing{older, newer} {
		if got := receipt(t, s, sl.Tx); got.Owner != newer.Tx {
			t.Errorf("%s: owner %s, want the newest entry %s", sl.Tx, got.Owner, newer.Tx)
		}
	}
	if earlier, err := s.Earlier(t.Context(), newer); err != nil || !cmp.Equal(earlier, []deal.TxID{older.Tx}) {
		t.Errorf("earlier: %v, %v, want %s", earlier, err, older.Tx)
	}
}

func TestKnownIDsAreNoNews(t *testing.T) {
	s, c := newStore(t)
	older, newer := merged(t, s, c)
	ids := []string{"100", "101"}
	if err := s.Identify(t.Context(), newer, ids); err != nil {
		t.Fatal(err)
	}
	head, before := query[int64](t, s, `SELECT max(n) FROM audit`), receipt(t, s, older.Tx)
	if err := s.Identify(t.Context(), newer, ids); err != nil {
		t.Fatal(err)
	}
	if n := query[int64](t, s, `SELECT max(n) FROM audit`); n != head {
		t.Errorf("%d audit entries about nothing new", n-head)
	}
	if after := receipt(t, s, older.Tx); after != before {
		t.Errorf("the receipt became %+v, was %+v", after, before)
	}
}

func TestIdentifyOfARecordThatIsToldNothing(t *testing.T) {
	s, _ := newStore(t)
	n := page(t, s, change("006A", "h1"))
	silent := plan()
	silent.WriteBack = deal.WriteBack{}
	n.Plans[ruleA] = silent
	fresh, err := s.Notice(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	told := one(t, s, "006B")
	before := receipt(t, s, told.Tx)
	if err := s.Identify(t.Context(), load(t, s, fresh[0]), []string{"006B"}); err != nil {
		t.Fatal(err)
	}
	if after := receipt(t, s, told.Tx); after != before {
		t.Fatalf("another receipt became %+v, was %+v", after, before)
	}
}
