package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/store"
)

// stage is a world with a running daemon.
type stage struct {
	*world
	daemon *process
	ops    *remote
}

func newStage(t *testing.T, o worldOptions) *stage {
	t.Helper()
	return newWorld(t, o).begin(t)
}

// begin starts the daemon of a world, for the first time or again.
func (w *world) begin(t *testing.T) *stage {
	t.Helper()
	return &stage{world: w, daemon: w.start(t), ops: w.control(t, w.stateDir)}
}

// eachCRM runs a scenario in both CRMs, one after the other under one daemon.
func eachCRM(t *testing.T, o worldOptions, scenario func(t *testing.T, s *stage, c crm)) {
	t.Helper()
	t.Parallel()
	s := newStage(t, o)
	for _, c := range s.crms {
		name := string(c.kind())
		if c.options().quotes {
			name += " quotes"
		}
		t.Run(name, func(t *testing.T) { scenario(t, s, c) })
	}
	s.daemon.stop(t)
}

// contracts counts the sealed contracts on a record.
func contracts(c crm, record string) (n int) {
	for _, f := range c.files(record) {
		if f.contract() {
			n++
		}
	}
	return n
}

func mustShow(t *testing.T, c crm, record string, status deal.Status) {
	t.Helper()
	want := deal.WriteBack{}.Word(status)
	eventually(t, record+" shows "+want, func() (bool, string) {
		now := c.shown(record)["status"]
		return now == want, now
	})
}

func mustBear(t *testing.T, c crm, record string, n int) {
	t.Helper()
	if got := contracts(c, record); got != n {
		t.Errorf("%s bears %d contracts, want %d", record, got, n)
	}
}

func mustUseTheKey(t *testing.T, s *store.Story, times int) {
	t.Helper()
	if got := intents(s, "sign"); got != times {
		t.Errorf("%s: the key was used %d times, want %d", s.Sealing.Tx, got, times)
	}
}

func TestDealsOfEveryKindAreSealedAttachedAndShown(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{hsm: true})
	type made struct {
		c      crm
		record string
	}
	var deals []made
	for _, c := range s.crms {
		for _, rule := range []string{ruleContract, ruleQuote, ruleMemo} {
			r := c.open(sale{quote: quotation(1)})
			c.addFile(r, "Quote older name.txt", []byte("no PDF"))
			c.move(r, rule)
			deals = append(deals, made{c, r})
		}
	}
	for _, m := range deals {
		mustUseTheKey(t, awaitDone(t, s.ops, m.record), 1)
	}
	c := s.crms[0]
	sealed := markedContract(t, s, deals[2].c, deals[2].record)
	signed := c.open(sale{quote: sealed}) // as if somebody had attached what is signed already
	c.move(signed, ruleMemo)
	mustUseTheKey(t, awaitHeld(t, s.ops, signed, 1, "signed already"), 0)
	auditIsWhole(t, s.ops, nil)
	s.daemon.stop(t)
	state := s.openState(t)
	for _, m := range deals {
		o := s.outcomeOf(t, state, m.c, m.record)
		if o.Status != "Signed" || o.Level != "B-T" || o.Verdict != string(verify.Valid) || o.Digests != 1 || len(o.Shown) != 5 {
			t.Errorf("%s: %+v", m.record, o)
		}
	}
}

// markedContract returns the contract on a record of a sandbox that was made from an attachment: the attachment is its first
// revision, and its page says that it is a test.
func markedContract(t *testing.T, s *stage, c crm, record string) []byte {
	t.Helper()
	for _, f := range c.files(record) {
		if !f.contract() {
			continue
		}
		if !bytes.HasPrefix(f.content, quotation(1)) {
			t.Error("the contract does not begin with what was attached")
		}
		path := s.path("marked.pdf")
		must(t, os.WriteFile(path, f.content, 0o600))
		text := string(tool(t, os.Environ(), "pdftotext", "-raw", path, "-"))
		mustContain(t, "the page", text, "Quotation 1")
		mustContain(t, "the page", strings.Join(strings.Fields(text), ""), "TEST–notacontract")
		return f.content
	}
	t.Fatal("there is no contract on ", record)
	return nil
}

