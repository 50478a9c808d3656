package engine

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/verify"
)

// until runs the deal and does something the moment that it passes a point.
func (d *daemon) until(point string, do func()) {
	passed := false
	d.Hook = func(p string) {
		if p == point && !passed {
			passed = true
			do()
		}
	}
}

// beforeTheLastLook is when a document is prepared, and the record has not yet been read again.
const beforeTheLastLook = "seal.call.reread/before"

func TestADealThatLeftItsStageIsHeldAndSealedOnlyWhenReleased(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	d.until(beforeTheLastLook, func() { w.move(record, stageLost) })
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "[left] ")
	w.wantUses(0)
	if len(d.digests(s.Tx)) > 0 || s.Facts.Digest != "" {
		t.Error("a digest was committed although the deal had left")
	}
	d.tell()
	w.wantShown(record, "Held")
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	w.wantUses(1)
	w.wantShown(record, "Signed")
}

func TestADealThatLeftItsStageIsVoidedWhereTheRuleSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(func(p *deal.Plan) { p.IfLeft = "void" })
	record := w.won()
	d.until(beforeTheLastLook, func() { w.move(record, stageLost) })
	d.want(d.run(), deal.Ended, deal.Rendered, "voided: the deal left its stage")
	w.wantUses(0)
	d.tell()
	w.wantShown(record, "Action Required")
}

func TestADealThatLeftItsStageIsSealedWhereTheRuleSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(func(p *deal.Plan) { p.IfLeft = "seal" })
	record := w.won()
	d.until(beforeTheLastLook, func() { w.move(record, stageLost) })
	d.wantDone(d.run())
	w.wantContracts(record, 1)
}

func TestASecondEntryIsHeldAndSealedOnlyWhenReleased(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	d.wantDone(d.run())
	w.move(record, stageOpen)
	w.move(record, stageWon)
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "[re-entry] ")
	w.wantUses(1)
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	w.wantContracts(record, 2)
}

func TestASecondEntryIsSealedWhereTheRuleSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(func(p *deal.Plan) { p.ReEntry = "seal" })
	record := w.won()
	w.move(record, stageOpen)
	w.move(record, stageWon)
	if fresh := d.poll(); len(fresh) != 2 {
		t.Fatalf("%d entries are new, want 2", len(fresh))
	}
	d.finish()
	w.wantContracts(record, 2)
	w.wantUses(2)
}

func TestASecondEntryIsSealedWhenTheFirstWasVoided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(func(p *deal.Plan) { p.IfLeft = "void" })
	record := w.won()
	d.until(beforeTheLastLook, func() { w.move(record, stageLost) })
	d.want(d.run(), deal.Ended, deal.Rendered, "voided")
	w.move(record, stageWon)
	d.wantDone(d.run())
	w.wantUses(1)
}

// copyState copies the state directory of a stopped daemon and opens the copy.
func (d *daemon) copyState() *daemon {
	d.t.Helper()
	d.close()
	dir := filepath.Join(d.t.TempDir(), "copy")
	must(d.t, os.CopyFS(dir, os.DirFS(d.dir)))
	d.w.clock.advance(time.Minute)
	return d.w.daemonIn(dir)
}

func TestARestoredStateHoldsWhatNothingProves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon()
	record := w.won()
	tx := first.notice()
	d := first.copyState()
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Noticed, "[restored] ")
	w.wantUses(0)
	d.release(tx)
	d.finish()
	d.wantDone(d.load(tx))
	w.wantContracts(record, 1)
}

// In a copy of the state a deal does not wait while its record is looked at, and what people were told of it is over. When it
// waits again they are told once more.
func TestWhatWaitsAgainInACopyIsToldAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon()
	record := w.bare()
	w.move(record, stageWon)
	s := first.run()
	first.want(s, deal.Held, deal.Noticed, "no file")
	d := first.copyState()
	d.finish()
	d.want(d.load(s.Tx), deal.Held, deal.Noticed, s.Reason)
	var told []string
	for _, e := range d.story(s.Tx).Outbox {
		if e.Type == "document.held" {
			told = append(told, e.Data["reason"])
		}
	}
	if !slices.Equal(told, []string{s.Reason, s.Reason}) {
		t.Errorf("it was told to wait with %q, want %q twice", told, s.Reason)
	}
}

