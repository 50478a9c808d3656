package engine

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/store"
)

func TestWithoutATSAForTheWholeScheduleTheProfileDecidesAndTheKeyIsUsedOnce(t *testing.T) {
	for _, c := range []struct {
		answer    signing.Downgrade
		condition deal.Condition
		step      deal.Step
		reason    string
		shown     string
	}{
		{signing.Hold, deal.Held, deal.Rendered, "[level] level B-T was asked for and no time-stamp could be had", "Held"},
		{signing.Fail, deal.Dead, deal.Rendered, "seal: level B-T was asked for and no time-stamp could be had", "Failed"},
		{signing.AcceptAndFlag, deal.Running, deal.Done, "", "Signed"},
	} {
		t.Run(string(c.answer), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(onDowngrade(c.answer))
			d.Retry.Attempts = 10
			w.authority.SetFault(pki.ServiceTSA, pki.Down, -1)
			record := w.won()
			s := d.run()
			d.want(s, c.condition, c.step, c.reason)
			w.wantUses(1)
			if asked := w.authority.Requests(pki.ServiceTSA); asked != d.Retry.Attempts {
				t.Errorf("the TSA was asked %d times, want the whole schedule of %d", asked, d.Retry.Attempts)
			}
			d.tell()
			w.wantShown(record, c.shown)
			if done := c.step == deal.Done; done && (s.Facts.Level != "B-B" || s.Facts.Flagged == "") || !done && len(w.contracts(record)) > 0 {
				t.Errorf("level %s, flagged %q, %d files on the record", s.Facts.Level, s.Facts.Flagged, len(w.contracts(record)))
			}
		})
	}
}

func TestTheKeyIsNotUsedForAFileWhoseRehearsalIsNotValid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	d.checker.distrust = true
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "a rehearsal of the seal")
	w.wantUses(0)
	if s.Facts.Digest != "" {
		t.Errorf("the digest %s was committed", s.Facts.Digest)
	}
	d.checker.distrust = false
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	w.wantUses(1)
}

func TestATSAThatComesBackStampsTheSameSignature(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.authority.SetFault(pki.ServiceTSA, pki.Down, 3)
	w.won()
	tx := d.notice()
	d.work()
	value := d.load(tx).Private.Value
	d.want(d.load(tx), deal.Retrying, deal.Rendered, "seal: ")
	d.finish()
	s := d.load(tx)
	d.wantDone(s)
	w.wantUses(1)
	if len(value) == 0 || !bytes.Equal(value, s.Private.Value) || s.Facts.Level != "B-T" {
		t.Errorf("level %s; the signature value is the first one: %v", s.Facts.Level, bytes.Equal(value, s.Private.Value))
	}
}

func TestTroubleWithTheKeyTakesNoAttemptFromTheTSA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.key.fail(d.Retry.Attempts-1, &downError{})
	w.authority.SetFault(pki.ServiceTSA, pki.Down, d.Retry.Attempts-1)
	w.won()
	s := d.run()
	d.wantDone(s)
	if s.Facts.Level != "B-T" {
		t.Errorf("level %s: the TSA had not its own schedule", s.Facts.Level)
	}
}

func TestAKeyThatIsDownIsTriedAgainWhenItAskedToBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	const asked = 17 * time.Minute // longer than the schedule would wait
	w.key.fail(1, &downError{asked})
	w.won()
	tx := d.notice()
	d.work()
	s := d.load(tx)
	d.want(s, deal.Retrying, deal.Rendered, "seal: ")
	if wait := s.Next.Sub(w.now()); wait != asked {
		t.Errorf("it is tried again in %s, want %s", wait, asked)
	}
	if out := d.Handle(t.Context(), deal.Job{Kind: deal.JobSeal, Tx: tx}); out.Again != asked || w.key.uses() > 0 {
		t.Errorf("a job that comes early is sent back for %s, and the key was used %d times", out.Again, w.key.uses())
	}
	d.finish()
	d.wantDone(d.load(tx))
	w.wantUses(1)
}

func TestAKeyThatStaysDownKillsTheDealWithTheStepAndOneRetryGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.key.fail(math.MaxInt, errors.New("no session"))
	record := w.won()
	s := d.run()
	d.want(s, deal.Dead, deal.Rendered, "seal: ")
	d.want(s, deal.Dead, deal.Rendered, fmt.Sprintf("(after %d attempts)", d.Retry.Attempts))
	d.tell()
	w.wantShown(record, "Failed")
	digest := s.Facts.Digest
	w.key.fail(0, nil)
	must(t, d.store.Retry(t.Context(), s.Tx, "alice", "the HSM is back"))
	d.finish()
	s = d.load(s.Tx)
	d.wantDone(s)
	if s.Facts.Digest != digest || hex.EncodeToString(w.key.signed[0]) != digest {
		t.Error("another digest was signed than the one that was committed")
	}
}