func TestADroppedDealIsNeverSealed(t *testing.T) {
	eachCRM(t, worldOptions{}, func(t *testing.T, s *stage, c crm) {
		r := c.open(sale{nobody: true})
		c.move(r, ruleContract)
		story := awaitHeld(t, s.ops, r, 1, "customer")
		mustShow(t, c, r, deal.StatusHeld) // or the CRM would be told of both at once
		conclude(t, s.ops, "drop", story.Sealing.Tx)
		mustShow(t, c, r, deal.StatusActionRequired)
		c.addCustomer(r, hiddenCustomer)
		if err := s.ops.Decide(context.Background(), decision{Verb: "release", Tx: story.Sealing.Tx, Why: "on second thoughts"}); err == nil {
			t.Error("a dropped deal was released")
		}
		mustBear(t, c, r, 0)
	})
}

func TestAMissingFieldHoldsTheDealWithItsName(t *testing.T) {
	eachCRM(t, worldOptions{webhooks: "tasks: {owner: true, due: 1, subject: Bitte ansehen}\n"}, func(t *testing.T, s *stage, c crm) {
		r := c.open(sale{nobody: true})
		c.move(r, ruleContract)
		story := awaitHeld(t, s.ops, r, 1, `"customer"`)
		mustShow(t, c, r, deal.StatusHeld)
		eventually(t, "its owner has a task", func() (bool, string) { return len(c.tasks(r)) == 1, fmt.Sprint(c.tasks(r)) })
		if want := "Bitte ansehen [dealseal " + string(story.Sealing.Tx) + "/1]"; c.tasks(r)[0] != want {
			t.Errorf("the task is %q, want %q", c.tasks(r)[0], want)
		}
		c.addCustomer(r, hiddenCustomer)
		conclude(t, s.ops, "release", story.Sealing.Tx)
		story = awaitDone(t, s.ops, r)
		mustBear(t, c, r, 1)
		me, err := user.Current()
		must(t, err)
		for _, l := range story.Trail {
			if l.What == "released" && !strings.HasPrefix(l.Who, me.Username) {
				t.Errorf("the audit log says that %q has released it, the socket's peer was %q", l.Who, me.Username)
			}
		}
		if entries(story, "released") != 1 {
			t.Error("the release is not in the audit log")
		}
		if n := len(c.tasks(r)); n != 1 {
			t.Errorf("its owner has %d tasks", n)
		}
	})
}

func TestAnAmountThatIsNotTheSumOfTheLinesHoldsTheDeal(t *testing.T) {
	eachCRM(t, worldOptions{}, func(t *testing.T, s *stage, c crm) {
		r := c.open(sale{})
		c.setAmount(r, "7407.01")
		c.move(r, ruleContract)
		story := awaitHeld(t, s.ops, r, 1, "total")
		mustUseTheKey(t, story, 0)
		if strings.Contains(story.Sealing.Reason, "7407") {
			t.Errorf("the reason quotes the record: %s", story.Sealing.Reason)
		}
		c.setAmount(r, "7407.00")
		conclude(t, s.ops, "release", story.Sealing.Tx)
		awaitDone(t, s.ops, r)
		mustBear(t, c, r, 1)
	})
}

func TestASecondEntryIsHeldAndSealedOnlyWhenReleased(t *testing.T) {
	eachCRM(t, worldOptions{}, func(t *testing.T, s *stage, c crm) {
		r := c.open(sale{quote: quotation(1)})
		c.move(r, ruleMemo)
		first := awaitDone(t, s.ops, r)
		c.move(r, stageLost)
		c.move(r, ruleMemo)
		second := awaitHeld(t, s.ops, r, 2, "[re-entry]", string(first.Sealing.Tx))
		mustUseTheKey(t, second, 0)
		mustBear(t, c, r, 1)
		conclude(t, s.ops, "release", second.Sealing.Tx)
		await(t, s.ops, r, 2, "done", isDone)
		mustBear(t, c, r, 2)
		if tx := c.shown(r)["transaction_id"]; tx != string(second.Sealing.Tx) {
			t.Errorf("the record shows %s, the newest entry is %s", tx, second.Sealing.Tx)
		}
	})
}