// Two copies of a state that has committed a digest: neither may make a second contract of it.
func TestACopyOfTheStateNeverGoesOnWithACommittedDigestByItself(t *testing.T) {
	for _, point := range []string{"seal.advance.digest/after", "seal.advance.signature/after", "seal.advance.token/after"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := w.daemon()
			record := w.won()
			tx := first.notice()
			endAt(first, point, tx)
			second := first.copyState()
			uses := w.key.uses()
			second.finish()
			second.want(second.load(tx), deal.Held, deal.Rendered, "[restored] ")
			w.wantUses(uses)

			// The other copy finishes; released, this one finds the contract and adopts it.
			second.close()
			reopened := w.daemonIn(first.dir)
			reopened.finish()
			reopened.wantDone(reopened.load(tx))
			uses = w.key.uses()
			second = w.daemonIn(second.dir)
			second.release(tx)
			second.finish()
			s := second.load(tx)
			second.wantDone(s)
			w.wantUses(uses)
			w.wantContracts(record, 1)
			if !s.Facts.Adopted {
				t.Error("the contract was not adopted")
			}
		})
	}
}

// stopAt works until the deal passes a point, as if the daemon had ended there.
func endAt(d *daemon, point string, tx deal.TxID) {
	d.t.Helper()
	type stop struct{}
	d.until(point, func() { panic(stop{}) })
	defer func() {
		d.t.Helper()
		if _, ok := recover().(stop); !ok {
			d.t.Fatalf("the deal never passed %s", point)
		}
		d.Hook = nil
	}()
	d.Handle(d.t.Context(), deal.Job{Kind: deal.JobSeal, Tx: tx})
}

func TestASecondReaderThatSaysInvalidHoldsTheDeal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.checker.opinion = &verify.Opinion{Verdict: verify.OpinionInvalid}
	record := w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Sealed, "[second-opinion] ")
	w.wantContracts(record, 0)
	d.tell()
	w.wantShown(record, "Held")
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	w.wantUses(1)
}

func TestASecondReaderThatCannotSayHoldsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	for _, verdict := range []verify.OpinionVerdict{verify.OpinionCrashed, verify.OpinionTimedOut, verify.OpinionNotApplicable} {
		d.checker.opinion = &verify.Opinion{Verdict: verdict}
		w.won()
		s := d.run()
		d.wantDone(s)
		if s.Facts.SecondOpinion != string(verdict) {
			t.Errorf("the opinion %q was kept as %q", verdict, s.Facts.SecondOpinion)
		}
	}
}

func TestAHeldLevelGoesOnWithATimeStampIfThereIsOneAtTheRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	for _, c := range []struct {
		name   string
		mended bool
		level  string
	}{{"the TSA was mended", true, "B-T"}, {"the TSA is still down", false, "B-B"}} {
		w.authority.SetFault(pki.ServiceTSA, pki.Unavailable, -1)
		w.won()
		uses := w.key.uses()
		s := d.run()
		d.want(s, deal.Held, deal.Rendered, "[level] ")
		if c.mended {
			w.authority.SetFault(pki.ServiceTSA, "", 0)
		}
		d.release(s.Tx)
		d.finish()
		s = d.load(s.Tx)
		d.wantDone(s)
		if s.Facts.Level != c.level || (s.Facts.Flagged != "") == c.mended {
			t.Errorf("%s: level %s, flagged %q", c.name, s.Facts.Level, s.Facts.Flagged)
		}
		if n := w.key.uses() - uses; n != 1 {
			t.Errorf("%s: the key was used %d times, want once", c.name, n)
		}
	}
}

func TestARemovedTenantHoldsItsDealsAndSaysTheCure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	tx := d.notice()
	d.SetTenants(nil)
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Noticed, "[unconfigured] tenant \"acme\" is no longer configured: put its file back and reload")
	d.SetTenants(d.Tenants)
	d.release(tx)
	d.finish()
	d.wantDone(d.load(tx))
}

func TestARevokedCertificateHoldsTheDealAndGivesNothingUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.key.fail(math.MaxInt, &signing.KeyError{Key: "house", Revoked: true, Reason: "its certificate was revoked: activate another one"})
	w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Rendered, `[revoked] seal: signing: key "house": its certificate was revoked: activate another one`)
	if s.Attempts != 0 || HoldName(s.Reason, d.store.Epoch()) != HoldRevoked {
		t.Errorf("%d attempts are used up; the hold is %q", s.Attempts, HoldName(s.Reason, d.store.Epoch()))
	}
	d.release(s.Tx) // too early: it holds again
	d.finish()
	d.want(d.load(s.Tx), deal.Held, deal.Rendered, "[revoked] ")
	w.key.fail(0, nil)
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	w.wantUses(1)
}

func TestADealWithoutItsAttachmentIsHeldUntilThereIsOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.id(w.org.CreateOpportunity(map[string]any{"StageName": stageOpen}))
	w.move(record, stageWon)
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, `no file on the record matches "quote*.pdf"`)
	w.quote(record, 1)
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
}

