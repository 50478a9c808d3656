package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/store"
)

// What a deal's subject has the template of newMoodyStage do.
const (
	moodEndless = "endless"
	moodGreedy  = "greedy"
	moodLong    = "long"
)

// newMoodyStage is a stage whose first CRM has a template of its own for contracts, an order form that does as its subject
// says; the other CRM has the order form.
func newMoodyStage(t *testing.T, timeout string, attempts int) *stage {
	t.Helper()
	w := newWorld(t, worldOptions{attempts: attempts})
	must(t, os.CopyFS(w.path("templates"), os.DirFS(filepath.Join(repository(t), "templates"))))
	must(t, os.CopyFS(w.path("templates/moody"), os.DirFS(w.path("templates/order-form"))))
	edit(t, w.path("templates/moody/template.yaml"), "id: order-form\n", "id: moody\n")
	f, err := os.OpenFile(w.path("templates/moody/contract.typ"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(`
#if d.subject == "` + moodEndless + `" { for i in range(100000) { for j in range(100000) { let x = i * j } } }
#if d.subject == "` + moodGreedy + `" { let s = "x" * 900000000 }
#if d.subject == "` + moodLong + `" { for i in range(200) { pagebreak(); [#lorem(300) leaf #i] } }
`)
	must(t, err)
	must(t, f.Close())
	edit(t, w.config, filepath.Join(repository(t), "templates"), w.path("templates"))
	edit(t, w.config, "children: 1}", "children: 2, timeout: "+timeout+"}")
	edit(t, w.path("tenants/"+w.crms[0].tenant()+".yaml"), "template: order-form@1", "template: moody@1")
	d := w.start(t)
	return &stage{world: w, daemon: d, ops: w.control(t, w.stateDir)}
}

// edit replaces text in a file that must have it.
func edit(t *testing.T, file, old, new string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(b), old, new)), 0o600))
}

// enterMood lets a deal with a subject enter the stage of contracts.
func enterMood(c crm, subject string) (record string) {
	record = c.open(sale{})
	c.rename(record, subject)
	c.move(record, ruleContract)
	return record
}

// TestATemplateThatNeverEndsDelaysNoOtherTenant has more endless deals of one tenant than there are renderers. That none of
// them has ended when the other tenant's are done says that those did not wait.
func TestATemplateThatNeverEndsDelaysNoOtherTenant(t *testing.T) {
	t.Parallel()
	s := newMoodyStage(t, "10m", 3)
	var endless []string
	for range 5 {
		endless = append(endless, enterMood(s.crms[0], moodEndless))
	}
	await(t, s.ops, endless[0], 1, "gathered", func(m store.Summary) bool { return m.Step == deal.Gathered })
	for range 3 {
		r := enterMood(s.crms[1], hiddenSubject)
		awaitDone(t, s.ops, r)
		mustBear(t, s.crms[1], r, 1)
	}
	for _, r := range endless {
		await(t, s.ops, r, 1, "noticed", func(store.Summary) bool { return true })
		if m := sealings(t, s.ops, r)[0]; m.Attempts > 0 || m.Condition != deal.Running {
			t.Errorf("an endless deal is %s, %s after %d attempts: %s", m.Step, m.Condition, m.Attempts, m.Reason)
		}
	}
	s.daemon.kill() // a stop would wait for them
}

func TestATemplateThatTakesTooLongOrTooMuchGivesTheDealUpByNameAndARetryGoesOn(t *testing.T) {
	t.Parallel()
	s := newMoodyStage(t, "15s", 1) // a busy machine has time for a document within that
	c := s.crms[0]
	for _, tc := range []struct{ mood, reason string }{{moodEndless, "deadline passed, the child was killed"}, {moodGreedy, "512 MiB"}} {
		r := enterMood(c, tc.mood)
		story := awaitTrouble(t, s.ops, r, deal.Dead, "render: ", "moody@1", tc.reason)
		mustUseTheKey(t, story, 0)
		mustShow(t, c, r, deal.StatusFailed)
		c.rename(r, hiddenSubject)
		conclude(t, s.ops, "retry", story.Sealing.Tx)
		mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
		mustBear(t, c, r, 1)
	}
	s.daemon.stop(t)
}

func TestAContractOfTwoHundredPagesIsSealedAndOpens(t *testing.T) {
	t.Parallel()
	s := newMoodyStage(t, "3m", 3) // the default is for a machine that is not busy with other tests
	c := s.crms[0]
	r := enterMood(c, moodLong)
	mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
	mustBear(t, c, r, 1)
	s.daemon.stop(t)
	for _, f := range c.files(r) {
		if f.trail() {
			continue
		}
		s.verifies(t, f.content)
		file := s.path("long.pdf")
		must(t, os.WriteFile(file, f.content, 0o600))
		pages := regexp.MustCompile(`Pages:\s+(\d+)`).FindSubmatch(tool(t, os.Environ(), "pdfinfo", file))
		if len(pages) != 2 {
			t.Fatal("pdfinfo does not say how many pages there are")
		}
		if n, err := strconv.Atoi(string(pages[1])); err != nil || n < 200 {
			t.Errorf("%d pages, %v", n, err)
		}
		if text := tool(t, os.Environ(), "pdftotext", "-f", pages150, "-l", pages150, file, "-"); !strings.Contains(string(text), "leaf ") {
			t.Errorf("page %s reads %q", pages150, text)
		}
		drawn := s.path("page")
		tool(t, os.Environ(), "pdftoppm", "-f", pages150, "-l", pages150, "-r", "20", "-singlefile", "-png", file, drawn)
		if info, err := os.Stat(drawn + ".png"); err != nil || info.Size() == 0 {
			t.Errorf("page %s cannot be drawn: %v", pages150, err)
		}
	}
}