func TestAPermanentErrorEndsAtOnceAndNamesItsStep(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*daemon, *world)
		step    deal.Step
		reason  string
	}{
		"the record cannot be read": {func(_ *daemon, w *world) {
			w.fault(mock.Fault{Kind: mock.KindQuery, Path: "FROM Opportunity WHERE", Effect: mock.APIError, Status: 403, Code: "INSUFFICIENT_ACCESS"})
		}, deal.Noticed, "gather: "},
		"the upload is refused": {func(_ *daemon, w *world) {
			w.fault(mock.Fault{Kind: mock.KindUpload, Effect: mock.ValidationRule})
		}, deal.Kept, "attach: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon()
			c.prepare(d, w)
			w.won()
			start := w.now()
			s := d.run()
			d.want(s, deal.Dead, c.step, c.reason)
			if s.Attempts != 0 || w.now() != start {
				t.Errorf("%d attempts, %s later: it was tried again", s.Attempts, w.now().Sub(start))
			}
		})
	}
}

func TestAKeyThatSomeoneHasToMendGivesNoDealUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.key.fail(math.MaxInt, &permanentError{errors.New("wrong PIN")})
	w.won()
	tx := d.notice()
	for range 2 * d.Retry.Attempts {
		d.handle(tx)
		s := d.load(tx)
		d.want(s, deal.Retrying, deal.Rendered, "wrong PIN")
		if s.Attempts != 0 {
			t.Fatalf("%d attempts are used up", s.Attempts)
		}
		w.clock.advance(s.Next.Sub(w.now()))
	}
	w.key.fail(0, nil)
	d.finish()
	d.wantDone(d.load(tx))
	w.wantUses(1)
}

func TestARefusedLoginGivesNoDealUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	tx := d.notice()
	w.org.KillSessions()
	w.fault(mock.Fault{Kind: mock.KindToken, Effect: mock.APIError, Status: 400, Code: "invalid_grant", Message: "expired"})
	for range 2 * d.Retry.Attempts {
		d.handle(tx)
		s := d.load(tx)
		d.want(s, deal.Retrying, deal.Noticed, "gather: ")
		w.clock.advance(s.Next.Sub(w.now()))
	}
	w.org.ClearFaults()
	d.finish()
	d.wantDone(d.load(tx))
}

func TestADealOfAnotherAccountIsNotTouched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	tx := d.notice()
	elsewhere := newWorld(t)
	elsewhere.open(mock.Options{OrgID: "00DWs00000ELSEW", Sandbox: true})
	d.Engine = &Engine{Ledger: d.Ledger, Files: d.Files, Documents: d.Documents, Bundles: d.Bundles, Checker: d.checker, Log: d.Log, Now: d.Now, Sealer: d.Sealer, Retry: d.Retry}
	d.Tenants = nil
	d.addTenant(Tenant{ID: acme, Name: "Acme", CRM: elsewhere.connector(), Poll: time.Minute, Rules: []Rule{w.rule()}})
	d.handle(tx)
	d.want(d.load(tx), deal.Held, deal.Noticed, "connect it to that account again")
	w.wantUses(0)
	w.wantContracts(record, 0)
}

func TestWaitsGrowToTheirBoundAndHeedWhatWasAsked(t *testing.T) {
	holds := func(first, most uint32, attempts uint8, asked uint32) bool {
		r := Retry{First: time.Duration(first) * time.Microsecond, Max: time.Duration(most) * time.Millisecond}
		wait := r.after(int(attempts)+1, time.Duration(asked), rand.Int64N)
		ideal := min(float64(r.First)*math.Pow(2, float64(attempts)), float64(r.Max))
		low, high := max(time.Duration(ideal), time.Duration(asked)), max(time.Duration(ideal*1.2), time.Duration(asked))
		return wait >= low && wait <= high+1
	}
	if err := quick.Check(holds, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
	for _, first := range []time.Duration{1<<44 + 1, math.MaxInt64 / 4} { // whose doubles do not fit
		if wait := (Retry{First: first, Max: math.MaxInt64 / 2}).after(21, 0, rand.Int64N); wait < first {
			t.Errorf("the 21st wait after a first one of %s is %s", first, wait)
		}
	}
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[(Retry{First: time.Hour, Max: time.Hour}).after(1, 0, rand.Int64N)] = true
	}
	if len(seen) < 2 {
		t.Error("the waits have no jitter")
	}
}

func TestAnEngineWithoutAScheduleHasOne(t *testing.T) {
	var e Engine
	e.init()
	if diff := cmp.Diff(Retry{First: 2 * time.Second, Max: 30 * time.Minute, Attempts: 12}, e.Retry); diff != "" {
		t.Errorf("the default schedule (-want +got):\n%s", diff)
	}
}