func TestAnAttachmentThatIsNoPDFIsHeldUntilItIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.id(w.org.CreateOpportunity(map[string]any{"StageName": stageOpen}))
	w.id(w.org.AddFile(record, "quote.pdf", []byte("GIF89a, and much more")))
	w.move(record, stageWon)
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "is not a PDF")
	w.tick()
	w.quote(record, 1)
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
}

func TestAnAttachmentThatIsTooLargeIsHeldUntilItIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.id(w.org.CreateOpportunity(map[string]any{"StageName": stageOpen}))
	must(t, w.org.SetRaw(w.id(w.org.AddFile(record, "quote.pdf", []byte("%PDF-1.7"))), "ContentSize", 512<<20+1))
	w.move(record, stageWon)
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "has 536870913 bytes")
	w.tick()
	w.quote(record, 1)
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
}

func TestARecordWithoutARequiredFieldIsHeldWithTheFieldsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t))
	record := w.deal()
	must(t, w.org.Update(record, map[string]any{"AccountId": nil}))
	w.move(record, stageWon)
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, `field "customer" is missing`)
	w.wantUses(0)
}

func TestARecordThatCannotBeSeenIsHeldUntilItCan(t *testing.T) {
	for _, c := range []struct {
		point string
		step  deal.Step
		uses  int
		says  string
	}{
		{"gather.begin.gather/before", deal.Noticed, 0, "if the record was deleted, drop it"},
		{beforeTheLastLook, deal.Noticed, 0, "if the record was deleted, drop it"},
		{"attach.begin.attach/before", deal.Kept, 1, "its contract is in the archive, and stays there"},
		{"report.begin.report/before", deal.Attached, 1, "its contract is in the archive, and stays there"},
	} {
		t.Run(strings.ReplaceAll(c.point, "/", " "), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon()
			record := w.won()
			d.until(c.point, func() { must(t, w.org.Delete(record)) })
			s := d.run()
			d.want(s, deal.Held, c.step, "give it back and release the deal")
			d.want(s, deal.Held, c.step, c.says)
			w.wantUses(c.uses)
			must(t, d.store.Drop(t.Context(), s.Tx, "alice", "the customer withdrew"))
			if s = d.load(s.Tx); s.Condition != deal.Ended {
				t.Errorf("the deal is %s", s.Condition)
			}
		})
	}
}

func TestAnEditBeforeTheSealIsGatheredAgain(t *testing.T) {
	for name, c := range map[string]struct {
		plan func(*testing.T) func(*deal.Plan)
		edit func(w *world, record string)
	}{
		"a mapped field": {withTemplate, func(w *world, record string) {
			must(w.t, w.org.Update(record, map[string]any{"Name": "another subject"}))
		}},
		"the matching attachment": {func(*testing.T) func(*deal.Plan) { return func(*deal.Plan) {} }, func(w *world, record string) {
			w.tick()
			w.quote(record, 2)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(c.plan(t))
			record := w.won()
			d.until(beforeTheLastLook, func() { c.edit(w, record) })
			s := d.run()
			d.wantDone(s)
			w.wantUses(1)
			w.wantContracts(record, 1)
			if s.Facts.Generation != 2 || len(d.digests(s.Tx)) != 1 {
				t.Errorf("%d documents were prepared and %d digests committed, want 2 and 1", s.Facts.Generation, len(d.digests(s.Tx)))
			}
			if said := entries(d, s.Tx, "digest-committed"); said != 1 {
				t.Errorf("%d digests were committed, want that of the second document alone", said)
			}
		})
	}
}

// entries counts the audit lines of a deal that say what.
func entries(d *daemon, tx deal.TxID, what string) (n int) {
	for _, l := range d.story(tx).Trail {
		if l.What == what {
			n++
		}
	}
	return n
}

func TestARecordThatNeverHoldsStillIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t))
	record := w.won()
	edits := 0
	d.Hook = func(p string) {
		if p == beforeTheLastLook && edits < maxEdits {
			edits++
			must(t, w.org.Update(record, map[string]any{"Name": "edit " + strings.Repeat("i", edits)}))
		}
	}
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "find the mapped field that changes by itself")
	w.wantUses(0)
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
}

// spoil edits the record and moves it on, and forgets the requests so far.
func (w *world) spoil(record string) {
	w.t.Helper()
	must(w.t, w.org.Update(record, map[string]any{"Name": "too late"}))
	w.move(record, stageLost)
	w.org.ResetRequests()
}

// reads is how often the fields of a document were read.
func (w *world) reads() (n int) {
	for _, r := range w.org.Requests() {
		if strings.Contains(r.Query, "OpportunityLineItems") {
			n++
		}
	}
	return n
}