// pages150 is a page in the middle.
const pages150 = "150"

func TestACharacterThatNoFontHasHoldsTheDealUntilItIsGone(t *testing.T) {
	eachCRM(t, worldOptions{}, func(t *testing.T, s *stage, c crm) {
		r := enterMood(c, "Order \U000F0001")
		story := awaitHeld(t, s.ops, r, 1, "subject", "U+F0001")
		mustUseTheKey(t, story, 0)
		c.rename(r, "Order")
		conclude(t, s.ops, "release", story.Sealing.Tx)
		mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
		mustBear(t, c, r, 1)
	})
}

// TestARendererThatIsKilledIsReplaced kills it in the middle of a document that takes seconds.
func TestARendererThatIsKilledIsReplaced(t *testing.T) {
	t.Parallel()
	s := newMoodyStage(t, "3m", 3)
	c := s.crms[0]
	r := enterMood(c, moodLong)
	await(t, s.ops, r, 1, "being rendered", func(m store.Summary) bool { return m.Step == deal.Gathered })
	s.daemon.killUntil(t, "render-worker", func() bool {
		return len(sealings(t, s.ops, r)) == 1 && sealings(t, s.ops, r)[0].Attempts > 0
	})
	mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
	mustBear(t, c, r, 1)
	s.daemon.stop(t)
}

// killUntil kills every child of a name as it appears.
func (d *process) killUntil(t *testing.T, name string, over func() bool) {
	t.Helper()
	eventually(t, name+" is killed often enough", func() (bool, string) {
		d.signalChildren(t, name, syscall.SIGKILL)
		return over(), tail(d.log())
	})
}

// TestAReaderThatIsKilledWhileItReadsIsReplaced stops the reader while the time-stamp is asked for, so that it is the sealed
// file that it is killed over.
func TestAReaderThatIsKilledWhileItReadsIsReplaced(t *testing.T) {
	eachCRM(t, worldOptions{}, func(t *testing.T, s *stage, c crm) {
		s.at(0, isTimestamp, func() { s.stopReaders(t) })
		r := enterMemo(c)
		eventually(t, "the sealed file is about to be read", func() (bool, string) {
			list := sealings(t, s.ops, r)
			return len(list) == 1 && intents(storyOf(t, s.ops, list[0].Tx), "check") > 0, ""
		})
		s.daemon.signalChildren(t, "read-worker", syscall.SIGKILL)
		mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
		mustBear(t, c, r, 1)
	})
}

// TestAReaderThatHangsIsKilledAndTheDealIsVisible waits for its half minute. What is sealed is never shown as failed.
func TestAReaderThatHangsIsKilledAndTheDealIsVisible(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{attempts: 1})
	c := s.crms[0]
	s.at(0, isTimestamp, func() { s.stopReaders(t) })
	r := enterMemo(c)
	story := awaitTrouble(t, s.ops, r, deal.Dead, "check: ", "read-worker", "deadline passed, the child was killed")
	mustUseTheKey(t, story, 1)
	mustShow(t, c, r, deal.StatusHeld)
	mustBear(t, c, r, 0)
	conclude(t, s.ops, "retry", story.Sealing.Tx)
	mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
	mustBear(t, c, r, 1)
	s.daemon.stop(t)
}

// stopReaders has the readers hear nothing, as if they hung.
func (s *stage) stopReaders(t *testing.T) {
	if s.daemon.signalChildren(t, "read-worker", syscall.SIGSTOP) == 0 {
		t.Error("nothing reads")
	}
}

func isTimestamp(r *http.Request) bool { return r.URL.Path == pki.PathTSA }

func TestATemplateThatCannotBeMarkedAsATestIsRefusedBeforeTheFirstDeal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	must(t, os.CopyFS(w.path("templates"), os.DirFS(filepath.Join(repository(t), "templates"))))
	edit(t, w.config, filepath.Join(repository(t), "templates"), w.path("templates"))
	source, err := os.ReadFile(w.path("templates/order-form/contract.typ"))
	must(t, err)
	must(t, os.WriteFile(w.path("templates/order-form/contract.typ"), append(source, "\n#set page(foreground: [mine])\n"...), 0o600))
	tenant := w.path("tenants/" + w.crms[0].tenant() + ".yaml")
	if _, stderr, code := w.run(t, "check"); code != exitFailed || !strings.Contains(stderr, "order-form@1 sets a page foreground of its own (contract.typ, line ") || !strings.Contains(stderr, tenant+":") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	edit(t, tenant, "environment: sandbox", "environment: sandbox, test_mark: off")
	if _, stderr, code := w.run(t, "check"); code != exitOK {
		t.Errorf("without a mark exit %d: %s", code, stderr)
	}
}