func TestALedgerThatFailsOnceAtEachCommitCostsOnlyRetries(t *testing.T) {
	for name, after := range map[string]bool{"before the commit": false, "after the commit": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(withTemplate(t), twoSeals(pades.BLTA, signing.Hold))
			d.follow(year(w))
			b := &brittle{Ledger: d.store, after: after, failure: errors.New("disk I/O error")}
			d.Ledger = b
			record := w.won()
			s := d.run()
			d.wantDone(s)
			digests := d.digests(s.Tx)
			for _, signed := range w.key.signed {
				if !digests[hex.EncodeToString(signed)] {
					t.Error("a digest was signed that was not committed")
				}
			}
			if files := len(w.org.Files(record)); len(digests) != 2 || files != 3 {
				t.Errorf("%d digests and %d files, want 2 of two seals, and 3 with quotation and trail", len(digests), files)
			}
			commits := 1 // of the failures themselves
			for _, st := range flow {
				commits += len(st.begins) + len(st.advances)
			}
			if len(b.struck) != commits {
				t.Errorf("the ledger failed at %d commits, want all %d: %v", len(b.struck), commits, b.struck)
			}
		})
	}
}

func TestWhatTheLedgerRefusesForGoodIsShownAndNotTriedForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.Ledger = &brittle{Ledger: d.store, failure: &store.RefusedError{Reason: "another digest is committed"}, struck: map[string]bool{"advance dead": true}}
	w.won()
	s := d.run()
	d.want(s, deal.Dead, deal.Noticed, "gather: ")
	d.want(s, deal.Dead, deal.Noticed, "another digest is committed")
}

// staleLedger is a ledger in which someone else is always faster.
type staleLedger struct{ Ledger }

func (staleLedger) Begin(context.Context, *deal.Sealing, deal.Intent) error {
	return fmt.Errorf("sealing: %w", deal.ErrStale)
}

func TestADealThatSomeoneElseMovesIsLeftToThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	tx := d.notice()
	d.Ledger = staleLedger{d.store}
	out := d.Handle(t.Context(), deal.Job{Kind: deal.JobSeal, Tx: tx})
	s := d.load(tx)
	d.want(s, deal.Running, deal.Noticed, "")
	if out.Again <= 0 || s.Attempts > 0 || s.Version != 1 {
		t.Errorf("again in %s, %d attempts, version %d: want to look again and no change", out.Again, s.Attempts, s.Version)
	}
	d.Ledger = d.store
	d.finish()
	d.wantDone(d.load(tx))
}

func TestAJobThatIsCutOffByTheShutdownChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	tx := d.notice()
	ctx, cancel := context.WithCancel(t.Context())
	d.until("gather.call.record/before", cancel)
	out := d.Handle(ctx, deal.Job{Kind: deal.JobSeal, Tx: tx})
	s := d.load(tx)
	d.want(s, deal.Running, deal.Noticed, "")
	if out.Again <= 0 || s.Attempts > 0 || strings.Contains(d.log.String(), "will try again") {
		t.Errorf("again in %s, %d attempts: the shutdown was taken for a failure\n%s", out.Again, s.Attempts, d.log)
	}
	d.finish()
	d.wantDone(d.load(tx))
}

func TestADigestThatIsGivenUpWhileOthersKeepTheKeyIsNeverSigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.Places = Places{Key: 1}
	w.won()
	tx := d.notice()
	w.key.fail(1, &downError{})
	d.handle(tx)
	d.want(d.load(tx), deal.Retrying, deal.Rendered, "seal: ")
	given := d.load(tx).Facts.Digest
	if given == "" {
		t.Fatal("no digest was committed")
	}
	must(t, d.signing.take(t.Context(), "other")) // whose call of the key hangs
	w.clock.advance(time.Hour)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ctx, end := d.store.AsJob(t.Context())
		defer end()
		d.Handle(ctx, deal.Job{Kind: deal.JobSeal, Tx: tx})
	}()
	waitsInLine(t, d.signing)
	w.clock.advance(usualLease + time.Second)
	must(t, d.store.PrepareAgain(t.Context(), tx, "alice", "the HSM was down"))
	d.signing.give("other")
	within(t, "the deal has had its turn", ended)
	w.wantUses(0)

	w.clock.advance(time.Minute)
	d.finish()
	d.wantDone(d.load(tx))
	w.wantUses(1)
	if signed := hex.EncodeToString(w.key.signed[0]); signed == given {
		t.Error("the digest that was given up was signed")
	}
}

func TestADealThatWaitsForItsTurnToBeCheckedKeepsNoLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.Places = Places{Check: 1}
	w.won()
	tx := d.notice()
	d.until("seal.advance.sealed/after", func() { must(t, d.checking.take(t.Context(), "other")) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ctx, end := d.store.AsJob(t.Context())
		defer end()
		d.Handle(ctx, deal.Job{Kind: deal.JobSeal, Tx: tx})
	}()
	waitsInLine(t, d.checking)
	w.clock.advance(time.Hour)
	for _, i := range d.story(tx).Intents {
		if i.What == "check" {
			t.Error("a lease was taken for a check whose turn had not come")
		}
	}
	d.checking.give("other")
	within(t, "the deal has had its turn", ended)
	d.wantDone(d.load(tx))
}

// waitsInLine returns when a tenant waits for a turn.
func waitsInLine(t *testing.T, at *turns) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		at.mu.Lock()
		waiting := len(at.line) > 0
		at.mu.Unlock()
		if waiting {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody waits for a turn")
		}
	}
}