func TestAnAttemptThatHasCommittedItsDigestLooksAtNothingAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t))
	record := w.won()
	d.until("seal.advance.digest/after", func() { w.spoil(record) })
	s := d.run()
	d.wantDone(s)
	if n := w.reads(); n > 0 || s.Facts.Generation != 1 {
		t.Errorf("the record was read %d times after its digest was committed, and %d documents were prepared", n, s.Facts.Generation)
	}
	w.wantShown(record, "Signed")
}

func TestNothingIsLookedAtAgainOnceASignatureExists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t))
	record := w.won()
	w.authority.SetFault(pki.ServiceTSA, pki.Down, 2)
	d.until("seal.advance.signature/after", func() { w.spoil(record) })
	s := d.run()
	d.wantDone(s)
	if n := w.reads(); n > 0 || s.Facts.Level != "B-T" {
		t.Errorf("the record was read %d times after it was signed; level %s", n, s.Facts.Level)
	}
}

// An attempt that failed with the digest committed may have used the key: no other document may be made, and a person
// judges whether the record as it was is to be sealed.
func TestARecordThatChangesWhileTheKeyIsDownIsHeldWithItsDigest(t *testing.T) {
	for name, spoil := range map[string]func(*world, string){
		"an edit": func(w *world, record string) { must(w.t, w.org.Update(record, map[string]any{"Name": "too late"})) },
		"a move":  func(w *world, record string) { w.move(record, stageLost) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(withTemplate(t))
			record := w.won()
			w.key.fail(1, &downError{})
			d.until("seal.advance.digest/after", func() { spoil(w, record) })
			s := d.run()
			d.want(s, deal.Held, deal.Rendered, "[committed] ")
			digest := s.Facts.Digest
			d.release(s.Tx)
			d.finish()
			s = d.load(s.Tx)
			d.wantDone(s)
			if digests := d.digests(s.Tx); len(digests) != 1 || !digests[digest] {
				t.Errorf("the digests %v were committed, want %s alone", digests, digest)
			}
			w.wantUses(1)
		})
	}
}

func TestAStagedSignatureThatHasGrownOldIsPreparedAnewBeforeItsDigestIsCommitted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	d.until(beforeTheLastLook, func() {
		w.fault(mock.Fault{Kind: mock.KindQuery, Path: "FROM Opportunity WHERE", Effect: mock.EmptyBody, Times: 1})
	})
	tx := d.notice()
	d.work()
	d.want(d.load(tx), deal.Retrying, deal.Rendered, "seal: ")
	w.clock.advance(time.Hour)
	begun := w.now()
	d.finish()
	s := d.load(tx)
	d.wantDone(s)
	if s.Facts.Generation != 2 || s.Facts.SealedAt.Before(begun.Truncate(time.Second)) || len(d.digests(tx)) != 1 {
		t.Errorf("%d documents were prepared, sealed at %s, %d digests; want the second one, an hour later", s.Facts.Generation, s.Facts.SealedAt, len(d.digests(tx)))
	}
}

func TestAnAttemptThatAClockSetBackHasPutFarAwayIsDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.key.fail(1, &downError{})
	w.won()
	tx := d.notice()
	d.work()
	w.clock.advance(-48 * time.Hour)
	out := d.Handle(t.Context(), deal.Job{Kind: deal.JobSeal, Tx: tx})
	if s := d.load(tx); s.Condition == deal.Retrying && s.Reason == "" || out.Again > farFuture {
		t.Errorf("the deal waits for %s", out.Again)
	}
	w.wantUses(1)
}

func TestTheLevelOfAnOlderProfileIsTheDealsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withProfile(signing.Profile{Level: "B-B"}))
	w.won()
	tx := d.notice()
	d.Tenants[0].Rules = []Rule{w.rule()} // the configuration now says B-T
	d.finish()
	s := d.load(tx)
	d.wantDone(s)
	if s.Facts.Level != "B-B" || w.authority.Requests(pki.ServiceTSA) > 0 {
		t.Errorf("level %s, %d questions to the TSA; the deal was noticed with B-B", s.Facts.Level, w.authority.Requests(pki.ServiceTSA))
	}
}

func TestAReleaseAfterOneRestoreDoesNotCoverTheNext(t *testing.T) {
	first, second := time.Unix(1, 0), time.Unix(2, 0)
	for reason, same := range map[string]bool{"[restored] look": false, "[missing] look": false, "[left] look": true, "[level] look": true} {
		if a, b := HoldName(reason, first), HoldName(reason, second); a == "" || (a == b) != same {
			t.Errorf("%s is remembered as %q, then %q", reason, a, b)
		}
	}
	for _, nameless := range []string{"", "no file matches", "a [left] b", "[left"} {
		if got := HoldName(nameless, first); got != "" {
			t.Errorf("%q is remembered as %q", nameless, got)
		}
	}
}