func TestARecordThatCannotBeWrittenIsSealedArchivedAndToldLater(t *testing.T) {
	eachCRM(t, worldOptions{}, func(t *testing.T, s *stage, c crm) {
		dropped := c.open(sale{nobody: true})
		c.move(dropped, ruleContract)
		over := awaitHeld(t, s.ops, dropped, 1, "customer").Sealing.Tx
		mustShow(t, c, dropped, deal.StatusHeld)
		c.refuseUpdates()
		conclude(t, s.ops, "drop", over)
		r := c.open(sale{quote: quotation(1)})
		c.move(r, ruleMemo)
		story := await(t, s.ops, r, 1, "given up", func(m store.Summary) bool { return m.Condition == deal.Dead })
		if story.Sealing.Step != deal.Attached || story.Sealing.Facts.Archive == "" {
			t.Errorf("it is %s, archived in %q", story.Sealing.Step, story.Sealing.Facts.Archive)
		}
		stdout, stderr, code := s.run(t, "jobs", "list")
		if code != exitOK || !strings.Contains(stdout, "sealed, CRM not told") {
			t.Errorf("jobs list, exit code %d:\n%s%s", code, stdout, stderr)
		}
		if status := c.shown(r)["status"]; status != "" {
			t.Errorf("a record that cannot be written shows %q", status)
		}
		eventually(t, "the CRM has refused to show the other as dropped", func() (bool, string) {
			return slices.ContainsFunc(strings.Split(s.daemon.log(), "\n"), func(line string) bool {
				return strings.Contains(line, "the CRM could not be told") && strings.Contains(line, string(over))
			}), ""
		})
		c.heal()
		conclude(t, s.ops, "retry", over) // by itself it would be told within the hour
		mustShow(t, c, dropped, deal.StatusActionRequired)
		if _, stderr, code := s.run(t, "jobs", "retry", string(story.Sealing.Tx)); code != exitOK {
			t.Fatalf("jobs retry: exit code %d\n%s", code, stderr)
		}
		mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
		mustShow(t, c, r, deal.StatusSigned)
		mustBear(t, c, r, 1)
	})
}

func TestATimestampThatFailsTenTimesCostsOneUseOfTheKey(t *testing.T) {
	eachCRM(t, worldOptions{attempts: 12}, func(t *testing.T, s *stage, c crm) {
		const failures = 10
		before := s.authority.Requests(pki.ServiceTSA)
		s.authority.SetFault(pki.ServiceTSA, pki.Down, failures)
		r := c.open(sale{quote: quotation(1)})
		c.move(r, ruleMemo)
		story := awaitDone(t, s.ops, r)
		if n := s.authority.Requests(pki.ServiceTSA) - before; n != failures+1 {
			t.Errorf("the TSA was asked %d times, want %d", n, failures+1)
		}
		mustUseTheKey(t, story, 1)
		if n := len(signedDigests(t, story)); n != 1 || story.Sealing.Facts.Level != "B-T" || story.Sealing.Facts.Flagged != "" {
			t.Errorf("%d digests, level %s, flagged %q", n, story.Sealing.Facts.Level, story.Sealing.Facts.Flagged)
		}
	})
}

func TestATimestampThatCannotBeHadEndsAsTheProfileSays(t *testing.T) {
	eachCRM(t, worldOptions{}, func(t *testing.T, s *stage, c crm) {
		s.authority.SetFault(pki.ServiceTSA, pki.Down, -1)
		defer s.authority.SetFault(pki.ServiceTSA, "", 0)
		enter := func(rule string) string {
			r := c.open(sale{quote: quotation(1)})
			c.move(r, rule)
			return r
		}
		memo, strict, lenient := enter(ruleMemo), enter(ruleStrict), enter(ruleLenient)
		held := awaitHeld(t, s.ops, memo, 1, "[level]")
		dead := await(t, s.ops, strict, 1, "failed", func(m store.Summary) bool { return m.Condition == deal.Dead })
		flagged := awaitDone(t, s.ops, lenient)
		for _, story := range []*store.Story{held, dead, flagged} {
			mustUseTheKey(t, story, 1)
		}
		mustBear(t, c, memo, 0)
		mustBear(t, c, strict, 0)
		mustBear(t, c, lenient, 1)
		if f := flagged.Sealing.Facts; f.Level != "B-B" || f.Flagged == "" {
			t.Errorf("accepted with level %s, flagged %q", f.Level, f.Flagged)
		}
		mustShow(t, c, lenient, deal.StatusSigned)
		mustShow(t, c, memo, deal.StatusHeld)
		conclude(t, s.ops, "release", held.Sealing.Tx)
		if story := awaitDone(t, s.ops, memo); story.Sealing.Facts.Level != "B-B" || intents(story, "sign") != 1 {
			t.Errorf("released: level %s, key used %d times", story.Sealing.Facts.Level, intents(story, "sign"))
		}
		s.authority.SetFault(pki.ServiceTSA, "", 0)
		conclude(t, s.ops, "retry", dead.Sealing.Tx)
		if story := awaitDone(t, s.ops, strict); story.Sealing.Facts.Level != "B-T" || intents(story, "sign") != 1 {
			t.Errorf("retried: level %s, key used %d times", story.Sealing.Facts.Level, intents(story, "sign"))
		}
	})
}

func TestASecondDaemonOnTheSameStateIsRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	_, stderr, code := s.run(t, "serve")
	if code != exitFailed || !strings.Contains(stderr, "is in use by process") {
		t.Errorf("a second daemon: exit code %d\n%s", code, stderr)
	}
	c := s.crms[0]
	r := c.open(sale{quote: quotation(1)})
	c.move(r, ruleMemo)
	awaitDone(t, s.ops, r) // the first one took no harm
	s.daemon.stop(t)
}

// TestSIGTERMLetsAnUploadEndAndTheNextStartGoesOn answers the upload only after the daemon has begun to stop: one that cut
// its work short would begin the upload again after the next start.
func TestSIGTERMLetsAnUploadEndAndTheNextStartGoesOn(t *testing.T) {
	t.Parallel()
	for _, kind := range bothCRMs {
		t.Run(string(kind), func(t *testing.T) {
			s := newStage(t, worldOptions{crms: []deal.Kind{kind}})
			c := s.crms[0]
			s.at(0, c.uploads, func() { s.daemon.terminate(t) })
			r := c.open(sale{})
			c.move(r, ruleContract)
			s.daemon.awaitEnd(t)
			if s.daemon.err != nil {
				t.Fatalf("the daemon ended with %v\n%s", s.daemon.err, s.daemon.log())
			}
			mustBear(t, c, r, 1)
			d := s.start(t)
			story := awaitDone(t, s.control(t, s.stateDir), r)
			mustUseTheKey(t, story, 1)
			if n := intents(story, "attach"); n != 1 {
				t.Errorf("the upload was begun %d times, want once", n)
			}
			mustBear(t, c, r, 1)
			d.stop(t)
		})
	}
}

func TestALostDatabaseIsRecoveredFromTheArchiveAndSealsNothingAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	type made struct {
		c            crm
		sealed, held string
		files        int
	}
	var all []made
	for _, c := range s.crms {
		m := made{c: c, sealed: c.open(sale{}), held: c.open(sale{nobody: true})}
		c.move(m.sealed, ruleContract)
		c.move(m.held, ruleContract)
		awaitDone(t, s.ops, m.sealed)
		awaitHeld(t, s.ops, m.held, 1, "customer")
		m.files = len(c.files(m.sealed))
		all = append(all, m)
	}
	s.daemon.stop(t)
	files, err := filepath.Glob(filepath.Join(s.stateDir, "dealseal.db*"))
	must(t, err)
	for _, f := range files {
		must(t, os.Remove(f))
	}
	if stdout, stderr, code := s.run(t, "recover"); code != exitOK || !strings.Contains(stdout, "2 deals recovered") {
		t.Fatalf("recover: exit code %d\n%s%s", code, stdout, stderr)
	}
	d := s.start(t)
	ops := s.control(t, s.stateDir)
	for _, m := range all {
		story := awaitDone(t, ops, m.sealed)
		mustUseTheKey(t, story, 0)
		if entries(story, "recovered") != 1 || entries(story, "adopted") > 0 {
			t.Errorf("%s was not recovered from the archive: %+v", m.sealed, story.Trail)
		}
		if n := len(m.c.files(m.sealed)); n != m.files {
			t.Errorf("%s bore %d files, now %d", m.sealed, m.files, n)
		}
		m.c.addCustomer(m.held, hiddenCustomer)
		awaitHeld(t, ops, m.held, 1, "[restored]") // nothing proves that it was not sealed meanwhile
		mustBear(t, m.c, m.held, 0)
	}
	auditIsWhole(t, ops, nil)
	d.stop(t)
}
